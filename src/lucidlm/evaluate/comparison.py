"""Whether two evaluated models differ: a paired test on the same examples, from the files that `evaluate` wrote.

The test is approximate randomisation. Of more than two models each pair is tested, and the p-values are corrected for
multiple comparisons by Holm's method (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.evaluate.record import EVALUATION, STATISTICS, Evaluation, Measure, read_evaluation, read_statistics
from lucidlm.metrics.statistics import Comparison, compare
from lucidlm.tasks.base.task import tasks

VERDICTS = {1: "better", 0: "no difference shown", -1: "worse"}
"""What `sign` says of the first of two models, in words."""


@dataclass(frozen=True)
class Difference:
    """The difference between two models, `first` minus `second`, on one metric."""

    first: str
    second: str
    measure: Measure
    comparison: Comparison

    def __str__(self) -> str:
        """Say it in a line."""
        return f"{self.first} against {self.second}, {self.measure.name}: {verdict(self.comparison, self.measure)}"


def verdict(comparison: Comparison, measure: Measure) -> str:
    """Return the verdict on the first model, "better", "worse" or "no difference shown", with the figures."""
    found, form = comparison.difference, "+.2f" if measure.percent else "+.4f"
    figures = f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"
    return f"{VERDICTS[sign(comparison, measure)]} ({figures}, p = {comparison.p_value:.2g})"


def sign(comparison: Comparison, measure: Measure) -> int:
    """Return 1 if the first model is significantly better, -1 if it is significantly worse, else 0."""
    if not comparison.shown:
        return 0
    return 1 if (comparison.difference.value > 0) == measure.higher_is_better else -1


def compare_evaluations(
    directories: Sequence[str | Path], metric: str | None = None, seed: int = 0
) -> list[Difference]:
    """Compare every pair of the models evaluated in `directories`.

    Parameters
    ----------
    metric: the metric to compare on; None: the task's first.
    seed: of approximate randomisation.

    Raises
    ------
    InputError: there are fewer than two evaluations, or they differ in task or data; a file is missing or damaged.
    """
    if len(directories) < 2:
        raise InputError("a comparison takes two evaluations or more", fix="Pass the folders that hold eval.json.")
    found = [(Path(directory), read_evaluation(Path(directory) / EVALUATION)) for directory in directories]
    _, reference = found[0]
    for directory, evaluation in found[1:]:
        if (evaluation.task, evaluation.data_sha256) != (reference.task, reference.data_sha256):
            raise InputError(
                f"was judged on {evaluation.task}: {evaluation.data}, {directories[0]} on {reference.task}: "
                f"{reference.data}, and those are not the same examples",
                where=directory / EVALUATION,
                fix="Evaluate both on the same data.",
            )
    measure = _measure(reference, metric, found[0][0])
    value = {known.name: known.value for known in tasks.get(reference.task).metrics(())}.get(measure.name)
    if value is None:
        raise InputError(f"this version knows no metric {measure.name!r}", where=found[0][0] / EVALUATION)
    statistics = []
    for directory, evaluation in found:
        rows = read_statistics(directory).get(measure.name)
        stated = evaluation.model.metrics.get(measure.name)
        if (
            rows is None
            or stated is None
            or len(rows) != evaluation.examples
            or not np.isclose(value(rows.sum(0)), stated.value)
        ):
            what = f"does not agree with {EVALUATION}"
            raise InputError(what, where=directory / STATISTICS, fix="Run `lucidlm evaluate` again.")
        statistics.append(rows)
    names = _names([directory for directory, _ in found])
    pairs = list(combinations(range(len(found)), 2))
    tests = [_paired(value, measure, statistics[a], statistics[b], seed, directories[b]) for a, b in pairs]
    raised = holm([test.p_value for test in tests])
    return [
        Difference(names[a], names[b], measure, test.model_copy(update={"p_value": p}))
        for (a, b), test, p in zip(pairs, tests, raised, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple comparisons (Holm 1979, "A Simple Sequentially Rejective Test")."""
    raised, least = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        least = raised[index] = max(least, min(1.0, (len(p_values) - rank) * p_values[index]))
    return raised


def _paired(
    value: Callable[[np.ndarray], np.ndarray],
    measure: Measure,
    first: np.ndarray,
    second: np.ndarray,
    seed: int,
    where: str | Path,
) -> Comparison:
    if measure.name == "perplexity" and not np.array_equal(first[:, 1], second[:, 1]):
        what = "the models cut the texts into different tokens, so their perplexities are not of the same thing"
        raise InputError(what, where=where, fix="Compare by another metric: --metric.")
    if first.shape != second.shape:
        raise InputError("the models know different labels", where=where, fix="Compare models of the same labels.")
    return compare(value, first, second, seed=seed)


def _measure(evaluation: Evaluation, metric: str | None, directory: Path) -> Measure:
    if metric is None:
        return evaluation.first
    for measure in evaluation.measures:
        if measure.name == metric:
            return measure
    names = ", ".join(measure.name for measure in evaluation.measures)
    raise InputError(f"has no metric {metric!r}", where=directory / EVALUATION, fix=f"Choose one of: {names}.")


def _names(directories: Sequence[Path]) -> list[str]:
    """Return the folders' names, or their full paths where names are not unique."""
    names = [directory.resolve().name for directory in directories]
    return names if len(set(names)) == len(names) else [str(directory) for directory in directories]
