"""Writing on a GPU: the kernels' tokens are PyTorch's in fp32, whatever else the engine does."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from lucidlm.control.config import ConstraintConfig, ShiftConfig
from lucidlm.control.opening import processors_of
from lucidlm.control.steering import SteeringVector, identity, steered
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.engine.backend import Backend, Direction, Stretch
from lucidlm.inference.engine.cuda_backend import CudaBackend, why_not
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.opening import open_backend
from lucidlm.inference.engine.torch_backend import TorchBackend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

pytestmark = pytest.mark.gpu

LONG = "the quick brown fox jumps over the lazy dog. " * 4
GREEDY = SamplingConfig(temperature=0, length=70)


@pytest.fixture(autouse=True)
def _with_cuda(gpu: torch.device) -> None:
    if gpu.type != "cuda":
        pytest.skip("the kernels are for CUDA")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. 你好，世界。🙂" * 3], 270)


def model_of(tokenizer: Tokenizer, gpu: torch.device, **fields: Any) -> LanguageModel:
    """Return a model that says something else at every step, and hardly ever that a text ends."""
    usual = {"embedding_dim": 96, "num_heads": 6, "num_kv_heads": 2, "ff_dim": 200, "num_layers": 3}
    model = LanguageModel(ModelConfig(vocab_size=300, context_length=400, tied_embeddings=False, **usual | fields))
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        assert model.lm_head is not None
        model.lm_head.weight[list(ends_of(tokenizer, (), 300))] = 0
    return model.eval().to(gpu)


def written(backend: Backend, tokenizer: Tokenizer, count: int, config: SamplingConfig) -> list[list[int]]:
    """Return what is written while requests come one after the other, some of them alike."""
    engine = Engine(backend, Sampler(300, tokenizer), most_tokens=90)
    rows = start_rows(
        ModelConfig(vocab_size=300, embedding_dim=32, num_heads=4, ff_dim=48, num_layers=1, context_length=400),
        tokenizer,
        [LONG[: 9 + 7 * (number % 23)] + str(number) for number in range(count)],
        config,
    )
    for row in rows:
        engine.add(row)
        engine.step()
    while engine.running or engine.waiting:
        engine.step()
    assert engine.used_blocks == 0
    return [row.tokens for row in rows]


@pytest.mark.parametrize("fields", [{"qk_norm": False}, {}, {"qkv_bias": True, "head_dim": 24}])
@pytest.mark.parametrize(("count", "blocks"), [(1, 20), (7, 80), (7, 14), (40, 300), (70, 90)])
@pytest.mark.parametrize("config", [GREEDY, SamplingConfig(temperature=1.0, min_p=0, length=50)])
def test_tokens_are_pytorchs(
    tokenizer: Tokenizer, gpu: torch.device, fields: dict[str, Any], count: int, blocks: int, config: SamplingConfig
) -> None:
    model = model_of(tokenizer, gpu, **fields)
    assert why_not(model) is None
    backend = CudaBackend(model, blocks)
    assert written(backend, tokenizer, count, config) == written(TorchBackend(model, blocks), tokenizer, count, config)
    assert backend.works


def test_auto_takes_the_kernels_in_bf16_and_says_so(
    tokenizer: Tokenizer, gpu: torch.device, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(tokenizer, gpu)
    backend = open_backend(model, EngineConfig())
    assert isinstance(backend, CudaBackend)
    assert backend.model.head.dtype is torch.bfloat16
    assert "bf16" in "".join(capsys.readouterr())
    assert model.head.dtype is torch.float32
    exact = open_backend(model, EngineConfig(quantize="none"))
    assert isinstance(exact, CudaBackend)
    assert exact.model is model
    assert type(open_backend(model, EngineConfig(backend="torch"))) is TorchBackend


def test_other_arrangements_are_pytorchs(
    tokenizer: Tokenizer, gpu: torch.device, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(tokenizer, gpu, norm="layer", position="learned", activation="gelu", qk_norm=False)
    assert type(open_backend(model, EngineConfig())) is TorchBackend
    assert "arrangement" in "".join(capsys.readouterr())
    [text] = Writer(model, tokenizer).generate(["the quick"], GREEDY)
    assert len(text.tokens) == GREEDY.length


def test_bf16_logits_are_as_near_to_fp32_as_pytorchs(tokenizer: Tokenizer, gpu: torch.device) -> None:
    model = model_of(tokenizer, gpu)
    near = open_backend(model, EngineConfig())
    assert isinstance(near, CudaBackend)
    backends = [near, TorchBackend(near.model, 20), TorchBackend(model, 20)]
    found = []
    with torch.inference_mode():
        for backend in backends:
            backend.read([Stretch(list(range(5, 105)), 0, [0, 1, 2, 3])])
            found.append(backend.read([Stretch([7], 100, [0, 1, 2, 3])]).double())
    ours, theirs = ((one - found[2]).norm() / found[2].norm() for one in found[:2])
    assert ours < max(1.5 * theirs, 0.01)


def test_guesses_are_rows_of_a_graph_and_change_nothing(tokenizer: Tokenizer, gpu: torch.device) -> None:
    model = model_of(tokenizer, gpu)
    with torch.no_grad():
        model.lm_head.weight *= 0.01  # pyright: ignore[reportOptionalMemberAccess]  (a text that soon repeats itself)
    texts, lengths = [], []
    for drafts in (False, True):
        backend = CudaBackend(model, 60)
        decoded: list[int] = []
        usual = backend._decode
        backend._decode = lambda rows, usual=usual, decoded=decoded: (decoded.append(len(rows)), usual(rows))[1]
        engine = Engine(backend, Sampler(300, tokenizer), drafts=drafts)
        (row,) = start_rows(model.config, tokenizer, [LONG], SamplingConfig(temperature=0, length=150))
        engine.add(row)
        while engine.running or engine.waiting:
            engine.step()
        assert backend.works
        texts.append(row.tokens)
        lengths.append(max(decoded))
    assert texts[0] == texts[1]
    assert lengths[0] == 1
    assert lengths[1] > 1


def test_a_text_is_held_to_a_form_and_marked(tokenizer: Tokenizer, gpu: torch.device) -> None:
    pytest.importorskip("llguidance")
    model = model_of(tokenizer, gpu)
    held, shifted = ConstraintConfig(regex="[a-z]{5}-[a-z]{5}"), ShiftConfig(watermark="key", negative_prompt="fox")
    make = processors_of(model, tokenizer, held, shifted)
    writer = Writer(model, tokenizer, EngineConfig(quantize="none"))
    for found in writer.generate(["the", "quick", "dog"], SamplingConfig(length=30), processors=make):
        assert re.fullmatch("[a-z]{5}-[a-z]{5}", found.text)


def test_a_steered_model_is_left_to_pytorch(tokenizer: Tokenizer, gpu: torch.device) -> None:
    model = model_of(tokenizer, gpu)
    assert why_not(model) is None
    vector = SteeringVector(torch.randn(model.config.embedding_dim), 0, identity(model), 1.0, 8)
    plain = Writer(model, tokenizer, EngineConfig(quantize="none")).generate(["the"], GREEDY)[0].tokens
    with steered(model, vector, 50.0):
        assert why_not(model) == "a steering vector is added"
        assert Writer(model, tokenizer, EngineConfig(quantize="none")).generate(["the"], GREEDY)[0].tokens != plain


def test_texts_that_may_be_steered_are_left_to_pytorch(tokenizer: Tokenizer, gpu: torch.device) -> None:
    model = model_of(tokenizer, gpu)
    directions = [Direction(0, 50 * torch.randn(model.config.embedding_dim))]
    backend = open_backend(model, EngineConfig(quantize="none"), 4, directions=directions)
    assert type(backend) is TorchBackend
    engine = Engine(backend, Sampler(model.config.vocab_size, tokenizer))
    rows = [
        start_rows(model.config, tokenizer, ["the"], GREEDY, steering=(strength,))[0] for strength in (0.0, 1.0, 0.0)
    ]
    for row in rows:
        engine.add(row)
    while engine.running or engine.waiting:
        engine.step()
    assert rows[0].tokens == rows[2].tokens != rows[1].tokens
