"""Weights in fewer bytes: what rounding costs is bounded, what cannot be stored or opened is refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.quantize import (
    FLOATS,
    GROUP,
    INTEGERS,
    Dtype,
    check_storable,
    compress,
    decompress,
    quantize_groups,
    quantize_rows,
)
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.using import quantize
from lucidlm.core.errors import InputError, LucidError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier

HERE = Path("model")
DTYPES: tuple[Dtype, ...] = get_args(Dtype)


def matrix(rows: int = 6, columns: int = 40) -> torch.Tensor:
    """Rows of very unlike sizes: one scale for all of them would lose the small ones."""
    sizes = 10.0 ** torch.arange(-3, rows - 3)[:, None]
    return sizes * torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


def test_int8_is_off_by_half_a_step_of_its_row_at_most() -> None:
    weight = matrix()
    values, scales = quantize_rows(weight)
    assert (values.dtype, values.shape) == (torch.int8, weight.shape)
    assert (scales.dtype, scales.shape) == (torch.float32, (6, 1))
    assert torch.equal(values.abs().amax(1), torch.full((6,), 127, dtype=torch.int8))
    off = (values * scales - weight).abs()
    assert (off <= weight.abs().amax(1, keepdim=True) / 254 * 1.0001).all()


def test_quantising_again_changes_nothing() -> None:
    values, scales = quantize_rows(matrix())
    again, same_scales = quantize_rows(values * scales)
    assert torch.equal(again, values)
    torch.testing.assert_close(same_scales, scales, rtol=1e-6, atol=0)


def test_int4_is_off_by_a_step_of_its_group_at_most_and_quantising_again_changes_nothing() -> None:
    weight = matrix(5, 4 * GROUP)
    weight[3, GROUP : 2 * GROUP] = 0
    values, scales = quantize_groups(weight)
    assert values.shape == (5, 4, GROUP)
    assert scales.shape == (5, 4, 1)
    assert (int(values.min()), int(values.max())) == (-8, 7)
    off = (values * scales - weight.unflatten(1, (4, GROUP))).abs()
    assert (off <= scales.abs() * 1.005).all()
    again, same = quantize_groups((values * scales).flatten(1))
    assert torch.equal(again, values)
    assert torch.equal(same, scales)


@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-38, 1e-30, 3.4e38])
def test_rows_of_nothing_and_of_extremes(largest: float) -> None:
    weight = torch.tensor([[0.0, largest, -largest]])
    values, scales = quantize_rows(weight)
    assert (scales > 0).all()
    assert abs((values * scales)[0, 1].item() - largest) <= max(largest / 200, 1e-38)


def stored_as(tensors: dict[str, torch.Tensor], dtype: Dtype) -> dict[str, torch.Tensor]:
    return {name: part for whole, value in tensors.items() for name, part in compress(whole, value, dtype).items()}


def test_what_is_no_matrix_stays_fp32_beside_int8() -> None:
    stored = stored_as({"w": matrix(), "norm": torch.ones(4)}, "int8")
    assert {name: value.dtype for name, value in stored.items()} == {
        "w": torch.int8,
        "w_scale": torch.float32,
        "norm": torch.float32,
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_compressed_opens(dtype: Dtype) -> None:
    tensors = {"w": matrix(), "norm": torch.linspace(0.5, 1.5, 9)}
    opened = decompress(stored_as(tensors, dtype), HERE)
    assert opened.keys() == tensors.keys()
    for name, value in opened.items():
        plain = torch.float16 if dtype == "int4" and value.dim() == 2 else torch.float32
        assert value.dtype == FLOATS.get(dtype, plain)
        step = {"fp32": 0.0, "fp16": 2**-11, "bf16": 2**-8, "int8": 1 / 254, "int4": 2**-11}[dtype]
        largest = tensors[name].abs().amax(-1, keepdim=True)
        assert ((value - tensors[name]).abs() <= step * largest * 1.0001 + 1e-7 * (dtype in ("fp16", "int4"))).all(), (
            name
        )


def test_numbers_that_a_format_cannot_hold() -> None:
    for dtype in DTYPES:
        for bad in (float("nan"), float("inf"), float("-inf")):
            with pytest.raises(LucidError, match=r"model: the weights bad hold infinities or NaN"):
                check_storable({"good": torch.ones(2), "bad": torch.tensor([1.0, bad])}, dtype, HERE)
    large = {"good": torch.ones(2), "large": torch.tensor([[1.0, -70_000.0]])}
    for dtype in ("fp16", "int4"):
        with pytest.raises(InputError, match=rf"large reach 70000, {dtype} ends at 65504.*bf16"):
            check_storable(large, dtype, HERE)
    for dtype in ("fp32", "bf16", "int8"):
        check_storable(large, dtype, HERE)


def test_scales_that_do_not_fit_are_refused() -> None:
    values, scales = quantize_rows(matrix())
    for broken, words in (
        ({"w": values}, "w holds int8 values"),
        ({"w": values.to(torch.int32), "w_scale": scales}, "w holds int32 values"),
        ({"w": values.to(torch.uint8)}, "w holds uint8 values"),
        ({"w": matrix(), "w_scale": scales}, "w holds float32 values"),
        ({"w": values.to(torch.float8_e4m3fn), "w_scale": scales}, "w holds float8_e4m3fn values"),
        ({"w": values, "w_scale": scales[:-1]}, r"w_scale is torch.float32 \(5, 1\)"),
        ({"w": values, "w_scale": scales.mT}, r"w_scale is torch.float32 \(1, 6\)"),
        (
            {"w": values, "w_scale": scales.to(torch.int64)},
            r"w_scale is torch.int64 \(6, 1\), not one scale for each row",
        ),
        ({"w": values[0], "w_scale": scales}, "w_scale is"),
        ({"w": values, "w_scale": scales.clone().fill_(0)}, "w_scale holds scales that are not positive numbers"),
        ({"w": values, "w_scale": -scales}, "w_scale holds scales that are not positive numbers"),
        ({"w": values, "w_scale": scales / 0}, "w_scale holds scales that are not positive numbers"),
        ({"w": values, "w_scale": scales * float("nan")}, "w_scale holds scales that are not positive numbers"),
    ):
        with pytest.raises(InputError, match=f"model: {words}"):
            decompress(broken, HERE)


SIZE: dict[str, Any] = {"vocab_size": 60, "embedding_dim": 16, "num_heads": 2, "ff_dim": 24, "num_layers": 2}
LEARNED: dict[str, Any] = {"norm": "layer", "position": "learned", "bias": True, "qk_norm": False}
MODELS: dict[str, Callable[[], Model]] = {
    "qwen3": lambda: LanguageModel(ModelConfig(**SIZE)),
    "llama": lambda: LanguageModel(ModelConfig(**SIZE, qk_norm=False, tied_embeddings=False)),
    "gpt2": lambda: LanguageModel(ModelConfig(**SIZE, **LEARNED, activation="gelu_tanh")),
    "bert": lambda: LanguageModel(
        ModelConfig(
            **SIZE, **LEARNED, activation="gelu", causal=False, post_norm=True, head_transform=True, token_types=2
        )
    ),
    "own": lambda: LanguageModel(ModelConfig(**SIZE, activation="relu2")),
    "classifier": lambda: SequenceClassifier(ModelConfig(**SIZE), ["bad", "good"], "last"),
    "tagger": lambda: TokenClassifier(ModelConfig(**SIZE, **LEARNED, activation="gelu_tanh"), ["O", "B-X"]),
    "span": lambda: SpanExtractor(ModelConfig(**SIZE, qk_norm=False)),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
def test_directories_open_in_fp32_and_are_off_by_the_format(
    make: Callable[[], Model], dtype: Dtype, tmp_path: Path
) -> None:
    model = make()
    save_model(model, tmp_path, dtype=dtype)
    opened = load_model(tmp_path).model
    state = model.state_dict()
    assert opened.state_dict().keys() == state.keys()
    for name, value in opened.state_dict().items():
        assert value.dtype == torch.float32
        expected = decompress(compress(name, state[name], dtype), HERE)[name].float()
        assert torch.equal(value, expected), name  # for GPT-2 too: a scale belongs to an output of the layer
    # What was rounded once is not rounded again.
    save_model(opened, tmp_path / "again", dtype=dtype)
    again = load_model(tmp_path / "again").model.state_dict()
    for name, value in opened.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=1e-6, atol=0)


def test_sizes_and_what_config_json_says(tmp_path: Path) -> None:
    sizes, said = {}, {}
    for dtype in DTYPES:
        save_model(LanguageModel(ModelConfig(**{**SIZE, "vocab_size": 4000})), tmp_path / dtype, dtype=dtype)
        sizes[dtype] = (tmp_path / dtype / "model.safetensors").stat().st_size
        said[dtype] = json.loads((tmp_path / dtype / "config.json").read_text())
    assert max(sizes["bf16"], sizes["fp16"]) < 0.53 * sizes["fp32"]
    # A scale for every 16 weights is a quarter more.
    assert sizes["int8"] < 0.33 * sizes["fp32"]
    assert [said[dtype]["torch_dtype"] for dtype in DTYPES] == ["float32", "bfloat16", "float16", "float32", "float16"]
    assert tuple(dtype for dtype in DTYPES if "quantization_config" in said[dtype]) == INTEGERS
    assert said["int8"]["quantization_config"]["format"] == "int-quantized"
    assert sizes["int4"] < 0.53 * sizes["fp32"]  # no matrix of this model has rows that can be cut into groups


WIDE_SIZE: dict[str, Any] = {**SIZE, "embedding_dim": 2 * GROUP, "ff_dim": 3 * GROUP - 4}


def test_int4_holds_the_layers_in_nine_sixteenths_of_a_byte_and_the_rest_in_fp16(tmp_path: Path) -> None:
    model = LanguageModel(ModelConfig(**WIDE_SIZE))
    save_model(model, tmp_path, dtype="int4")
    held = load_file(tmp_path / "model.safetensors")
    up = "model.layers.1.mlp.up_proj.weight"
    packed, scale, shape = (held[up + end] for end in ("_packed", "_scale", "_shape"))
    assert (packed.dtype, packed.shape) == (torch.int32, (3 * GROUP - 4, 2 * GROUP // 8))
    assert (scale.dtype, scale.shape) == (torch.float16, (3 * GROUP - 4, 2))
    assert (packed.nbytes + scale.nbytes) * 16 == 9 * shape.prod()
    assert (
        held["model.layers.1.mlp.down_proj.weight"].dtype == torch.float16
    )  # 92 columns cannot be cut into groups of 32
    assert held["model.embed_tokens.weight"].dtype == torch.float16
    assert held["model.norm.weight"].dtype == torch.float32
    said = json.loads((tmp_path / "config.json").read_text())["quantization_config"]
    assert said["config_groups"]["group_0"]["weights"]["num_bits"] == 4
    assert {"lm_head", "model.embed_tokens", "model.layers.1.mlp.down_proj"} <= set(said["ignore"])
    assert not any(name.removesuffix(".weight_packed") in said["ignore"] for name in held)
    opened, state = load_model(tmp_path).model.state_dict(), model.state_dict()
    for name, value in opened.items():
        assert torch.equal(value, decompress(compress(name, state[name], "int4"), HERE)[name].float()), name
    save_model(load_model(tmp_path).model, tmp_path / "again", dtype="int4")
    again = load_model(tmp_path / "again").model.state_dict()
    assert all(torch.equal(again[name], value) for name, value in opened.items())


def test_int4_that_does_not_fit_its_scales_is_refused(tmp_path: Path) -> None:
    whole = compress("x.0.w.weight", matrix(4, 2 * GROUP), "int4")
    (_, packed), (_, scale), (_, shape) = whole.items()
    for broken, words in (
        ({"packed": packed.to(torch.int64)}, "x.0.w.weight_packed with its scales and shape is not int4"),
        ({"packed": packed[:, :-1]}, "is not int4 in groups"),
        ({"scale": scale[:-1]}, "is not int4 in groups"),
        ({"scale": scale.int()}, "is not int4 in groups"),
        ({"shape": torch.tensor([4, 2 * GROUP - 8])}, "is not int4 in groups"),
        ({"shape": None}, "is not int4 in groups"),
        ({"scale": None}, "is not int4 in groups"),
        ({"scale": scale * 0}, "weight_scale holds scales that are not"),
        ({"scale": scale * float("nan")}, "weight_scale holds scales that are not"),
        ({"": matrix().half()}, "x.0.w.weight holds float16 values"),
        ({"zero_point": packed}, "x.0.w.weight_zero_point holds int32 values"),
        ({"g_idx": torch.arange(64)}, "x.0.w.weight_g_idx holds int64 values"),
    ):
        parts = {"packed": packed, "scale": scale, "shape": shape} | broken
        tensors = {f"x.0.w.weight_{end}".rstrip("_"): value for end, value in parts.items() if value is not None}
        with pytest.raises(InputError, match=f"model: .*{words}"):
            decompress(tensors, HERE)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_of_gpt2_do_not_pass_for_what_transformers_reads(dtype: Dtype, tmp_path: Path) -> None:
    save_model(MODELS["gpt2"](), tmp_path, dtype=dtype)
    said = json.loads((tmp_path / "config.json").read_text())
    assert said["model_type"] == "lucidlm"
    assert "quantization_config" not in said
    save_model(MODELS["gpt2"](), tmp_path, dtype="bf16")
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "gpt2"


def test_a_directory_whose_weights_do_not_fit_a_format_stays_as_it_was(tmp_path: Path) -> None:
    model = MODELS["qwen3"]()
    save_model(model, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        next(model.parameters())[3, 3] = 1e6
    with pytest.raises(InputError, match=r"embed_tokens\.weight reach 1e\+06, fp16 ends at 65504"):
        save_model(model, tmp_path, dtype="fp16")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_compressed_tensors_files_of_others_open_without_a_record(tmp_path: Path) -> None:
    save_model(MODELS["llama"](), tmp_path, dtype="int8")
    (tmp_path / "lucidlm.json").unlink()
    state = load_model(tmp_path).model.state_dict()
    for name, value in MODELS["llama"]().state_dict().items():
        assert torch.equal(state[name], decompress(compress(name, value, "int8"), HERE)[name])
    tensors = load_file(tmp_path / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    for change, words in (
        ({f"{name}_zero_point": torch.zeros(24, 1, dtype=torch.int8)}, f"{name}_zero_point holds int8 values"),
        ({f"{name}_scale": torch.ones(24, 2)}, f"{name}_scale is"),
        ({f"{name}_scale": torch.full((24, 1), float("inf"))}, "not positive numbers"),
        ({name: torch.ones(24, 16, dtype=torch.uint8)}, f"{name} is stored as U8"),
    ):
        save_file({**tensors, **change}, tmp_path / "model.safetensors")
        with pytest.raises(InputError, match=re.escape(words)):
            load_model(tmp_path)


def test_the_command(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(lambda: None)  # one command alone would have no name
    quantize.register(app)
    save_model(MODELS["qwen3"](), tmp_path / "model", provenance={"seed": 7})
    call = ["quantize", str(tmp_path / "model"), "--out", str(tmp_path / "small")]
    result = CliRunner().invoke(app, call, catch_exceptions=False)
    assert result.exit_code == 0
    record = load_model(tmp_path / "small").record
    assert record["provenance"] == {"seed": 7, "quantized": {"from": str(tmp_path / "model"), "dtype": "int8"}}
    with pytest.raises(InputError, match="holds a model already"):
        CliRunner().invoke(app, call, catch_exceptions=False)
