"""Metrics agree with the programs that the field computes them with."""

from __future__ import annotations

import json
import re
import string
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn import metrics as reference

from lucidlm.baselines.summaries import LeadSentences
from lucidlm.baselines.translators import Dictionary
from lucidlm.data.examples.records import Answer, ClassPrediction, GeneratedText, LabelledText, Pair, Question, Span
from lucidlm.metrics.answer_metrics import span_metrics
from lucidlm.metrics.label_metrics import classification_metrics
from lucidlm.metrics.text_metrics import ROUGE_TYPES, UnicodeWords, bleu, chrf, rouge


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_classification_agrees_with_scikit_learn(classes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = tuple("abcdefg"[:classes])
    truth = generator.integers(classes, size=60)
    probabilities = generator.dirichlet(np.ones(classes), 60) + np.eye(classes)[truth] * 0.3
    predicted = probabilities.argmax(1)
    examples = [LabelledText("a text", labels[label], "a") for label in truth]
    answers = [ClassPrediction(labels, tuple(row)) for row in probabilities]
    found = {metric.name: metric(examples, answers) for metric in classification_metrics(lambda *_: truth)}
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(truth, predicted))
    assert found["macro_f1"] == pytest.approx(reference.f1_score(truth, predicted, average="macro"))
    assert found["mcc"] == pytest.approx(reference.matthews_corrcoef(truth, predicted))


@pytest.mark.parametrize(("folder", "tokenize"), [("multi30k-en-fr", "13a"), ("tatoeba-en-zh", "zh")])
def test_bleu_and_chrf_agree_with_sacrebleu(shared_data: Path, folder: str, tokenize: str) -> None:
    training, test = (
        [
            Pair(row["source"], row["target"], (row["target"],), "a")
            for row in rows(shared_data / "translation" / folder / file)
        ]
        for file in ("train.jsonl", "test.jsonl")
    )
    test = test[:300]
    written = Dictionary().fit(training[:2000]).predict(test)
    texts, streams = [one.text for one in written], [[pair.target for pair in test]]
    for metric, scorer in ((bleu(test), BLEU(tokenize=tokenize)), (chrf(test), CHRF(word_order=2))):
        statistics = metric.statistics(test, written)
        assert metric(test, written) == pytest.approx(scorer.corpus_score(texts, streams).score, abs=1e-9)
        assert metric.signature == scorer.get_signature().format()
        half = scorer.corpus_score(texts[:7], [streams[0][:7]]).score
        assert float(metric.value(statistics[:7].sum(0))) == pytest.approx(half, abs=1e-9)


def test_several_references_agree_with_sacrebleu_and_rouge_score(shared_data: Path) -> None:
    test = [
        Pair(row["document"], row["references"][0], tuple(row["references"][: 2 + place % 2]), "a")
        for place, row in enumerate(rows(shared_data / "summarization/dialogsum/test.jsonl")[:60])
    ]
    written = LeadSentences(2).predict(test)
    texts = [one.text for one in written]
    streams = [[(*pair.references, None)[place] for pair in test] for place in range(3)]
    for metric, scorer in ((bleu(test), BLEU()), (chrf(test), CHRF(word_order=2))):
        assert metric(test, written) == pytest.approx(scorer.corpus_score(texts, streams).score, abs=1e-9)
        assert metric.signature == scorer.get_signature().format()
    scorer = RougeScorer(list(ROUGE_TYPES), use_stemmer=True)
    for kind in ROUGE_TYPES:
        best = [
            max(scorer.score(one, text)[kind].fmeasure for one in pair.references)
            for pair, text in zip(test, texts, strict=True)
        ]
        assert rouge(kind, test)(test, written) == pytest.approx(100 * np.mean(best))


@pytest.mark.parametrize("stemmed", [True, False])
def test_words_of_ascii_are_those_of_rouge_score(stemmed: bool) -> None:
    reference = RougeScorer(["rouge1"], use_stemmer=stemmed)._tokenizer
    generator = np.random.default_rng(0)
    odd = [
        "don't",
        "U.S.A.",
        "state-of-the-art",
        "foo_bar",
        "__init__",
        "3.14",
        "$5",
        "a1b2",
        "studies",
        "dying",
        "agreed",
    ]
    texts = [" ".join(generator.choice(odd, 6)) for _ in range(100)]
    texts += ["".join(generator.choice(list(string.printable), 80)) for _ in range(100)]
    texts += ["“Running” — it’s 5 €, isn’t it…"]
    for text in texts:
        assert UnicodeWords(stemmed).tokenize(text) == reference.tokenize(text)


def script_words(text: str) -> list[str]:
    """The normalisation of SQuAD's script, step by step as it stands there."""
    bare = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", bare).split()


def script_f1(answer: str, found: str) -> float:
    gold, words = script_words(answer), script_words(found)
    same = sum((Counter(gold) & Counter(words)).values())
    if not gold or not words:
        return float(gold == words)
    if same == 0:
        return 0.0
    precision, recall = same / len(words), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def test_spans_agree_with_the_arithmetic_of_squad() -> None:
    cases = [
        (["The Denver Broncos", "Denver"], "denver, broncos"),
        (["308"], "just 308 points"),
        (["a priest"], "the priest an the"),
        ([], ""),
        ([], "an answer"),
        (["it's"], "its"),
        (["the"], ""),
        (["one one two"], "one two two"),
    ]
    for answers, text in cases:
        example = Question("1", "a context", "what?", tuple(Answer(one, 0) for one in answers), "a")
        found = {metric.name: metric([example], [Span(text, 0)]) for metric in span_metrics([example])}
        gold = [one for one in answers if script_words(one)] or [""]
        assert found["f1"] == pytest.approx(100 * max(script_f1(one, text) for one in gold)), (answers, text)
        assert found["exact_match"] == 100 * max(script_words(one) == script_words(text) for one in gold), (
            answers,
            text,
        )


def test_written_texts_score_alike_in_any_order() -> None:
    pairs = [Pair("s", text, (text,), "a") for text in ("the cat sat on the mat", "a dog ran in the park")]
    written = [GeneratedText("the cat sat on a mat"), GeneratedText("a dog walked in the park")]
    assert bleu(pairs)(pairs, written) == pytest.approx(bleu(pairs[::-1])(pairs[::-1], written[::-1]))
