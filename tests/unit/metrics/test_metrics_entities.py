"""Entities and their metrics: the figures that seqeval 1.2.2 gives, with which the last test compares anew."""

from __future__ import annotations

import random

import pytest

from lucidlm.baselines.taggers import MostFrequentTag, NoEntity
from lucidlm.data.examples.bio import entities, first_fault
from lucidlm.data.examples.records import TaggedSentence, Tags
from lucidlm.metrics.entity_metrics import entity_metrics

TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def sentence(tags: str, words: str = "") -> TaggedSentence:
    found = tuple(tags.split())
    return TaggedSentence(tuple(words.split()) or ("word",) * len(found), found, "f:1")


def figures(truth: list[TaggedSentence], predicted: list[Tags]) -> dict[str, float]:
    return {metric.name: metric(truth, predicted) for metric in entity_metrics()}


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O", []),
        ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("B-PER B-PER I-PER", [("PER", 0, 1), ("PER", 1, 3)]),
        ("I-PER I-PER I-LOC B-LOC I-LOC O I-LOC", [("PER", 0, 2), ("LOC", 2, 3), ("LOC", 3, 5), ("LOC", 6, 7)]),
        ("B-PER I-LOC I-PER", [("PER", 0, 1), ("LOC", 1, 2), ("PER", 2, 3)]),
        ("B-geo-part I-geo-part", [("geo-part", 0, 2)]),
    ],
)
def test_entities_are_those_of_seqeval(tags: str, found: list[tuple[str, int, int]]) -> None:
    assert entities(tags.split()) == found


@pytest.mark.parametrize(
    ("tags", "place", "what"),
    [
        ("O I-PER", 1, "I-PER follows O, not B-PER or I-PER"),
        ("I-PER", 0, "I-PER follows O"),
        ("B-PER I-LOC", 1, "I-LOC follows B-PER"),
        ("O S-PER", 1, "'S-PER' is no BIO tag"),
        ("o", 0, "'o' is no BIO tag"),
        ("B-", 0, "'B-' is no BIO tag"),
        ("3", 0, "'3' is no BIO tag"),
    ],
)
def test_a_tag_that_is_wrong_is_found(tags: str, place: int, what: str) -> None:
    found = first_fault(tags.split())
    assert found is not None
    assert found[0] == place
    assert what in found[1]


def test_sound_tags_have_no_fault() -> None:
    assert first_fault(["B-PER", "I-PER", "I-PER", "B-PER", "O", "B-LOC", "B-LOC", "I-LOC"]) is None


def test_figures_are_those_of_seqeval() -> None:
    truth = ["B-PER I-PER O B-LOC", "O O B-LOC I-LOC I-LOC", "B-PER O", "O O O", "B-LOC B-LOC I-LOC O B-PER I-PER"]
    predicted = ["B-PER I-PER O B-PER", "O O B-LOC I-LOC O", "B-PER O", "O B-LOC O", "B-LOC B-LOC I-LOC O B-PER O"]
    found = figures([sentence(tags) for tags in truth], [Tags(tuple(tags.split())) for tags in predicted])
    # seqeval.metrics: f1_score, precision_score, recall_score, accuracy_score
    assert found == pytest.approx(
        {"entity_f1": 8 / 15, "entity_precision": 0.5, "entity_recall": 4 / 7, "token_accuracy": 0.8}
    )


def test_a_sentence_without_entities_is_right_where_none_is_found() -> None:
    empty = [sentence("O O")]
    assert figures(empty, [Tags(("O", "O"))])["entity_f1"] == 1
    assert figures(empty, [Tags(("O", "B-PER"))])["entity_f1"] == 0
    assert figures([sentence("O B-PER")], [Tags(("O", "O"))])["entity_precision"] == 0


def test_baselines() -> None:
    training = [sentence("B-LOC O O", "Paris is old"), sentence("B-PER O B-LOC", "Paris likes Rome")]
    training.append(sentence("B-LOC O", "Paris is"))
    asked = [sentence("O O O", "Rome is Paris"), sentence("O", "Oslo")]
    assert MostFrequentTag().fit(training).predict(asked) == [Tags(("B-LOC", "O", "B-LOC")), Tags(("O",))]
    assert NoEntity().fit(training).predict(asked) == [Tags(("O", "O", "O")), Tags(("O",))]


def test_seqeval_agrees_on_random_tags() -> None:
    seqeval = pytest.importorskip(
        "seqeval.metrics", reason="the peer of this test is not installed: pip install seqeval"
    )
    for seed in range(20):
        generator = random.Random(seed)
        truth = [[generator.choice(TAGS) for _ in range(generator.randint(1, 9))] for _ in range(30)]
        predicted = [[tag if generator.random() < 0.7 else generator.choice(TAGS) for tag in row] for row in truth]
        found = figures([sentence(" ".join(row)) for row in truth], [Tags(tuple(row)) for row in predicted])
        assert found == pytest.approx(
            {
                "entity_f1": seqeval.f1_score(truth, predicted),
                "entity_precision": seqeval.precision_score(truth, predicted),
                "entity_recall": seqeval.recall_score(truth, predicted),
                "token_accuracy": seqeval.accuracy_score(truth, predicted),
            }
        )
