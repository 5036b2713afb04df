"""Test-set leakage: whether evaluation examples were in the fine-tuning or pretraining data.

An example counts as seen if at least half of the n-grams of one of its texts (eight words; thirteen characters in scripts
without spaces between words) occur in the training texts; exact copies are counted separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.record import RECORD
from lucidlm.core.io import read_json, sha256
from lucidlm.core.progress import track
from lucidlm.data.cleaning.overlap import SKETCH, NgramSketch, ngram_hashes
from lucidlm.data.corpus.cards import CARD
from lucidlm.tasks.base.task import Task

THRESHOLD = 0.5
NAMED = 5
"""How many of the overlapping examples are listed."""
EXCERPT = 120


class SeenExample(BaseModel):
    """An example that overlaps with training texts: its location, first characters and share of n-grams found."""

    where: str
    text: str
    share: float


class Leak(BaseModel):
    """How many evaluation examples were found in the training texts.

    Parameters
    ----------
    against: "fine-tuning" or "pretraining".
    checked: whether the training texts were available; if not, `reason` says why.
    overlapping, share: number and share of the examples with at least half of their n-grams in the training texts.
    copies: exact copies of training examples; counted for fine-tuning only.
    named: the examples that overlap most.
    """

    against: str
    checked: bool = True
    reason: str = ""
    examples: int = 0
    overlapping: int = 0
    share: float = 0.0
    copies: int = 0
    named: list[SeenExample] = []

    def __str__(self) -> str:
        """Say it in a line."""
        if not self.checked:
            return f"{self.against} data: not checked: {self.reason}"
        line = (
            f"{self.against} data: {self.overlapping:,} of {self.examples:,} examples ({self.share:.1%}) share wording"
        )
        return line + (f", {self.copies:,} are copies" if self.copies else "")


def fine_tuning_leak(task: Task[Any, Any], examples: Sequence[Any], training: Sequence[Any]) -> Leak:
    """Look for `examples` among the training examples."""
    sketch = NgramSketch.of(text for example in training for text in task.texts(example))
    known = {task.key(example) for example in training}
    copies = [task.key(example) in known for example in examples]
    return _leak("fine-tuning", task, examples, [sketch], copies)


def pretraining_leak(task: Task[Any, Any], examples: Sequence[Any], loaded: LoadedModel) -> Leak:
    """Look for `examples` in the pretraining data of a model or of its base model."""
    sketches, reason = pretraining_sketches(loaded)
    if not sketches:
        return Leak(against="pretraining", checked=False, reason=reason)
    return _leak("pretraining", task, examples, sketches, [False] * len(examples))


def pretraining_sketches(loaded: LoadedModel) -> tuple[list[NgramSketch], str]:
    """Return the n-gram sketches of a model's pretraining data; if there are none, an empty list and the reason.

    They are looked for in the model's directory, in its base model's, and in the prepared data that these name, which
    must not have changed since.
    """
    directory, provenance = Path(loaded.source), loaded.record["provenance"]
    seen: set[Path] = set()
    while True:
        if (directory / SKETCH).exists():
            return [NgramSketch.load(directory)], ""
        if directory in seen or not provenance:
            return [], f"no sketch of the data in {directory}, nor a record of what it was trained on"
        seen.add(directory)
        if isinstance(data := provenance.get("data"), dict):
            break
        if not isinstance(base := provenance.get("config", {}).get("model"), str):
            return [], f"{directory} does not say what it was trained on"
        directory = Path(base)
        provenance = read_json(directory / RECORD).get("provenance") if (directory / RECORD).exists() else None
    sketches = []
    for place, checksum in data.items():
        card = Path(place) / CARD
        if not (Path(place) / SKETCH).exists():
            return [], f"no sketch: {Path(place) / SKETCH} is not there"
        if not card.exists() or sha256(card) != checksum:
            return [], f"no sketch: {place} is not what the model was trained on any more"
        sketches.append(NgramSketch.load(place))
    return sketches, "" if sketches else f"{directory} names no data"


def _leak(
    against: str, task: Task[Any, Any], examples: Sequence[Any], sketches: Sequence[NgramSketch], copies: Sequence[bool]
) -> Leak:
    shares = [
        _share(task.texts(example), sketches)
        for example in track(examples, f"looking in {against} data", len(examples), "examples")
    ]
    order = sorted(range(len(examples)), key=lambda index: -shares[index])
    hits = [index for index in order if shares[index] >= THRESHOLD]
    named = [
        SeenExample(
            where=examples[index].where, text=task.key(examples[index])[:EXCERPT], share=round(shares[index], 4)
        )
        for index in hits[:NAMED]
    ]
    return Leak(
        against=against,
        examples=len(examples),
        overlapping=len(hits),
        share=len(hits) / max(1, len(examples)),
        copies=sum(copies),
        named=named,
    )


def _share(texts: Sequence[str], sketches: Sequence[NgramSketch]) -> float:
    """Return the largest share of n-grams found, over texts and sketches; short texts count only if all are, and joined."""
    long = [text for text in texts if len(ngram_hashes(text)) > 1]
    return max(sketch.shared(text) for text in long or ["\n".join(texts)] for sketch in sketches)
