"""Models made elsewhere go the whole way: imported, tuned, judged, and opened again where they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.conftest import made_up_reviews
from tests.parity.test_tokenizer_parity import bert, gpt2
from typer.testing import CliRunner

from lucidlm.checkpoint.load import load_model
from lucidlm.cli.main import app
from lucidlm.data.examples.records import Answer, Question
from lucidlm.predict.classifier import TextClassifier
from lucidlm.predict.span_reader import SpanReader
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.loop import LoopConfig

transformers = pytest.importorskip("transformers", reason="needs the [hf] extra")

REVIEWS = [review["text"] for review in made_up_reviews(40)]


def tiny_bert(directory: Path) -> None:
    bert(directory, REVIEWS)
    size = len((directory / "vocab.txt").read_text(encoding="utf-8").splitlines())
    config = transformers.BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=256,
        pad_token_id=0,
    )
    transformers.BertForMaskedLM(config).save_pretrained(directory)


def tiny_gpt2(directory: Path) -> None:
    gpt2(directory, REVIEWS)
    size = len(json.loads((directory / "vocab.json").read_text(encoding="utf-8")))
    config = transformers.GPT2Config(
        vocab_size=size, n_embd=32, n_layer=2, n_head=2, n_positions=256, bos_token_id=0, eos_token_id=0
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(directory)


@pytest.fixture(params=[tiny_bert, tiny_gpt2])
def imported(request, tmp_path: Path) -> Path:
    """A tiny model that transformers made, imported from the command line."""
    make: Callable[[Path], None] = request.param
    (tmp_path / "theirs").mkdir()
    make(tmp_path / "theirs")
    done = CliRunner().invoke(app, ["import", str(tmp_path / "theirs"), "--out", str(tmp_path / "ours")])
    assert done.exit_code == 0, done.output
    return tmp_path / "ours"


def configured(model: Path, data: Path, **fields: object) -> FinetuneConfig:
    loop = LoopConfig(max_steps=6, evaluations=1)
    return FinetuneConfig(task="sentiment", model=str(model), data=str(data), device="cpu", loop=loop, **fields)


def test_a_classifier_tuned_here_is_the_same_in_a_pipeline(imported: Path, reviews_csv: Path, tmp_path: Path) -> None:
    """BERT's is read from its first token without asking, a causal model's from its last."""
    causal = load_model(imported).model.config.causal
    finetune(configured(imported, reviews_csv), tmp_path / "judge")
    judge = TextClassifier(tmp_path / "judge", device="cpu")
    assert judge.model.pooling == ("last" if causal else "first")
    pipeline = transformers.pipeline("text-classification", str(tmp_path / "judge"), top_k=None, device="cpu")
    texts = REVIEWS[:3]
    for probabilities, found in zip(judge.predict_proba(texts), pipeline(texts), strict=True):
        by_label = {one["label"]: one["score"] for one in found}
        assert dict(zip(judge.labels, probabilities, strict=True)) == pytest.approx(by_label, abs=1e-5)


def test_adapters_are_trained_beside_the_imported_weights(imported: Path, reviews_csv: Path, tmp_path: Path) -> None:
    outcome = finetune(configured(imported, reviews_csv, tuning="lora"), tmp_path / "judge")
    assert "validation_accuracy" in outcome.evaluation
    assert (tmp_path / "judge" / "adapter" / "adapter_config.json").is_file()


def test_a_classifier_tuned_elsewhere_judges_as_it_does_there(tmp_path: Path) -> None:
    tiny_bert(tmp_path)
    transformers.BertForSequenceClassification.from_pretrained(tmp_path).save_pretrained(tmp_path)
    theirs = transformers.pipeline("text-classification", str(tmp_path), top_k=None, device="cpu")
    ours = TextClassifier(tmp_path, device="cpu")
    for text in REVIEWS[:3]:
        by_label = {one["label"]: one["score"] for one in theirs([text])[0]}
        found = dict(zip(ours.labels, ours.predict_proba([text])[0], strict=True))
        assert found == pytest.approx(by_label, abs=1e-5)


def test_a_reader_tuned_elsewhere_sees_what_it_was_tuned_with(tmp_path: Path) -> None:
    """[CLS] question [SEP] context [SEP], told apart by segments, without the marks that readers tuned here get."""
    tiny_bert(tmp_path)
    theirs = transformers.BertForQuestionAnswering.from_pretrained(tmp_path)
    theirs.save_pretrained(tmp_path)
    reader = SpanReader(tmp_path, device="cpu")
    question = Question("1", REVIEWS[0], "director wonderful", (Answer(REVIEWS[0][:8], 0),), "f:1")
    [window] = reader.windows(reader.encode([question])[0])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    expected = tokenizer(question.question, question.context, return_tensors="pt")
    assert window.ids.tolist() == expected["input_ids"][0].tolist()
    with torch.inference_mode():
        logits = theirs.eval()(**expected)
    scores = logits.start_logits[0, :, None] + logits.end_logits[0]
    first, last = torch.nonzero(window_spans(window.allowed, scores.shape[0])).unbind(1)
    best = scores[first, last].max() - scores[0, 0]
    assert reader.predict([question])[0].score == pytest.approx(float(best), abs=1e-4)


def window_spans(allowed, length: int) -> torch.Tensor:
    """Return (T, T) bool, where an answer may start and end."""
    places = torch.from_numpy(allowed.copy())
    places[0] = False
    near = torch.ones(length, length, dtype=torch.bool).triu().tril(29)
    return places[:, None] & places & near
