"""Models in GGUF files: what is written reads back to the bit, what does not fit together is refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize, quantize
from tests.gguf_models import ARRANGEMENTS, Parts, tiny, trained_tokenizer

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError, LucidError
from lucidlm.interop.gguf.header import TensorInfo, read_header
from lucidlm.interop.gguf.read import load_gguf
from lucidlm.interop.gguf.tensors import load_tensor, open_tensors
from lucidlm.interop.gguf.write import FORMATS, export_gguf
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return trained_tokenizer()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The file of a Llama with grouped heads: nobody may write into it."""
    path = tmp_path_factory.mktemp("gguf") / "model.gguf"
    export_gguf(tiny(tokenizer, **ARRANGEMENTS["llama"]), path, None)
    return path


# ---------------------------------------------------------------------- there and back


def stored_as(name: str, weight: np.ndarray, dtype: str) -> np.ndarray:
    """Return what a weight is after a file in `dtype`, by the gguf package's own formulas."""
    if weight.ndim == 1 or "embed_positions" in name:
        return weight
    kind = FORMATS[dtype][0]
    return dequantize(quantize(weight, kind), kind)


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_models_come_back_to_the_bit(name: str, tmp_path: Path, tokenizer: Tokenizer) -> None:
    loaded = tiny(tokenizer, **ARRANGEMENTS[name])
    for dtype in FORMATS:
        export_gguf(loaded, tmp_path / f"{dtype}.gguf", dtype)
        again = load_model(tmp_path / f"{dtype}.gguf")
        assert again.model.config.model_dump() == loaded.model.config.model_dump()
        state = again.model.state_dict()
        assert state.keys() == loaded.model.state_dict().keys()
        for key, value in loaded.model.state_dict().items():
            np.testing.assert_array_equal(state[key].numpy(), stored_as(key, value.numpy(), dtype), err_msg=key)
    sizes = {dtype: (tmp_path / f"{dtype}.gguf").stat().st_size for dtype in FORMATS}
    assert (
        sizes["fp32"] > sizes["fp16"] == sizes["bf16"] > sizes["q8_0"] > sizes["q5_1"] > sizes["q4_1"] > sizes["q4_0"]
    )


def test_rows_that_are_no_whole_blocks_are_fp16(tmp_path: Path, tokenizer: Tokenizer) -> None:
    loaded = tiny(tokenizer, ff_dim=90)
    export_gguf(loaded, tmp_path / "model.gguf", "q4_1")
    kinds = {name: kind.name for name, (kind, _, _) in Parts(tmp_path / "model.gguf").tensors.items()}
    assert kinds["blk.0.ffn_down.weight"] == "F16"
    assert kinds["blk.0.ffn_up.weight"] == "Q4_1"
    assert kinds["blk.0.ffn_norm.weight"] == "F32"
    load_gguf(tmp_path / "model.gguf")


def test_names_and_licences_stay(exported: Path, tmp_path: Path) -> None:
    parts = Parts(exported)
    assert parts.metadata["general.name"] == "model"
    parts.metadata |= {"general.name": "Fox", "general.license": "apache-2.0"}
    loaded = load_gguf(parts.write(tmp_path / "fox.gguf"))
    assert loaded.record["provenance"]["gguf"] == {
        "file": "fox.gguf",
        "types": ["F32"],
        "name": "Fox",
        "license": "apache-2.0",
    }
    export_gguf(loaded, tmp_path / "again.gguf", None)
    metadata = Parts(tmp_path / "again.gguf").metadata
    assert (metadata["general.name"], metadata["general.license"]) == ("Fox", "apache-2.0")


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_every_type_is_made_float32_as_the_gguf_package_makes_it(kind: Any, tmp_path: Path) -> None:
    block, size = GGML_QUANT_SIZES[kind]
    rows, width = 1100, 2 * max(block, 128)
    # Bytes below 0x3C: as the high half of a scale they are a number, neither infinite nor NaN.
    raw = np.random.default_rng(0).integers(0, 0x3C, (rows, width // block * size), np.uint8)
    (tmp_path / "data").write_bytes(bytes(64) + raw.tobytes())
    info, file = TensorInfo("t", kind, (rows, width), 64, raw.nbytes), open_tensors(tmp_path / "data")
    try:
        expected = dequantize(raw, kind)
    except NotImplementedError:
        with pytest.raises(InputError, match=f"stored as {kind.name}"):
            load_tensor(file, info, slice(None))
        return
    np.testing.assert_array_equal(load_tensor(file, info, slice(None)).numpy(), expected)
    order = np.random.default_rng(1).permutation(1000)
    part = load_tensor(file, info, slice(50, 1050), order)
    np.testing.assert_array_equal(part.numpy(), expected[50:1050][order])


def test_weights_in_memory_are_not_the_file(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.gguf"
    path.write_bytes(exported.read_bytes())
    model = load_gguf(path).model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert path.read_bytes() == exported.read_bytes()


def test_one_file_is_open_however_many_tensors_it_has(exported: Path) -> None:
    before = psutil.Process().num_fds()
    loaded = load_gguf(exported)
    assert psutil.Process().num_fds() <= before + 1
    assert len(loaded.model.state_dict()) > 10


def test_a_file_whose_matrices_were_converted_is_let_go(tmp_path: Path, tokenizer: Tokenizer) -> None:
    export_gguf(tiny(tokenizer), tmp_path / "model.gguf", "q8_0")
    before = psutil.Process().num_fds()
    loaded = load_gguf(tmp_path / "model.gguf")  # its norms are in fp32, as in every file
    assert psutil.Process().num_fds() == before
    assert len(loaded.model.state_dict()) > 10


# ---------------------------------------------------------------------- what cannot be written


def refused(loaded: LoadedModel, out: Path, message: str, dtype: str | None = None) -> None:
    before = sorted(out.parent.iterdir())
    with pytest.raises(LucidError, match=message):
        export_gguf(loaded, out, dtype)
    assert sorted(out.parent.iterdir()) == before


def test_what_llama_cpp_has_no_place_for(tmp_path: Path, tokenizer: Tokenizer) -> None:
    out, sizes = tmp_path / "model.gguf", tiny(tokenizer).model.config.model_dump()
    refused(tiny(tokenizer), out, "'q4_k' is not offered", dtype="q4_k")
    refused(tiny(tokenizer, activation="relu2"), out, "no model of this arrangement")
    refused(tiny(tokenizer, norm="layer"), out, "no model of this arrangement")
    refused(tiny(tokenizer, qk_norm=False, qkv_bias=True, head_dim=32), out, "as wide as the embedding")
    refused(tiny(tokenizer, rope_scaling={"kind": "llama3", "factor": 8.0}), out, "qwen3 has no rotary positions")
    config = ModelConfig(**sizes)
    refused(LoadedModel(SequenceClassifier(config, ["a", "b"], "mean"), tokenizer, {}), out, "does not continue text")
    refused(
        LoadedModel(LanguageModel(config.changed(causal=False, qk_norm=False)), tokenizer, {}), out, "does not continue"
    )
    refused(LoadedModel(LanguageModel(config), None, {}), out, "no tokenizer")
    refused(LoadedModel(LanguageModel(config.changed(vocab_size=280)), tokenizer, {}), out, "300 tokens, the model 280")


def test_where_nothing_is_written(tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny(tokenizer)
    (tmp_path / "there.gguf").write_text("mine")
    (tmp_path / "folder.gguf").mkdir()
    refused(loaded, tmp_path / "there.gguf", "is there already")
    refused(loaded, tmp_path / "folder.gguf", "is there already")
    refused(loaded, tmp_path / "model.bin", r"does not end in \.gguf")
    assert (tmp_path / "there.gguf").read_text() == "mine"
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    refused(loaded, tmp_path / "model.gguf", "are free")


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (float("nan"), "q8_0", "infinities or NaN"),
        (float("-inf"), None, "infinities or NaN"),
        (70_000.0, "fp16", "beyond F16"),
        (1e9, "q8_0", "beyond Q8_0"),
        (1e6, "q4_1", "beyond Q4_1"),
        (3.4e38, "bf16", "beyond BF16"),
    ],
)
def test_weights_that_no_such_number_holds(
    value: float, dtype: str | None, message: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    loaded = tiny(tokenizer)
    loaded.model.get_parameter("model.layers.1.mlp.down_proj.weight").data[5, 7] = value
    refused(loaded, tmp_path / "model.gguf", f"blk.1.ffn_down.weight .*{message}", dtype)


# ---------------------------------------------------------------------- what cannot be read


def missing(parts: Parts) -> None:
    del parts.tensors["blk.1.attn_q.weight"]


def extra(parts: Parts) -> None:
    parts.tensors["blk.0.attn_q.bias"] = (Kind.F32, (64,), np.zeros(256, np.uint8))


def transposed(parts: Parts) -> None:
    kind, shape, data = parts.tensors["blk.0.ffn_up.weight"]
    parts.tensors["blk.0.ffn_up.weight"] = (kind, shape[::-1], data)


def three_dimensions(parts: Parts) -> None:
    kind, (rows, width), data = parts.tensors["blk.0.ffn_up.weight"]
    parts.tensors["blk.0.ffn_up.weight"] = (kind, (2, rows // 2, width), data)


def quantised_vector(parts: Parts) -> None:
    parts.tensors["output_norm.weight"] = (Kind.Q8_0, (64,), np.zeros(68, np.uint8))


def not_finite(parts: Parts) -> None:
    parts.tensors["output_norm.weight"] = (Kind.F32, (64,), np.full(64, np.nan, np.float32).view(np.uint8))


def integers(parts: Parts) -> None:
    _, shape, data = parts.tensors["blk.0.ffn_up.weight"]
    parts.tensors["blk.0.ffn_up.weight"] = (Kind.I32, shape, data)


def odd_rope_factors(parts: Parts) -> None:
    parts.tensors["rope_freqs.weight"] = (Kind.F32, (8,), np.arange(1, 9, dtype=np.float32).view(np.uint8))


def short_rope_factors(parts: Parts) -> None:
    parts.tensors["rope_freqs.weight"] = (Kind.F32, (7,), np.ones(7, np.float32).view(np.uint8))


def saying(**fields: Any) -> Callable[[Parts], None]:
    """Return a change of the metadata; "__" stands for a dot, and None for a key that is gone."""

    def change(parts: Parts) -> None:
        for name, value in fields.items():
            key = name.replace("__", ".")
            parts.metadata[key] = value
            if value is None:
                del parts.metadata[key]

    return change


CHANGES: dict[str, tuple[Callable[[Parts], None], str]] = {
    "missing": (missing, "1 tensors are missing: blk.1.attn_q.weight"),
    "extra": (extra, "1 tensors are unknown: blk.0.attn_q.bias"),
    "transposed": (transposed, r"blk.0.ffn_up.weight has the shape \(64, 96\), by the metadata it is \(96, 64\)"),
    "three dimensions": (three_dimensions, r"has the shape \(2, 48, 64\)"),
    "quantised vector": (quantised_vector, "a vector stored as Q8_0"),
    "not finite": (not_finite, "output_norm.weight hold infinities or NaN"),
    "integers": (integers, "stored as I32"),
    "odd rope factors": (odd_rope_factors, "in a way of their own"),
    "short rope factors": (short_rope_factors, "rope_freqs.weight has the shape"),
    "architecture": (saying(general__architecture="mamba"), "architecture 'mamba', which is not known"),
    "no size": (saying(llama__embedding_length=None), "the metadata have no llama.embedding_length"),
    "size, a text": (saying(llama__embedding_length="64"), "not of the kind"),
    "no heads": (saying(llama__attention__head_count=0), "num_heads"),
    "heads": (saying(llama__attention__head_count=3), "head"),
    "key heads": (saying(llama__attention__head_count_kv=3), "num_heads"),
    "terabytes": (saying(llama__embedding_length=1 << 19), "has the shape"),
    "layers": (saying(llama__block_count=9000), "9,000 layers and has"),
    "layers beyond reason": (saying(llama__block_count=4_000_000_000), "num_layers"),
    "epsilon": (saying(llama__attention__layer_norm_rms_epsilon=0.0), "norm_eps"),
    "parts": (saying(split__count=3), "several files"),
    "yarn": (saying(llama__rope__scaling__type="yarn"), "scaled by 'yarn'"),
    "partial rotary": (saying(llama__rope__dimension_count=8), "a part of each head"),
    "values": (saying(llama__attention__value_length=8), "of different widths"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_files_that_contradict_themselves(name: str, exported: Path, tmp_path: Path) -> None:
    change, message = CHANGES[name]
    parts = Parts(exported)
    change(parts)
    with pytest.raises(InputError, match=message) as caught:
        load_gguf(parts.write(tmp_path / "changed.gguf"))
    assert "changed.gguf" in str(caught.value)


def test_a_window_is_a_shorter_context(exported: Path, tmp_path: Path) -> None:
    parts = Parts(exported)
    parts.metadata["llama.attention.sliding_window"] = 16
    assert load_gguf(parts.write(tmp_path / "changed.gguf")).model.config.context_length == 16


def test_no_change_of_bytes_does_worse_than_being_refused(exported: Path, tmp_path: Path) -> None:
    content = exported.read_bytes()
    header = min(info.offset for info in read_header(exported).tensors.values())
    draw, path = random.Random(0), tmp_path / "model.gguf"
    for place in sorted(draw.sample(range(header), 300)):
        changed = bytearray(content)
        changed[place] = draw.choice((0, 0x7F, 0xFF, changed[place] ^ 1))
        path.write_bytes(changed)
        with suppress(InputError):
            load_gguf(path)
