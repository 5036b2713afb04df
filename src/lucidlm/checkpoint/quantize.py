"""Weight formats on disk: fp32; bf16 and fp16 in half the bytes; int8 in a little over a quarter.

int8 is symmetric with one scale per row (an output channel of a linear layer, a token of an embedding): w ≈ scale × q
with q from -127 to 127, rounded to the nearest (Jacob et al. 2018, arXiv:1712.05877, section 2, with the zero point at
zero). It is a storage format only: int8 weights are dequantised to floating point when a model is loaded.

The tensors and `quantization_config` are those of compressed-tensors' "int-quantized" format:
`X.weight` int8 (rows, columns) and `X.weight_scale` fp32 (rows, 1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lucidlm.core.errors import InputError, LucidError

Dtype = Literal["fp32", "bf16", "fp16", "int8"]
FLOATS: dict[str, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
OPENED = (*FLOATS.values(), torch.float64)
SCALE = "_scale"
"""Suffix of the name of a tensor's scales."""

SMALLEST_SCALE = torch.finfo(torch.float32).tiny
"""The scale of a row of zeros: a scale must not be zero."""

GROUP = 32
"""How many weights of a row share a scale in int4."""

QUANTIZATION_CONFIG: dict[str, Any] = {
    "quant_method": "compressed-tensors",
    "format": "int-quantized",
    "quantization_status": "compressed",
    "config_groups": {
        "group_0": {
            # Repeated here: compressed-tensors would infer a packed format for weight-only quantisation.
            "format": "int-quantized",
            "targets": ["Linear", "Embedding"],
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False},
        }
    },
    "ignore": [],
    # transformers must dequantise on loading, as we do: it would not find the scales of a tied head.
    "dequantize": True,
}
"""The field of config.json that describes int8 weights."""


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
    most = torch.finfo(FLOATS.get(dtype, torch.float32)).max
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
    """Return the tensor `name` as stored in `dtype`: under int8, matrices with their scales, all else in fp32."""
    if dtype == "int8" and value.dim() == 2:
        values, scales = quantize_rows(value)
        return {name: values, name + SCALE: scales}
    return {name: value.to(FLOATS.get(dtype, torch.float32))}


def split_scales(tensors: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a file's weights as stored and, under the same names, the scales of those in int8.

    Raises
    ------
    InputError: values are neither floating-point nor int8 with one scale for each row of a matrix.
    """
    scaled = {name for name in tensors if name + SCALE in tensors}
    weights = {name: value for name, value in tensors.items() if name.removesuffix(SCALE) not in scaled - {name}}
    for name, value in weights.items():
        if not (value.dtype == torch.int8 if name in scaled else value.dtype in OPENED):
            raise InputError(
                f"{name} holds {str(value.dtype).removeprefix('torch.')} values in a form that is not known",
                where=where,
                fix="Known are floating point, and int8 with a scale a row (compressed-tensors' int-quantized).",
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
    return weights, scales


def decompress(tensors: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """Return a file's weights with those in int8 dequantised to fp32, one by one.

    Raises
    ------
    InputError: as `split_scales`; or a scale is not a positive number.
    """
    weights, scales = split_scales(tensors, where)
    for name, scale in scales.items():
        if not (torch.isfinite(scale).all() and (scale > 0).all()):
            raise InputError(
                f"{name + SCALE} holds scales that are not positive numbers",
                where=where,
                fix="The file is damaged; restore it or quantise the model again.",
            )
    return {name: value.float().mul_(scales[name]) if name in scales else value for name, value in weights.items()}
