"""`lucidlm export`: a model in the form that other software loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(export)


def export(
    model: Annotated[str, typer.Argument(help="A model directory, or what `lucidlm import` takes.")],
    to: Annotated[str, typer.Option("--to", metavar="FORM", help="hf, gguf, keras, saved-model, onnx.")],
    out: Annotated[Path, typer.Option(help="What to write; it must not be there yet.", show_default=False)],
    dtype: Annotated[
        str | None,
        typer.Option(
            help="How weights are stored [fp32]; hf also bf16, fp16; onnx fp16; gguf fp16, bf16, q8_0, q4_1 …"
        ),
    ] = None,
    deep_only: Annotated[
        bool, typer.Option("--deep-only", help="Leave out the counted n-grams beside a classifier's Transformer.")
    ] = False,
) -> None:
    """Write a model in the form that other software loads.

    Examples:

      lucidlm export model --to hf --out for-transformers
      lucidlm export model --to gguf --dtype q8_0 --out model-q8_0.gguf
      lucidlm export model --to keras --out for-tensorflow
      lucidlm export judge --to onnx --out judge-onnx
    """
    from lucidlm.checkpoint.load import load_model
    from lucidlm.core.progress import log
    from lucidlm.interop.exporting import export_model

    export_model(load_model(model), to, out, dtype, deep_only=deep_only)
    files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    log(f"{out}: {sum(path.stat().st_size for path in files) / 1e6:,.1f} MB")
