"""The results page: all evaluations below some folders, a section per task, with model size and training time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucidlm.checkpoint.record import RECORD
from lucidlm.core.amounts import count, percent
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json, write_text
from lucidlm.evaluate.comparison import sign
from lucidlm.evaluate.record import EVALUATION, Evaluation, Score, read_evaluation
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters
from lucidlm.report.evaluation import figure
from lucidlm.report.language import Language

WIDEST = 8
"""Most metrics in a table: more would not fit on a page."""


@dataclass(frozen=True)
class Result:
    """One evaluation with its model's record.

    Parameters
    ----------
    place: the folder of its eval.json, relative to the searched folder.
    record: the model's lucidlm.json; empty if the model is gone.
    """

    place: str
    evaluation: Evaluation
    record: dict[str, Any]

    @property
    def parameters(self) -> int | None:
        """The number of the backbone's parameters."""
        return count_parameters(ModelConfig.parse(self.record["model"], RECORD)) if self.record else None

    @property
    def minutes(self) -> float | None:
        """Training time of this model alone, without its base model's."""
        seconds = self.record.get("provenance", {}).get("metrics", {}).get("wall_seconds")
        return None if seconds is None else seconds / 60


def write_results(folders: Sequence[str | Path], out: str | Path, language: Language | None = None) -> None:
    """Write the page of all results below `folders`; the same files give the same page.

    Raises
    ------
    InputError: there is none, or an eval.json is damaged.
    """
    write_text(out, results_page(find_results(folders), language or Language()))


def find_results(folders: Sequence[str | Path]) -> list[Result]:
    """Return all results below `folders`, by task and then by place.

    Raises
    ------
    InputError: there is none, or an eval.json is damaged.
    """
    found = {}
    for folder in map(Path, folders):
        for path in sorted(folder.rglob(EVALUATION)):
            evaluation = read_evaluation(path)
            found[path.resolve()] = Result(
                Path(os.path.relpath(path.parent, folder)).as_posix(), evaluation, _record(path.parent, evaluation)
            )
    if not found:
        places = ", ".join(map(str, folders))
        raise InputError(f"no {EVALUATION} below it", where=places, fix="Run `lucidlm evaluate` first.")
    return sorted(found.values(), key=lambda result: (result.evaluation.task, result.place))


def results_page(results: Sequence[Result], language: Language) -> str:
    """Return the page as Markdown."""
    t = language.text
    lines = [f"# {t('Results')}", ""]
    lines.append(
        "English · [简体中文](zh-CN/results.md)" if language.code == "en" else "[English](../results.md) · 简体中文"
    )
    lines += [
        "",
        t("Made by `lucidlm results` from the files that evaluations left. In brackets: 95 % bootstrap intervals."),
    ]
    machines = dict.fromkeys(_machine(result.evaluation.machine, language) for result in results)
    lines += ["", t("Judged on: {machines}.", machines="; ".join(machines))]
    lines += ["", t("Verdicts are those of paired tests (approximate randomisation) on the first metric, at p < 0.05.")]
    for task in dict.fromkeys(result.evaluation.task for result in results):
        lines += ["", f"## {language.name(task)}"]
        for result in results:
            if result.evaluation.task == task:
                lines += ["", *_result(result, language)]
    return "\n".join(lines) + "\n"


def _result(result: Result, language: Language) -> Iterator[str]:
    t, found = language.text, result.evaluation
    name = found.model.name if result.place == "." else result.place
    yield f"### {_escaped(name)}"
    yield ""
    facts = [t("data: {data}, {examples} examples", data=f"`{_short(found.data)}`", examples=f"{found.examples:,}")]
    if result.parameters is not None:
        facts.append(t("model: {parameters} parameters", parameters=count(result.parameters)))
    if result.minutes is not None:
        facts.append(t("trained in {minutes} min", minutes=f"{result.minutes:.1f}"))
    facts.append(t("judged in {seconds} s", seconds=f"{found.seconds:.0f}"))
    yield "; ".join(facts) + "."
    yield ""
    columns = [t("model"), *(language.name(measure.name) for measure in found.measures[:WIDEST])]
    if found.baselines:
        columns.append(t("the model against it"))
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for score in (found.model, *found.baselines):
        yield f"| {' | '.join(_row(score, found, language))} |"
    if (more := len(found.measures) - WIDEST) > 0:
        yield ""
        yield t("{count} more figures are in eval.json.", count=more)
    leaks = [leak for leak in found.leakage if leak.checked]
    for leak in leaks:
        title = t("seen in fine-tuning") if leak.against == "fine-tuning" else t("seen in pretraining")
        yield ""
        yield f"{title}: {leak.overlapping:,} ({percent(leak.share)})."
    yield ""
    yield t("Again: {command}", command=f"`{_command(result)}`")


def _row(score: Score, evaluation: Evaluation, language: Language) -> Iterator[str]:
    name = _escaped(language.name(score.name))
    yield f"**{name}**" if score is evaluation.model else name
    for measure in evaluation.measures[:WIDEST]:
        if (found := score.metrics.get(measure.name)) is None:
            yield "–"
            continue
        value, low, high = (figure(number, measure) for number in (found.value, found.low, found.high))
        yield f"{value} [{low}, {high}]"
    if score.comparison is not None:
        words = {1: "better", 0: "no difference shown", -1: "worse"}
        verdict = language.text(words[sign(score.comparison, evaluation.first)])
        yield f"{verdict} (p = {score.comparison.p_value:.2g})"
    elif evaluation.baselines:
        yield "–"


def _command(result: Result) -> str:
    """Return the command that repeats the evaluation; the model's own configuration says how it was trained."""
    settings = result.evaluation.settings
    command = f"lucidlm evaluate {_short(str(settings.get('model', 'MODEL')))} --task {result.evaluation.task}"
    return f"{command} --data {_short(str(settings.get('data', 'DATA')))} --split {settings.get('split', 'auto')}"


def _machine(machine: Mapping[str, Any], language: Language) -> str:
    return f"{language.processor(machine)}, PyTorch {machine.get('torch', '?')}"


def _record(folder: Path, evaluation: Evaluation) -> dict[str, Any]:
    """Return the evaluated model's record: from the same folder, or from the one named in the settings."""
    places = [folder, Path(str(evaluation.settings.get("model", folder)))]
    return next((read_json(place / RECORD) for place in places if (place / RECORD).exists()), {})


def _short(data: str) -> str:
    """Return a source with only the last folders of its path: the rest is specific to one machine."""
    return data if data.startswith("pypi:") or "://" in data else "/".join(data.split("/")[-3:])


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
