"""`lucidlm report`: one page that shows what runs did."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Language(StrEnum):
    """The language of a page."""

    en = "en"
    zh = "zh"


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    runs: Annotated[list[Path], typer.Argument(help="Directories that pretrain, finetune or evaluate wrote.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file to write; report.html in the first directory.")
    ] = None,
    lang: Annotated[Language, typer.Option(help="The language of the page.")] = Language.en,
) -> None:
    """Show one run, or compare several, on one self-contained HTML page.

    Examples:

      lucidlm report model
      lucidlm report small large --out comparison.html
    """
    from lucidlm.report import language
    from lucidlm.report.files import REPORT
    from lucidlm.report.run import report_run

    path = out or runs[0] / REPORT
    report_run(runs, path, language.Language(lang.value))
    print(path)
