"""Ground truth: a model of two layers, trained here to copy what is repeated, has induction heads, and they are found.

They need heads in the layer before that look one token back (Olsson et al. 2022), so those matter too, and no other does.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.inside.ablation import without_heads
from lucidlm.explain.inside.induction import copying_loss, induction, prefix_matching, repeated
from lucidlm.explain.inside.patching import Pair, patch
from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.trace import trace
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

LENGTH = 14


def fresh(seed: int = 0) -> LanguageModel:
    """A model of attention alone: its MLPs put out zeros."""
    config = ModelConfig(
        vocab_size=32, embedding_dim=64, num_heads=4, ff_dim=1, num_layers=2, context_length=64, qk_norm=False,
        tied_embeddings=False,
    )  # fmt: skip
    model = LanguageModel(config, seed=seed)
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.data.zero_()  # pyright: ignore
        layer.mlp.requires_grad_(False)  # pyright: ignore
    return model


@pytest.fixture(scope="module")
def copier() -> LoadedModel:
    """The period changes from batch to batch, so that nothing but what stands before tells what comes next."""
    model, draw, steps = fresh(seed=1), torch.Generator().manual_seed(1), 500
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 * (1 - step / steps)))
    for _ in range(steps):
        period = int(torch.randint(8, 20, (), generator=draw))
        tokens = torch.randint(0, 32, (48, period), generator=draw).repeat(1, 2)
        logits = model(tokens[:, :-1])[:, period:]
        loss = functional.cross_entropy(logits.flatten(0, 1), tokens[:, period + 1 :].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return LoadedModel(model.eval(), None, {"kind": "language", "provenance": {}})


@pytest.fixture(scope="module")
def tokens(copier: LoadedModel) -> torch.Tensor:
    return repeated(copier, [], 32, LENGTH, seed=1)


@pytest.fixture(scope="module")
def looking_back(copier: LoadedModel, tokens: torch.Tensor) -> np.ndarray:
    """How much weight each head (layers, H) puts on the token before."""
    with trace(copier.model, ["weights"]) as found:
        copier.model(tokens)
    later = torch.arange(1, tokens.shape[1])
    return found.stacked("weights")[..., later, later - 1].mean((1, 3)).numpy()


def test_the_score_finds_heads_in_the_second_layer_alone(copier: LoadedModel, tokens: torch.Tensor) -> None:
    assert isinstance(copier.model, LanguageModel)
    scores = prefix_matching(copier.model, tokens, LENGTH).mean(0)
    assert scores[1].max() > 0.4
    assert scores[0].max() < 0.15
    untrained = prefix_matching(fresh(), tokens, LENGTH).mean(0)
    assert untrained.max() < 0.15


def test_the_score_is_what_it_says(copier: LoadedModel, tokens: torch.Tensor) -> None:
    assert isinstance(copier.model, LanguageModel)
    with trace(copier.model, ["weights"]) as found:
        copier.model(tokens)
    row, head = 3, 2
    # Token LENGTH + i is token i again, after which came token i + 1.
    by_hand = [float(found["weights", 1][row, head, LENGTH + i, i + 1]) for i in range(LENGTH - 1)]
    assert prefix_matching(copier.model, tokens, LENGTH)[row, 1, head] == pytest.approx(np.mean(by_hand), abs=1e-6)


def test_without_induction_heads_there_is_no_copying_and_without_others_there_is(
    copier: LoadedModel, tokens: torch.Tensor, looking_back: np.ndarray
) -> None:
    model = copier.model
    assert isinstance(model, LanguageModel)
    chance = float(np.log(32))
    scores = prefix_matching(model, tokens, LENGTH).mean(0)
    places = [(layer, head) for layer in range(2) for head in range(4)]
    found = [place for place in places if scores[place] >= 0.3]
    others = [place for place in places if place not in found and looking_back[place] < 0.3]
    assert found
    assert others
    whole = copying_loss(model, tokens, LENGTH).mean()
    assert whole < 0.3 * chance
    assert copying_loss(model, tokens, LENGTH, without_heads(found)).mean() > 0.9 * chance
    assert copying_loss(model, tokens, LENGTH, without_heads(others)).mean() < whole + 0.15 * chance


def test_the_view_names_them_with_intervals(copier: LoadedModel) -> None:
    view = induction(copier, length=LENGTH)
    assert {layer for layer, _ in view.figures["induction_heads"]} == {1}
    assert view.figures["best_score"]["low"] > 0.3
    assert view.figures["cost"]["low"] > 1.0
    assert view.figures["copying_loss"] < view.figures["new_loss"] / 3
    assert "matter for copying" in view.verdict[1]
    fresh_view = induction(LoadedModel(fresh(), None, {"kind": "language", "provenance": {}}), length=LENGTH)
    assert fresh_view.figures["induction_heads"] == []
    assert "no head" in fresh_view.verdict[0]
    assert "NOT SHOWN" in fresh_view.verdict[1]


def test_patching_finds_the_token_that_was_copied(copier: LoadedModel, looking_back: np.ndarray) -> None:
    """The last token is answered with what followed its first occurrence; another token there, another answer."""
    model = copier.model
    assert isinstance(model, LanguageModel)
    place = 5  # what followed the token at 4, which comes again at the end
    clean = torch.arange(1, LENGTH + 1)
    clean = torch.cat([clean, clean[:place]])
    corrupted = clean.clone()
    corrupted[place] = 30
    names = tuple(f"t{index}" for index in range(len(clean)))
    tokenizer = Tokenizer.train_characters(["abc"])
    first, second = (Reading(model, tokenizer, "causal", "", row, names, len(clean) - 1) for row in (clean, corrupted))
    found = patch(Pair(first, second))
    assert (found.target, found.foil) == (int(clean[place]), 30)
    # Before the first layer all is at the changed token, behind the last one all is at the end.
    assert found.residual[0].argmax() == place
    assert found.residual[0, place] == pytest.approx(1.0, abs=1e-3)
    assert found.residual[-1, -1] == pytest.approx(1.0, abs=1e-3)
    assert np.abs(np.delete(found.residual[0], place)).max() < 1e-3
    assert np.abs(found.residual[-1, :-1]).max() < 1e-3
    # It is carried there by heads that look one token back and by induction heads, and by no others.
    assert found.heads[1].sum() > 0.6
    assert np.abs(found.heads[0][looking_back[0] < 0.3]).max() < 0.2


def test_models_that_cannot_copy_are_refused(copier: LoadedModel) -> None:
    masked = LanguageModel(ModelConfig.masked(vocab_size=32, embedding_dim=16, num_heads=2, ff_dim=8, num_layers=1))
    with pytest.raises(InputError, match="is not a causal language model"):
        induction(LoadedModel(masked, None, {"kind": "language", "provenance": {}}))
    short = LanguageModel(
        ModelConfig(vocab_size=32, embedding_dim=16, num_heads=2, ff_dim=8, num_layers=1, context_length=6)
    )
    with pytest.raises(InputError, match="no room for a repetition"):
        induction(LoadedModel(short, None, {"kind": "language", "provenance": {}}))
