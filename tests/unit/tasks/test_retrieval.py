"""Search and recommendation: what rows mean, how items are ranked, and that contrast teaches both."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.conftest import made_up_reviews

from lucidlm.baselines.retrieval import TfidfSearch
from lucidlm.checkpoint.load import load_model
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Match, Row
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.tasks import read_examples, tasks
from lucidlm.tasks.base.retrieval import Ranker, Retrieval
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.contrastive_objective import HISTORY, ContrastiveObjective
from lucidlm.train.finetune.run import finetune
from lucidlm.train.loop import LoopConfig


def task(name: str = "semantic-search") -> Retrieval:
    found = tasks.get(name)
    assert isinstance(found, Retrieval)
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def match(query: str | tuple[str, ...], item: str) -> Match:
    return Match((query,) if isinstance(query, str) else query, item, "f:1")


def config(model: Path, **fields: Any) -> FinetuneConfig:
    loop = LoopConfig(**{"evaluations": 1, "patience": None, "max_steps": 2, **fields.pop("loop", {})})
    base = {"task": "semantic-search", "model": str(model), "data": "f", "batch_size": 8, "device": "cpu"}
    return FinetuneConfig(**{**base, "max_length": 64, "loop": loop, **fields})


def objective(model: Path, examples: list[Match], name: str = "semantic-search", **fields: Any) -> ContrastiveObjective:
    parts: Any = {"train": examples, "validation": [], "test": []}
    return ContrastiveObjective.build(
        config(model, task=name, **fields), task(name), load_model(model), parts, torch.device("cpu")
    )


# ---------------------------------------------------------------------- rows


def test_a_row_is_a_query_and_its_text_or_a_text_that_stands_for_itself(tmp_path: Path) -> None:
    source = write(tmp_path / "d.jsonl", [{"query": "wer?", "text": "ich<br/>hier"}, {"text": "allein"}])
    asked, alone = read_examples(task(), source)
    assert (asked.query, asked.item) == (("wer?",), "ich\nhier")
    assert (alone.query, alone.item) == (("allein",), "allein")
    assert task().key(alone) == "allein"
    assert task().key(asked) == "wer?\nich\nhier"


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("semantic-search", {"query": "q"}, 'field "text" is missing'),
        ("semantic-search", {"query": None, "text": "t"}, 'field "query" is empty'),
        ("semantic-search", {"query": " ", "text": "t"}, 'field "query" holds no text'),
        ("recommendation", {"item": "i"}, 'field "history" is missing'),
        ("recommendation", {"item": "i", "history": "a, b"}, 'field "history" holds a str, not a list'),
        ("recommendation", {"item": "i", "history": []}, 'field "history" holds an empty list'),
        ("recommendation", {"item": "i", "history": ["a", 3]}, r'field "history\[1\]" holds a int'),
        ("recommendation", {"item": "i", "history": ["a", "i"]}, "next item is one of the history"),
    ],
)
def test_rows_that_cannot_be_used_are_named(name: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"f:3: .*{message}"):
        task(name).read(Row(fields, "f:3"))


def test_a_query_that_is_named_has_to_be_there() -> None:
    with pytest.raises(InputError, match='field "question" is missing'):
        task().read(Row({"text": "t"}, "f:3").renamed({"query": "question"}))


# ---------------------------------------------------------------------- ranking


def test_items_are_ranked_by_cosine_and_each_once(tiny_model: Path) -> None:
    embedder = TextEmbedder(tiny_model, device="cpu")
    texts = [row["text"] for row in made_up_reviews(9)]
    examples = [match("a film", text) for text in [*texts, texts[0]]]
    for ranking in Ranker(embedder, again=True).predict(examples):
        scores = embedder.embed(texts) @ embedder.embed(["a film"])[0]
        assert ranking.items == tuple(texts[place] for place in np.argsort(-scores, kind="stable"))


def test_recommendations_leave_out_the_history_in_models_and_in_tfidf(tiny_model: Path) -> None:
    texts = [row["text"] for row in made_up_reviews(8)]
    examples = [match((texts[place - 1], texts[place - 2]), texts[place]) for place in range(8)]
    ranker = task("recommendation").predictor(load_model(tiny_model))
    baseline = TfidfSearch(again=False).fit([])
    for rankings in (ranker.predict(examples), baseline.predict(examples)):
        for example, ranking in zip(examples, rankings, strict=True):
            assert set(ranking.items) == set(texts) - set(example.query)


def test_a_person_is_shown_the_place_and_the_first_items(tiny_model: Path) -> None:
    examples = [match("a", text) for text in ("b", "c", "d")]
    prediction = task().predictor(load_model(tiny_model)).predict(examples)[0]
    shown = task().show(examples[0], prediction)
    assert shown["query"] == "a"
    assert shown["found"][shown["place"] - 1] == "b"


# ---------------------------------------------------------------------- contrast


def test_the_loss_is_contrast_both_ways_without_what_is_no_wrong_answer(tiny_model: Path) -> None:
    examples = [match("q1", "a"), match("q2", "b"), match("q3", "a"), match(("b", "q4"), "c")]
    made = objective(tiny_model, examples, dropout=0.0, temperature=0.5)
    batch = made.collate(np.arange(4), numpy_generator(0))
    assert batch.also_right.int().tolist() == [[0, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0]]
    embed = made.embedder.embed
    users = np.stack([embed(example.query).mean(0) for example in examples])
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    logits = users @ embed([example.item for example in examples]).T / 0.5
    logits[batch.also_right.numpy()] = -np.inf
    there = np.log(np.exp(logits).sum(1)) - logits.diagonal()
    back = np.log(np.exp(logits).sum(0)) - logits.diagonal()
    assert made.loss(made.model.eval(), batch).item() == pytest.approx((there + back).sum() / 2, rel=1e-4)
    assert made.counted(batch) == 4


def test_long_texts_and_histories_are_drawn_from_and_said(tiny_model: Path) -> None:
    long = " ".join(row["text"] for row in made_up_reviews(3))
    examples = [match(tuple(f"item {n}" for n in range(HISTORY + 4)), long), match("x", "y")]
    made = objective(tiny_model, examples, "recommendation", max_length=16)
    first, second = (made.collate(np.arange(2), numpy_generator(0, step)) for step in range(2))
    assert len(first.queries.places) == HISTORY + 1
    assert max(lengths.max() for _, lengths in first.items.parts) == 16
    for texts, others in ((first.items, second.items), (first.queries, second.queries)):
        assert not all(torch.equal(one, other) for (one, _), (other, _) in zip(texts.parts, others.parts, strict=False))
    assert made.report() == [
        "1 texts are longer than 16 tokens: read in stretches of that length",
        f"1 histories have more than {HISTORY} items: that many of them are read at a time",
    ]


def test_texts_without_queries_are_learned_by_dropout_and_not_without(tiny_model: Path) -> None:
    examples = [match(text, text) for text in ("a b c", "d e f", "g h i")]
    made = objective(tiny_model, examples, dropout=0.1)
    assert "3 texts have no query" in made.report()[0]
    batch = made.collate(np.arange(3), numpy_generator(0))
    with torch.no_grad():
        torch.manual_seed(0)
        noisy = made.loss(made.model.train(), batch).item()
        plain = made.loss(made.model.eval(), batch).item()
    assert noisy != plain
    with pytest.raises(InputError, match="dropout: without queries"):
        objective(tiny_model, examples, dropout=0.0)


@pytest.mark.parametrize(("count", "size", "where"), [(1, 8, "f"), (5, 1, "batch_size")])
def test_one_example_a_batch_teaches_nothing(tiny_model: Path, count: int, size: int, where: str) -> None:
    with pytest.raises(InputError, match=rf"^{where}: items are learned by telling them from the others"):
        objective(tiny_model, [match("q", f"i{n}") for n in range(count)], batch_size=size)


def recall_at_1(model: Path, name: str, examples: list[Match]) -> float:
    metric = next(metric for metric in task(name).metrics(examples) if metric.name == "recall@1")
    return metric(examples, task(name).predictor(load_model(model)).predict(examples))


def test_contrast_teaches_real_translations_to_find_each_other(
    tiny_model: Path, shared_data: Path, tmp_path: Path
) -> None:
    """64 English sentences and their Chinese translations; chance finds 1 in 64, the pretrained model few more."""
    lines = (shared_data / "translation" / "tatoeba-en-zh" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[5000:5064]]
    data = write(tmp_path / "pairs.jsonl", rows)
    fields = {"query": "source", "text": "target"}
    examples = read_examples(task(), data, fields=fields)
    before = recall_at_1(tiny_model, "semantic-search", examples)
    settings = config(
        tiny_model,
        data=data,
        fields=fields,
        validation=0,
        test=0,
        batch_size=32,
        dropout=0,
        epochs=100,
        loop={"max_steps": 60},
    )
    finetune(settings, tmp_path / "finder")
    after = recall_at_1(tmp_path / "finder", "semantic-search", examples)
    assert before < 0.2 < 0.8 < after
    assert (tmp_path / "finder" / "modules.json").exists()


def test_contrast_teaches_readers_topics(tiny_model: Path, tmp_path: Path) -> None:
    """Readers of good reviews choose good ones; the test's items are not among those of training."""
    kinds = [
        [row["text"] for row in made_up_reviews(240) if row["label"] == label] for label in ("positive", "negative")
    ]

    def readers(first: int, last: int) -> list[dict[str, Any]]:
        drawn = [texts[place : place + 4] for texts in kinds for place in range(first, last - 3)]
        return [{"history": texts[:3], "item": texts[3]} for texts in drawn]

    data = write(tmp_path / "readers.jsonl", readers(0, 80))
    settings = config(
        tiny_model,
        task="recommendation",
        data=data,
        validation=0,
        test=0,
        batch_size=32,
        temperature=0.5,
        epochs=100,
        loop={"max_steps": 40},
    )
    finetune(settings, tmp_path / "adviser")
    held_out = read_examples(task("recommendation"), write(tmp_path / "others.jsonl", readers(80, 120)))

    def same_kind(model: Path) -> float:
        rankings = task("recommendation").predictor(load_model(model)).predict(held_out)
        good = set(kinds[0])
        pairs = zip(held_out, rankings, strict=True)
        return float(
            np.mean([[(text in good) == (one.item in good) for text in found.items[:5]] for one, found in pairs])
        )

    assert same_kind(tmp_path / "adviser") > 0.9 > same_kind(tiny_model)
    assert math.isclose(recall_at_1(tmp_path / "adviser", "recommendation", held_out), 1 / 37, abs_tol=0.1)
