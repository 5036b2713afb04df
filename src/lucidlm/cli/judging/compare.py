"""`lucidlm compare`: whether evaluated models differ."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    evaluations: Annotated[list[Path], typer.Argument(help="Folders that hold an eval.json, two or more.")],
    metric: Annotated[str | None, typer.Option(help="What to compare by; the first metric of the task.")] = None,
    seed: Annotated[int, typer.Option(help="What all randomness is drawn from.")] = 0,
) -> None:
    """Compare models that were evaluated on the same examples: paired, with p-values and 95 % intervals.

    Examples:

      lucidlm compare judge other-judge
      lucidlm compare full lora head --metric macro_f1
    """
    from lucidlm.evaluate.comparison import compare_evaluations

    for difference in compare_evaluations(evaluations, metric, seed):
        print(difference)
