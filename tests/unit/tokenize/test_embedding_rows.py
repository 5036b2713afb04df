"""Tokenizers with more tokens than their model has rows: all works until such a token is met, which is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import made_up_reviews
from tokenizers import AddedToken
from typer.testing import CliRunner

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import LabelledText, Passage, Question
from lucidlm.explain.explanation import explain
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.inference.scorer import Scorer
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier, SpanExtractor
from lucidlm.predict.classifier import TextClassifier
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.predict.span_reader import SpanReader
from lucidlm.tasks import tasks
from lucidlm.tasks.generation import Continuation
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.loop import LoopConfig

REVIEWS = [review["text"] for review in made_up_reviews(40)]
ROWS = 300
WIDE: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 32, "num_layers": 1, "context_length": 64}
SHAPE = ModelConfig(vocab_size=ROWS, **WIDE)
REFUSED = r"holds the token '☃' \(number 301\), and the model has rows for 300 tokens only"


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """One that pads with a token beyond the rows, and has another that texts may hold."""
    made = Tokenizer.train_bpe(REVIEWS, ROWS)
    made.core.add_special_tokens([AddedToken("<pad>", special=True)])
    made.core.add_tokens([AddedToken("☃", special=False)])
    return Tokenizer(made.core, {**made.config, "pad_token": "<pad>"})


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wide") / "model"
    save_model(LanguageModel(SHAPE), directory, tokenizer)
    return directory


def test_a_model_is_imported_and_its_files_name_no_token_that_it_has_not(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["import", str(model), "--out", str(tmp_path / "ours")])
    assert done.exit_code == 0, done.output
    for name in ("config.json", "generation_config.json"):
        assert json.loads((tmp_path / "ours" / name).read_text()).get("pad_token_id") is None
    assert load_model(tmp_path / "ours").tokenizer is not None


def test_texts_are_written_until_such_a_token_is_read(model: Path, tokenizer: Tokenizer) -> None:
    language = load_model(model).model
    assert isinstance(language, LanguageModel)
    found = generate(language, tokenizer, [*(text[:30] for text in REVIEWS[:3]), "x"], SamplingConfig(length=5, seed=3))
    assert all(max(one.tokens) < ROWS for one in found)
    with pytest.raises(InputError, match="prompt 2: " + REFUSED):
        generate(language, tokenizer, ["x", "a ☃"], SamplingConfig(length=5))
    with pytest.raises(InputError, match="request 1: holds the token number 301"):
        Scorer(language).score([([1, 301], [2])])


def test_the_message_comes_before_anything_is_printed(model: Path) -> None:
    done = CliRunner().invoke(app, ["generate", str(model), "a ☃"])
    assert done.exit_code != 0
    assert not done.stdout


def test_classes_vectors_and_spans(tokenizer: Tokenizer, model: Path) -> None:
    classifier = TextClassifier.from_model(SequenceClassifier(SHAPE, ["a", "b"], "mean").eval(), tokenizer, 64)
    together = classifier.predict_proba(REVIEWS[:4])
    assert np.allclose(together, np.concatenate([classifier.predict_proba([text]) for text in REVIEWS[:4]]), atol=1e-6)
    with pytest.raises(InputError, match="text 2 of 2: " + REFUSED):
        classifier.predict([LabelledText(text, "a", "f:1") for text in ("x", "☃")])
    embedder = TextEmbedder(model, device="cpu")
    assert embedder.embed(REVIEWS[:4]).shape == (4, 32)
    with pytest.raises(InputError, match="text 1 of 1: " + REFUSED):
        embedder.embed(["☃"])
    reader = SpanReader.from_model(SpanExtractor(SHAPE).eval(), tokenizer, 64)
    asked = [Question("1", REVIEWS[0], "director", (), "f:1"), Question("2", REVIEWS[1][:20], "wonderful", (), "f:2")]
    assert len(reader.predict(asked)) == 2
    with pytest.raises(InputError, match="f:3: " + REFUSED):
        reader.predict([Question("3", "☃ x", "director", (), "f:3")])


def test_explanations(model: Path) -> None:
    loaded = load_model(model)
    assert explain(loaded, "the film", method="occlusion").pieces
    with pytest.raises(InputError, match="TEXT: " + REFUSED):
        explain(loaded, "the ☃", method="occlusion")
    with pytest.raises(InputError, match="--target: " + REFUSED):
        explain(loaded, "the film", "☃", method="occlusion")


@pytest.mark.parametrize("task", ["sentiment", "generation", "semantic-search"])
def test_tuning(task: str, model: Path, tmp_path: Path) -> None:
    rows = [{**row, "query": row["text"][:9]} for row in made_up_reviews(24)]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = FinetuneConfig(
        task=task,
        model=str(model),
        data=str(tmp_path / "data.jsonl"),
        device="cpu",
        batch_size=8,
        max_length=32,
        validation=0.2,
        loop=LoopConfig(max_steps=2, evaluations=1),
    )
    finetune(config, tmp_path / "out")
    assert load_model(tmp_path / "out").tokenizer is not None


def test_evaluation_names_the_example(model: Path) -> None:
    task = tasks.get("generation")
    assert isinstance(task, Continuation)
    predictor = task.predictor(load_model(model))
    with pytest.raises(InputError, match="f:7: " + REFUSED):
        predictor.predict([Passage("one ☃", "f:7")])
