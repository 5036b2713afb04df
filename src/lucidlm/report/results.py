"""The results page: all evaluations and label curves below some folders, with model size and training time."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lucidlm.checkpoint.record import RECORD
from lucidlm.core.amounts import count, percent
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json, write_text
from lucidlm.evaluate.record import EVALUATION, Evaluation, Measure, Score, read_evaluation
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters
from lucidlm.report.evaluation import figure, short_verdict
from lucidlm.report.label_curve import curve_chart, curve_names, summarise, written
from lucidlm.report.language import Language
from lucidlm.report.svg import chart_file
from lucidlm.train.label_curve.record import CURVE, LabelCurve, read_curve

WIDEST = 8
"""Most metrics in a table: more would not fit on a page."""

SEED = re.compile(r"-seed-(\d+)(?=/|$)")
"""The end of the name of a folder that `lucidlm recipe --seed` makes."""

BEGIN, END = "<!-- results -->", "<!-- end of results -->"
"""What `write_table` writes between, each on a line of its own."""


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

    @property
    def seed(self) -> str | None:
        """The seed of a recipe that was run with several, as its folder's name has it."""
        found = SEED.search(self.place)
        return None if found is None else found[1]

    @property
    def origin(self) -> str | None:
        """The model made elsewhere that this one was tuned from, as its user named it; None: all was learned here."""
        return self.record.get("provenance", {}).get("imported_from")


@dataclass(frozen=True)
class CurveResult:
    """One label curve; `place` is the folder of its curve.json, relative to the searched folder."""

    place: str
    curve: LabelCurve

    @property
    def title(self) -> str:
        """What the curve is called: the folder that was searched has no name, its task has."""
        return str(self.curve.settings["task"]) if self.place == "." else self.place

    @property
    def picture(self) -> str:
        """The name of the file of its chart."""
        return f"labels-{self.title.replace('/', '-')}.svg"


def write_results(folders: Sequence[str | Path], out: str | Path, language: Language | None = None) -> None:
    """Write the page of all results below `folders`, and charts beside it; the same files give the same page.

    Raises
    ------
    InputError: there is none, or one is damaged.
    """
    language, results, curves = language or Language(), find_results(folders), find_curves(folders)
    if not results and not curves:
        raise _nothing(folders)
    for found in curves:
        write_text(Path(out).with_name(found.picture), chart_file(curve_chart(found.curve, language)))
    write_text(out, results_page(results, curves, language))


def write_table(folders: Sequence[str | Path], out: str | Path, language: Language | None = None) -> None:
    """Put the table of all evaluations below `folders` into a page, in place of what stands between `BEGIN` and `END`.

    Raises
    ------
    InputError: there is none, one is damaged, or the page is missing or has no such place.
    """
    results = find_results(folders)
    if not results:
        raise _nothing(folders)
    try:
        page = Path(out).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError("file not found", where=out, fix="Leave out --table to write a page of its own.") from None
    before, begin, rest = page.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(f"{END}\n")
    if not begin or not end:
        what = f"has no line {BEGIN} with a line {END} below it"
        raise InputError(what, where=out, fix="Put both where the table is to stand.")
    table = "\n".join(summary(results, language or Language()))
    write_text(out, f"{before}{begin}\n{table}\n\n{end}{after}")


def find_results(folders: Sequence[str | Path]) -> list[Result]:
    """Return all evaluations below `folders`, by task and then by place.

    Raises
    ------
    InputError: an eval.json is damaged.
    """
    found = {}
    for path, place in _below(folders, EVALUATION):
        evaluation = read_evaluation(path)
        found[path.resolve()] = Result(place, evaluation, _record(path.parent, evaluation))
    return sorted(found.values(), key=lambda result: (result.evaluation.task, result.place))


def find_curves(folders: Sequence[str | Path]) -> list[CurveResult]:
    """Return all label curves below `folders`, by place.

    Raises
    ------
    InputError: a curve.json is damaged.
    """
    found = {path.resolve(): CurveResult(place, read_curve(path)) for path, place in _below(folders, CURVE)}
    return sorted(found.values(), key=lambda result: result.place)


def by_seeds(results: Sequence[Result]) -> list[list[Result]]:
    """Return the results in groups: one recipe judged on the same examples with one seed or several."""
    groups: dict[tuple[str, ...], list[Result]] = {}
    for result in results:
        found = result.evaluation
        key = (found.task, SEED.sub("", result.place), found.data_sha256)
        groups.setdefault(key, []).append(result)
    return list(groups.values())


def _below(folders: Sequence[str | Path], name: str) -> Iterator[tuple[Path, str]]:
    """Yield the files of this name, each with its folder relative to the searched one."""
    for folder in map(Path, folders):
        for path in sorted(folder.rglob(name)):
            yield path, Path(os.path.relpath(path.parent, folder)).as_posix()


def _nothing(folders: Sequence[str | Path]) -> InputError:
    places = ", ".join(map(str, folders))
    return InputError(f"no {EVALUATION} below it", where=places, fix="Run `lucidlm evaluate` first.")


def results_page(results: Sequence[Result], curves: Sequence[CurveResult], language: Language) -> str:
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
    if machines:
        lines += ["", t("Judged on: {machines}.", machines="; ".join(machines))]
    lines += ["", t("Verdicts are those of paired tests (approximate randomisation) on the first metric, at p < 0.05.")]
    if len(results) > 1:
        lines += ["", *summary(results, language)]
    for task in dict.fromkeys(result.evaluation.task for result in results):
        lines += ["", f"## {language.name(task)}"]
        for group in by_seeds([result for result in results if result.evaluation.task == task]):
            lines += ["", *_group(group, language)]
    if curves:
        lines += ["", f"## {t('What labels are worth')}"]
    for found in curves:
        lines += ["", *_curve(found, language)]
    return "\n".join(lines) + "\n"


def summary(results: Sequence[Result], language: Language) -> Iterator[str]:
    """Yield the lines of a table with a row for each recipe: the model, the best baseline, and the test of both.

    Several seeds of one share a row, with their mean, the lowest and the highest, and the test of each.
    """
    t = language.text
    columns = ("task", "data", "model", "metric", "result", "best baseline", "the model against it")
    yield f"| {' | '.join(map(t, columns))} |"
    yield "|" + "---|" * len(columns)
    groups = by_seeds(results)
    alike = Counter(_judged(group[0]) for group in groups)  # both ways of a translation are judged by one file
    for group in groups:
        result, found, first = group[0], group[0].evaluation, group[0].evaluation.first
        data = f"`{_short(found.data)}`"
        if alike[_judged(result)] > 1:
            data += f", {SEED.sub('', result.place)}"
        size = t("trained from scratch") if result.origin is None else f"`{result.origin}`"
        if result.parameters is not None:
            size = f"{count(result.parameters)}, {size}"
        reached = _interval(found.model, first) if len(group) == 1 else _spread(group, first, language)
        cells = [language.name(found.task), data, size, language.name(first.name), reached]
        yield f"| {' | '.join([*cells, *_best_baseline(group, language)])} |"


def _judged(result: Result) -> tuple[str, str, str | None]:
    return result.evaluation.task, result.evaluation.data, result.origin


def _spread(group: Sequence[Result], measure: Measure, language: Language) -> str:
    """Return the mean of several seeds, and their lowest and highest figure."""
    values = [result.evaluation.model.metrics[measure.name].value for result in group]
    mean, low, high = (figure(value, measure) for value in (sum(values) / len(values), min(values), max(values)))
    about = language.text("mean of {seeds} seeds: {low} to {high}", seeds=len(group), low=low, high=high)
    return f"{mean} ({about})"


def _best_baseline(group: Sequence[Result], language: Language) -> tuple[str, str]:
    """Return the best baseline with its figure, and how the model of each seed compares with it."""
    first, best = group[0].evaluation.first, group[0].evaluation.best_baseline
    if best is None:
        return "–", "–"
    value = figure(best.metrics[first.name].value, first)
    verdicts = (
        _verdict(score, first, language)
        for result in group
        for score in result.evaluation.baselines
        if score.name == best.name
    )
    return f"{value}, {_escaped(language.name(best.name))}", "; ".join(verdicts)


def _curve(found: CurveResult, language: Language) -> Iterator[str]:
    t, curve = language.text, found.curve
    names = curve_names(curve, language)
    yield f"### {_escaped(found.title)}"
    yield ""
    data = f"`{_short(str(curve.settings['data']))}`"
    about = t("data: {data}, {examples} examples", data=data, examples=f"{curve.test_examples:,}")
    yield f"{about}. {t('Judged on: {machines}.', machines=_machine(curve.machine, language))}"
    yield ""
    title = t("{metric} by number of labelled examples", metric=language.name(curve.metric))
    yield f"![{_escaped(title)}]({found.picture})"
    yield ""
    head = t("examples of each label") if curve.by_label else t("labelled examples")
    yield f"| {' | '.join([head, *(_escaped(name) for name in names.values())])} |"
    yield "|" + "---|" * (1 + len(names))
    for shots, by_method in summarise(curve):
        yield f"| {' | '.join([f'{shots:,}', *(written(by_method[method], curve.percent) for method in names)])} |"
    yield ""
    seeds = len({point.seed for point in curve.points})
    yield f"{t('Mean of {seeds} seeds, and lowest to highest of them', seeds=seeds)}."


def _group(group: Sequence[Result], language: Language) -> Iterator[str]:
    """Yield one recipe's results: a row for the model of each seed, then the baselines that the first was judged beside."""
    t, result, found = language.text, group[0], group[0].evaluation
    name = found.model.name if result.place == "." else result.place if len(group) == 1 else SEED.sub("", result.place)
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
    for one in group:
        name = f"**{_escaped(language.name(one.evaluation.model.name))}**"
        if len(group) > 1:
            name = f"{name}, {t('seed {seed}', seed=one.seed)}"
        yield f"| {' | '.join([name, *_figures(one.evaluation.model, found, language)])} |"
    for score in found.baselines:
        yield f"| {' | '.join([_escaped(language.name(score.name)), *_figures(score, found, language)])} |"
    if (more := len(found.measures) - WIDEST) > 0:
        yield ""
        yield t("{count} more figures are in eval.json.", count=more)
    if len(group) > 1 and found.baselines:
        yield ""
        yield t("The rows below the models are of seed {seed}.", seed=result.seed)
    leaks = [leak for leak in found.leakage if leak.checked]
    for leak in leaks:
        title = t("seen in fine-tuning") if leak.against == "fine-tuning" else t("seen in pretraining")
        yield ""
        copies = f"; {t('{copies} are copies', copies=f'{leak.copies:,}')}" if leak.copies else ""
        yield f"{title}: {leak.overlapping:,} ({percent(leak.share)}){copies}."
    yield ""
    yield t("Again: {command}", command=f"`{_command(result)}`")


def _figures(score: Score, evaluation: Evaluation, language: Language) -> Iterator[str]:
    for measure in evaluation.measures[:WIDEST]:
        yield _interval(score, measure)
    if evaluation.baselines:
        yield _verdict(score, evaluation.first, language)


def _verdict(score: Score, first: Measure, language: Language) -> str:
    return "–" if score.comparison is None else short_verdict(score.comparison, first, language)


def _interval(score: Score, measure: Measure) -> str:
    """Return a figure with its interval; a dash where it was not measured."""
    if (found := score.metrics.get(measure.name)) is None:
        return "–"
    value, low, high = (figure(number, measure) for number in (found.value, found.low, found.high))
    return f"{value} [{low}, {high}]"


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
