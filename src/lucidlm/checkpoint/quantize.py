"""Weight formats on disk: fp32; bf16 and fp16 in half the bytes; int8 in a little over a quarter, int4 in less.

int8 is symmetric with one scale per row (an output channel of a linear layer, a token of an embedding): w ≈ scale × q
with q from -127 to 127, rounded to the nearest (Jacob et al. 2018, arXiv:1712.05877, section 2, with the zero point at
zero). int4 has a scale for each 32 weights of a row, q from -8 to 7; it is for the matrices of the layers. Embeddings
and heads, which lose most by it, are in fp16 beside them. Loading dequantises both to floating point, and quantising
that again gives the same integers: what computes in int4 (`lucidlm.inference.engine.openvino_graph`) computes with what
was stored.

The tensors and `quantization_config` are those of compressed-tensors: its "int-quantized" format, `X.weight` int8 (rows,
columns) and `X.weight_scale` fp32 (rows, 1); and its "pack-quantized", `X.weight_packed` int32 (rows, columns / 8), eight
integers in each from the lowest bits on, each with 8 added, `X.weight_scale` (rows, groups) and `X.weight_shape`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lucidlm.core.errors import InputError, LucidError

Dtype = Literal["fp32", "bf16", "fp16", "int8", "int4"]
FLOATS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPENED = (*FLOATS.values(), torch.float64)
INTEGERS: tuple[Dtype, ...] = ("int8", "int4")
SCALE, PACKED, SHAPE = "_scale", "_packed", "_shape"
"""Suffixes of a tensor's name: of its scales; of int4 values and, with those, of its shape."""

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""The scale of a row of zeros: a scale must not be zero."""

GROUP = 32
"""How many weights of a row share a scale in int4."""

IN_A_WORD = 8
"""Values of int4 in an int32."""

OF_LAYER = re.compile(r"\.\d+\..+\.weight$")
"""The name of a matrix of a numbered layer, in every family."""

_INT8: dict[str, Any] = {
    "format": "int-quantized",
    "targets": ["Linear", "Embedding"],
    "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
}
_INT4: dict[str, Any] = {
    "format": "pack-quantized",
    "targets": ["Linear"],
    "weights": {
        "num_bits": 4,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP,
        "dynamic": False,
    },
}


def quantization_config(dtype: Dtype, names: Iterable[str]) -> dict[str, Any]:
    """Return the field of config.json that describes weights in int8 or int4, whose tensors have these names."""
    group = _INT4 if dtype == "int4" else _INT8
    plain = {name.removesuffix(".weight") for name in names if name.endswith(".weight")} if dtype == "int4" else set()
    return {
        "quant_method": "compressed-tensors",
        "format": group["format"],
        "quantization_status": "compressed",
        # The group has the format too: compressed-tensors would infer a packed one for weight-only quantisation.
        "config_groups": {"group_0": group},
        "ignore": sorted(plain | {"lm_head"}) if plain else [],
        # transformers must dequantise on loading, as we do: it would not find the scales of a tied head.
        "dequantize": True,
    }


def quantize_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int8 values (rows, columns) and fp32 scales (rows, 1) for a matrix; values × scales is nearly `weight`."""
    weight = weight.float()
    scale = (weight.abs().amax(1, keepdim=True) / 127).clamp_(min=SMALLEST_SCALE)
    return (weight / scale).round_().clamp_(-127, 127).to(torch.int8), scale


def quantize_groups(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return int4 values (rows, groups, `GROUP`), in int8, and fp32 scales (rows, groups, 1), fp16's values, for a matrix
    whose columns are a multiple of `GROUP`; values × scales is nearly `weight`.

    The number of the largest magnitude becomes -8, as in GGUF's Q4_0: there is one integer more below zero than above, so
    no scale that holds all is finer.
    """
    groups = weight.float().unflatten(1, (-1, GROUP))
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = (largest / -8).half().float()  # divided by as it is stored
    scale = scale.where(scale != 0, 1.0)
    return (groups / scale).round_().clamp_(-8, 7).to(torch.int8), scale


def check_storable(tensors: Mapping[str, Tensor], dtype: Dtype, where: str | Path) -> None:
    """Refuse weights that `dtype` cannot represent.

    Raises
    ------
    LucidError: a value is not finite.
    InputError: a value is beyond what the format can hold.
    """
    most = torch.finfo(torch.float16 if dtype == "int4" else FLOATS.get(dtype, torch.float32)).max
    for name, value in tensors.items():
        low, high = (float(end) for end in value.aminmax())
        if not math.isfinite(low + high):
            raise LucidError(f"the weights {name} hold infinities or NaN, and were not saved", where=where)
        if max(-low, high) > most:
            raise InputError(
                f"the weights {name} reach {max(-low, high):.6g}, {dtype} ends at {most:.6g}",
                where=where,
                fix="Choose fp32, or bf16, whose range is nearly the same.",
            )


def compress(name: str, value: Tensor, dtype: Dtype) -> dict[str, Tensor]:
    """Return the tensor `name` as stored in `dtype`.

    Under int8 these are matrices with their scales, all else in fp32; under int4 matrices of layers with their scales,
    other matrices, and those whose rows cannot be cut into groups, in fp16, all else in fp32.
    """
    if value.dim() != 2:
        return {name: value.to(FLOATS.get(dtype, torch.float32))}
    if dtype == "int4" and OF_LAYER.search(name) and value.shape[1] % GROUP == 0:
        values, scales = quantize_groups(value)
        shape = torch.tensor(value.shape)
        return {name + PACKED: _pack(values.flatten(1)), name + SCALE: scales.squeeze(-1).half(), name + SHAPE: shape}
    if dtype == "int8":
        values, scales = quantize_rows(value)
        return {name: values, name + SCALE: scales}
    return {name: value.to(FLOATS.get(dtype, torch.float16))}


def _pack(values: Tensor) -> Tensor:
    """Return int4 values (rows, columns), in int8, as int32 (rows, columns / 8)."""
    nibbles = (values.int() + 8).unflatten(1, (-1, IN_A_WORD))
    places = torch.arange(0, 32, 4, dtype=torch.int32, device=values.device)
    return nibbles.bitwise_left_shift(places).sum(-1, dtype=torch.int32)


def _unpack(packed: Tensor) -> Tensor:
    """Return int4 values (rows, columns), in int8, of int32 (rows, columns / 8)."""
    places = torch.arange(0, 32, 4, dtype=torch.int32, device=packed.device)
    return (packed[..., None].bitwise_right_shift(places).bitwise_and(15) - 8).to(torch.int8).flatten(1)


def _stored(tensors: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a file's weights as stored, int4 still packed, and, under the same names, the scales of those in integers.

    Raises
    ------
    InputError: values are neither floating-point, nor integers with scales that belong to them.
    """
    packed = {name.removesuffix(PACKED) for name in tensors if name.endswith(PACKED)}
    scaled = {name for name in tensors if name + SCALE in tensors}
    beside = {name + SCALE for name in scaled | packed} | {name + end for name in packed for end in (PACKED, SHAPE)}
    weights = {name: value for name, value in tensors.items() if name not in beside}
    for name, value in weights.items():
        if not (value.dtype == torch.int8 if name in scaled else value.dtype in OPENED):
            raise InputError(
                f"{name} holds {str(value.dtype).removeprefix('torch.')} values in a form that is not known",
                where=where,
                fix="Known are floating point, and compressed-tensors' int-quantized in int8 with a scale a row and "
                "pack-quantized in int4 with a scale a group, both symmetric.",
            )
    scales = {name: tensors[name + SCALE] for name in weights if name in scaled}
    for name, scale in scales.items():
        shape = weights[name].shape
        if len(shape) != 2 or scale.shape != (shape[0], 1) or not scale.is_floating_point():
            raise InputError(
                f"{name + SCALE} is {scale.dtype} {tuple(scale.shape)}, not one scale for each row of {tuple(shape)}",
                where=where,
                fix="The file is damaged, or quantised in another way; restore it or quantise the model again.",
            )
    for name in packed:
        words, scale, shape = (tensors.get(name + end) for end in (PACKED, SCALE, SHAPE))
        if not _fit(words, scale, shape) or name in tensors:
            raise InputError(
                f"{name + PACKED} with its scales and shape is not int4 in groups of a row",
                where=where,
                fix="The file is damaged, or quantised in another way; restore it or quantise the model again.",
            )
        weights[name], scales[name] = tensors[name + PACKED], tensors[name + SCALE]
    return weights, scales


def _fit(words: Tensor | None, scale: Tensor | None, shape: Tensor | None) -> bool:
    """Whether these are a packed matrix, its scales for groups of a row, and its shape, as far as can be seen unread."""
    if words is None or scale is None or shape is None or not words.dim() == scale.dim() == 2:
        return False
    columns, groups = IN_A_WORD * words.shape[1], scale.shape[1]
    kinds = words.dtype == torch.int32 and scale.is_floating_point() and shape.dtype == torch.int64
    sizes = words.shape[0] == scale.shape[0] and groups > 0 and columns % groups == 0 and shape.shape == (2,)
    return kinds and sizes and (shape.is_meta or shape.tolist() == [len(words), columns])


def stored_shapes(tensors: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Return the weights of a file, of which `tensors` have the shapes, as meta tensors: int4 as if it were unpacked.

    Raises
    ------
    InputError: as `decompress`, as far as can be seen from the shapes.
    """
    weights, _ = _stored(tensors, where)
    return {
        name: torch.empty(len(value), IN_A_WORD * value.shape[1], dtype=torch.int8, device="meta")
        if value.dtype == torch.int32
        else value
        for name, value in weights.items()
    }


def decompress(tensors: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Return a file's weights, those in int8 and int4 dequantised to fp32, one by one.

    Raises
    ------
    InputError: values are neither floating-point, nor integers with scales that belong to them; a scale is no number
        to multiply by.
    """
    weights, scales = _stored(tensors, where)
    for name, scale in scales.items():
        # A scale of int4 may be negative: the number of the largest magnitude is -8 of it, whatever its sign.
        sound = scale > 0 if weights[name].dtype == torch.int8 else scale != 0
        if not (torch.isfinite(scale).all() and sound.all()):
            raise InputError(
                f"{name + SCALE} holds scales that are not positive numbers",
                where=where,
                fix="The file is damaged; restore it or quantise the model again.",
            )
    return {name: dequantize(value, scales[name]) if name in scales else value for name, value in weights.items()}


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """Return the fp32 matrix of int8 values with a scale a row, or of packed int4 values with a scale a group."""
    if values.dtype == torch.int8:
        return values.float().mul_(scale)
    whole = _unpack(values).float()
    return whole.unflatten(1, (scale.shape[1], -1)).mul_(scale[..., None].float()).flatten(1)


def is_rounded(model: nn.Module) -> bool:
    """Whether int4 can hold all matrices of the layers without a loss, as it can where they were stored in it."""
    layers = (value for name, value in model.named_parameters() if value.dim() == 2 and OF_LAYER.search(name))
    return all(value.shape[1] % GROUP == 0 and _is_rounded(value.detach()) for value in layers)


def _is_rounded(weight: Tensor) -> bool:
    values, scales = quantize_groups(weight)
    return torch.equal((values * scales).flatten(1), weight.float())
