"""Tasks that a language model answers without tuning: minimal pairs and perplexity."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import GeneratedText, MinimalPair, Passage, Preference
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tasks import read_examples, tasks
from lucidlm.tokenize.tokenizer import Tokenizer

CPU = torch.device("cpu")
ROWS = [
    {"good": "The cats sleep.", "bad": "The cats sleeps.", "phenomenon": "agreement"},
    {"good": "A cat sleeps.", "bad": "A cat sleep.", "phenomenon": "agreement"},
    {"good": "Who did she see?", "bad": "Who did she see him?", "phenomenon": "islands"},
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("untuned")
    tokenizer = Tokenizer.train_bpe([" ".join(row["good"] for row in ROWS) * 20], 280, exact=False)
    shape = ModelConfig(
        vocab_size=tokenizer.vocab_size, embedding_dim=16, num_heads=2, num_layers=1, ff_dim=32, context_length=16
    )
    save_model(LanguageModel(shape, seed=5), directory, tokenizer)
    return directory


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_pairs_are_right_where_the_right_sentence_is_likelier() -> None:
    pairs = [MinimalPair("a", "b", name, f"f:{n}") for n, name in enumerate(["x", "x", "y"])]
    answers = [Preference(-1.0, -2.0), Preference(-2.0, -1.0), Preference(-1.0, -1.0)]
    found = {metric.name: metric(pairs, answers) for metric in tasks.get("minimal-pairs").metrics(pairs)}
    assert found == {"accuracy": pytest.approx(1 / 3), "accuracy: x": 0.5, "accuracy: y": 0.0}


def test_pairs_are_judged_without_tuning(directory: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", *ROWS)
    config = EvaluateConfig(task="minimal-pairs", data=source, training=source, leakage=False, device="cpu")
    found = evaluate_directory(directory, config, tmp_path / "out")
    assert [measure.name for measure in found.measures] == ["accuracy", "accuracy: agreement", "accuracy: islands"]
    (shorter,) = found.baselines
    assert shorter.metrics["accuracy"].value == pytest.approx(2 / 3)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text("utf-8").splitlines()]
    assert sum(row["margin"] > 0 for row in rows) / 3 == pytest.approx(found.model.metrics["accuracy"].value)


def test_a_pair_of_equals_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "pairs.jsonl", ROWS[0], {"good": "same", "bad": "same"})
    with pytest.raises(InputError, match=r"pairs.jsonl:2: the two sentences are the same"):
        read_examples(tasks.get("minimal-pairs"), source)


def test_perplexity_is_what_the_whole_text_costs(directory: Path) -> None:
    task = tasks.get("perplexity")
    predictor = task.predictor(load_model(directory))
    text = "The cats sleep. Who did she see? " * 3
    (found,) = predictor.predict([Passage(text, "f:1")])
    assert found.tokens > 16  # several windows
    assert found.nats / found.tokens == pytest.approx(math.log(280), rel=0.2)  # fresh weights know nothing


def test_perplexities_a_word_and_bits_a_byte() -> None:
    passages = [Passage("one two", "f:1"), Passage("three four  five", "f:2")]
    costs = [GeneratedText("", 4.0, 2), GeneratedText("", 6.0, 8)]
    found = {metric.name: metric(passages, costs) for metric in tasks.get("perplexity").metrics(passages)}
    assert found["word_perplexity"] == pytest.approx(math.exp(10 / 5))
    assert found["perplexity"] == pytest.approx(math.exp(1.0))
    assert found["bits_per_byte"] == pytest.approx(10 / math.log(2) / 23)


def test_chinese_has_no_words_between_spaces() -> None:
    passages = [Passage("床前明月光", "f:1")]
    assert "word_perplexity" not in {metric.name for metric in tasks.get("perplexity").metrics(passages)}


def test_a_masked_model_is_refused(tmp_path: Path) -> None:
    shape = ModelConfig(
        vocab_size=20,
        embedding_dim=16,
        num_heads=2,
        num_layers=1,
        ff_dim=32,
        context_length=8,
        causal=False,
        qk_norm=False,
    )
    save_model(LanguageModel(shape), tmp_path)
    with pytest.raises(InputError, match="not a causal language model: a masked model does not continue text"):
        tasks.get("perplexity").predictor(load_model(tmp_path))
