"""Where a classifier may have it from: the training examples whose states are nearest to a text's.

What is near in the last layer is what the head cannot tell apart well (Papernot and McDaniel 2018, arXiv:1803.04765). It is
no proof of influence: the model may owe its answer to examples that are far away.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.io import sha256
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import LabelledText
from lucidlm.explain.inside.reading import read
from lucidlm.explain.inside.states import text_states
from lucidlm.explain.inside.view import Grid, View
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tasks.base.task import read_examples, tasks
from lucidlm.tasks.text_classification import TextClassification

COUNT = 10
DRAWS = 2000
SHOWN = 100
"""Characters of an example that are shown."""


@dataclass(frozen=True)
class Near:
    """A training example, its cosine similarity with the text, and where it was read."""

    text: str
    label: str
    similarity: float
    where: str


def nearest(
    loaded: LoadedModel,
    text: str,
    data: str,
    *,
    count: int = COUNT,
    fields: dict[str, str] | None = None,
    seed: int = 0,
) -> View:
    """Show the examples of a labelled source whose last states are nearest to that of a text, by cosine.

    Their share with the label that is predicted is held against that of as many examples drawn at random.

    Raises
    ------
    InputError: the model is no classifier of texts, or the data cannot be read or are too few.
    """
    reading = read(loaded, text)
    if not isinstance(reading.model, SequenceClassifier):
        raise InputError(
            "is no classifier: it has no labelled training examples",
            where=loaded.source,
            fix="Pass a classifier of texts.",
        )
    task = _task(loaded)
    examples: list[LabelledText] = read_examples(task, data, fields=fields)
    if not 1 <= count < len(examples):
        fix = f"Choose 1 to {len(examples) - 1}."
        raise InputError(f"is {count} of {len(examples):,} examples", where="--count", fix=fix)
    names = task.names(example.label for example in examples)
    states = text_states(loaded, [text, *(example.text for example in examples)], "reading")[-1].astype(np.float64)
    states /= np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-12)
    similarity = states[1:] @ states[0]
    order = np.argsort(-similarity, kind="stable")[:count]
    found = [
        Near(one.text, names[one.label], float(similarity[index]), one.where)
        for index in order
        for one in [examples[index]]
    ]
    predicted = TextClassifier.of(loaded)(text).label
    labels = np.array([names[example.label] == predicted for example in examples])
    agree, random = float(labels[order].mean()), _random_shares(labels, count, seed)
    return _view(loaded, text, data, found, predicted, agree, random, float(np.median(similarity)), len(examples), seed)


def _view(
    loaded: LoadedModel,
    text: str,
    data: str,
    found: list[Near],
    predicted: str,
    agree: float,
    random: np.ndarray,
    median: float,
    examples: int,
    seed: int,
) -> View:
    low, high = np.quantile(random, [0.025, 0.975])
    p_value = float((1 + (random >= agree - 1e-12).sum()) / (1 + len(random)))
    words = "more than" if p_value < 0.05 else "NOT SHOWN to be more than"
    named = loaded.record["provenance"].get("data")
    card = sha256(data) if Path(data).is_file() else None
    trained = (
        "the file that the model's record names"
        if named == data
        else f"the model's record names {named!r}"
        if named
        else "the model's record names no data"
    )
    same = sum(one.text.split() == text.split() for one in found)
    verdict = (
        f"{100 * agree:.0f} % of the {len(found)} nearest of {examples:,} examples are {predicted!r}, as is predicted: "
        f"{words} examples drawn at random, {100 * random.mean():.0f} % [{100 * low:.0f}, {100 * high:.0f}] "
        f"({len(random):,} draws, seed {seed}, p = {p_value:.4f}).",
        f"Data: {data}"
        + (f", SHA-256 {card[:12]}…" if card else "")
        + f" ({trained})."
        + (f" {same} of them is the text itself." if same else ""),
        f"Cosine similarity {found[0].similarity:.3f} to {found[-1].similarity:.3f}, the median example's {median:.3f}. "
        "Near is what the model takes for alike, and not what it learnt the answer from.",
    )
    rows = tuple(f"{one.label}: {one.text[:SHOWN]}{'…' if len(one.text) > SHOWN else ''}" for one in found)
    values = np.array([[one.similarity] for one in found])
    grid = Grid("the nearest training examples", rows, ("cosine",), values, None, (min(0.0, float(values.min())), 1.0))
    figures: dict[str, Any] = {
        "predicted": predicted,
        "agree": agree,
        "random": {"mean": float(random.mean()), "low": float(low), "high": float(high)},
        "p_value": p_value,
        "data": {"source": data, "sha256": card, "recorded": named},
        "nearest": [one.__dict__ for one in found],
        "median_similarity": median,
    }
    return View("nearest", f"Nearest training examples: {text}", (grid,), verdict, figures)


def _task(loaded: LoadedModel) -> TextClassification:
    """Return the task that the classifier was tuned for, which knows what its labels are called."""
    name = loaded.record["provenance"].get("task")
    found = tasks.get(name) if name in tasks else None
    return found if isinstance(found, TextClassification) else TextClassification("nearest", "labelled texts")


def _random_shares(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Return the shares of true `labels` (n,) among `count` drawn without replacement, `DRAWS` times."""
    draw, right = numpy_generator(seed, "random examples"), int(labels.sum())
    return draw.hypergeometric(right, len(labels) - right, count, DRAWS) / count
