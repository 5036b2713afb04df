"""Explanations: complete, equal to what they are by definition, right where the answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.attribution import gradients
from lucidlm.explain.attribution.gradients import integrated_gradients
from lucidlm.explain.attribution.occlusion import occlusion
from lucidlm.explain.checks.faithfulness import faithfulness
from lucidlm.explain.explanation import explain
from lucidlm.explain.pieces import cut
from lucidlm.explain.prediction import Prediction
from lucidlm.explain.predictions import predict
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

TEXT = "director calls film wonderful and"


@pytest.fixture(scope="module")
def loaded(tiny_model: Path) -> LoadedModel:
    found = load_model(tiny_model)
    found.model.requires_grad_(False)
    return found


@pytest.fixture(scope="module")
def prediction(loaded: LoadedModel) -> Prediction:
    return predict(loaded, TEXT)


@pytest.fixture(scope="module")
def classifier() -> LoadedModel:
    """A classifier whose label depends on one token alone: "good" moves the class, nothing else does."""
    tokenizer = Tokenizer.train_characters(["abcdefg +"])
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, embedding_dim=8, num_heads=2, ff_dim=8, num_layers=1, context_length=32
    )
    model = SequenceClassifier(config, ["no", "yes"], "mean").eval()
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()  # pyright: ignore[reportAttributeAccessIssue]
        model.model.layers[0].mlp.down_proj.weight.zero_()  # pyright: ignore[reportAttributeAccessIssue]
        table = model.model.embed_tokens.weight
        table.zero_()[:, 0] = 1.0
        table[tokenizer.encode("+")[0], 1] = 3.0
        model.score.weight.zero_()[1, 1] = 9.0
    return LoadedModel(model, tokenizer, {"kind": "classifier", "provenance": {}})


def test_attributions_are_complete(loaded: LoadedModel) -> None:
    found = explain(loaded, TEXT, method="integrated-gradients")
    assert found.completeness is not None
    assert found.completeness.reached
    total = sum(value for _, value in found.pieces)
    assert total == pytest.approx(found.logprob - found.blank_logprob, abs=0.02)
    assert "".join(text for text, _ in found.pieces) == TEXT


def test_gradients_are_a_hand_made_integral(prediction: Prediction) -> None:
    points, weights = np.polynomial.legendre.leggauss(50)
    table, ids = prediction.embedding.weight.detach(), prediction.ids
    full, empty = table[ids], table[prediction.blanked.tokens]
    total = torch.zeros_like(full)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        variable = (empty + float(point) * (full - empty))[None].requires_grad_()

        def replace(*_: object, value: Tensor = variable) -> Tensor:
            return value

        hook = prediction.embedding.register_forward_hook(replace)
        (gradient,) = torch.autograd.grad(prediction.score(ids[None]).sum(), variable)
        hook.remove()
        total += float(weight) * gradient[0]
    by_token = ((full - empty) * total).sum(-1)
    found = integrated_gradients(prediction, 50)
    assert found.completeness is not None
    assert found.completeness.steps == 50
    expected = [float(by_token[piece.places].sum()) for piece in prediction.pieces]
    assert found.values == pytest.approx(expected, abs=1e-4)


def test_gradients_do_not_depend_on_what_is_read_together(
    prediction: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = integrated_gradients(prediction).values
    monkeypatch.setattr(gradients, "TOKENS_AT_ONCE", 3 * len(prediction.ids))
    assert integrated_gradients(prediction).values == pytest.approx(values, abs=1e-5)


def test_occlusion_is_what_it_says(prediction: Prediction) -> None:
    whole = prediction.score(prediction.ids[None])[0]
    expected = []
    for piece in prediction.pieces:
        tokens = prediction.ids.clone()
        tokens[piece.places] = prediction.blank
        expected.append(float(whole - prediction.score(tokens[None])[0]))
    assert occlusion(prediction).values == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "method", ["gradient-x-input", "integrated-gradients", "relevance", "occlusion", "erasure", "shapley"]
)
def test_the_token_that_decides_gets_the_credit(classifier: LoadedModel, method: str) -> None:
    found = explain(classifier, "abcdef+gabcdefgabcdefg", method=method)  # pyright: ignore[reportArgumentType]
    assert found.target == "yes"
    values = dict(found.pieces)
    assert max(values, key=lambda text: values[text]) == "+"
    assert found.faithfulness is not None
    assert found.faithfulness.figures.comprehensiveness > found.faithfulness.random.comprehensiveness


def test_what_is_no_better_than_random_says_so(classifier: LoadedModel) -> None:
    prediction = predict(classifier, "abcdef+gabcdefgabcdefg")
    wrong = faithfulness(prediction, -occlusion(prediction).values)
    assert wrong is not None
    assert not wrong.better
    assert faithfulness(predict(classifier, "+"), np.array([1.0])) is None


def test_parts_of_a_character_are_one_piece() -> None:
    tokenizer = Tokenizer.train_bpe(["abc"] * 3, 261, exact=False)
    ids, pieces = cut(tokenizer, "a电影😀b")
    assert [piece.text for piece in pieces] == ["a", "电", "影", "😀", "b"]
    assert [place for piece in pieces for place in piece.places] == list(range(len(ids)))


def test_the_model_is_left_as_it_was(tiny_model: Path) -> None:
    loaded = load_model(tiny_model)
    loaded.model.train()
    explain(loaded, TEXT, method="occlusion")
    assert loaded.model.training
    assert all(parameter.requires_grad for parameter in loaded.model.parameters())


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        (" ", None, "TEXT: is empty"),
        ("film", "", "--target: is empty"),
        ("film " * 100, None, "the model reads 64 at once"),
    ],
)
def test_what_cannot_be_explained_is_said(loaded: LoadedModel, text: str, target: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(loaded, text, target)


def test_an_unknown_label_is_named_with_those_there_are(classifier: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"there is no label 'maybe'. Choose one of: no, yes"):
        explain(classifier, "abc", "maybe")
