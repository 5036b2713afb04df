"""Classifiers as guards: texts pass while the probability of a label is on the right side of a bound."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from lucidlm.checkpoint.load import load_model
from lucidlm.control.config import GuardRule
from lucidlm.core.devices import choose_compute
from lucidlm.core.errors import InputError, LucidError
from lucidlm.inference.guard import Guard
from lucidlm.model.heads import SequenceClassifier
from lucidlm.predict.classifier import BaseTextClassifier, TextClassifier
from lucidlm.predict.multi_label_classifier import MultiLabelClassifier

CHARACTERS = 8
"""Of a token, by which the length of a window is first guessed: tokens have about four in English, and fewer elsewhere."""

SPACE = re.compile(r"\s")


class ClassifierGuard(Guard):
    """Lets texts pass by what classifiers say of them.

    Of a text that a classifier cannot read at once it reads windows that share a half, and the worst of them counts; of
    one that goes on only those with something new in them.

    Parameters
    ----------
    judges: classifiers, and the rules that each of them decides, all of which have to hold.
    """

    def __init__(self, judges: Sequence[tuple[BaseTextClassifier[Any], Sequence[GuardRule]]]) -> None:
        self._judges = judges

    def refusals(self, texts: Sequence[tuple[str, int]]) -> list[str | None]:
        found: list[str | None] = [None] * len(texts)
        for classifier, rules in self._judges:
            try:
                read = [(place, part) for place, one in enumerate(texts) for part in windows(*one, classifier)]
                answers = classifier([part for _, part in read]) if read else []
            except Exception as error:  # whatever it is, nothing passes
                what = f"could not judge a text, which is not let through ({type(error).__name__}: {error})"
                raise LucidError(what, where=f"the guard {rules[0]}") from error
            for (place, _), answer in zip(read, answers, strict=True):
                for rule in rules:
                    probability = answer.probabilities[answer.labels.index(rule.label)]
                    if not rule.passes(probability):
                        found[place] = f"{rule}: the probability of {rule.label} is {probability:.3f}"
        return found


def windows(text: str, passed: int, classifier: BaseTextClassifier[Any]) -> list[str]:
    """Return what of a text a classifier has to read: all of it if it fits, else windows of it that fit.

    Any stretch that is a little shorter than half a window, and not all of which has passed, is whole in one of them.

    Parameters
    ----------
    passed: how many of its first characters have passed before.
    """
    if not text[passed:].strip():
        return []
    half = CHARACTERS * classifier.max_tokens // 2
    while True:
        edges = _edges(text, passed, half)
        found = [text[start:end].strip() for start, end in zip(edges[2:], edges, strict=False)] or [text.strip()]
        if half == 1 or all(len(ids) <= classifier.max_tokens for ids in classifier.encode(found)):
            return [part for part in found if part]
        half = max(1, half * 3 // 4)


def _edges(text: str, passed: int, half: int) -> list[int]:
    """Return where windows begin and end, from the end of the text on, each at the second edge after the other.

    An edge is between words if there is a space nearby.
    """
    edges = [len(text)]
    while edges[-1] > 0 and (len(edges) < 3 or edges[-1] > passed - half):
        edge = max(0, len(text) - len(edges) * half)
        space = SPACE.search(text, edge, edge + half // 8) if edge else None
        edges.append(edge if space is None else space.start())
    return edges


def open_guard(given: Sequence[str], device: str = "auto") -> Guard | None:
    """Return the guard of rules as `GuardRule` reads them; None if there are none. A classifier is opened once.

    Raises
    ------
    InputError: a model is no classifier of texts, or has no such label.
    """
    by_model: dict[str, list[GuardRule]] = {}
    for rule in map(GuardRule.parse, given):
        by_model.setdefault(rule.model, []).append(rule)
    judges = [(_classifier(model, device), rules) for model, rules in by_model.items()]
    for classifier, rules in judges:
        for rule in rules:
            if rule.label not in classifier.labels:
                what = f"has no label {rule.label!r}, but {', '.join(classifier.labels)}"
                raise InputError(what, where=rule.model, fix="Name one of them in --guard.")
    return ClassifierGuard(judges) if judges else None


def _classifier(source: str, device: str) -> BaseTextClassifier[Any]:
    loaded = load_model(source, device=choose_compute(device).device)
    several = (
        isinstance(loaded.model, SequenceClassifier) and loaded.model.problem_type == MultiLabelClassifier.problem_type
    )
    try:
        return (MultiLabelClassifier if several else TextClassifier).of(loaded)
    except InputError as error:
        fix = "A guard is a model that was tuned for sentiment, text-classification or multi-label."
        raise InputError(error.what, where=source, fix=fix) from None
