"""Views of labelled data: probes find what is there and nothing more; the nearest examples are those that are nearest."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.io import sha256
from lucidlm.explain.inside.nearest import nearest
from lucidlm.explain.inside.probes import probe
from lucidlm.explain.inside.states import text_states, word_states
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.predict.classifier import TextClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

TEXT = "director calls film wonderful and"
WORDS = [f"{letter}{other}" for letter in "abcdefgh" for other in "aeiou"]


def rows_to(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


# ---------------------------------------------------------------------- states


def test_states_of_texts_are_what_the_head_reads(judge: LoadedModel) -> None:
    texts = [TEXT, "plot", "the ending was dull while music"]
    found = text_states(judge, texts, "reading")
    assert found.shape == (judge.model.config.num_layers + 1, 3, judge.model.config.embedding_dim)
    model = judge.model
    assert isinstance(model, SequenceClassifier)
    with torch.no_grad():
        states = torch.from_numpy(found[-1])
        logits = model.score(states) if model.config.causal else model.classifier(model.dense(states))
    np.testing.assert_allclose(logits.numpy(), TextClassifier.of(judge).deep_logits(texts), atol=1e-4)


@pytest.mark.parametrize("pooling", ["last", "first", "mean"])
def test_states_are_pooled_as_the_classifier_does_even_where_texts_end_with_padding(
    pooling: str, fresh: LoadedModel
) -> None:
    assert fresh.tokenizer is not None
    ending = fresh.tokenizer.encode("ba")[-1]
    config = fresh.model.config
    model = SequenceClassifier(config, ["a", "b"], pooling, pad_id=ending).eval()  # type: ignore[arg-type]
    loaded = LoadedModel(model, fresh.tokenizer, {"kind": "classifier", "provenance": {}})
    texts = ["ce di ba", "ce", "fu ge ho ba"]
    states = torch.from_numpy(text_states(loaded, texts, "reading")[-1])
    with torch.no_grad():
        pooled = model.dense(states)
        logits = model.classifier(pooled.tanh() if pooling == "first" else torch.nn.functional.gelu(pooled))
    np.testing.assert_allclose(logits.numpy(), TextClassifier.of(loaded).deep_logits(texts), atol=1e-5)


def test_states_of_words_are_those_of_their_last_tokens(language: LoadedModel) -> None:
    sentences = [["director", "calls", "film"], ["plot"]]
    found = word_states(language, sentences, "reading")
    assert [one.shape[1] for one in found] == [3, 1]
    assert language.tokenizer is not None
    assert isinstance(language.model, LanguageModel)
    ids = language.tokenizer.encode("director calls film")
    with torch.no_grad():
        last = language.model.model(torch.tensor([ids]))[0, -1]
    np.testing.assert_allclose(found[0][-1, 2], last.numpy(), atol=1e-5)


# ---------------------------------------------------------------------- probes


@pytest.fixture(scope="module")
def fresh() -> LoadedModel:
    """A bidirectional model with weights as they are drawn: a word's state says which word it is."""
    tokenizer = Tokenizer.train_bpe([" ".join(WORDS)] * 3, 330, exact=False)
    config = ModelConfig.masked(
        vocab_size=tokenizer.vocab_size, embedding_dim=64, num_heads=2, ff_dim=64, num_layers=2, context_length=64
    )
    return LoadedModel(LanguageModel(config).eval(), tokenizer, {"kind": "language", "provenance": {}}, "fresh")


def sentences(count: int, tag_of: object) -> list[dict[str, object]]:
    draw = np.random.default_rng(0)
    found = []
    for _ in range(count):
        words = [WORDS[index] for index in draw.integers(0, len(WORDS), 6)]
        found.append({"tokens": words, "tags": [tag_of(words, place) for place in range(6)]})  # type: ignore[operator]
    return found


def test_what_words_are_can_be_learnt_by_heart_and_is_not_selective(fresh: LoadedModel, tmp_path: Path) -> None:
    """The tag is a property of the word, as random as the control's: a probe reads both as well."""
    draw = np.random.default_rng(1)
    tags = {word: "B-X" if draw.random() < 0.5 else "O" for word in WORDS}
    data = rows_to(tmp_path / "words.jsonl", sentences(150, lambda words, place: tags[words[place]]))
    view = probe(fresh, data, words=True)
    best = next(one for one in view.figures["layers"] if one["layer"] == view.figures["best"])
    assert best["accuracy"]["value"] > 0.9
    assert best["control"]["value"] > 0.9
    assert abs(best["selectivity"]["value"]) < 0.1
    assert best["selectivity"]["low"] <= best["selectivity"]["value"] <= best["selectivity"]["high"]


def test_labels_that_are_not_in_the_states_are_not_found(fresh: LoadedModel, tmp_path: Path) -> None:
    draw = np.random.default_rng(2)
    data = rows_to(tmp_path / "noise.jsonl", sentences(150, lambda *_: "B-X" if draw.random() < 0.5 else "O"))
    view = probe(fresh, data, words=True)
    assert all(one["accuracy"]["value"] < 0.65 for one in view.figures["layers"])
    assert all(one["selectivity"]["high"] < 0 for one in view.figures["layers"])
    assert "NOT SHOWN to be more than" in view.verdict[1]


def test_probes_of_texts_read_what_a_classifier_learnt(judge: LoadedModel, reviews_csv: Path) -> None:
    view = probe(judge, str(reviews_csv), limit=300)
    assert [grid.columns for grid in view.grids] == [("labels", "control task", "selectivity")]
    last = view.figures["layers"][-1]
    assert last["accuracy"]["value"] > 0.8
    assert last["selectivity"]["low"] > 0
    assert "more than what a probe learns by heart" in view.verdict[1]
    assert probe(judge, str(reviews_csv), limit=300).as_dict() == view.as_dict()
    assert probe(judge, str(reviews_csv), limit=300, seed=1).as_dict() != view.as_dict()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            [{"text": f"film {index}", "label": "a"} for index in range(90)],
            "holds 90 examples of 1 label",
        ),
        ([{"text": f"film {index}", "label": index % 2} for index in range(20)], "holds 20 examples of 2 labels"),
        ([{"text": "film"}], "label"),
    ],
)
def test_data_that_cannot_be_probed_are_named(
    rows: list[dict[str, object]], message: str, language: LoadedModel, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        probe(language, rows_to(tmp_path / "data.jsonl", rows))


# ---------------------------------------------------------------------- nearest examples


def test_the_nearest_are_the_nearest_by_cosine(judge: LoadedModel, reviews_csv: Path) -> None:
    view = nearest(judge, TEXT, str(reviews_csv), count=8)
    similarities = [one["similarity"] for one in view.figures["nearest"]]
    assert similarities == sorted(similarities, reverse=True)
    one = view.figures["nearest"][3]
    states = text_states(judge, [TEXT, one["text"]], "reading")[-1].astype(float)
    cosine = states[0] @ states[1] / np.linalg.norm(states[0]) / np.linalg.norm(states[1])
    assert one["similarity"] == pytest.approx(cosine, abs=1e-5)
    assert one["where"].startswith(str(reviews_csv))


def test_a_text_of_the_training_data_is_nearest_to_itself(judge: LoadedModel, tmp_path: Path) -> None:
    rows = [{"text": f"{word} film", "label": index % 2} for index, word in enumerate(WORDS)]
    view = nearest(judge, "ei film", rows_to(tmp_path / "short.jsonl", rows), count=1)  # type: ignore[arg-type]
    assert view.figures["nearest"][0]["text"] == "ei film"
    assert view.figures["nearest"][0]["similarity"] == pytest.approx(1.0, abs=1e-5)
    assert "is the text itself" in view.verdict[1]
    assert "names" in view.verdict[1]


def test_the_share_that_agrees_is_held_against_chance_and_the_data_are_named(
    judge: LoadedModel, reviews_csv: Path
) -> None:
    view = nearest(judge, TEXT, str(reviews_csv), count=20)
    figures = view.figures
    agree = np.mean([one["label"] == figures["predicted"] for one in figures["nearest"]])
    assert figures["agree"] == pytest.approx(agree)
    assert figures["predicted"] == TextClassifier.of(judge)(TEXT).label
    assert figures["random"]["low"] <= figures["random"]["mean"] <= figures["random"]["high"]
    assert figures["random"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert figures["data"]["sha256"] == sha256(reviews_csv)
    assert "the file that the model's record names" in view.verdict[1]
    assert f"p = {figures['p_value']:.4f}" in view.verdict[0]


def test_random_weights_find_other_neighbours(judge: LoadedModel, reviews_csv: Path) -> None:
    import copy
    from dataclasses import replace

    model = copy.deepcopy(judge.model)
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    first, second = (
        {one["where"] for one in nearest(loaded, TEXT, str(reviews_csv)).figures["nearest"]}
        for loaded in (judge, replace(judge, model=model))
    )
    assert len(first & second) < 5


def test_what_has_no_nearest_examples_is_named(judge: LoadedModel, language: LoadedModel, reviews_csv: Path) -> None:
    with pytest.raises(InputError, match="is no classifier: it has no labelled training examples"):
        nearest(language, TEXT, str(reviews_csv))
    with pytest.raises(InputError, match=r"--count: is 400 of 400 examples. Choose 1 to 399"):
        nearest(judge, TEXT, str(reviews_csv), count=400)
    with pytest.raises(InputError, match="no such file"):
        nearest(judge, TEXT, "nowhere.csv")
