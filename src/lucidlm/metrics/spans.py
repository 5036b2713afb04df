"""What answers found in a context are judged by: exact match and F1, as SQuAD's script computes them.

Answers are compared in lower case, without punctuation, articles and superfluous spaces; the best of several right
answers counts (Rajpurkar et al. 2016). Where words are not separated, MLQA's script is followed (Lewis et al. 2020):
punctuation of all scripts goes, each such character is a word, and there are no articles. As in SQuAD 2.0 (Rajpurkar et
al. 2018), a question without answers is answered right by an empty text. Percentages are from 0 to 100.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from lucidlm.data.examples import Question, Span
from lucidlm.data.scripts import separates_no_words, words
from lucidlm.metrics.statistics import Metric, mean_of, ratio

Words = Callable[[str], list[str]]

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def span_metrics(examples: Sequence[Question]) -> list[Metric]:
    """Return F1 and exact match, and where some questions have no answer, F1 of those that do and of those that do not."""
    unspaced = separates_no_words([answer.text for example in examples for answer in example.answers])
    cut = character_words if unspaced else english_words
    metrics = [
        mean_of("f1", lambda example, span: 100 * _best(token_f1, example, span, cut), percent=True),
        mean_of("exact_match", lambda example, span: 100 * _best(exact, example, span, cut), percent=True),
    ]
    if len({bool(example.answers) for example in examples}) == 2:
        metrics += [_f1_where("f1_answered", True, cut), _f1_where("f1_unanswerable", False, cut)]
    return metrics


def english_words(text: str) -> list[str]:
    """Return the words that SQuAD's script compares: lower case, without ASCII punctuation and articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def character_words(text: str) -> list[str]:
    """Return the words that MLQA's script compares in Chinese: Han characters, and what stands between them."""
    kept = (char for char in text.lower() if unicodedata.category(char)[0] != "P" and char not in string.punctuation)
    return words("".join(kept))


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
