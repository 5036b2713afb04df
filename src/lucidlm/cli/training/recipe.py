"""`lucidlm recipe`: a result of the documentation, made again."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(recipe)


def recipe(
    files: Annotated[list[Path], typer.Argument(help="Recipes, YAML files.")],
    out: Annotated[Path, typer.Option(help="Folder to work in; what is finished there is not done again.")] = Path(
        "runs"
    ),
    data: Annotated[Path | None, typer.Option(help="The folder that ${data} stands for in the recipes.")] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Run with this seed, in a folder named by it; may be given several times."),
    ] = None,
) -> None:
    """Prepare, pretrain, fine-tune and evaluate as a recipe says.

    Examples:

      lucidlm recipe recipes/ag-news.yaml --data ~/datasets --out runs
      lucidlm recipe recipes/*.yaml --data ~/datasets --out runs && lucidlm results runs --out results.md
      lucidlm recipe recipes/sst2.yaml --data ~/datasets --seed 0 --seed 1 --seed 2
    """
    from lucidlm.core.progress import log
    from lucidlm.recipe import run_recipe
    from lucidlm.train.loop import Outcome

    for file, number in product(files, seed or [None]):
        done = run_recipe(file, out, data, number)
        if isinstance(done, Outcome):
            log("stopped; the same command goes on from here")
            raise typer.Exit(128 + (done.stopped_by or 0))
        log(f"{file}: done; report {done / 'report.html'}")
