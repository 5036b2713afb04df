"""`lucidlm results`: one page of all results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucidlm.cli.judging.report import Language


def register(app: typer.Typer) -> None:
    app.command()(results)


def results(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders; every eval.json and curve.json below them is a result.")
    ],
    out: Annotated[Path, typer.Option(help="The Markdown file to write.")],
    language: Annotated[Language, typer.Option(help="The language of the page.")] = Language.en,
    table: Annotated[
        bool,
        typer.Option(
            "--table", help="Only the table of all results, put between <!-- results --> and <!-- end of results -->."
        ),
    ] = False,
) -> None:
    """Write a page of results, with intervals, baselines and what each took, from what evaluations left.

    Label curves are drawn beside the page, as SVG files.

    Examples:

      lucidlm results runs --out docs/results.md
      lucidlm results runs --out docs/zh-CN/results.md --language zh
      lucidlm results runs/demo --out README.md --table
    """
    from lucidlm.report import language as words
    from lucidlm.report.results import write_results, write_table

    (write_table if table else write_results)(folders, out, words.Language(language.value))
    print(out)
