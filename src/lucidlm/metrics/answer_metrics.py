"""Metrics of extractive question answering: exact match and F1, as SQuAD's script computes them.

Answers are compared in lower case, without punctuation, articles and superfluous spaces; the best of several right
answers counts (Rajpurkar et al. 2016). In other scripts MLQA's script is followed (Lewis et al. 2020): punctuation of all
scripts goes; where words are not separated each character is a word, and there are no articles. How Unicode composes a
character does not matter. As in SQuAD 2.0 (Rajpurkar et al. 2018), a question without answers is answered right by an
empty text. Percentages are from 0 to 100.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lucidlm.data.examples.records import Question, Span
from lucidlm.data.scripts import separates_no_words, words
from lucidlm.metrics.statistics import Metric, mean_of, ratio

Words = Callable[[str], list[str]]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def span_metrics(examples: Sequence[Question]) -> list[Metric]:
    """Return F1 and exact match, and where some questions have no answer, F1 of those that do and of those that do not."""
    unspaced = separates_no_words([answer.text for example in examples for answer in example.answers])
    cut = character_words if unspaced else spaced_words
    metrics = [
        mean_of("f1", lambda example, span: 100 * _best(token_f1, example, span, cut), percent=True),
        mean_of("exact_match", lambda example, span: 100 * _best(exact, example, span, cut), percent=True),
    ]
    if len({bool(example.answers) for example in examples}) == 2:
        metrics += [_f1_where("f1_answered", True, cut), _f1_where("f1_unanswerable", False, cut)]
    return metrics


def spaced_words(text: str) -> list[str]:
    """Return the words that SQuAD's script compares: lower case, without articles and punctuation.

    With the letters of ASCII alone the punctuation is that of ASCII, as there; with others it is that of all scripts.
    """
    text = unicodedata.normalize("NFC", text.lower())
    foreign = any(char.isalpha() and not char.isascii() for char in text)
    bare = _without_punctuation(text) if foreign else text.translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()


def character_words(text: str) -> list[str]:
    """Return the words that MLQA's script compares in Chinese: Han characters, and what stands between them."""
    return words(_without_punctuation(unicodedata.normalize("NFC", text.lower())))


def _without_punctuation(text: str) -> str:
    return "".join(char for char in text if unicodedata.category(char)[0] != "P" and char not in string.punctuation)


def exact(answer: list[str], found: list[str]) -> float:
    """Return 1 where all words are the same, 0 elsewhere."""
    return float(answer == found)


def token_f1(answer: list[str], found: list[str]) -> float:
    """Return F1 of the words of two texts, counted as often as they occur; an empty text is like another one only."""
    if not answer or not found:
        return float(answer == found)
    shared = (Counter(answer) & Counter(found)).total()
    return 2 * shared / (len(answer) + len(found))


def _best(score: Callable[[list[str], list[str]], float], example: Question, span: Span, cut: Words) -> float:
    # An answer of articles and punctuation alone is none, as in SQuAD's script.
    answers = [found for answer in example.answers if (found := cut(answer.text))] or [[]]
    return max(score(answer, cut(span.text)) for answer in answers)


def _f1_where(name: str, answered: bool, cut: Words) -> Metric:
    def statistics(examples: Sequence[Question], predictions: Sequence[Span]) -> np.ndarray:
        rows = [
            (100 * _best(token_f1, example, span, cut), 1.0) if bool(example.answers) == answered else (0.0, 0.0)
            for example, span in zip(examples, predictions, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    return Metric(name, statistics, ratio, percent=True)
