"""Methods of attribution where the answer is known: linear models, games, single layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.attribution import erasure as erasing
from lucidlm.explain.attribution import shapley as orders
from lucidlm.explain.attribution.erasure import erasure
from lucidlm.explain.attribution.methods import METHODS, Method, attribute, default_method
from lucidlm.explain.attribution.occlusion import occlusion
from lucidlm.explain.attribution.relevance import relevance, relevance_rules
from lucidlm.explain.attribution.rollout import rollout
from lucidlm.explain.attribution.shapley import shapley
from lucidlm.explain.checks.likeness import likeness, stability
from lucidlm.explain.explanation import explain
from lucidlm.explain.pieces import cut, joined_by
from lucidlm.explain.prediction import Prediction
from lucidlm.explain.predictions import predict
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.tokenize.tokenizer import Tokenizer

TEXT = "abc fed+ g."
TOKENIZER = Tokenizer.train_characters(["abcdefg +.，。电影很好看"])


def classifier(**settings: object) -> LoadedModel:
    shape = {"embedding_dim": 8, "num_heads": 2, "ff_dim": 8, "num_layers": 1, "context_length": 32}
    config = ModelConfig(vocab_size=TOKENIZER.vocab_size, **{**shape, **settings})  # pyright: ignore[reportArgumentType]
    model = SequenceClassifier(config, ["no", "yes", "perhaps"], "mean").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return LoadedModel(model, TOKENIZER, {"kind": "classifier", "provenance": {}})


def language(**settings: object) -> LoadedModel:
    shape = {"embedding_dim": 16, "num_heads": 2, "ff_dim": 16, "num_layers": 2, "context_length": 64}
    config = ModelConfig(vocab_size=TOKENIZER.vocab_size, **{**shape, **settings})  # pyright: ignore[reportArgumentType]
    model = LanguageModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return LoadedModel(model, TOKENIZER, {"kind": "language", "provenance": {}})


@pytest.mark.parametrize("method", [name for name in METHODS if name != "rollout"])
def test_attributions_of_a_linear_model_are_exact(method: Method) -> None:
    loaded = classifier()
    model = loaded.model
    assert isinstance(model, SequenceClassifier)
    for name, parameter in model.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            parameter.data.zero_()
    model.model.norm = nn.Identity()  # what is left is a mean of embeddings, times a matrix
    model.requires_grad_(False)
    prediction = predict(loaded, TEXT, "yes", rather_than="no")
    weights = model.score.weight[1] - model.score.weight[0]
    table = model.model.embed_tokens.weight
    blank = 0 if method in ("gradient-x-input", "relevance") else table[prediction.blank]
    expected = ((table[prediction.ids] - blank) @ weights / len(prediction.ids)).numpy()
    expected = [expected[piece.places].sum() for piece in prediction.pieces]
    assert attribute(prediction, method).values == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("settings", [{}, {"activation": "gelu"}, {"activation": "relu2", "qk_norm": False}])
def test_relevance_is_conserved_where_nothing_is_attended_to(settings: dict[str, object]) -> None:
    loaded = language(bias=False, norm_eps=1e-12, **settings)
    for name, parameter in loaded.model.named_parameters():
        if name.endswith("o_proj.weight"):
            parameter.data.zero_()
    found = relevance(predict(loaded, TEXT, "a")).completeness
    assert found is not None
    assert abs(found.explained) > 0.1
    assert found.total == pytest.approx(found.explained, rel=1e-3)


@pytest.mark.parametrize("settings", [{}, {"num_kv_heads": 1}, {"causal": False}, {"causal": False, "post_norm": True}])
def test_rules_of_relevance_leave_what_is_computed(settings: dict[str, object]) -> None:
    model = classifier(**settings).model
    assert isinstance(model, SequenceClassifier)
    tokens = torch.tensor([TOKENIZER.encode(TEXT)])
    lengths = torch.tensor([tokens.shape[1]])
    before = model(tokens, lengths)
    with relevance_rules(model):
        assert torch.allclose(model(tokens, lengths), before, atol=1e-4)
    assert torch.equal(model(tokens, lengths), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_relevance_of_attention_is_shared_as_the_paper_says() -> None:
    """Values get half; queries and keys share the other half through the weights, whose softmax keeps its gradient."""
    loaded = language(num_layers=1, qk_norm=False, position="learned")
    attention = loaded.model.get_submodule("model.layers.0.self_attn")
    seen: dict[str, Tensor] = {}
    for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
        part = attention.get_submodule(name)
        part.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    model = loaded.model
    assert isinstance(model, LanguageModel)
    tokens = torch.tensor([TOKENIZER.encode(TEXT)])

    def total() -> Tensor:
        return model(tokens)[0, -1, 3]

    with relevance_rules(model):
        q, k, v, at_output = torch.autograd.grad(
            total(), [seen[name] for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
        )
    total()
    output = (seen["o_proj"] * at_output).sum()
    plain = torch.autograd.grad(output, [seen[name] for name in ("q_proj", "k_proj", "v_proj")])
    for found, other, share in zip((q, k, v), plain, (0.25, 0.25, 0.5), strict=True):
        assert found.abs().max() > 0
        assert torch.allclose(found, share * other, atol=1e-5)


def test_rollout_of_even_attention_is_known() -> None:
    loaded = language(num_layers=1)
    for name, parameter in loaded.model.named_parameters():
        if "q_proj" in name:
            parameter.data.zero_()
    prediction = predict(loaded, TEXT)
    length = len(prediction.ids)
    expected = np.full(length, 0.5 / length)
    expected[-1] += 0.5
    assert rollout(prediction).values == pytest.approx(expected[-len(prediction.pieces) :], abs=1e-5)


def game(rule: Callable[[np.ndarray], np.ndarray]) -> Prediction:
    """Return a prediction about six letters, whose score is what `rule` makes of which are shown (B, 6)."""
    prediction = predict(classifier(), "abcdef")

    def score(tokens: Tensor, places: Tensor | None = None) -> Tensor:
        shown = (tokens[:, prediction.pieces[0].places[0] :][:, :6] != prediction.blank).double().numpy()
        return torch.from_numpy(rule(shown))

    return replace(prediction, score=score)


def test_shapley_values_of_a_game_of_pairs_are_exact_by_one_pair_of_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders, "MOST_PAIRS", 1)
    draw = np.random.default_rng(0)
    alone, pairs = draw.normal(size=6), np.triu(draw.normal(size=(6, 6)), 1)
    found = shapley(game(lambda shown: shown @ alone + np.einsum("bi,ij,bj->b", shown, pairs, shown)))
    assert found.values == pytest.approx(alone + (pairs.sum(0) + pairs.sum(1)) / 2, abs=1e-9)
    assert found.completeness is not None
    assert found.completeness.reached


def test_erasure_finds_what_stands_in_for_each_other() -> None:
    """Where either of two letters is nearly enough, blanking one of them costs next to nothing."""
    either = game(lambda shown: 3 * shown[:, [1, 4]].max(1) + 0.1 * shown[:, [1, 4]].sum(1) + 5 * shown[:, 2])
    assert occlusion(either).values == pytest.approx([0, 0.1, 5, 0, 0.1, 0])
    found = erasure(either)  # one of the two costs 0.1, then the other 3.1: they share it
    assert found.values == pytest.approx([0, 1.6, 5, 0, 1.6, 0])
    assert found.completeness is not None
    assert found.completeness.reached


def test_erasure_falls_in_the_order_in_which_pieces_go(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    pairs = np.triu(draw.normal(size=(6, 6)))
    prediction = game(lambda shown: np.einsum("bi,ij,bj->b", shown, pairs, shown))
    gone: list[int] = []
    for _ in range(6):
        left = [piece for piece in range(6) if piece not in gone]
        scores = prediction.scores([prediction.without([*gone, piece], prediction.blank) for piece in left])
        gone.append(left[int(scores.argmin())])
    assert list(np.argsort(-erasure(prediction).values)) == gone
    monkeypatch.setattr(erasing, "TOKENS", 20)  # several at a time
    rough = erasure(prediction).completeness
    assert rough is not None
    assert rough.total == pytest.approx(rough.explained)


def test_short_texts_are_explained_by_erasure() -> None:
    assert default_method(predict(classifier(), "abc")) == "erasure"
    assert default_method(predict(classifier(context_length=256), "abcd " * 40)) == "relevance"
    assert default_method(predict(language(), "abc")) == "relevance"


@pytest.mark.parametrize("other", ["b", "bc", "fb"])
def test_a_comparison_explains_the_difference(other: str) -> None:
    loaded = language()
    loaded.model.requires_grad_(False)
    target = "fa" if other == "fb" else "a"
    why, one, two = (
        predict(loaded, TEXT, target, rather_than=other),
        predict(loaded, TEXT, target),
        predict(loaded, TEXT, other),
    )
    tokens = one.ids[None]
    assert float(why.score(tokens)) == pytest.approx(float(one.score(tokens) - two.score(tokens)), abs=1e-5)
    assert why.probabilities(np.array([0.0])) == pytest.approx(0.5)
    assert why.length == len(target)


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("a dull film, isn't it? Yes.", "word", ["a", " dull", " film", ",", " isn't", " it", "?", " Yes", "."]),
        ("One end. Another one! ", "sentence", ["One end.", " Another one! "]),
        ("电影很好看，好。看！", "sentence", ["电影很好看，好。", "看！"]),
        ("电影", "word", ["电", "影"]),
    ],
)
def test_pieces_are_joined_to_words_and_sentences(text: str, unit: str, expected: list[str]) -> None:
    tokenizer = Tokenizer.train_characters([text])
    ids, pieces = cut(tokenizer, text)
    joined = joined_by(unit, text, pieces)  # pyright: ignore[reportArgumentType]
    assert [piece.text for piece in joined] == expected
    assert [place for piece in joined for place in piece.places] == list(range(len(ids)))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": "yes", "rather_than": "yes"}, "--rather-than: 'yes' is the target itself"),
        ({"rather_than": "maybe"}, "--rather-than: there is no label 'maybe'. Choose one of: no, yes, perhaps"),
        (
            {"target": "yes", "rather_than": "no", "method": "rollout"},
            "--method: rollout is the same whatever the target",
        ),
        ({"steps": 0}, "--steps: is less than 1"),
    ],
)
def test_what_does_not_go_together_is_said(given: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        explain(classifier(), TEXT, **given)  # pyright: ignore[reportArgumentType]


def test_a_continuation_is_not_compared_with_itself() -> None:
    with pytest.raises(InputError, match="--rather-than: 'a' is the target itself"):
        explain(language(), TEXT, "a", rather_than="a")


def test_likeness_is_the_rank_correlation() -> None:
    found = likeness("occlusion", np.array([1.0, 2.0, 3.0, 4.0, 5.0]), np.array([1.0, 2.0, 4.0, 3.0, 9.0]))
    assert found is not None
    assert found.value == pytest.approx(0.9)
    assert found.low < 0.9 < found.high
    assert likeness("occlusion", np.zeros(5), np.arange(5.0)) is None
    assert likeness("occlusion", np.arange(3.0), np.arange(3.0)) is None


def test_stability_is_of_methods_with_a_blank() -> None:
    prediction = predict(classifier(), TEXT)
    values = attribute(prediction, "occlusion").values
    found = stability(prediction, "occlusion", values)
    assert found is not None
    assert found.other == "."
    assert stability(prediction, "relevance", values) is None
    # Blank by the same token, nothing changes.
    same = replace(prediction, other_blank=(prediction.blank, prediction.blank_text))
    assert (again := stability(same, "occlusion", values)) is not None
    assert again.value == pytest.approx(1.0)
