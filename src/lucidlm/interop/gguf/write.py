"""Write a causal language model as a GGUF file, which llama.cpp runs: `lucidlm export --to gguf`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    GGML_QUANT_VERSION,
    GGUF_DEFAULT_ALIGNMENT,
    MODEL_TENSOR,
    TENSOR_NAMES,
    GGMLQuantizationType,
    GGUFValueType,
    GGUFWriter,
    LlamaFileType,
)
from gguf.quants import dequantize, quantize
from torch import Tensor

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.io import atomic_path, require_free_space
from lucidlm.core.progress import log
from lucidlm.inference.end_of_text import end_of_turn, ends_of
from lucidlm.inference.sampler import sampling_of
from lucidlm.interop.gguf.architectures import ROPE_FACTORS, architecture_of, rope_factors, write_config
from lucidlm.interop.gguf.header import bytes_of
from lucidlm.interop.gguf.names import TensorLayout, layout, their_order
from lucidlm.interop.gguf.read import ENDS, PROVENANCE, SAMPLING
from lucidlm.interop.gguf.tensors import CHUNK
from lucidlm.interop.gguf.write_tokenizer import write_tokenizer
from lucidlm.model.config import ModelConfig
from lucidlm.model.generation import GenerationDefaults
from lucidlm.tokenize.tokenizer import Tokenizer

FORMATS: dict[str, tuple[GGMLQuantizationType, LlamaFileType]] = {
    "fp32": (GGMLQuantizationType.F32, LlamaFileType.ALL_F32),
    "fp16": (GGMLQuantizationType.F16, LlamaFileType.MOSTLY_F16),
    "bf16": (GGMLQuantizationType.BF16, LlamaFileType.MOSTLY_BF16),
    "q8_0": (GGMLQuantizationType.Q8_0, LlamaFileType.MOSTLY_Q8_0),
    "q5_1": (GGMLQuantizationType.Q5_1, LlamaFileType.MOSTLY_Q5_1),
    "q5_0": (GGMLQuantizationType.Q5_0, LlamaFileType.MOSTLY_Q5_0),
    "q4_1": (GGMLQuantizationType.Q4_1, LlamaFileType.MOSTLY_Q4_1),
    "q4_0": (GGMLQuantizationType.Q4_0, LlamaFileType.MOSTLY_Q4_0),
}
"""The types for matrices, and the file type of each; the gguf package can only read the other types."""

POSITIONS = f"{TENSOR_NAMES[MODEL_TENSOR.POS_EMBD]}.weight"

HEADER_ROOM = 1 << 26
"""Bytes of free disk required in addition to the tensors."""


def export_gguf(loaded: LoadedModel, out: Path, dtype: str | None) -> None:
    """Write model and tokenizer as one file.

    Parameters
    ----------
    dtype: for matrices, one of `FORMATS`; None: fp32. Vectors and learned positions are always fp32.

    Raises
    ------
    InputError: llama.cpp does not support the model, tokenizer or dtype; weights exceed the range of the dtype; `out`
        exists already.
    LucidError: the disk is full, or the weights are not finite.
    """
    if dtype not in (None, *FORMATS):
        raise InputError(f"{dtype!r} is not offered for GGUF", where="--dtype", fix=f"Known are {', '.join(FORMATS)}.")
    kind, file_type = FORMATS[dtype or "fp32"]
    model = loaded.require_causal()
    architecture = architecture_of(model.config)
    if loaded.tokenizer is None:
        raise InputError("the model has no tokenizer, which a GGUF file holds", where="--to gguf")
    if out.suffix != ".gguf":
        raise InputError("does not end in .gguf, by which such a file is known", where=out, fix="Choose another --out.")
    if out.exists():
        raise InputError("is there already", where=out, fix="Choose another --out, or remove it first.")
    writer = GGUFWriter(None, architecture)
    _write_provenance(writer, loaded, out.stem)
    writer.add_file_type(file_type)
    writer.add_quantization_version(GGML_QUANT_VERSION)
    write_config(writer, model.config)
    _write_sampling(writer, model.generation)
    write_tokenizer(writer, loaded.tokenizer, model.config.vocab_size)
    _write_ends(writer, model.generation, loaded.tokenizer, model.config.vocab_size)
    tensors = layout(architecture, model.config)
    kinds = {name: _kind(name, stored, kind) for name, stored in tensors.items()}
    state = model.state_dict() | _rope_factors(model.config)
    if ROPE_FACTORS in state:
        tensors[ROPE_FACTORS] = TensorLayout({ROPE_FACTORS: len(state[ROPE_FACTORS])}, None)
        kinds[ROPE_FACTORS] = GGMLQuantizationType.F32
    require_free_space(out.parent, HEADER_ROOM + sum(bytes_of(tensors[name].shape, kinds[name]) for name in tensors))
    with atomic_path(out) as temporary:
        _write_header(writer, temporary, tensors, kinds)
        with open(temporary, "ab") as file:
            for name, stored in tensors.items():
                file.write(bytes(-file.tell() % GGUF_DEFAULT_ALIGNMENT))
                for rows in _chunks(state, stored):
                    file.write(_packed(rows, kinds[name], name, out))
            file.write(bytes(-file.tell() % GGUF_DEFAULT_ALIGNMENT))


def _write_provenance(writer: GGUFWriter, loaded: LoadedModel, name: str) -> None:
    """Write the model's name and, if it was read from a GGUF file, that file's organisation, licence and URL."""
    facts = {"name": name, **loaded.record.get("provenance", {}).get("gguf", {})}
    for key in PROVENANCE:
        if (fact := facts.get(key.removeprefix("general."))) is not None:
            writer.add_string(key, fact)


def _write_sampling(writer: GGUFWriter, generation: GenerationDefaults) -> None:
    """Write the recommended sampling, as far as the model has any."""
    asked = sampling_of(generation.fields)
    for name, (key, kind) in SAMPLING.items():
        if name in asked:
            writer.add_key_value(
                key, kind(asked[name]), GGUFValueType.FLOAT32 if kind is float else GGUFValueType.INT32
            )


def _write_ends(writer: GGUFWriter, generation: GenerationDefaults, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Write the end-of-text tokens besides the tokenizer's own; log those beyond the two that fit."""
    others = sorted(ends_of(tokenizer, generation.ends, vocab_size) - {tokenizer.eos_id})
    # The end of a turn comes first, as conversations need it.
    first = [index for index in (end_of_turn(tokenizer), *generation.ends) if index in others]
    ordered = list(dict.fromkeys([*first, *others]))
    for key, index in zip(ENDS[1:], ordered, strict=False):
        writer.add_uint32(key, index)
    if lost := [str(tokenizer.core.id_to_token(index)) for index in ordered[len(ENDS) - 1 :]]:
        log(f"GGUF has no place for more than {len(ENDS)} ends of text: {', '.join(lost)} will end none there")


def _kind(name: str, stored: TensorLayout, kind: GGMLQuantizationType) -> GGMLQuantizationType:
    """Return the type of a tensor when matrices are to be stored as `kind`, as in llama.cpp's own converter."""
    if stored.width is None or name == POSITIONS:
        return GGMLQuantizationType.F32
    return GGMLQuantizationType.F16 if stored.width % GGML_QUANT_SIZES[kind][0] else kind


def _rope_factors(config: ModelConfig) -> dict[str, Tensor]:
    if config.rope_scaling is None or config.rope_scaling.kind != "llama3":
        return {}
    return {ROPE_FACTORS: rope_factors(config.head_dim, config.rope_theta, config.rope_scaling)}


def _write_header(
    writer: GGUFWriter, path: Path, tensors: dict[str, TensorLayout], kinds: dict[str, GGMLQuantizationType]
) -> None:
    """Write all that precedes the tensors' data. The data are not left to the writer: it takes whole tensors, and NumPy's
    `tofile`, which it calls, does not report a full disk."""
    for name, stored in tensors.items():
        size = bytes_of(stored.shape, kinds[name])
        writer.add_tensor_info(name, stored.shape, np.dtype(np.float32), size, kinds[name])
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()


def _chunks(state: dict[str, Tensor], stored: TensorLayout) -> Iterator[np.ndarray]:
    """Yield a tensor of the file in fp32, some rows (for a vector: elements) at a time."""
    for parameter, rows in stored.parts.items():
        values = state[parameter].detach().float().cpu().numpy()
        order = their_order(rows, stored.heads) if stored.heads else np.arange(rows)
        step = max(1, CHUNK // (stored.width or 1))
        for start in range(0, rows, step):
            yield values[order[start : start + step]]


def _packed(rows: np.ndarray, kind: GGMLQuantizationType, name: str, out: Path) -> bytes:
    if not np.isfinite(rows).all():
        raise LucidError(f"the weights {name} hold infinities or NaN, and were not written", where=out)
    with np.errstate(all="ignore"):  # overflows are checked for in the result
        packed = quantize(rows, kind)
        if not np.isfinite(dequantize(packed, kind)).all():
            raise InputError(
                f"the weights {name} reach {np.abs(rows).max():.6g}, which is beyond {kind.name}",
                where="--dtype",
                fix="Choose fp32.",
            )
    return packed.tobytes()
