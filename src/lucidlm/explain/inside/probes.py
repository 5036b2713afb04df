"""Linear probes with control tasks (Hewitt and Liang 2019, arXiv:1909.03368): what a layer's states say of a label, beyond
what a probe could learn by heart.

In a control task each word has a label of its own, drawn at random: it can be learnt from what the word is, and from
nothing else. Selectivity is the accuracy for the labels less that for the control; where it is small, a high accuracy
shows what the probe can do, and not what the states hold.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import LabelledText, TaggedSentence
from lucidlm.data.split import place_of
from lucidlm.explain.inside.lens import layer_names
from lucidlm.explain.inside.states import text_states, word_states
from lucidlm.explain.inside.view import Grid, View, mean, shown
from lucidlm.metrics.statistics import Comparison, Estimate, compare, ratio
from lucidlm.tasks.base.task import read_examples
from lucidlm.tasks.text_classification import TextClassification
from lucidlm.tasks.token_tagging import TokenTagging

HELD_OUT = 0.3
"""Share of the texts that probes are judged on."""
LIMIT = 2000
"""Most texts or sentences that are read, drawn at random."""
ITERATIONS = 200
FEWEST = 20

Probed = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""States (layers + 1, n, D), labels, the words that control labels go by, and which are held out, each (n,)."""


def probe(
    loaded: LoadedModel,
    data: str,
    *,
    words: bool = False,
    fields: dict[str, str] | None = None,
    limit: int = LIMIT,
    seed: int = 0,
) -> View:
    """Probe every layer for the labels of texts, or of words.

    Parameters
    ----------
    data: labelled texts; with `words`, sentences whose words have tags (as for token-tagging).
    words: probe each word's state, and give each word a control label; else a text's, with the control label of its first
        word.

    Raises
    ------
    InputError: the data cannot be read, or are too few, or have one label only.
    """
    make = _of_words if words else _of_texts
    states, labels, keys, held_out = make(loaded, data, fields, limit, seed)
    names, counts = np.unique(labels, return_counts=True)
    if len(names) < 2 or min((~held_out).sum(), held_out.sum()) < FEWEST:
        what = f"holds {len(labels):,} examples of {len(names)} {'label' if len(names) == 1 else 'labels'}"
        raise InputError(what, where=data, fix=f"Pass at least {3 * FEWEST} of two labels or more.")
    control = _control(labels, keys, seed)
    results: list[tuple[Comparison, Estimate, Estimate]] = []
    for layer in track(list(states), "probing", len(states), "layers"):
        right, by_heart = (_right(layer, target, held_out) for target in (labels, control))
        results.append((compare(ratio, right, by_heart), mean(right[:, 0]), mean(by_heart[:, 0])))
    return _view(loaded, data, results, words, names, counts, held_out, seed)


def _view(
    loaded: LoadedModel,
    data: str,
    results: list[tuple[Comparison, Estimate, Estimate]],
    words: bool,
    names: np.ndarray,
    counts: np.ndarray,
    held_out: np.ndarray,
    seed: int,
) -> View:
    rows = layer_names(len(results) - 1)
    table = np.array([[right.value, control.value, found.difference.value] for found, right, control in results])
    texts = tuple(tuple(shown(one) for one in (right, control, found.difference)) for found, right, control in results)
    grid = Grid("accuracy on held-out data", rows, ("labels", "control task", "selectivity"), table, texts, (0, 1))
    best = max(range(len(results)), key=lambda index: results[index][1].value)
    found, right, control = results[best]
    majority = float(counts.max() / counts.sum())
    words_ = "more than" if found.difference.low > 0 else "NOT SHOWN to be more than"
    unit = "words" if words else "texts"
    verdict = (
        f"The labels are read best from {rows[best]}: accuracy {shown(right)} on {int(held_out.sum()):,} held-out {unit} "
        f"(always {str(names[counts.argmax()])!r}: {majority:.3f}).",
        f"That is {words_} what a probe learns by heart: selectivity {shown(found.difference)}, the control task reaching "
        f"{shown(control)} (95 % intervals over {unit}; "
        + ("each word" if words else "each first word of a text")
        + f" has a control label drawn at random, seed {seed}). That states hold a label does not say that the model uses "
        "it.",
    )
    layers = [
        {
            "layer": row,
            "accuracy": right.model_dump(),
            "control": control.model_dump(),
            "selectivity": found.difference.model_dump(),
            "p_value": found.p_value,
        }
        for row, (found, right, control) in zip(rows, results, strict=True)
    ]
    figures: dict[str, Any] = {"layers": layers, "best": rows[best], "majority": majority}
    return View("probe", f"Probes of {loaded.source or 'a model'} for {data}", (grid,), verdict, figures)


def _of_texts(loaded: LoadedModel, data: str, fields: dict[str, str] | None, limit: int, seed: int) -> Probed:
    task = TextClassification("probe", "labelled texts")
    examples: list[LabelledText] = _some(read_examples(task, data, fields=fields), limit, seed)
    states = text_states(loaded, [one.text for one in examples], "reading")
    keys = [_first_word(one.text) for one in examples]
    held_out = [place_of(one.text) < HELD_OUT for one in examples]
    return states, np.array([one.label for one in examples]), np.array(keys), np.array(held_out)


def _of_words(loaded: LoadedModel, data: str, fields: dict[str, str] | None, limit: int, seed: int) -> Probed:
    task = TokenTagging("probe", "tagged words")
    sentences: list[TaggedSentence] = _some(read_examples(task, data, fields=fields), limit, seed)
    found = word_states(loaded, [one.tokens for one in sentences], "reading")
    kept = [states.shape[1] for states in found]
    labels = [tag for one, count in zip(sentences, kept, strict=True) for tag in one.tags[:count]]
    keys = [word for one, count in zip(sentences, kept, strict=True) for word in one.tokens[:count]]
    held_out = [
        place_of(" ".join(one.tokens)) < HELD_OUT
        for one, count in zip(sentences, kept, strict=True)
        for _ in range(count)
    ]
    return np.concatenate(found, axis=1), np.array(labels), np.array(keys), np.array(held_out)


def _some(examples: list[Any], limit: int, seed: int) -> list[Any]:
    order = numpy_generator(seed, "probed examples").permutation(len(examples))[:limit]
    return [examples[index] for index in sorted(order)]


def _first_word(text: str) -> str:
    """Return the first word of a text, or its first character where words are not parted by spaces."""
    word = text.split()[0].lower()
    return word if word.isascii() else word[0]


def _control(labels: np.ndarray, keys: np.ndarray, seed: int) -> np.ndarray:
    """Return a label for each example that depends on its key alone, drawn as the labels are distributed."""
    draw = numpy_generator(seed, "control task")
    chosen = {key: labels[draw.integers(len(labels))] for key in np.unique(keys)}
    return np.array([chosen[key] for key in keys])


def _right(states: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return statistics (held out, 2) of whether a probe, learnt from the others, gets each held-out label right."""
    seen = np.unique(labels[~held_out])
    if len(seen) == 1:
        predicted = np.repeat(seen, held_out.sum())
    else:
        scaler = StandardScaler().fit(states[~held_out])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is stopped early is a probe too
            found = LogisticRegression(max_iter=ITERATIONS).fit(scaler.transform(states[~held_out]), labels[~held_out])
        predicted = found.predict(scaler.transform(states[held_out]))
    right = np.asarray(predicted == labels[held_out], dtype=np.float64)
    return np.stack([right, np.ones_like(right)], axis=1)
