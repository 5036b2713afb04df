"""`lucidlm demo`: all of it, on real reviews, in a quarter of an hour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lucidlm.cli.judging.report import Language
from lucidlm.cli.options import Seed


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    lang: Annotated[Language, typer.Option(help="The language of the reviews and the report.")] = Language.en,
    minutes: Annotated[float | None, typer.Option(help="Training time; less makes a worse model sooner.")] = None,
    data: Annotated[str | None, typer.Option(help="Labelled texts of your own (fields text and label).")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write; demo-en or demo-zh if left out.")] = None,
    seed: Seed = None,
) -> None:
    """Pretrain, fine-tune, judge and report a small model on real reviews.

    What is finished is kept: call it again to go on after a stop.

    Examples:

      lucidlm demo
      lucidlm demo --lang zh --minutes 5
      lucidlm demo --data my-reviews.csv --out my-demo
    """
    from lucidlm.cli.judging.evaluate import table
    from lucidlm.cli.options import given
    from lucidlm.core.progress import log
    from lucidlm.demo import run_demo
    from lucidlm.train.loop import Outcome

    directory = out or Path(f"demo-{lang.value}")
    result = run_demo(directory, lang.value, **given({"data": data, "minutes": minutes, "seed": seed}))
    if isinstance(result, Outcome):
        log("stopped; the same command goes on from here")
        raise typer.Exit(128 + (result.stopped_by or 0))
    print(table(result))
    log(
        f"\nThe report: {directory / 'report.html'}\n\nWhat to try next:\n"
        f'  lucidlm generate {directory / "model"} "{PROMPTS[lang]}"\n'
        f"  lucidlm data prepare YOUR-TEXTS --out data && lucidlm pretrain --data data --out model --minutes 30\n"
        f"  lucidlm finetune sentiment --model {directory / 'model'} --data YOUR-LABELS.csv --out judge\n"
        f"  lucidlm evaluate {directory / 'judge'} --task sentiment --data YOUR-LABELS.csv"
    )


PROMPTS = {Language.en: "The best thing about this film", Language.zh: "这本书最好的地方"}
