"""`lucidlm watermark`: whether a text was written with a watermark."""

from __future__ import annotations

from typing import Annotated

import typer

from lucidlm.cli.using.sampling import Source, input_lines, text_given


def register(app: typer.Typer) -> None:
    app.command()(watermark)


def watermark(
    model: Source,
    key: Annotated[str, typer.Option(help="The key that the text may have been written with.")],
    text: Annotated[str | None, typer.Argument(help="The text; standard input if left out.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell whether a text was written with `lucidlm generate --watermark KEY`, by this model's tokenizer.

    Examples:

      lucidlm watermark model "The text in question." --key "my secret"
    """
    import json
    from dataclasses import asdict

    from lucidlm.checkpoint.load import load_model
    from lucidlm.control.watermark import detect

    read = "".join(input_lines()) if text is None else text_given(text, "TEXT")
    found = detect(read, load_model(model).require_tokenizer(), key)
    print(json.dumps(asdict(found)) if as_json else found.verdict())
