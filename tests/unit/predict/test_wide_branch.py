"""Counted n-grams beside a classifier's Transformer: their weights, their files, and what is made with them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from tests.conftest import made_up_reviews

from lucidlm.baselines import naive_bayes
from lucidlm.baselines.naive_bayes import NaiveBayesLogisticRegression
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.checkpoint.wide_files import WIDE, WIDE_WEIGHTS
from lucidlm.core.errors import InputError
from lucidlm.data.examples.records import LabelledText
from lucidlm.explain.explanation import explain
from lucidlm.interop.exporting import export_model
from lucidlm.model.heads import SequenceClassifier
from lucidlm.model.ngrams import NgramClassifier, NgramTable, WideBranch
from lucidlm.predict.classifier import TextClassifier
from lucidlm.train.finetune.wide_branch import INVERSE_REGULARISATION, PRIOR, fit_ngrams, fit_wide_branch

TEXTS = [row["text"] for row in made_up_reviews(60)]


def with_branch(judge: Path, out: Path) -> Path:
    """Save the judge with a branch that knows two words."""
    loaded = load_model(judge)
    assert isinstance(loaded.model, SequenceClassifier)
    weight = np.array([[4.0], [-1.0]], np.float32)
    table = NgramTable("words", ("sublime", "tedious"), np.array([[3.0], [4.0]], np.float32), weight)
    loaded.model.wide = WideBranch(NgramClassifier((table,), np.array([-0.5], np.float32)), 0.25, 2.0)
    save_model(loaded.model, out, loaded.tokenizer, provenance=loaded.record["provenance"])
    return out


@pytest.fixture
def judge(tiny_model: Path, tmp_path: Path) -> Path:
    """A classifier that has learned nothing yet, of the Transformer alone."""
    loaded = load_model(tiny_model)
    assert loaded.tokenizer is not None
    model = SequenceClassifier(loaded.model.config, ["negative", "positive"], "last")
    save_model(model, tmp_path / "judge", loaded.tokenizer.with_end(), provenance={"task": "sentiment"})
    return tmp_path / "judge"


@pytest.fixture
def wide(judge: Path, tmp_path: Path) -> Path:
    return with_branch(judge, tmp_path / "wide")


def features(counts: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the log-count ratios of the n-grams that texts have, each text scaled to the length one."""
    inside, outside = counts[truth == 1].sum(0) + 1, counts[truth == 0].sum(0) + 1
    scaled = counts * (np.log(inside / inside.sum()) - np.log(outside / outside.sum()))
    return scaled / np.linalg.norm(scaled, axis=1, keepdims=True)


@pytest.mark.parametrize("repeats", [1, 8])
def test_weights_are_those_of_a_regression_over_log_count_ratios(repeats: int) -> None:
    texts = [" ".join([text] * repeats) for text in TEXTS]
    truth = np.array([len(text) % 2 for text in TEXTS])
    found = fit_ngrams(texts, truth, 2)
    words = CountVectorizer(ngram_range=(1, 3), binary=True, token_pattern=r"\w+(?:'\w+)?|[^\w\s]")
    inside_words = CountVectorizer(ngram_range=(2, 5), binary=True, analyzer="char_wb")
    counters = [words, inside_words] if repeats == 1 else [words]  # long texts have words enough
    both = np.hstack([features(counter.fit_transform(texts).toarray().astype(float), truth) for counter in counters])
    model = LogisticRegression(C=INVERSE_REGULARISATION, solver="liblinear").fit(both, truth)
    logits = found.logits(texts)
    assert [table.ngrams for table in found.tables] == [tuple(counter.get_feature_names_out()) for counter in counters]
    assert np.allclose(logits[:, 1] - logits[:, 0], model.decision_function(both), atol=1e-3)


def test_characters_inside_words_are_counted_of_short_texts_alone() -> None:
    long = ["a zebra crossing " * 40, "the zebra crosses " * 40]
    texts, truth = [*TEXTS, *long], np.array([len(text) % 2 for text in [*TEXTS, *long]])
    words, inside_words = fit_ngrams(texts, truth, 2).tables
    assert "zebra" in words.ngrams
    assert not any("ebr" in ngram for ngram in inside_words.ngrams)
    assert not inside_words.logits(long).any()
    assert inside_words.logits(TEXTS).all()


def test_a_text_without_a_known_ngram_has_the_bias_alone() -> None:
    found = fit_ngrams(TEXTS, np.array([len(text) % 2 for text in TEXTS]), 2)
    assert np.allclose(found.logits(["", "目"]), [[0, found.bias[0]]] * 2)


def test_three_labels_are_told_apart_each_from_the_rest() -> None:
    texts = ["red apple", "red cherry", "blue sky", "blue sea", "green grass", "green leaf"] * 3
    found = fit_ngrams(texts, np.array([0, 0, 1, 1, 2, 2] * 3), 3)
    assert found.logits(["a red car", "blue jeans", "the green hill"]).argmax(1).tolist() == [0, 1, 2]


def test_chinese_is_counted_by_characters() -> None:
    found = fit_ngrams(["房间很好", "早餐很好", "房间很差", "早餐很差"] * 2, np.array([1, 1, 0, 0] * 2), 2)
    assert [table.kind for table in found.tables] == ["characters"]
    assert "很好" in found.tables[0].ngrams
    assert found.logits(["服务很好", "服务很差"]).argmax(1).tolist() == [1, 0]


def test_one_label_cannot_be_weighed() -> None:
    with pytest.raises(InputError, match="one label only"):
        fit_ngrams(["a text", "another"], np.zeros(2, int), 2)


def test_the_baseline_is_that_of_its_paper() -> None:
    rows = made_up_reviews(60)
    training = [LabelledText(row["text"], str(len(row["text"]) % 2), "f:1") for row in rows]
    truth = np.array([len(row["text"]) % 2 for row in rows])
    counts = CountVectorizer(ngram_range=(1, 2), binary=True).fit_transform(TEXTS).toarray().astype(float)
    inside, outside = counts[truth == 1].sum(0) + 1, counts[truth == 0].sum(0) + 1
    ratio = np.log(inside / inside.sum()) - np.log(outside / outside.sum())
    model = LogisticRegression(C=naive_bayes.INVERSE_REGULARISATION, solver="liblinear").fit(counts * ratio, truth)
    answers = NaiveBayesLogisticRegression().fit(training).predict(training)
    assert np.allclose([answer.probabilities for answer in answers], model.predict_proba(counts * ratio), atol=1e-6)


def test_the_branch_that_is_right_on_held_out_texts_counts_more() -> None:
    truth = np.array([len(text) % 2 for text in TEXTS])
    right, noise = 4 * np.eye(2)[truth], np.random.default_rng(0).normal(size=(len(TEXTS), 2))
    sure = fit_wide_branch(TEXTS, truth, 2, TEXTS, right, truth)
    lost = fit_wide_branch(TEXTS, np.roll(truth, 7), 2, TEXTS, noise, truth)
    assert sure.deep_scale > 0.5 > lost.deep_scale
    alone = fit_wide_branch(TEXTS, truth, 2, [], np.zeros((0, 2)), np.zeros(0, int))
    assert (alone.deep_scale, alone.wide_scale) == (PRIOR, PRIOR)


def test_logits_are_added_and_each_branch_can_be_asked(judge: Path, wide: Path) -> None:
    text = "a sublime and tedious film"
    deep, both = TextClassifier(judge), TextClassifier(wide)
    logits = 0.25 * deep.deep_logits([text])[0] + 2 * np.array([0.0, (3 * 4 - 4 * 1) / 5 - 0.5])
    expected = np.exp(logits) / np.exp(logits).sum()
    assert np.allclose(both.predict_proba([text])[0], expected)
    assert np.allclose(both(text).probabilities, expected)
    parts = both.branches([LabelledText(text, "positive", "f:1")], [both(text)])
    assert list(parts) == ["Transformer alone", "n-grams alone"]
    assert np.allclose(parts["Transformer alone"][0].probabilities, deep(text).probabilities)
    assert np.allclose(np.diff(np.log(parts["n-grams alone"][0].probabilities)), 1.1)


def test_the_branch_is_saved_quantised_or_not_and_goes_with_the_model_that_replaces_it(
    judge: Path, wide: Path, tmp_path: Path
) -> None:
    loaded = load_model(wide)
    assert isinstance(loaded.model, SequenceClassifier)
    save_model(loaded.model, tmp_path / "small", loaded.tokenizer, dtype="int8")
    again = load_model(tmp_path / "small").model
    assert isinstance(again, SequenceClassifier)
    assert again.wide is not None
    assert again.wide.ngrams.tables[0].ngrams == ("sublime", "tedious")
    other = load_model(judge)
    save_model(other.model, wide, other.tokenizer)
    assert not (wide / WIDE).exists()
    assert not (wide / WIDE_WEIGHTS).exists()


def test_damaged_files_are_named(wide: Path) -> None:
    fields = json.loads((wide / WIDE).read_text(encoding="utf-8"))
    (wide / WIDE).write_text(json.dumps({**fields, "ngrams": {"words": ["sublime"]}}), encoding="utf-8")
    with pytest.raises(InputError, match=rf"{WIDE}.*(bytes|checksum)"):
        load_model(wide)
    with pytest.raises(InputError, match="weighs 1 n-grams"):
        load_model(wide, verify=False)
    (wide / WIDE_WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(InputError, match="no list of n-grams"):
        load_model(wide, verify=False)


def test_other_software_has_no_place_for_it(judge: Path, wide: Path, tmp_path: Path) -> None:
    loaded = load_model(wide)
    with pytest.raises(InputError, match=r"counts n-grams beside its Transformer.*--deep-only"):
        export_model(loaded, "onnx", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
    assert isinstance(loaded.model, SequenceClassifier)
    export_model(loaded, "hf", tmp_path / "hf", deep_only=True)
    assert loaded.model.wide is not None
    assert not (tmp_path / "hf" / WIDE).exists()
    exported = load_model(tmp_path / "hf").model.state_dict()
    assert all(torch.equal(exported[name], value) for name, value in load_model(judge).model.state_dict().items())


def test_it_is_explained_by_readings(wide: Path) -> None:
    loaded = load_model(wide)
    found = explain(loaded, "a sublime film", target=TextClassifier(wide).labels[1])
    assert found.method == "erasure"
    word = "".join(text for text, _ in found.pieces).index("sublime")
    pieces, place = {}, 0
    for text, value in found.pieces:
        pieces[place, place + len(text)] = value
        place += len(text)
    inside = [value for (start, end), value in pieces.items() if start < word + 7 and end > word]
    assert max(inside) == max(pieces.values())
    assert sum(inside) > 0.5
    with pytest.raises(InputError, match="gradients do not reach"):
        explain(loaded, "a sublime film", method="integrated-gradients")
