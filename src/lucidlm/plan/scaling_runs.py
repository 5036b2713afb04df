"""Small pretraining runs as the points of a scaling law: whether they can be compared, and what their curve says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lucidlm.core.amounts import count
from lucidlm.core.errors import InputError
from lucidlm.model.flops import count_parameters, flops_per_token
from lucidlm.plan.config import ScalingConfig
from lucidlm.plan.plan import operations
from lucidlm.plan.scaling import FEWEST, INTERVAL, RESAMPLED, Prediction, ScalingLaw
from lucidlm.report.files import LOSS, read_run

TOKENIZER = "tokenizer.json"

SETTINGS = {
    "context_length": "samples of {} tokens",
    "objective": "the objective {}",
    "mask_rate": "{} of tokens hidden",
}
"""Settings that a loss depends on beside what is learned, and how they are named."""


@dataclass(frozen=True)
class ScalingRun:
    """What a pretraining run spent, and the loss that it reached on all held-out tokens, in nats a token.

    Parameters
    ----------
    parameters: of the model.
    tokens: read in training. flops: operations that this took.
    measured: what its loss was measured on, and how: only losses of the same can be compared.
    """

    directory: Path
    parameters: int
    tokens: int
    flops: float
    loss: float
    measured: dict[str, Any]

    @classmethod
    def read(cls, directory: str | Path) -> ScalingRun:
        """Read a run by the directory that it left.

        Raises
        ------
        InputError: there is no such run, it has not ended, or it was no pretraining.
        """
        run = read_run(directory)
        metrics, config, shape = run.provenance.get("metrics", {}), run.config, run.model
        if shape is None or LOSS not in metrics or "tokens" not in metrics or "context_length" not in config:
            raise InputError(
                "is not of a pretraining run that has ended", where=directory, fix="Pass what --out named there."
            )
        measured = {name: config.get(name) for name in SETTINGS if name != "mask_rate" or not shape.causal}
        measured["data"] = sorted(run.provenance.get("data", {}).values())
        measured["tokenizer"] = run.record.get("files", {}).get(TOKENIZER)
        tokens = metrics["tokens"]
        flops = float(tokens * flops_per_token(shape, config["context_length"]))
        return cls(Path(directory), count_parameters(shape), tokens, flops, metrics[LOSS], measured)


BUDGETS: dict[str, Callable[[ScalingRun], float]] = {
    "FLOPs": lambda run: run.flops,
    "tokens": lambda run: float(run.tokens),
    "parameters": lambda run: float(run.parameters),
    "6 x parameters x tokens": lambda run: 6.0 * run.parameters * run.tokens,
}
"""What runs are compared by. The last one is about the FLOPs of a model of which only the size is known (Kaplan et al. 2020,
arXiv:2001.08361); it is taken of the runs, too, so that all are measured alike."""


@dataclass(frozen=True)
class Scaling:
    """A scaling law and what it rests on.

    Parameters
    ----------
    budget: what runs are compared by, of `BUDGETS`.
    runs: from the smallest budget to the largest.
    law: the curve through all of them.
    target, predicted: a budget, and the loss that it will reach; None: none was asked for.
    check: the loss of the largest budget as the curve through all smaller ones predicts it; None: that was not asked for.
    """

    budget: str
    runs: tuple[ScalingRun, ...]
    law: ScalingLaw
    target: float | None = None
    predicted: Prediction | None = None
    check: Prediction | None = None

    def of(self, run: ScalingRun) -> float:
        """Return the budget of a run."""
        return BUDGETS[self.budget](run)

    @property
    def largest(self) -> float:
        """The largest budget of a run."""
        return self.of(self.runs[-1])

    @property
    def held_out(self) -> tuple[ScalingRun, ...]:
        """The runs of the largest budget, if they checked a curve."""
        return () if self.check is None else tuple(run for run in self.runs if self.of(run) == self.largest)

    @property
    def advice(self) -> tuple[str, ...]:
        """Sentences about what could be better."""
        found = []
        if self.target is not None and self.target > 100 * self.largest:
            found.append(
                f"the budget is {self.target / self.largest:,.0f} times the largest run's: a larger run would help"
            )
        if self.check is None and len({self.of(run) for run in self.runs}) > FEWEST:
            found.append("--hold-out checks the curve by the largest run")
        return tuple(found)

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What all this rests on."""
        return (
            f"intervals: {INTERVAL:.0%} of {RESAMPLED} curves through resampled residuals; they know how far runs lie from "
            "the curve, not whether it goes on",
            "the runs differ in nothing but their budget, and each has the learning rate that suits it",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values, which JSON can hold."""
        return {
            "budget": self.budget,
            "law": self.law.to_dict(),
            "runs": [
                {
                    "directory": str(run.directory),
                    "parameters": run.parameters,
                    "tokens": run.tokens,
                    "flops": run.flops,
                    "loss": run.loss,
                    "curve": self.law.predict(self.of(run)).loss,
                }
                for run in self.runs
            ],
            "target": self.target,
            "predicted": None if self.predicted is None else asdict(self.predicted),
            "held_out": None
            if self.check is None
            else {**asdict(self.check), "reached": [run.loss for run in self.held_out]},
            "advice": list(self.advice),
            "assumptions": list(self.assumptions),
        }

    def rows(self) -> list[tuple[str, str]]:
        """Return what a table of it shows: names and values; parts of what stands above them begin with two spaces."""
        spent = f"{self.written(self.of(self.runs[0]))} to {self.written(self.largest)}"
        rows = [("law", self.law.formula), ("runs", f"{len(self.runs)}, {spent} {self.budget}")]
        for run in self.runs:
            on_curve = self.law.predict(self.of(run)).loss
            rows.append(
                (f"  {run.directory}", f"{self.written(self.of(run))}: {run.loss:.4f} nats, the curve {on_curve:.4f}")
            )
        if self.check is not None:
            rows.append(("largest, held out", f"{self.check} nats predicted"))
            for run in self.held_out:
                rows.append((f"  {run.directory}", f"reached {run.loss:.4f}: {_where(run.loss, self.check)}"))
        if self.predicted is not None and self.target is not None:
            times = f"{self.target / self.largest:,.3g} times the largest run"
            rows.append(("predicted", f"{self.predicted} nats at {self.written(self.target)} {self.budget}, {times}"))
        return rows

    def written(self, budget: float) -> str:
        """Write a budget for people."""
        return count(budget) if self.budget in ("tokens", "parameters") else operations(budget)


def fit_scaling(directories: Sequence[str | Path], how: ScalingConfig) -> Scaling:
    """Put a curve through pretraining runs, by the directories that they left, and predict what `how` asks for.

    Raises
    ------
    InputError: a directory is not of a pretraining run that has ended; there are too few runs or budgets; the losses cannot
        be compared; the runs differ in what the budget does not count.
    """
    if len(directories) < FEWEST:
        raise InputError(
            f"{len(directories)} runs are too few for a curve of three numbers",
            where="RUN",
            fix=f"Make {FEWEST} at least, each of some times the last one's budget.",
        )
    runs = [ScalingRun.read(directory) for directory in directories]
    for run in runs[1:]:
        _require_comparable(runs[0], run)
    budget, target = _asked(how)
    for other, name in (("parameters", "tokens"), ("tokens", "parameters")):
        if budget == name:
            _require_same(runs, other, name)
    of = BUDGETS[budget]
    runs.sort(key=of)
    budgets = sorted({of(run) for run in runs})
    if len(budgets) == 1:
        what = f"all {len(runs)} runs have the same {budget}, {count(budgets[0])}: too few budgets for a curve"
        raise InputError(what, where="RUN", fix=f"Add runs of {FEWEST - 1} other budgets at least.")
    if twice := {run.directory for at, run in enumerate(runs) if any(_same(run, other) for other in runs[:at])}:
        raise InputError("is given twice", where=min(twice), fix="Name each run once.")
    check = None
    if how.hold_out:
        if len(budgets) <= FEWEST:
            what = f"without the largest, {len(budgets) - 1} budgets are left, too few for a curve"
            raise InputError(what, where="--hold-out", fix=f"Add runs: {FEWEST + 1} budgets at least.")
        check = _law([run for run in runs if of(run) < budgets[-1]], of).predict(budgets[-1])
    law = _law(runs, of)
    return Scaling(budget, tuple(runs), law, target, None if target is None else law.predict(target), check)


def _law(runs: Sequence[ScalingRun], of: Callable[[ScalingRun], float]) -> ScalingLaw:
    return ScalingLaw([of(run) for run in runs], [run.loss for run in runs])


def _asked(how: ScalingConfig) -> tuple[str, float | None]:
    """Return what runs are compared by, and the budget that is asked about."""
    if how.flops is not None:
        if how.tokens is not None or how.parameters is not None:
            raise InputError(
                "a budget is FLOPs, or tokens and parameters", where="--flops", fix="Leave out the others, or this."
            )
        return "FLOPs", how.flops
    if how.tokens is not None and how.parameters is not None:
        return "6 x parameters x tokens", 6 * how.parameters * how.tokens
    if how.tokens is not None:
        return "tokens", how.tokens
    return ("FLOPs", None) if how.parameters is None else ("parameters", how.parameters)


def _require_comparable(one: ScalingRun, other: ScalingRun) -> None:
    """Refuse losses that were measured on different tokens or in different ways."""
    for name, words in (("tokenizer", "another tokenizer"), ("data", "other data")):
        if one.measured[name] != other.measured[name]:
            raise InputError(
                f"learned and was judged with {words} than {one.directory}: their losses cannot be compared",
                where=other.directory,
                fix="Make all runs on the same prepared data.",
            )
    for name, words in SETTINGS.items():
        first, second = one.measured.get(name), other.measured.get(name)
        if first != second:
            raise InputError(
                f"has {words.format(second)}, and {one.directory} {words.format(first)}: their losses cannot be compared",
                where=other.directory,
                fix="Make runs that differ in their budget only.",
            )


def _require_same(runs: Sequence[ScalingRun], other: str, name: str) -> None:
    """Refuse runs that differ in `other`, which a budget of `name` does not count."""
    low, high = (pick(runs, key=BUDGETS[other]) for pick in (min, max))
    few, many = BUDGETS[other](low), BUDGETS[other](high)
    if few != many:
        raise InputError(
            f"the runs differ in {other}, too: {low.directory} has {count(few)}, {high.directory} {count(many)}",
            where=f"--{name}",
            fix=f"Pass --{other} as well, or --flops; or runs of the same number of {other}.",
        )


def _same(one: ScalingRun, other: ScalingRun) -> bool:
    return one.directory.resolve() == other.directory.resolve()


def _where(loss: float, predicted: Prediction) -> str:
    if predicted.low <= loss <= predicted.high:
        return "inside the interval"
    return "below the interval" if loss < predicted.low else "above the interval"
