"""`lucidlm evaluate`: how good a model is, beside its baselines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lucidlm.cli.from_config import add_command
from lucidlm.cli.options import Config, LabelField, TextField

if TYPE_CHECKING:
    from lucidlm.evaluate.config import EvaluateConfig
    from lucidlm.evaluate.record import Evaluation, Measure, Score

COLUMNS = 6
"""Figures that stand side by side on a terminal; more (one for each phenomenon, say) follow the model's, a line each."""


SHOWN = (
    "model",
    "task",
    "data",
    "split",
    "out",
    "config",
    "fields",
    "text_field",
    "label_field",
    "limit",
    "baselines",
    "training",
    "leakage",
    "resume",
    "lm_eval",
    "lm_eval_include",
    "encoding",
    "html",
    "on_error",
    "device",
    "seed",
)


def register(app: typer.Typer) -> None:
    add_command(app, evaluate, _configurations, SHOWN)


def _configurations() -> Sequence[type[EvaluateConfig]]:
    from lucidlm.evaluate.config import EvaluateConfig

    return (EvaluateConfig,)


def evaluate(
    model: Annotated[Path, typer.Argument(help="A model directory.")],
    task: Annotated[
        list[str] | None,
        typer.Option(
            help="What to judge (lucidlm tasks); may be repeated. Left out: a language model on prepared data."
        ),
    ] = None,
    data: Annotated[list[str] | None, typer.Option(help="Its examples, one --data for each --task.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where results go; the model's directory. Several tasks get folders in it.")
    ] = None,
    config: Config = None,
    text_field: TextField = None,
    label_field: LabelField = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on after the answers that a stopped evaluation left.")
    ] = True,
    lm_eval: Annotated[
        str | None,
        typer.Option(help="Tasks of lm-evaluation-harness instead, with commas between; needs lucidlm[eval]."),
    ] = None,
    lm_eval_include: Annotated[
        Path | None, typer.Option(help="A folder with harness tasks of your own (YAML); no network is needed for them.")
    ] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Evaluate a model on any task, with 95 % intervals, baselines, and a look for leaked examples.

    A --config file holds one evaluation, or several by name under `evaluations`.

    Examples:

      lucidlm evaluate judge --task sentiment --data test.jsonl
      lucidlm evaluate judge --task text-classification --data news.csv --field text=title --field label=topic
      lucidlm evaluate judge --task sentiment --data a.jsonl --task sentiment --data b.jsonl --out results
      lucidlm evaluate judge --config suite.yaml --out results
      lucidlm evaluate model --data data --split test
      lucidlm evaluate model --task minimal-pairs --data blimp.jsonl
      lucidlm evaluate model --lm-eval arc_easy,my_task --lm-eval-include my-tasks
      torchrun --standalone --nproc-per-node 8 -m lucidlm evaluate judge --task sentiment --data test.jsonl
    """
    import json

    from lucidlm.checkpoint.load import load_model
    from lucidlm.cli.options import given, renamed, required
    from lucidlm.core.errors import InputError
    from lucidlm.distributed.failure import explained
    from lucidlm.distributed.ranks import first_rank, join
    from lucidlm.evaluate.directory import evaluate_language_model, evaluate_model
    from lucidlm.report.files import REPORT
    from lucidlm.report.run import report_run

    device = settings.get("device", "auto")
    if lm_eval is not None:
        from lucidlm.evaluate.harness import harness_table, run_harness

        if task or data or config:
            raise InputError(
                "the harness has its own tasks and data", where="--lm-eval", fix="Give it no --task or --data."
            )
        if join(device).count > 1:
            raise InputError("the harness runs in one process", where="--lm-eval", fix="Start it without torchrun.")
        names = [name for part in lm_eval.split(",") if (name := part.strip())]
        print(
            harness_table(
                run_harness(model, names, include=lm_eval_include, limit=settings.get("limit"), device=device, out=out)
            )
        )
        return
    if not task and config is None:
        part = settings.get("split", "auto").replace("auto", "test")
        if part == "all":
            raise InputError(
                "a language model is judged on one part of its data", where="--split", fix="Name the part."
            )
        sources = required(data or None, "--data")
        if len(sources) > 1:
            raise InputError("a language model is judged on one directory at a time", where="--data")
        found = evaluate_language_model(model, sources[0], part, device)
        if first_rank():
            print(json.dumps(found, indent=2))
        return
    settings |= given({"fields": renamed(settings.pop("fields", None), text=text_field, label=label_field)})
    asked = _asked(config, task or [], data or [], settings)
    top = out or model
    folders = [top / name for name in asked] if len(asked) > 1 else [top]
    ranks = join(next(iter(asked.values())).device)
    with explained(ranks):
        loaded = load_model(model)
        for folder, one in zip(folders, asked.values(), strict=True):
            evaluation = evaluate_model(loaded, one, folder, resume=resume, ranks=ranks)
            if ranks.first:
                print(table(evaluation))
    if ranks.first:
        parts = [model, *(folder for folder in folders if folder != model)]
        report_run(parts, top / REPORT)


def _asked(
    config: Path | None, names: Sequence[str], sources: Sequence[str], flags: dict[str, Any]
) -> dict[str, EvaluateConfig]:
    """Return the evaluations that file and flags ask for, by the names of the folders they get."""
    from lucidlm.cli.options import required
    from lucidlm.core.config import read_yaml
    from lucidlm.core.errors import InputError
    from lucidlm.core.flat import resolve
    from lucidlm.evaluate.config import EvaluateConfig, Suite

    if config is not None and "evaluations" in read_yaml(config):
        if names or sources:
            raise InputError("the file says what to judge on what", where=config, fix="Leave out --task and --data.")
        suite = Suite.load(config).evaluations
        return {name: settings.changed(**flags) for name, settings in suite.items()}
    if config is None:
        required(list(sources) or None, "--data")
    if max(len(names), len(sources)) <= 1:
        given = {**flags, **dict(zip(("task",), names, strict=False)), **dict(zip(("data",), sources, strict=False))}
        settings = resolve(EvaluateConfig, config, given)
        return {settings.task: settings}
    if len(names) != len(sources):
        what = f"{len(names)} tasks and {len(sources)} sources of data"
        raise InputError(what, where="--data", fix="Give each --task its --data, in the same order.")
    found, seen = {}, Counter[str]()
    for name, source in zip(names, sources, strict=True):
        seen[name] += 1
        folder = name if seen[name] == 1 else f"{name}-{seen[name]}"
        found[folder] = resolve(EvaluateConfig, config, {**flags, "task": name, "data": source})
    return found


def _cell(score: Score, measure: Measure) -> str:
    found, form = score.metrics.get(measure.name), ".2f" if measure.percent else ".4f"
    return "–" if found is None else f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def table(evaluation: Evaluation) -> str:
    """Return the scores as lines of text, the model's first, then what the comparisons and the leakage check say."""
    from lucidlm.evaluate.comparison import verdict

    lines = [f"{evaluation.task} on {evaluation.data}: {evaluation.examples:,} examples, 95 % intervals"]
    scores = (evaluation.model, *evaluation.baselines)
    width = max(len(score.name) for score in scores)
    columns, more = evaluation.measures[:COLUMNS], evaluation.measures[COLUMNS:]
    lines.append(f"{'':{width}}  " + "  ".join(f"{measure.name:>22}" for measure in columns))
    for score in scores:
        lines.append(f"{score.name:{width}}  " + "  ".join(f"{_cell(score, measure):>22}" for measure in columns))
    lines += [f"{measure.name}: {_cell(evaluation.model, measure)}" for measure in more]
    for score in evaluation.baselines:
        if score.comparison is not None:
            lines.append(
                f"against {score.name}, {evaluation.first.name}: {verdict(score.comparison, evaluation.first)}"
            )
    lines += [f"leakage: {leak}" for leak in evaluation.leakage if leak.overlapping or leak.copies or not leak.checked]
    lines += [f"{count:,} {what}" for what, count in evaluation.counts.items() if count]
    return "\n".join(lines)
