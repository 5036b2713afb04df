"""`lucidlm quantize`: a model in a half, a quarter or less of the bytes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Dtype(StrEnum):
    """How weights are stored."""

    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"
    int8 = "int8"
    int4 = "int4"


def register(app: typer.Typer) -> None:
    app.command()(quantize)


def quantize(
    model: Annotated[str, typer.Argument(help="A model directory, or what `lucidlm import` takes.")],
    out: Annotated[Path, typer.Option(help="Directory to write; it must be new or empty.", show_default=False)],
    dtype: Annotated[
        Dtype, typer.Option(help="bf16 and fp16 halve fp32, int8 (a scale a row) quarters it; int4: a scale for 32.")
    ] = Dtype.int8,
) -> None:
    """Write a model in fewer bytes on the disk.

    It opens as fp32, whatever it was stored in; where OpenVINO writes texts, in int8 or int4 as it was stored. In int4
    embeddings and heads are in fp16. What that costs in quality is a question to ask: evaluate both.

    Examples:

      lucidlm quantize model --out model-int8
      lucidlm quantize model --dtype bf16 --out model-bf16
      lucidlm quantize model --dtype int4 --out model-int4
    """
    from lucidlm.checkpoint.load import load_model
    from lucidlm.checkpoint.save import save_model
    from lucidlm.core.io import require_vacant
    from lucidlm.core.progress import log

    require_vacant(out)
    loaded = load_model(model)
    provenance = {**loaded.record["provenance"], "quantized": {"from": model, "dtype": dtype.value}}
    save_model(loaded.model, out, loaded.tokenizer, provenance=provenance, dtype=dtype.value)
    stored = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    plain = sum(4 * parameter.numel() for parameter in loaded.model.parameters())
    log(f"{out}: {stored / 1e6:,.1f} MB of weights, {stored / plain:.0%} of what fp32 takes")
