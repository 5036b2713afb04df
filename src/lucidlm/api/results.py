"""What the functions return: data that prints as one line, becomes a dictionary or a data frame, and shows in notebooks."""

from __future__ import annotations

import signal
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lucidlm.api import html
from lucidlm.core.extras import require_package
from lucidlm.data.corpus.cards import DataCard
from lucidlm.evaluate.comparison import VERDICTS, Difference, sign
from lucidlm.evaluate.record import Evaluation, Score
from lucidlm.report.label_curve import mean, summarise
from lucidlm.train.label_curve.record import BASELINE, LabelCurve
from lucidlm.train.loop import Outcome, describe_outcome

if TYPE_CHECKING:
    import pandas


class Result(ABC):
    """What all results have."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, which JSON can hold."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """Return what a table of it shows, a dictionary a row."""

    def to_pandas(self) -> pandas.DataFrame:
        """Return `rows` as a data frame.

        Raises
        ------
        InputError: pandas is not installed.
        """
        require_package("pandas", where="to_pandas", instead="use rows() or to_dict()")
        import pandas

        return pandas.DataFrame(self.rows())

    @abstractmethod
    def __repr__(self) -> str: ...

    def _repr_html_(self) -> str:
        return html.table(self.rows(), repr(self))


@dataclass(frozen=True, repr=False)
class PreparedData(Result):
    """Prepared data: where they are, and their card."""

    path: Path
    card: DataCard

    def to_dict(self) -> dict[str, Any]:
        """Return the data card."""
        return self.card.model_dump(mode="json")

    def rows(self) -> list[dict[str, Any]]:
        """Return the size of each part."""
        return [
            {"part": name, "documents": part.documents, "tokens": part.tokens, "bytes": part.bytes}
            for name, part in self.card.splits.items()
        ]

    def __repr__(self) -> str:
        tokens = sum(part.tokens for part in self.card.splits.values())
        return f"PreparedData({str(self.path)!r}, {tokens:,} tokens, vocabulary of {self.card.tokenizer.vocab_size:,})"


@dataclass(frozen=True, repr=False)
class TrainedModel(Result):
    """How a training run ended: where the model is, what it came to, and how long it took."""

    path: Path
    outcome: Outcome
    report: Path

    @property
    def figures(self) -> dict[str, float]:
        """What was measured on held-out data, by name."""
        return self.outcome.evaluation

    @property
    def seconds(self) -> float:
        """How long it took, all included."""
        return self.outcome.state.wall

    def to_dict(self) -> dict[str, Any]:
        """Return path, steps, tokens, seconds and figures."""
        return {"path": str(self.path), **describe_outcome(self.outcome), "stopped_by": self.outcome.stopped_by}

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures, one a row."""
        return [{"figure": name.replace("_", " "), "value": value} for name, value in self.figures.items()]

    def __repr__(self) -> str:
        figures = "".join(f", {row['figure']} {row['value']:.4f}" for row in self.rows())
        took = f"{self.outcome.state.step:,} steps, {self.seconds:,.0f} s"
        stopped = self.outcome.stopped_by
        end = "" if stopped is None else f"; stopped by {signal.Signals(stopped).name}, resume=True goes on"
        return f"TrainedModel({str(self.path)!r}{figures}; {took}{end})"

    def _repr_html_(self) -> str:
        return html.table(self.rows(), repr(self)) + html.link(self.report, "report")


@dataclass(frozen=True, repr=False)
class EvaluationResult(Result):
    """How good a model is, beside its baselines; `evaluation` is all that eval.json holds."""

    evaluation: Evaluation
    report: Path

    @property
    def figures(self) -> dict[str, float]:
        """The model's figures, by metric."""
        return {name: found.value for name, found in self.evaluation.model.metrics.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return what eval.json holds."""
        return self.evaluation.model_dump(mode="json")

    def rows(self) -> list[dict[str, Any]]:
        """Return each figure of the model and of the baselines with its 95 % interval."""
        return [
            {"name": score.name, "metric": metric, "value": found.value, "low": found.low, "high": found.high}
            for score in (self.evaluation.model, *self.evaluation.baselines)
            for metric, found in score.metrics.items()
        ]

    def __repr__(self) -> str:
        found, first = self.evaluation, self.evaluation.first.name
        figure = found.model.metrics[first]
        interval = f"{figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"
        return (
            f"EvaluationResult({found.model.name!r}, {found.task} on {found.data}: {first} {interval}, "
            f"{found.examples:,} examples)"
        )

    def _repr_html_(self) -> str:
        names = [measure.name for measure in self.evaluation.measures]
        scores = (self.evaluation.model, *self.evaluation.baselines)
        rows = [{"": score.name, **{name: _interval(score, name) for name in names}} for score in scores]
        seen = [f"leakage: {leak}" for leak in self.evaluation.leakage if leak.overlapping or leak.copies]
        return html.table(rows, repr(self)) + html.paragraphs(seen) + html.link(self.report, "report")


@dataclass(frozen=True, repr=False)
class HeldOutResult(Result):
    """What a language model's loss is on a part of prepared data."""

    model: str
    found: dict[str, Any]

    @property
    def figures(self) -> dict[str, float]:
        """What was measured, by name."""
        return {name: value for name, value in self.found.items() if isinstance(value, float)}

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, and what they were measured on."""
        return {"model": self.model, **self.found}

    def rows(self) -> list[dict[str, Any]]:
        """Return all of it as one row."""
        return [self.to_dict()]

    def __repr__(self) -> str:
        figures = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in self.figures.items())
        return f"HeldOutResult({self.model!r} on {self.found['data']} ({self.found['part']}): {figures})"


@dataclass(frozen=True, repr=False)
class ComparisonResult(Result):
    """How models differ, each two of them."""

    differences: list[Difference]

    def to_dict(self) -> dict[str, Any]:
        """Return the differences, one dictionary each."""
        return {"differences": self.rows()}

    def rows(self) -> list[dict[str, Any]]:
        """Return the difference of each two models, its interval, the p-value, and what follows for the first one."""
        return [
            {
                "first": one.first,
                "second": one.second,
                "metric": one.measure.name,
                "difference": one.comparison.difference.value,
                "low": one.comparison.difference.low,
                "high": one.comparison.difference.high,
                "p_value": one.comparison.p_value,
                "verdict": VERDICTS[sign(one.comparison, one.measure)],
            }
            for one in self.differences
        ]

    def __repr__(self) -> str:
        return f"ComparisonResult({'; '.join(map(str, self.differences))})"


@dataclass(frozen=True, repr=False)
class LabelCurveResult(Result):
    """How good each method is by the number of labelled examples."""

    path: Path
    curve: LabelCurve
    report: Path
    stopped_by: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what curve.json holds."""
        return self.curve.model_dump(mode="json")

    def rows(self) -> list[dict[str, Any]]:
        """Return the measurements, one a row."""
        return [point.model_dump() for point in self.curve.points]

    def __repr__(self) -> str:
        seeds = len({point.seed for point in self.curve.points})
        shots = ", ".join(f"{number:,}" for number, _ in summarise(self.curve))
        end = "" if self.stopped_by is None else f"; stopped by {signal.Signals(self.stopped_by).name}"
        return f"LabelCurveResult({str(self.path)!r}, {self.curve.metric} at {shots} shots, {seeds} seeds{end})"

    def _repr_html_(self) -> str:
        lines: dict[str, list[tuple[float, float]]] = {}
        rows = []
        for shots, by_method in summarise(self.curve):
            row: dict[str, Any] = {"shots": shots}
            for method, points in by_method.items():
                if points:
                    name = self.curve.baseline or method if method == BASELINE else method
                    row[name] = mean([point.value for point in points])
                    lines.setdefault(name, []).append((shots, row[name]))
            rows.append(row)
        picture = html.curve(lines, f"{self.curve.metric} by number of labelled examples")
        return html.table(rows, repr(self)) + picture + html.link(self.report, "report")


def _interval(score: Score, metric: str) -> str:
    found = score.metrics.get(metric)
    return "–" if found is None else f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
