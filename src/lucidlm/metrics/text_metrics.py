"""What written text is judged by: BLEU, chrF++ and ROUGE against references, what the references cost, repetition.

BLEU and chrF++ are sacrebleu's, to the last digit: its statistics of each sentence, and its formulas over stacks of
sums, so that thousands of resamples are one expression. ROUGE is rouge-score's, with words of any script. Percentages
are from 0 to 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any
from unicodedata import normalize

import numpy as np
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from lucidlm.data.examples.records import GeneratedText, Pair
from lucidlm.data.scripts import language_of, words
from lucidlm.metrics.statistics import Metric, mean_of
from lucidlm.tokenize.conversation import Chat

Writable = Pair | Chat
"""Examples that something is written for: of a conversation, its last turn."""
BLEU_TOKENIZERS = {"zh": "zh", "unspaced": "char", "en": "13a"}
"""The tokeniser that sacrebleu recommends, by the writing of the references."""
ROUGE_TYPES = ("rouge1", "rouge2", "rougeL")
REPEATED = 4
"""Words: the n-grams that `repetition` counts."""


def translation_metrics(examples: Sequence[Writable]) -> list[Metric]:
    """Return what translations are judged by: BLEU, chrF++, exact match, perplexity of the reference."""
    return [bleu(examples), chrf(examples), exact_match(), perplexity()]


def summarization_metrics(examples: Sequence[Writable]) -> list[Metric]:
    """Return what summaries are judged by: ROUGE-L, ROUGE-1, ROUGE-2, chrF++, perplexity of the reference."""
    first, second, longest = (rouge(kind, examples) for kind in ROUGE_TYPES)
    return [longest, first, second, chrf(examples), perplexity()]


def references_of(example: Writable) -> tuple[str, ...]:
    """Return all texts that would be right: a pair's references, or what the last turn of a conversation says."""
    return example.references if isinstance(example, Pair) else (example.messages[-1].text,)


def bleu(examples: Sequence[Writable]) -> Metric:
    """Return BLEU of the corpus (Papineni et al. 2002; sacrebleu: Post 2018), tokenised as the references' script is."""
    tokenize = BLEU_TOKENIZERS[language_of([references_of(example)[0] for example in examples])]
    scorer = BLEU(tokenize=tokenize)
    signature = _signature(scorer, examples)
    return Metric("bleu", _sacrebleu(scorer), bleu_of, percent=True, signature=signature)


def chrf(examples: Sequence[Writable]) -> Metric:
    """Return chrF++ of the corpus (Popović 2017): F2 over characters 1–6 and words 1–2.

    Where words are not separated a word is what stands between two spaces, so its n-grams count for little or nothing; as
    they come and go with the sample, intervals of such texts are wide.
    """
    scorer = CHRF(word_order=2)
    signature = _signature(scorer, examples)
    return Metric("chrf++", _sacrebleu(scorer), chrf_of, percent=True, signature=signature)


def bleu_of(sums: np.ndarray) -> np.ndarray:
    """BLEU with exponential smoothing, from summed lengths (2), matches (4) and totals (4): (..., 10) to (...)."""
    written, reference = sums[..., 0], sums[..., 1]
    matches, totals = sums[..., 2:6], sums[..., 6:10]
    halvings = 2.0 ** np.cumsum(matches == 0, axis=-1)  # an order without a match takes half of the one before
    precisions = np.where(matches > 0, matches, 1 / halvings) / np.maximum(totals, 1)
    brevity = np.exp(np.minimum(0, 1 - reference / np.maximum(written, 1)))
    score = 100 * brevity * np.exp(np.log(precisions).mean(-1))
    return np.where((totals > 0).all(-1) & (matches > 0).any(-1), score, 0.0)


def chrf_of(sums: np.ndarray) -> np.ndarray:
    """chrF++ from counts written, in the reference and in both, for each of eight orders: (..., 24) to (...)."""
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    written, reference, matches = counts[..., 0], counts[..., 1], counts[..., 2]
    counted = (written > 0) & (reference > 0)
    orders = np.maximum(counted.sum(-1), 1)
    precision = np.where(counted, matches / np.maximum(written, 1), 0).sum(-1) / orders
    recall = np.where(counted, matches / np.maximum(reference, 1), 0).sum(-1) / orders
    weight = 4 * precision + recall
    return 100 * 5 * precision * recall / np.where(weight > 0, weight, 1)


class UnicodeWords(Tokenizer):
    """Words for rouge-score, which itself knows the letters a to z only.

    Of a text in ASCII they are rouge-score's own. Otherwise letters of any script make up words, together with the marks
    that belong to them, and each character of a script that does not separate words is one (`data.scripts.words`). How
    Unicode composes a character does not matter.
    """

    def __init__(self, stemmed: bool) -> None:
        self.stem = PorterStemmer().stem if stemmed else None

    def tokenize(self, text: str) -> list[str]:
        """Return the words of `text`, stemmed if they have more than three letters."""
        found = words(normalize("NFC", text.lower()).replace("_", " "))
        return found if self.stem is None else [self.stem(word) if len(word) > 3 else word for word in found]


def rouge(kind: str, examples: Sequence[Writable]) -> Metric:
    """Return mean F1 of ROUGE (Lin 2004), `kind` one of `ROUGE_TYPES`.

    Of several references the one that gives the best F1 counts, as is usual (Lin's script took the mean of leave-one-out
    maxima). Words are stemmed by Porter's algorithm, which is for English; figures of other languages do not compare with
    those of their own stemmers. Where words are not separated, characters are compared.
    """
    stemmed = language_of([references_of(example)[0] for example in examples]) == "en"
    scorer = RougeScorer([kind], tokenizer=UnicodeWords(stemmed))

    def score(example: Writable, prediction: GeneratedText) -> float:
        return 100 * scorer.score_multi(list(references_of(example)), prediction.text)[kind].fmeasure

    signature = f"rouge-score|refs:best|tok:{'unicode|stem:porter' if stemmed else 'characters'}"
    return mean_of(kind, score, percent=True, signature=signature)


def exact_match() -> Metric:
    """Return the share of texts that are one of the references, but for the spaces around them."""

    def plain(text: str) -> str:
        return normalize("NFC", text.strip())

    def score(example: Writable, prediction: GeneratedText) -> float:
        return 100.0 * (plain(prediction.text) in map(plain, references_of(example)))

    return mean_of("exact_match", score, percent=True)


def perplexity() -> Metric:
    """Return the reference's perplexity a token, comparable within one tokenizer; NaN if nothing measured it."""

    def statistics(examples: Sequence[Any], predictions: Sequence[GeneratedText]) -> np.ndarray:
        return np.array([(p.nats, p.tokens) for p in predictions], dtype=np.float64).reshape(-1, 2)

    return Metric(
        "perplexity", statistics, lambda sums: np.exp(np.minimum(_measured(sums), 700)), higher_is_better=False
    )


def bits_per_byte(reference: Callable[[Any], str]) -> Metric:
    """Return bits per UTF-8 byte of the reference, comparable across tokenizers; NaN if nothing measured it.

    Parameters
    ----------
    reference: returns the text of an example that `Written.nats` is the cost of.
    """

    def statistics(examples: Sequence[Any], predictions: Sequence[GeneratedText]) -> np.ndarray:
        rows = [
            (prediction.nats / math.log(2), len(reference(example).encode())) if prediction.tokens else (0.0, 0)
            for example, prediction in zip(examples, predictions, strict=True)
        ]
        return np.array(rows, dtype=np.float64).reshape(-1, 2)

    return Metric("bits_per_byte", statistics, _measured, higher_is_better=False)


def distinct(n: int) -> Metric:
    """Return the share of different n-grams among a text's own (Li et al. 2016), the mean over texts that have any."""
    return Metric(f"distinct_{n}", lambda _, predictions: _distinct(predictions, n), _measured)


def repetition() -> Metric:
    """Return the share of 4-grams that repeat one before them in the same text: seq-rep-4 of Welleck et al. (2020)."""

    def statistics(_: Sequence[Any], predictions: Sequence[GeneratedText]) -> np.ndarray:
        shares = _distinct(predictions, REPEATED)
        return np.stack([shares[:, 1] - shares[:, 0], shares[:, 1]], axis=1)

    return Metric("repetition", statistics, _measured, higher_is_better=False)


def _distinct(predictions: Sequence[GeneratedText], n: int) -> np.ndarray:
    rows = []
    for prediction in predictions:
        units = words(prediction.text)
        grams = [tuple(units[start : start + n]) for start in range(len(units) - n + 1)]
        rows.append((len(set(grams)) / len(grams), 1) if grams else (0, 0))
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _measured(sums: np.ndarray) -> np.ndarray:
    counted = sums[..., 1] > 0
    return np.where(counted, sums[..., 0] / np.where(counted, sums[..., 1], 1), np.nan)


def _sacrebleu(scorer: BLEU | CHRF) -> Callable[[Sequence[Writable], Sequence[GeneratedText]], np.ndarray]:
    def statistics(examples: Sequence[Writable], predictions: Sequence[GeneratedText]) -> np.ndarray:
        texts = [prediction.text for prediction in predictions]
        rows = scorer._extract_corpus_statistics(texts, _streams(examples))  # pyright: ignore[reportArgumentType]
        return np.array(rows, dtype=np.float64)

    return statistics


def _signature(scorer: BLEU | CHRF, examples: Sequence[Writable]) -> str:
    """Return sacrebleu's signature, which says how many references there are and so needs to have seen some."""
    scorer.num_refs = len(_streams(examples)) if len({len(references_of(example)) for example in examples}) < 2 else -1
    return scorer.get_signature().format()


def _streams(examples: Sequence[Writable]) -> list[list[str | None]]:
    """Return references as sacrebleu takes them: a list of first ones, of second ones …, None where there is none."""
    found = [references_of(example) for example in examples]
    longest = max(map(len, found), default=0)
    return [[one[place] if place < len(one) else None for one in found] for place in range(longest)]
