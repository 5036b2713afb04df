"""ONNX Runtime on our exports beside our PyTorch model: every arrangement and kind, padded batches, the cache, fp16."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError, LucidError
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.interop.onnx import export_onnx
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, Pooling, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

onnxruntime = pytest.importorskip("onnxruntime")

V, CONTEXT = 300, 64
SIZE: dict[str, Any] = {
    "vocab_size": V,
    "embedding_dim": 32,
    "num_heads": 4,
    "ff_dim": 48,
    "num_layers": 2,
    "context_length": CONTEXT,
}
GPT2: dict[str, Any] = {
    "norm": "layer",
    "norm_eps": 1e-5,
    "position": "learned",
    "activation": "gelu_tanh",
    "bias": True,
    "qk_norm": False,
}
BERT: dict[str, Any] = GPT2 | {"causal": False, "post_norm": True, "token_types": 2, "activation": "gelu"}
LLAMA3 = {"kind": "llama3", "factor": 8.0, "original_context": 16}
CAUSAL: dict[str, dict[str, Any]] = {
    "qwen3": {"num_kv_heads": 2, "head_dim": 10},
    "qwen3 untied": {"tied_embeddings": False, "rope_theta": 1e6},
    "qwen2": {"qk_norm": False, "qkv_bias": True, "num_kv_heads": 1},
    "llama": {"qk_norm": False, "num_kv_heads": 2, "rope_scaling": LLAMA3, "tied_embeddings": False},
    "llama, stretched": {"qk_norm": False, "rope_scaling": {"kind": "linear", "factor": 4.0}},
    "gpt2": GPT2,
    "gpt2 untied": GPT2 | {"tied_embeddings": False},
    "norms after": GPT2 | {"post_norm": True, "activation": "gelu", "token_types": 3},
    "squares": {"activation": "relu2", "norm": "layer", "bias": False},
}
MASKED: dict[str, dict[str, Any]] = {
    "bert": BERT | {"head_transform": True},
    "bert untied, tanh gelu": BERT | {"head_transform": True, "tied_embeddings": False, "activation": "gelu_tanh"},
    "eurobert": {"causal": False, "qk_norm": False, "num_kv_heads": 2},
    "eurobert untied": {"causal": False, "qk_norm": False, "tied_embeddings": False, "norm_eps": 1e-2},
}
POOLED: dict[str, tuple[dict[str, Any], Pooling]] = {
    "qwen3, last": (CAUSAL["qwen3"], "last"),
    "gpt2, mean": (GPT2, "mean"),
    "bert, first": (BERT, "first"),
    "bert, last": (BERT, "last"),
    "eurobert, mean": (MASKED["eurobert"], "mean"),
}
LENGTHS = torch.tensor([7, 12, 1])
LONGEST = 12


def randomised(model: Model) -> Model:
    """Draw every weight, those of norms around 1: fresh biases are zeros, and would not show."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        drawn = 0.3 * torch.randn(parameter.shape, generator=generator)
        parameter.data = drawn + 1 if parameter.dim() == 1 and name.endswith("weight") else drawn
    return model.eval()


def language_model(**fields: Any) -> LanguageModel:
    model = randomised(LanguageModel(ModelConfig(**SIZE, **fields), seed=None))
    assert isinstance(model, LanguageModel)
    return model


def session(model: Model, out: Path, dtype: str | None = None, tokenizer: Tokenizer | None = None) -> Any:
    export_onnx(LoadedModel(model, tokenizer, {}), out, dtype)
    return onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])


def some_tokens(rows: int = 3, length: int = LONGEST) -> Tensor:
    return torch.randint(3, V, (rows, length), generator=torch.Generator().manual_seed(0))


def padded(values: Tensor, side: str, filling: int = 0) -> Tensor:
    """Keep `LENGTHS` of each row's first values (B, T, …), on the left or on the right of `filling`."""
    out = torch.full_like(values, filling)
    for row, length in enumerate(LENGTHS.tolist()):
        out[row, slice(length) if side == "right" else slice(LONGEST - length, None)] = values[row, :length]
    return out


def empty_cache(model: LanguageModel, rows: int) -> dict[str, np.ndarray]:
    config = model.config
    nothing = np.zeros((rows, config.num_kv_heads, 0, config.head_dim), np.float32)
    return {f"past_key_values.{i}.{part}": nothing for i in range(config.num_layers) for part in ("key", "value")}


def read(run: Any, model: LanguageModel, cache: dict[str, np.ndarray], **inputs: Tensor) -> tuple[Any, dict]:
    """Return logits, and the cache with what was read."""
    if model.config.token_types:
        inputs.setdefault("token_type_ids", torch.zeros_like(inputs["input_ids"]))
    logits, *present = run.run(None, {**cache, **{name: value.numpy() for name, value in inputs.items()}})
    return logits, dict(zip(cache, present, strict=True))


def close(theirs: Any, ours: Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(theirs), ours, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", CAUSAL)
def test_causal_logits_of_padded_batches_whole_and_step_by_step(name: str, side: str, tmp_path: Path) -> None:
    model = language_model(**CAUSAL[name])
    run = session(model, tmp_path / "onnx")
    ones = torch.ones(3, LONGEST, dtype=torch.int64)
    types = some_tokens() % max(1, model.config.token_types)
    tokens, mask = padded(some_tokens(), side), padded(ones, side)
    positions, segments = (mask.cumsum(1) - 1).clamp(min=0), padded(types, side)
    inputs = {"input_ids": tokens, "position_ids": positions}
    if model.config.token_types:
        inputs["token_type_ids"] = segments
    whole, _ = read(run, model, empty_cache(model, 3), attention_mask=mask, **inputs)
    cache, parts = empty_cache(model, 3), []
    for start, end in ((0, 5), (5, 6), (6, LONGEST)):
        part = {key: value[:, start:end] for key, value in inputs.items()}
        logits, cache = read(run, model, cache, attention_mask=mask[:, :end], **part)
        parts.append(logits)
    stepwise = np.concatenate(parts, 1)
    for row, length in enumerate(LENGTHS.tolist()):
        text = some_tokens()[row : row + 1, :length]
        with torch.inference_mode():
            expected = model(text, token_type_ids=types[row : row + 1, :length] if model.config.token_types else None)[
                0
            ]
        places = slice(length) if side == "right" else slice(LONGEST - length, None)
        close(whole[row, places], expected)
        close(stepwise[row, places], expected)
    assert np.isfinite(whole).all()


@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_greedy_texts_are_ours(name: str, tmp_path: Path) -> None:
    tokenizer = Tokenizer.train_bpe(["The quick brown fox jumps over the lazy dog. " * 20], 280, exact=False)
    model = language_model(**CAUSAL[name])
    run = session(model, tmp_path / "onnx", tokenizer=tokenizer)
    prompt = tokenizer.encode("The quick")
    # Ids that the tokenizer does not have are never written, here as there.
    chosen = generate(model, tokenizer, [prompt], SamplingConfig(length=40, temperature=0))[0].tokens
    new, total, cache, found = torch.tensor([prompt]), len(prompt), empty_cache(model, 1), []
    while len(found) < len(chosen):
        positions = torch.arange(total - new.shape[1], total)[None]
        mask = torch.ones(1, total, dtype=torch.int64)
        logits, cache = read(run, model, cache, input_ids=new, attention_mask=mask, position_ids=positions)
        logits[..., tokenizer.vocab_size :] = -np.inf
        for control in (tokenizer.pad_id, tokenizer.mask_id):
            logits[..., control] = -np.inf
        found.append(int(logits[0, -1].argmax()))
        new, total = torch.tensor([found[-1:]]), total + 1
    assert found == chosen


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", MASKED)
def test_masked_logits_of_padded_batches(name: str, side: str, tmp_path: Path) -> None:
    model = language_model(**MASKED[name])
    run = session(model, tmp_path / "onnx")
    types = some_tokens() % 2
    inputs = {"input_ids": padded(some_tokens(), side), "attention_mask": padded(torch.ones_like(types), side)}
    if model.config.token_types:
        inputs["token_type_ids"] = padded(types, side)
    (logits,) = run.run(None, {key: value.numpy() for key, value in inputs.items()})
    for row, length in enumerate(LENGTHS.tolist()):
        segments = types[row : row + 1, :length] if model.config.token_types else None
        with torch.inference_mode():
            expected = model(some_tokens()[row : row + 1, :length], token_type_ids=segments)[0]
        close(logits[row, slice(length) if side == "right" else slice(LONGEST - length, None)], expected)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("name", POOLED)
def test_classes_of_padded_batches(name: str, side: str, tmp_path: Path) -> None:
    fields, pooling = POOLED[name]
    model = randomised(SequenceClassifier(ModelConfig(**SIZE, **fields), ["a", "b", "c"], pooling, seed=None))
    run = session(model, tmp_path / "onnx")
    types = some_tokens() % 2 if model.config.token_types else None
    with torch.inference_mode():
        expected = model(padded(some_tokens(), "right"), LENGTHS, None if types is None else padded(types, "right"))
    inputs = {"input_ids": padded(some_tokens(), side), "attention_mask": padded(torch.ones_like(some_tokens()), side)}
    if types is not None:
        inputs["token_type_ids"] = padded(types, side)
    (logits,) = run.run(None, {key: value.numpy() for key, value in inputs.items()})
    close(logits, expected)
    config = json.loads((tmp_path / "onnx" / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "a", "1": "b", "2": "c"}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fields", [CAUSAL["qwen3"], BERT], ids=["qwen3", "bert"])
def test_tags_of_padded_batches(fields: dict[str, Any], side: str, tmp_path: Path) -> None:
    model = randomised(TokenClassifier(ModelConfig(**SIZE, **fields), ["O", "B-X", "I-X"], seed=None))
    run = session(model, tmp_path / "onnx")
    types = some_tokens() % 2 if model.config.token_types else None
    with torch.inference_mode():
        expected = model(padded(some_tokens(), "right"), LENGTHS, None if types is None else padded(types, "right"))
    inputs = {"input_ids": padded(some_tokens(), side), "attention_mask": padded(torch.ones_like(some_tokens()), side)}
    if types is not None:
        inputs["token_type_ids"] = padded(types, side)
    (found,) = run.run(None, {key: value.numpy() for key, value in inputs.items()})
    for row, length in enumerate(LENGTHS.tolist()):
        close(found[row, slice(length) if side == "right" else slice(LONGEST - length, None)], expected[row, :length])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fields", [CAUSAL["qwen3"], BERT], ids=["qwen3", "bert"])
def test_spans_of_padded_batches(fields: dict[str, Any], side: str, tmp_path: Path) -> None:
    model = randomised(SpanExtractor(ModelConfig(**SIZE, **fields), seed=None))
    run = session(model, tmp_path / "onnx")
    types = some_tokens() % 2 if model.config.token_types else None
    with torch.inference_mode():
        expected = model(padded(some_tokens(), "right"), LENGTHS, None if types is None else padded(types, "right"))
    inputs = {"input_ids": padded(some_tokens(), side), "attention_mask": padded(torch.ones_like(some_tokens()), side)}
    if types is not None:
        inputs["token_type_ids"] = padded(types, side)
    found = run.run(["start_logits", "end_logits"], {key: value.numpy() for key, value in inputs.items()})
    for ours, theirs in zip(expected, found, strict=True):
        for row, length in enumerate(LENGTHS.tolist()):
            close(theirs[row, slice(length) if side == "right" else slice(LONGEST - length, None)], ours[row, :length])
        assert np.isneginf(theirs).sum() == ours.isneginf().sum() == (LONGEST - LENGTHS).sum()


# ---------------------------------------------------------------------- the directory


def test_names_and_shapes_are_those_of_hugging_faces_exporter(tmp_path: Path) -> None:
    session(language_model(**CAUSAL["qwen3"]), tmp_path / "onnx")
    graph = onnx.load(tmp_path / "onnx" / "model.onnx", load_external_data=False).graph

    def shapes(values: Any) -> dict[str, list[Any]]:
        return {
            value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
            for value in values
        }

    total = "past_sequence_length + sequence_length"
    assert shapes(graph.input) == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", total],
        "position_ids": ["batch_size", "sequence_length"],
        **{
            f"past_key_values.{index}.{part}": ["batch_size", 2, "past_sequence_length", 10]
            for index in range(2)
            for part in ("key", "value")
        },
    }
    assert shapes(graph.output) == {
        "logits": ["batch_size", "sequence_length", V],
        **{f"present.{index}.{part}": ["batch_size", 2, total, 10] for index in range(2) for part in ("key", "value")},
    }


def test_what_the_directory_holds(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train_bpe(["The quick brown fox jumps over the lazy dog. " * 20], 280, exact=False)
    model = language_model()
    sizes = {}
    for dtype in ("fp32", "fp16"):
        session(model, tmp_path / dtype, dtype, tokenizer)
        sizes[dtype] = (tmp_path / dtype / "model.onnx_data").stat().st_size
        assert {path.name for path in (tmp_path / dtype).iterdir()} == {
            "config.json",
            "generation_config.json",
            "model.onnx",
            "model.onnx_data",
            "tokenizer.json",
            "tokenizer_config.json",
        }
    weights = sum(value.nbytes for value in model.state_dict().values())
    padding = 4096 * len(model.state_dict())
    assert weights <= sizes["fp32"] < weights + padding  # the tied table is there once
    assert weights / 2 <= sizes["fp16"] < weights / 2 + padding
    config = json.loads((tmp_path / "fp32" / "config.json").read_text(encoding="utf-8"))
    assert (config["model_type"], config["eos_token_id"]) == ("qwen3", tokenizer.eos_id)
    assert Tokenizer.load(tmp_path / "fp32").fingerprint == tokenizer.fingerprint


def test_export_by_command(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["export", str(tiny_model), "--to", "onnx", "--dtype", "fp16", "--out", str(tmp_path / "onnx")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")


def test_weights_in_fp16_are_computed_with_in_fp32(tmp_path: Path) -> None:
    """A model whose weights are those that fp16 leaves has the same logits, to what fp32 gives."""
    for number, fields in enumerate((CAUSAL["qwen3 untied"], GPT2)):
        model = language_model(**fields)
        run = session(model, tmp_path / f"{number}", "fp16")
        for parameter in model.parameters():
            parameter.data = parameter.data.half().float()
        tokens = some_tokens()
        positions = torch.arange(LONGEST).expand(3, -1)
        mask = torch.ones_like(tokens)
        logits, _ = read(
            run, model, empty_cache(model, 3), input_ids=tokens, attention_mask=mask, position_ids=positions
        )
        with torch.inference_mode():
            close(logits, model(tokens))


def test_what_cannot_be_exported_leaves_nothing(tmp_path: Path) -> None:
    model = language_model()
    with pytest.raises(InputError, match="'int8' is not offered for ONNX"):
        export_onnx(LoadedModel(model, None, {}), tmp_path / "out", "int8")
    model.model.norm.weight.data[3] = 70_000
    with pytest.raises(InputError, match=r"model\.norm\.weight reach 70000, fp16 ends at 65504"):
        export_onnx(LoadedModel(model, None, {}), tmp_path / "out", "fp16")
    model.model.norm.weight.data[3] = float("nan")
    with pytest.raises(LucidError, match=r"model\.norm\.weight hold infinities or NaN"):
        export_onnx(LoadedModel(model, None, {}), tmp_path / "out")
    assert not list(tmp_path.iterdir())
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        export_onnx(LoadedModel(language_model(), None, {}), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
