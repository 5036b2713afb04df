"""Read the files of a run for the report. Missing files give None or empty values; damaged ones are errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from lucidlm.checkpoint.record import RECORD
from lucidlm.core.config import CONFIG, describe, read_yaml
from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json, sha256
from lucidlm.data.corpus.cards import CARD, DataCard
from lucidlm.evaluate.record import EVALUATION, PREDICTIONS, Evaluation, read_evaluation
from lucidlm.model.config import ModelConfig
from lucidlm.train.label_curve.record import CURVE, LabelCurve, read_curve
from lucidlm.train.metrics_log import METRICS

SAMPLES = "samples.jsonl"
REPORT = "report.html"
"""What the page is called, in the directory that it is about."""
LOSS = "validation_loss"

RunKind = Literal["language", "tuned"]
MetricsRow = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The contents of a run's directory.

    Parameters
    ----------
    steps, evaluations, events: the lines of metrics.jsonl for training steps, for evaluations during training, and for
        loss spikes and the roll-backs that they led to.
    config: the run's configuration file.
    record: lucidlm.json; empty until the run is complete.
    cards: data cards of the training data by SHA-256, if they are still there and unchanged.
    evaluation: eval.json, if the model was evaluated.
    predictions, samples: the lines of predictions.jsonl and samples.jsonl.
    curve: curve.json, if labels were counted.
    """

    directory: Path
    steps: list[MetricsRow]
    evaluations: list[MetricsRow]
    events: list[MetricsRow]
    config: MetricsRow
    record: MetricsRow
    cards: dict[str, DataCard]
    evaluation: Evaluation | None
    predictions: list[MetricsRow]
    samples: list[MetricsRow]
    curve: LabelCurve | None

    @property
    def name(self) -> str:
        return self.directory.resolve().name

    @property
    def kind(self) -> RunKind:
        """Whether this is pretraining or fine-tuning, from the record or, before there is one, from settings and metrics."""
        if self.record:
            tuned = self.record.get("kind") != "language" or "task" in self.provenance.get("config", {})
        else:
            tuned = "task" in self.config or self.evaluation is not None or bool(self.validated)
        return "tuned" if tuned else "language"

    @property
    def validated(self) -> list[str]:
        """The names of the validation metrics other than the loss."""
        names = dict.fromkeys(name for row in self.evaluations for name in row)
        return [name.removeprefix("validation_") for name in names if name.startswith("validation_") and name != LOSS]

    @property
    def provenance(self) -> MetricsRow:
        return self.record.get("provenance", {})

    @property
    def model(self) -> ModelConfig | None:
        """The shape of the model, once the run is complete."""
        return ModelConfig.parse(self.record["model"], self.directory / RECORD) if "model" in self.record else None

    def latest(self, key: str) -> float | None:
        """Return a metric's final value: from the record, or else the last one logged."""
        figures = self.provenance.get("metrics", {})
        return figures.get(key, next((row[key] for row in reversed(self.evaluations + self.steps) if key in row), None))

    @property
    def seconds(self) -> float | None:
        """How long the run took, including evaluation and compilation where known."""
        return self.latest("wall_seconds") or self.latest("seconds")


def read_run(directory: str | Path) -> Run:
    """Read a run's directory.

    Raises
    ------
    InputError: there is no such directory, it has none of a run's files, or one of them is damaged (file:line named).
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise InputError("there is no such directory", where=directory, fix="Pass what --out named.")
    if not any((directory / name).exists() for name in (METRICS, RECORD, EVALUATION, CONFIG)):
        raise InputError(
            f"holds no run (none of {METRICS}, {RECORD}, {EVALUATION})",
            where=directory,
            fix="Pass what --out named when the model was trained.",
        )
    rows = _read_lines(directory / METRICS, ("step",))
    record = read_json(directory / RECORD) if (directory / RECORD).exists() else {}
    return Run(
        directory=directory,
        steps=[row for row in rows if "train_loss" in row],
        evaluations=[row for row in rows if "train_loss" not in row and "event" not in row],
        events=[row for row in rows if "event" in row],
        config=read_yaml(directory / CONFIG) if (directory / CONFIG).exists() else {},
        record=record,
        cards=_read_cards(record.get("provenance", {}).get("data")),
        evaluation=read_evaluation(directory / EVALUATION) if (directory / EVALUATION).exists() else None,
        predictions=_read_lines(directory / PREDICTIONS, ("where",)),
        samples=_read_lines(directory / SAMPLES, ("prompt", "text")),
        curve=read_curve(directory / CURVE) if (directory / CURVE).exists() else None,
    )


def _read_lines(path: Path, needed: Sequence[str]) -> list[MetricsRow]:
    """Read JSON lines; an incomplete last line, as an interrupted run leaves it, is skipped."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            if not line.endswith(b"\n"):
                break
            raise InputError(
                f"is not valid JSON ({error})", where=f"{path}:{number}", fix="Remove the line if the rest is sound."
            ) from None
        missing = [name for name in needed if name not in row] if isinstance(row, dict) else needed
        if missing:
            raise InputError(f"lacks {', '.join(missing)}", where=f"{path}:{number}", fix="Remove the line.")
        rows.append(row)
    return rows


def _read_cards(data: Any) -> dict[str, DataCard]:
    """Read the data cards of prepared directories, given with the SHA-256 that each had at training time."""
    cards = {}
    for directory, digest in data.items() if isinstance(data, dict) else ():
        path = Path(directory) / CARD
        # A card that has changed describes other data than the model was trained on.
        if path.exists() and sha256(path) == digest:
            try:
                cards[digest] = DataCard.model_validate(read_json(path))
            except ValidationError as error:
                raise InputError(f"is of another version ({describe(error)})", where=path) from None
    return cards
