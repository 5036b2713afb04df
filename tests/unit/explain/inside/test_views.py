"""The views: equal to what they are by definition, other for other weights, and clear about what cannot be looked at."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.inside.ablation import mean_out, without_each_head, without_heads
from lucidlm.explain.inside.attention import attention
from lucidlm.explain.inside.lens import lens
from lucidlm.explain.inside.logits import decompose, logit_attribution, rank_correlation
from lucidlm.explain.inside.norms import norms
from lucidlm.explain.inside.patching import Pair, patch, patching, read_pairs
from lucidlm.explain.inside.reading import Reading, read
from lucidlm.explain.inside.trace import Site
from lucidlm.explain.inside.tuned_lens import TunedLens, train_lens
from lucidlm.explain.inside.view import View
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier

TEXT = "director calls film wonderful and"
OTHER = "director calls film dreadful and"


def randomised(loaded: LoadedModel) -> LoadedModel:
    """Return the model with each matrix drawn anew, as large as before."""
    model = copy.deepcopy(loaded.model)
    draw = torch.Generator().manual_seed(3)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.copy_(parameter.std() * torch.randn(parameter.shape, generator=draw))
    return replace(loaded, model=model)


def made_of(config: ModelConfig, loaded: LoadedModel, pooling: str | None = None) -> LoadedModel:
    """Return a model with every weight drawn, biases and norms too, that reads as `loaded` does."""
    fresh = LanguageModel(config) if pooling is None else SequenceClassifier(config, ["no", "yes"], pooling)  # pyright: ignore
    draw = torch.Generator().manual_seed(5)
    for parameter in fresh.parameters():
        parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=draw))
    kind = "language" if pooling is None else "classifier"
    return LoadedModel(fresh.eval(), loaded.tokenizer, {"kind": kind, "provenance": {}})


def shape(loaded: LoadedModel, **fields: Any) -> dict[str, Any]:
    assert loaded.tokenizer is not None
    sizes = {"embedding_dim": 16, "num_heads": 4, "ff_dim": 24, "num_layers": 2, "context_length": 64}
    return {"vocab_size": loaded.tokenizer.vocab_size, **sizes, **fields}


@pytest.fixture(scope="module")
def strong(language: LoadedModel) -> LoadedModel:
    """A causal model whose weights are large enough that every change of a text shows."""
    return made_of(ModelConfig(**shape(language)), language)


# ---------------------------------------------------------------------- reading


def test_a_reading_is_what_the_model_reads(language: LoadedModel, judge: LoadedModel, masked: LoadedModel) -> None:
    found = read(language, TEXT)
    assert "".join(found.labels) == TEXT
    assert found.place == len(found.tokens) - 1
    assert read(judge, TEXT).labels[-1] == "<|endoftext|>"
    assert masked.tokenizer is not None
    mask = masked.tokenizer.core.id_to_token(masked.tokenizer.mask_id)
    filled = read(masked, f"the film was {mask} and")
    assert filled.place is not None
    assert int(filled.tokens[filled.place]) == masked.tokenizer.mask_id
    assert filled.labels[filled.place] == mask


def test_parts_of_one_character_are_told_apart(language: LoadedModel) -> None:
    found = read(language, "film 电影")
    assert len(found.labels) == len(found.tokens)
    assert [label for label in found.labels if label != "⋯"][-2:] == ["电", "影"] or "电" in "".join(found.labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [(" ", "text: is empty"), ("film " * 100, "the model reads 64 at once. Look at a part of it")],
)
def test_texts_that_cannot_be_read_are_named(language: LoadedModel, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(language, text)


def test_two_masks_and_no_mask_are_named(masked: LoadedModel) -> None:
    assert masked.tokenizer is not None
    mask = masked.tokenizer.core.id_to_token(masked.tokenizer.mask_id)
    with pytest.raises(InputError, match="has 2 masks"):
        read(masked, f"the {mask} was {mask}")
    with pytest.raises(InputError, match="asks a masked model nothing"):
        logit_attribution(read(masked, "the film was good"))


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification"])
def test_models_of_other_kinds_are_refused(language: LoadedModel, problem: Any) -> None:
    model = SequenceClassifier(ModelConfig(**shape(language)), ["a"], "mean", problem_type=problem)
    loaded = LoadedModel(model, language.tokenizer, {"kind": "classifier", "provenance": {}})
    with pytest.raises(InputError, match=r"cannot be looked into yet\. Pass a language model"):
        read(loaded, TEXT)


# ---------------------------------------------------------------------- what views show


def views() -> dict[str, Callable[[Reading, Reading], View]]:
    return {
        "attention": lambda first, _: attention(first),
        "lens": lambda first, _: lens(first),
        "norms": lambda first, _: norms(first),
        "logits": lambda first, _: logit_attribution(first),
        "patch": lambda first, second: patching([Pair(first, second, "f", "x")]),
    }


@pytest.mark.parametrize("name", views())
def test_randomised_weights_change_the_view(name: str, strong: LoadedModel) -> None:
    """What looks the same of a model that has learnt nothing shows the text, not the model (Adebayo et al. 2018)."""
    look, other = views()[name], randomised(strong)
    first, again, second = (look(read(one, TEXT), read(one, OTHER)) for one in (strong, strong, other))
    for one, same, changed in zip(first.grids, again.grids, second.grids, strict=False):
        assert np.array_equal(one.values, same.values)
        if one.values.shape == changed.values.shape:
            scale = np.abs(one.values).max()
            assert np.abs(one.values - changed.values).max() > 0.05 * scale, one.title
    assert first.verdict == again.verdict != second.verdict
    json.dumps(first.as_dict(), allow_nan=False)


def test_attention_weights_sum_to_one_and_one_head_can_be_chosen(language: LoadedModel) -> None:
    found = attention(read(language, TEXT))
    config = language.model.config
    assert len(found.grids) == config.num_layers * config.num_heads + 1
    for grid in found.grids[:-1]:
        np.testing.assert_allclose(grid.values.sum(1), 1.0, atol=1e-6)
        assert np.triu(grid.values, 1).max() == 0  # nothing of what comes later
    chosen = attention(read(language, TEXT), layer=1, head=0)
    assert [grid.title for grid in chosen.grids[:-1]] == ["layer 1, head 0"]
    with pytest.raises(InputError, match=r"--layer: there is no layer 2\. Choose 0 to 1"):
        attention(read(language, TEXT), layer=2)
    with pytest.raises(InputError, match="--head: there is no head 99"):
        attention(read(language, TEXT), head=99)


def test_a_head_is_taken_out_alone(language: LoadedModel) -> None:
    reading = read(language, TEXT)
    found = without_each_head(reading)
    layers, heads = language.model.config.num_layers, language.model.config.num_heads
    assert found.shape[:2] == (layers, heads)
    for layer in range(layers):
        for head in range(heads):
            alone = reading.record([], without_heads([(layer, head)]))[1][0]
            torch.testing.assert_close(found[layer, head], alone, atol=1e-5, rtol=1e-5)
    value = torch.randn(2, 5, 3)
    assert torch.allclose(mean_out(value)[0, 0], value.mean((0, 1)))


def test_the_last_row_of_the_lens_is_the_model(language: LoadedModel, judge: LoadedModel) -> None:
    reading = read(language, TEXT)
    found = lens(reading)
    model = language.model
    assert isinstance(model, LanguageModel)
    with torch.no_grad():
        chances = model(reading.tokens[None])[0].softmax(-1).max(-1)
    np.testing.assert_allclose(found.grids[0].values[-1], chances.values.numpy(), atol=1e-5)
    assert found.grids[0].texts is not None
    assert found.grids[0].texts[-1][-1] == reading.name(int(chances.indices[-1]))
    assert np.abs(found.grids[1].values[-1]).max() < 1e-9
    # In between it is the head on the layer's state, behind the final norm.
    stream = reading.record(["residual"])[0]["residual", 0]
    with torch.no_grad():
        between = model.logits(model.model.norm(stream))[0].softmax(-1).max(-1).values
    np.testing.assert_allclose(found.grids[0].values[1], between.numpy(), atol=1e-5)
    classified = lens(read(judge, TEXT))
    expected = read(judge, TEXT).record([])[1][0].softmax(-1).numpy()
    np.testing.assert_allclose(classified.grids[0].values[-1], expected, atol=1e-5)
    np.testing.assert_allclose(classified.grids[0].values.sum(1), 1.0, atol=1e-6)


def test_norms_are_norms(language: LoadedModel) -> None:
    reading = read(language, TEXT)
    found, _ = reading.record(["residual", "mlp"])
    view = norms(reading)
    expected = found["residual", 1][0].norm(dim=-1).numpy()
    np.testing.assert_allclose(view.grids[0].values[2], expected, rtol=1e-5)
    np.testing.assert_allclose(view.grids[2].values[0], found["mlp", 0][0].norm(dim=-1).numpy(), rtol=1e-5)


# ---------------------------------------------------------------------- direct logit attribution

LINEAR: dict[str, tuple[dict[str, Any], str | None]] = {
    "rms": ({}, None),
    "layer norm, biases": ({"norm": "layer", "bias": True, "activation": "gelu", "position": "learned"}, None),
    "untied, grouped": ({"tied_embeddings": False, "num_kv_heads": 2}, None),
    "classifier, mean": ({"norm": "layer", "bias": True}, "mean"),
    "classifier, last": ({}, "last"),
}


@pytest.mark.parametrize("name", LINEAR)
def test_the_parts_sum_to_the_logit(name: str, language: LoadedModel) -> None:
    fields, pooling = LINEAR[name]
    loaded = made_of(ModelConfig(**shape(language, **fields)), language, pooling)
    reading = read(loaded, TEXT)
    found = logit_attribution(reading)
    assert found.figures["sum"] == pytest.approx(found.figures["logit"], abs=1e-4)
    assert found.figures["logit"] == pytest.approx(float(reading.record([])[1].max()), abs=1e-6)
    answers = ("yes", "no") if pooling else ("f", "x")
    both = logit_attribution(reading, *answers)
    assert both.figures["sum"] == pytest.approx(both.figures["logit"], abs=1e-4)
    parts = ["input", "residual", "attention", "heads", "mlp", "neurons"]
    traced, logits = reading.record(parts)  # pyright: ignore[reportArgumentType]
    table = loaded.model.head if isinstance(loaded.model, LanguageModel) else loaded.model.score.weight  # pyright: ignore
    index = int(logits[0].argmax())
    split = decompose(reading, traced, table.detach()[index].double())
    # Neurons are the MLP without its bias.
    if not fields.get("bias"):
        np.testing.assert_allclose(split.neurons.sum(1), split.mlps, atol=1e-5)
        assert np.abs(split.biases).max() < 1e-5


def test_what_writes_the_answer_gets_the_credit(language: LoadedModel) -> None:
    """A head's output that is replaced by zeros takes its own part of the logit with it, in the last layer."""
    loaded = made_of(ModelConfig(**shape(language, num_layers=1, norm="layer")), language)
    model = loaded.model
    assert isinstance(model, LanguageModel)
    model.model.layers[0].mlp.down_proj.weight.data.zero_()  # pyright: ignore
    reading = read(loaded, TEXT)
    parts = ["input", "residual", "attention", "heads", "mlp", "neurons"]
    traced, logits = reading.record(parts)  # pyright: ignore[reportArgumentType]
    index = int(logits[0].argmax())
    split = decompose(reading, traced, model.head.detach()[index].double())
    # By hand: the head's product with its columns, through the norm with the scale of the whole.
    final, norm, columns = (
        traced["residual", 0][0, -1].double(),
        model.model.norm,
        model.model.layers[0].self_attn.o_proj,
    )  # pyright: ignore
    with torch.no_grad():
        scale = (final.var(unbiased=False) + norm.eps).rsqrt()  # pyright: ignore
        written = traced["heads", 0][0, -1, 2].double() @ columns.weight[:, 8:12].double().T  # pyright: ignore
        by_hand = ((written - written.mean()) * scale * norm.weight.double()) @ model.head[index].double()  # pyright: ignore
    assert split.heads[0, 2] == pytest.approx(float(by_hand), abs=1e-6)


def test_models_whose_head_is_not_linear_are_refused(judge: LoadedModel, masked: LoadedModel) -> None:
    bidirectional = made_of(ModelConfig.masked(**shape(judge)), judge, "mean")
    with pytest.raises(InputError, match=r"not linear.*lucidlm inspect patch"):
        logit_attribution(read(bidirectional, TEXT))
    assert masked.tokenizer is not None
    mask = masked.tokenizer.core.id_to_token(masked.tokenizer.mask_id)
    config = ModelConfig.masked(**shape(masked, post_norm=True, norm="layer", bias=True))
    with pytest.raises(InputError, match="normalises after each sum"):
        logit_attribution(read(made_of(config, masked), f"the {mask} was"))
    assert logit_attribution(read(masked, f"the {mask} was")).figures["sum"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("neither nor", r"--target: 'neither nor' is \d+ tokens of this model, one is needed; the first is"),
        ("", "--target: is empty"),
        ("电", "tokens of this model"),
    ],
)
def test_targets_are_one_token(language: LoadedModel, target: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        logit_attribution(read(language, TEXT), target)


def test_labels_that_are_not_there_are_named(judge: LoadedModel) -> None:
    with pytest.raises(InputError, match=r"--target: there is no label 'maybe'. Choose one of: negative, positive"):
        patching([Pair(read(judge, TEXT), read(judge, OTHER), "maybe")])


def test_rank_correlation_is_spearmans() -> None:
    from scipy.stats import spearmanr

    draw = np.random.default_rng(0)
    first = draw.normal(size=40)
    second = first + draw.normal(size=40)
    found = rank_correlation(first, second)
    assert found is not None
    expected: Any = spearmanr(first, second)
    assert found.value == pytest.approx(expected.statistic, abs=1e-9)
    assert found.low < found.value < found.high
    assert rank_correlation(first[:4], second[:4]) is None


# ---------------------------------------------------------------------- patching


def test_patching_is_what_it_says(strong: LoadedModel) -> None:
    clean, corrupted = read(strong, TEXT), read(strong, OTHER)
    if len(clean.tokens) != len(corrupted.tokens):
        pytest.fail("the words of this test are to be of as many tokens")
    found = patch(Pair(clean, corrupted, "f", "x"))
    traced, logits = clean.record(["residual", "heads"])
    index, other = found.target, found.foil

    def share(edit_at: Site, put: Tensor) -> float:
        patched = corrupted.record([], [(edit_at, lambda value: put.expand_as(value))])[1][0]
        return float((patched[index] - patched[other] - found.corrupted) / (found.clean - found.corrupted))

    assert found.clean == pytest.approx(float(logits[0, index] - logits[0, other]))
    place = 3
    by_hand = share(Site("residual", 0, position=place), traced["residual", 0][0, place])
    assert found.residual[1, place] == pytest.approx(by_hand, abs=1e-4)
    by_hand = share(Site("heads", 1, unit=0), traced["heads", 1][0, :, 0])
    assert found.heads[1, 0] == pytest.approx(by_hand, abs=1e-4)
    # All of the stream at once is the clean text.
    assert share(Site("residual", 0), traced["residual", 0][0]) == pytest.approx(1.0, abs=1e-4)


def test_pairs_that_cannot_be_patched_are_named(language: LoadedModel) -> None:
    first = read(language, TEXT)
    with pytest.raises(InputError, match=r"text and text: have \d+ .* position by position they have to match"):
        patch(Pair(first, read(language, TEXT + " film")))
    with pytest.raises(InputError, match=r"is .* for both texts. Pass --target and --foil"):
        patch(Pair(first, first))
    with pytest.raises(InputError, match=r"differ by \+0.0000 in the logit of .f. less that of .x."):
        patch(Pair(first, first, "f", "x"))


def test_several_pairs_have_intervals(strong: LoadedModel, tmp_path: Path) -> None:
    texts = [
        ("director calls film wonderful and", "director calls film dreadful and"),
        ("writer calls plot", "critic calls plot"),
    ]
    rows = [{"clean": one, "corrupted": two, "target": "f", "foil": "x"} for one, two in texts]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    pairs = read_pairs(strong, str(file))
    assert [pair.target for pair in pairs] == ["f", "f"]
    view = patching(pairs)
    assert view.figures["pairs"] == 2
    each = [patch(pair) for pair in pairs]
    mean = np.mean([one.heads for one in each], axis=0)
    np.testing.assert_allclose(view.grids[-1].values, mean)
    best = view.figures["strongest_head"]
    assert best["restored"]["value"] == pytest.approx(mean.max())
    assert best["restored"]["low"] <= best["restored"]["value"] <= best["restored"]["high"]
    file.write_text('{"clean": "a film"}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"pairs.jsonl:1.*corrupted"):
        read_pairs(strong, str(file))


# ---------------------------------------------------------------------- tuned lens


@pytest.fixture(scope="module")
def lens_file(tiny_model: Path, reviews_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, View]:
    loaded = load_model(tiny_model)
    before = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    found, view = train_lens(loaded, str(reviews_csv), steps=60)
    assert all(torch.equal(before[name], value) for name, value in loaded.model.state_dict().items())
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    path = tmp_path_factory.mktemp("lens") / "lens.safetensors"
    found.save(path, loaded.fingerprint)
    return path, view


def test_a_tuned_lens_is_nearer_to_the_end_than_the_logit_lens(lens_file: tuple[Path, View]) -> None:
    figures = lens_file[1].figures
    assert figures["gain"]["low"] > 0
    assert figures["tuned"]["high"] < figures["logit"]["low"]
    assert "translates better than" in lens_file[1].verdict[0]


def test_a_tuned_lens_is_read_back_and_used(lens_file: tuple[Path, View], language: LoadedModel) -> None:
    found = TunedLens.load(lens_file[0], language)
    reading = read(language, TEXT)
    plain, tuned = lens(reading), lens(reading, found)
    assert tuned.grids[1].values[:-1].mean() < plain.grids[1].values[:-1].mean()
    np.testing.assert_allclose(tuned.grids[0].values[-1], plain.grids[0].values[-1])
    untouched = TunedLens(language.model.config.num_layers, language.model.config.embedding_dim)
    np.testing.assert_allclose(lens(reading, untouched).grids[0].values, plain.grids[0].values, atol=1e-6)


def test_lenses_that_do_not_fit_are_refused(
    lens_file: tuple[Path, View], judge: LoadedModel, judge_path: Path, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is the lens of another model"):
        TunedLens.load(lens_file[0], judge)
    with pytest.raises(InputError, match=r"file not found\. Make it: lucidlm inspect train-lens"):
        TunedLens.load(tmp_path / "none.safetensors", judge)
    with pytest.raises(InputError, match="is no tuned lens"):
        TunedLens.load(tiny_model / "model.safetensors", judge)
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is no tuned lens"):
        TunedLens.load(tmp_path / "broken.safetensors", judge)
    with pytest.raises(InputError, match="--tuned: is for language models"):
        lens(read(judge, TEXT), lambda stream, _: stream)


def test_lenses_need_a_language_model_and_text(judge: LoadedModel, language: LoadedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a language model"):
        train_lens(judge, "reviews.csv")
    (tmp_path / "short.txt").write_text("too short", encoding="utf-8")
    with pytest.raises(InputError, match="holds less than"):
        train_lens(language, str(tmp_path / "short.txt"))
    with pytest.raises(InputError, match="--steps: is less than 1"):
        train_lens(language, "reviews.csv", steps=0)


def test_a_model_without_a_trained_head_is_refused(language: LoadedModel) -> None:
    """As a Transformer that was saved without one: all its answers are alike, which looks like agreement."""
    loaded = made_of(ModelConfig(**shape(language, tied_embeddings=False)), language)
    assert isinstance(loaded.model, LanguageModel)
    loaded.model.head.data.zero_()
    with pytest.raises(InputError, match="gives every token the same chance"):
        lens(read(loaded, TEXT))
