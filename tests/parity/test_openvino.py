"""OpenVINO's backend beside PyTorch's: the same logits with fp32 weights, nearly the same with quantised ones."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.quantize import quantize_groups, quantize_rows
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.decode import Writer, generate
from lucidlm.inference.engine import opening
from lucidlm.inference.engine.backend import Backend, Stretch
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.opening import open_backend
from lucidlm.inference.engine.rounding_loss import nats, read_windows
from lucidlm.inference.engine.torch_backend import TorchBackend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import start_rows
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

pytest.importorskip("openvino", reason="needs the extra [openvino]")
from lucidlm.inference.engine.openvino_backend import OpenVINOBackend

SHAPE: dict[str, Any] = {"embedding_dim": 64, "num_heads": 4, "num_kv_heads": 2, "ff_dim": 96, "num_layers": 2}
GPT2 = {"norm": "layer", "position": "learned", "bias": True, "qk_norm": False, "num_kv_heads": 4}


def make(**fields: Any) -> LanguageModel:
    """Return a model whose weights are large enough to tell tokens apart."""
    model = LanguageModel(
        ModelConfig(**{"vocab_size": 320, "context_length": 160, "tied_embeddings": False, **SHAPE, **fields})
    )
    with torch.no_grad():
        for index, parameter in enumerate(model.parameters()):
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
    return model.eval()


def read_all(backend: Backend) -> Tensor:
    """Read two texts in pieces, in blocks that are not in order, once together and once by a token each."""
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randint(0, 320, (size,), generator=generator).tolist() for size in (70, 41))
    steps = [
        [Stretch(one[:40], 0, [3, 7], wanted=5)],
        [Stretch(one[40:69], 40, [3, 7, 2]), Stretch(other[:40], 0, [0, 9])],
        [Stretch(one[69:], 69, [3, 7, 2]), Stretch(other[40:], 40, [0, 9])],
    ]
    with torch.inference_mode():
        return torch.cat([backend.read(step) for step in steps])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_kv_heads": 1, "head_dim": 32, "tied_embeddings": True},
        {"num_kv_heads": 4, "qkv_bias": True, "qk_norm": False},
        {"rope_theta": 5e5, "rope_scaling": {"kind": "llama3", "factor": 8.0, "original_context": 64}},
        {**GPT2, "activation": "gelu_tanh", "tied_embeddings": True},
        {**GPT2, "activation": "gelu", "post_norm": True},
        {"norm": "layer", "activation": "relu2"},
    ],
)
def test_the_same_logits_from_the_same_weights(fields: dict[str, Any]) -> None:
    model = make(**fields)
    found = read_all(open_backend(model, EngineConfig(backend="openvino", quantize="none"), sequences=2))
    expected = read_all(TorchBackend(model, 10))
    assert found.shape == (5 + 2 + 2, 320)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def by_rows(weight: Tensor) -> Tensor:
    values, scales = quantize_rows(weight)
    return values * scales


def by_groups(weight: Tensor) -> Tensor:
    values, scales = quantize_groups(weight)
    return (values * scales).flatten(1)


@pytest.mark.parametrize(("form", "rounded"), [("int8", by_rows), ("int4", by_groups)])
def test_quantised_weights_are_computed_with(form: Any, rounded: Callable[[Tensor], Tensor]) -> None:
    model = make()
    stored = copy.deepcopy(model)
    with torch.no_grad():
        for name, weight in stored.named_parameters():
            if weight.dim() == 2:
                weight.copy_((rounded if "layers" in name else by_rows)(weight))
    found = read_all(open_backend(model, EngineConfig(backend="openvino", quantize=form), sequences=2))
    expected, exact = read_all(TorchBackend(stored, 10)), read_all(TorchBackend(model, 10))
    spread = expected.std()
    # Activations, keys and values are rounded too, which costs a little more.
    assert (found - expected).std() < 0.06 * spread
    if form == "int4":
        assert (found - expected).std() < 0.6 * (exact - expected).std()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. 你好，世界。" * 3], 300)


def test_a_writer_writes_the_same_and_reads_nothing_twice(tokenizer: Tokenizer) -> None:
    model = make()
    writer = Writer(model, tokenizer, EngineConfig(backend="openvino"))
    prompts = ["the quick brown fox", "你好", "the quick brown fox"]
    for config in (SamplingConfig(temperature=0, length=40), SamplingConfig(temperature=1.0, min_p=0.0, length=40)):
        assert writer.generate(prompts, config) == generate(model, tokenizer, prompts, config)
    beams = SamplingConfig(num_beams=4, length=40)
    assert writer.generate(prompts, beams) == generate(model, tokenizer, prompts, beams)
    greedy = SamplingConfig(temperature=0, length=30)
    left_early = writer.stream(prompts[0], greedy)
    assert next(left_early)
    left_early.close()
    assert "".join(writer.stream(prompts[0], greedy)) == generate(model, tokenizer, prompts[:1], greedy)[0].text


@pytest.mark.parametrize("quantize", ["none", "int8"])
def test_weights_that_nobody_else_needs_are_let_go(tokenizer: Tokenizer, quantize: Any) -> None:
    config, greedy = EngineConfig(backend="openvino", quantize=quantize), SamplingConfig(temperature=0, length=20)
    kept, released, on_torch = make(), make(), make()
    expected = Writer(kept, tokenizer, config).generate(["the quick"], greedy)
    assert Writer(released, tokenizer, config, release_weights=True).generate(["the quick"], greedy) == expected
    assert {part.device.type for part in kept.parameters()} == {"cpu"}
    assert {part.device.type for part in released.parameters()} == {"meta"}
    assert Writer(on_torch, tokenizer, EngineConfig(backend="torch"), release_weights=True).generate(["x"], greedy)


def test_company_changes_no_text(tokenizer: Tokenizer) -> None:
    model, config = make(), SamplingConfig(temperature=0, length=50)
    backend = open_backend(model, EngineConfig(backend="openvino", quantize="int8"), sequences=8)
    texts = ["the quick brown fox jumps over the lazy dog. " * 3, "x", "dog", "你好", "the lazy dog"]

    def write(prompts: list[str]) -> list[list[int]]:
        engine = Engine(backend, Sampler(320, tokenizer), most_tokens=50)
        rows = start_rows(model.config, tokenizer, prompts, config)
        for row in rows:
            engine.add(row)
            engine.step()
        while engine.running:
            engine.step()
        return [row.tokens for row in rows]

    together = write(texts)
    assert together == [write([text])[0] for text in texts]


def test_what_does_not_go_together_is_refused() -> None:
    model = make()
    with pytest.raises(InputError, match="PyTorch computes with the weights as they are"):
        open_backend(model, EngineConfig(backend="torch", quantize="int8"))
    with pytest.raises(InputError, match="quantize"):
        EngineConfig(quantize="int3")  # type: ignore[arg-type]


def test_a_model_stored_in_int4_is_written_with_in_int4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make()
    with torch.no_grad():  # embedding and head are stored in fp16
        for matrix in (model.model.embed_tokens.weight, model.head):
            matrix.copy_(matrix.half().float())
    save_model(model, tmp_path, dtype="int4")
    config = EngineConfig(backend="openvino")
    found = read_all(open_backend(load_model(tmp_path).require_causal(), config, sequences=2))
    assert "weights in int4" in capsys.readouterr().err
    # The integers are those that were stored.
    assert torch.equal(found, read_all(open_backend(model, config.changed(quantize="int4"), sequences=2)))
    capsys.readouterr()
    open_backend(model, config)
    assert capsys.readouterr().err == ""


def test_a_text_decides_about_int8(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.train_bpe(["the quick brown fox jumps over the lazy dog. " * 3], 280)
    model, text = make(vocab_size=280), tmp_path / "text.txt"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 40)
    config = EngineConfig(backend="openvino", quantize_text=str(text))
    for limit, taken in ((1.0, "in int8"), (-1.0, "left as they are")):
        monkeypatch.setattr(opening, "MOST_LOSS", limit)
        backend = open_backend(model, config, 1, tokenizer)
        said = capsys.readouterr().err
        assert taken in said
        loss = float(re.search(r"int8 costs ([+-][\d.]+)%", said)[1])  # pyright: ignore[reportOptionalSubscript]
        windows = read_windows(str(text), tokenizer, 160)
        exact = nats(TorchBackend(model, 5), windows)
        assert nats(OpenVINOBackend(model, 5, "int8"), windows) / exact - 1 == pytest.approx(loss / 100, abs=2e-4)
        as_it_is = nats(backend, windows) == pytest.approx(exact, rel=1e-5)
        assert as_it_is is (limit < 0)
    text.write_text("the quick")
    with pytest.raises(InputError, match="too few to measure by"):
        open_backend(model, config, 1, tokenizer)
    with pytest.raises(InputError, match="cannot be read as a text"):
        open_backend(model, config.changed(quantize_text=str(tmp_path / "none")), 1, tokenizer)


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_rounded_weights_write_the_same_however_it_is_read(tokenizer: Tokenizer, form: Any) -> None:
    model = make()
    prompts = [
        "the quick brown fox jumps over the lazy dog. " * 2,
        "jumps",
        "over the lazy dog. over the lazy",
        "x" * 33,
    ]
    prompts += [prompts[0] + "the quick"]  # begins as another
    config = SamplingConfig(temperature=0, length=90, logit_bias=((tokenizer.eos_id, -100.0),))

    def written(texts: list[str], *, blocks: int = 40, **settings: Any) -> list[list[int]]:
        engine = Engine(OpenVINOBackend(model, blocks, form), Sampler(320, tokenizer), **settings)
        rows = start_rows(model.config, tokenizer, texts, config)
        for row in rows:
            engine.add(row)
        for _ in range(3000):
            if not (engine.running or engine.waiting):
                return [row.tokens for row in rows]
            engine.step()
        raise AssertionError("the engine does not come to an end")

    alone = [written([prompt], drafts=False)[0] for prompt in prompts]
    assert [written([prompt], drafts=True)[0] for prompt in prompts] == alone
    assert written(prompts, drafts=False) == alone
    assert written(prompts, drafts=False, most_tokens=13) == alone
    assert written(prompts, drafts=False, blocks=7) == alone  # some give their blocks back and are read again
    assert written(prompts * 2, drafts=True, most_running=2) == alone * 2


@pytest.mark.parametrize("form", ["none", "int8", "int4"])
def test_the_bits_of_a_token_do_not_depend_on_what_is_read_with_it(form: Any) -> None:
    backend, size = OpenVINOBackend(make(), 40, form), 32
    generator = torch.Generator().manual_seed(0)
    texts = [torch.randint(0, 320, (97,), generator=generator).tolist() for _ in range(6)]
    places = [list(range(4 * row, 4 * row + 4)) for row in range(6)]

    def read(row: int, start: int, end: int, wanted: int = 1, written: int = 0) -> Stretch:
        return Stretch(texts[row][start:end], start, places[row][: -(-end // size)], wanted, written)

    for row in range(6):
        backend.read([read(row, 0, 70)])
    alone = torch.cat([backend.read([read(row, 70, 71)]) for row in range(6)])
    together = backend.read([read(row, 70, 71) for row in range(6)])
    assert torch.equal(together, alone)
    beside_a_prompt = backend.read([read(0, 70, 71), Stretch(texts[1][:40], 0, [30, 31])])
    assert torch.equal(beside_a_prompt[:1], alone[:1])
    one_by_one = [backend.read([read(0, place, place + 1)]) for place in range(71, 76)]
    guessed = backend.read([read(0, 71, 76, wanted=5, written=5)])
    assert torch.equal(guessed, torch.cat(one_by_one))
    read_again = backend.read([read(0, 0, 76, wanted=1, written=6)])
    assert torch.equal(read_again, one_by_one[-1])
    whole = backend.read([read(2, 0, 97)])
    parts = [(0, 40), (40, 64), (64, 97)]
    assert torch.equal([backend.read([read(2, *part)]) for part in parts][-1], whole)
    assert torch.equal(backend.read([read(2, 96, 97)]), whole)  # the blocks before it were in the cache
