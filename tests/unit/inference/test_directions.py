"""Texts that are steered, each as strongly as it asks for, in one batch: none depends on what the others ask for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.engine_model import varied_model

from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.engine.backend import Backend, Direction
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.opening import open_backend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import SequenceState, start_rows
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

LONG = "the quick brown fox jumps over the lazy dog. " * 4
ASKED: list[tuple[float, float]] = [(0.0, 0.0), (1.0, 0.0), (-1.0, 0.5), (0.0, 2.0), (1.0, 0.0)]
GREEDY = SamplingConfig(temperature=0, length=40)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog." * 3], 270)


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> LanguageModel:
    return varied_model(tokenizer)


@pytest.fixture(scope="module")
def directions() -> list[Direction]:
    generator = torch.Generator().manual_seed(7)
    return [Direction(layer, 20 * torch.randn(32, generator=generator)) for layer in (0, 1)]


def backend_of(model: LanguageModel, directions: list[Direction], name: str) -> Backend:
    if name == "openvino":
        pytest.importorskip("openvino")
    return open_backend(model, EngineConfig.parse({"backend": name, "quantize": "none"}, ""), 8, directions=directions)


def write(
    model: LanguageModel, tokenizer: Tokenizer, backend: Backend, asked: list[tuple[float, ...]], **settings: Any
) -> list[list[int]]:
    """Return the tokens of texts that are steered so, written together."""
    engine = Engine(backend, Sampler(model.config.vocab_size, tokenizer), **settings)
    rows: list[SequenceState] = []
    for strengths in asked:
        rows += start_rows(model.config, tokenizer, [LONG], GREEDY, steering=strengths)
        engine.add(rows[-1])
    while engine.running or engine.waiting:
        engine.step()
    assert engine.used_blocks == 0
    return [row.tokens for row in rows]


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_a_text_is_the_same_whatever_is_steered_beside_it(
    model: LanguageModel, tokenizer: Tokenizer, directions: list[Direction], name: str
) -> None:
    alone = [write(model, tokenizer, backend_of(model, directions, name), [one])[0] for one in ASKED]
    together = backend_of(model, directions, name)
    assert write(model, tokenizer, together, [*ASKED]) == alone
    assert write(model, tokenizer, together, [*reversed(ASKED)], most_tokens=37) == alone[::-1]
    assert len({tuple(tokens) for tokens in alone}) == 4  # the last asks for what the second does


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_strength_0_is_the_model_as_it_is(
    model: LanguageModel, tokenizer: Tokenizer, directions: list[Direction], name: str
) -> None:
    plain = write(model, tokenizer, backend_of(model, [], name), [()])
    steered = backend_of(model, directions, name)
    assert write(model, tokenizer, steered, [(0.0, 0.0), (), (3.0, 0.0)])[:2] == [*plain, *plain]
    with torch.inference_mode():
        ids = torch.tensor([tokenizer.encode(LONG)])
        twice = [model.logits(model.model(ids)) for _ in range(2)]
    assert torch.equal(*twice)
    assert not any(module._forward_hooks for module in model.modules())  # the model itself has none


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_it_is_the_bias_that_a_steered_model_has(
    model: LanguageModel, tokenizer: Tokenizer, directions: list[Direction], name: str
) -> None:
    found = write(model, tokenizer, backend_of(model, directions, name), [(0.25, -0.5)])
    biased = LanguageModel(model.config)
    biased.load_state_dict(model.state_dict())
    for (layer, vector), strength in zip(directions, (0.25, -0.5), strict=True):
        projection = biased.get_submodule(f"model.layers.{layer}.mlp.down_proj")
        projection.bias = torch.nn.Parameter(strength * vector)
    assert write(biased.eval(), tokenizer, backend_of(biased.eval(), [], name), [()]) == found


def test_a_beginning_is_read_again_where_it_is_steered_otherwise(
    model: LanguageModel, tokenizer: Tokenizer, directions: list[Direction]
) -> None:
    backend = backend_of(model, directions, "torch")
    engine = Engine(backend, Sampler(model.config.vocab_size, tokenizer), drafts=False)
    read = list[int]()
    through = backend.read

    def counted(stretches: Any) -> Any:
        read.append(sum(len(one.tokens) for one in stretches))
        return through(stretches)

    backend.read = counted  # type: ignore[method-assign]
    counts = []
    for strengths in ((1.0, 0.0), (1.0, 0.0), (0.5, 0.0), (0.5, 0.0)):
        read.clear()
        [row] = start_rows(model.config, tokenizer, [LONG], GREEDY, steering=strengths)
        engine.add(row)
        while engine.running or engine.waiting:
            engine.step()
        counts.append(read[0])
    whole = len(tokenizer.encode_prompt(LONG))
    known = whole - (whole - 1) // backend.block_size * backend.block_size
    assert counts == [whole, known, whole, known]
