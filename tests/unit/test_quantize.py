"""Weights in fewer bytes: what rounding costs is bounded, what cannot be stored or opened is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lucidlm.core.errors import InputError, LucidError
from lucidlm.model.quantize import DTYPES, FLOATS, Dtype, compress, decompress, quantize_rows

HERE = Path("model")


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


@pytest.mark.parametrize("largest", [0.0, 1e-45, 1e-38, 1e-30, 3.4e38])
def test_rows_of_nothing_and_of_extremes(largest: float) -> None:
    weight = torch.tensor([[0.0, largest, -largest]])
    values, scales = quantize_rows(weight)
    assert (scales > 0).all()
    assert abs((values * scales)[0, 1].item() - largest) <= max(largest / 200, 1e-38)


def test_what_is_no_matrix_stays_fp32_beside_int8() -> None:
    stored = compress({"w": matrix(), "norm": torch.ones(4)}, "int8", HERE)
    assert {name: value.dtype for name, value in stored.items()} == {
        "w": torch.int8,
        "w_scale": torch.float32,
        "norm": torch.float32,
    }


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_compressed_opens(dtype: Dtype) -> None:
    tensors = {"w": matrix(), "norm": torch.linspace(0.5, 1.5, 9)}
    opened = decompress(compress(tensors, dtype, HERE), HERE)
    assert opened.keys() == tensors.keys()
    for name, value in opened.items():
        assert value.dtype == (torch.float32 if dtype == "int8" else FLOATS[dtype])
        step = {"fp32": 0.0, "fp16": 2**-11, "bf16": 2**-8, "int8": 1 / 254}[dtype]
        largest = tensors[name].abs().amax(-1, keepdim=True)
        assert ((value - tensors[name]).abs() <= step * largest * 1.0001 + 1e-7 * (dtype == "fp16")).all(), name


def test_numbers_that_a_format_cannot_hold() -> None:
    for dtype in DTYPES:
        with pytest.raises(LucidError, match=r"model: the weights bad hold infinities or NaN"):
            compress({"good": torch.ones(2), "bad": torch.tensor([1.0, float("nan")])}, dtype, HERE)
    large = {"good": torch.ones(2), "large": torch.tensor([[1.0, -70_000.0]])}
    with pytest.raises(InputError, match=r"large reach 70000, fp16 ends at 65504.*bf16"):
        compress(large, "fp16", HERE)
    for dtype in ("fp32", "bf16", "int8"):
        compress(large, dtype, HERE)


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
