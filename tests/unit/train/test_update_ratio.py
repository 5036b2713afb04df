"""How far a step moves the weights, by hand and where a matrix is too large to be looked at whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.train import update_ratio
from lucidlm.train.update_ratio import TIMES, UpdateRatio, is_due, part_of

SHAPE = ModelConfig(vocab_size=16, embedding_dim=8, num_heads=2, ff_dim=16, num_layers=2)


def moved(model: nn.Module, by: dict[str, float]) -> dict[update_ratio.Part, float]:
    """Return the ratios of a step that multiplies the matrices of each part by 1 + `by`."""
    ratio = UpdateRatio(model)
    before = ratio.before()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1 + by.get(part_of(name), 0.0))
    return ratio.after(before)


def test_each_part_has_its_own() -> None:
    by = {"embeddings": 1e-3, "attention": 2e-3, "mlp": 0.0, "head": 0.5}
    model = LanguageModel(SHAPE.changed(tied_embeddings=False))
    assert moved(model, by) == pytest.approx(by, rel=1e-3)


def test_tied_embeddings_are_no_head() -> None:
    assert moved(LanguageModel(SHAPE.changed(tied_embeddings=True)), {}).keys() == {"embeddings", "attention", "mlp"}


def test_only_what_is_trained_counts_and_what_is_zero_has_no_ratio() -> None:
    model = LanguageModel(SHAPE)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".mlp." in name or "embed_" in name)
        if "embed_" in name:
            nn.init.zeros_(parameter)
    assert moved(model, {}) == {"mlp": 0.0}
    model.requires_grad_(False)
    assert moved(model, {}) == {}


def test_some_entries_of_a_large_matrix_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_ratio, "ENTRIES", 1000)
    model = nn.Sequential(nn.Linear(300, 200), nn.Linear(20, 20))
    ratio = UpdateRatio(model)
    before = ratio.before()
    assert sum(len(some) for some in before["head"]) < 3000
    old = [layer.weight.detach().clone() for layer in model if isinstance(layer, nn.Linear)]
    steps = [0.01 * torch.randn_like(weight) for weight in old]
    with torch.no_grad():
        for layer, step in zip(model, steps, strict=True):
            assert isinstance(layer, nn.Linear)
            layer.weight += step
    norms = [sum(float(one.square().sum()) for one in some) ** 0.5 for some in (steps, old)]
    assert ratio.after(before)["head"] == pytest.approx(norms[0] / norms[1], rel=0.1)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.embed_tokens.weight", "embeddings"),
        ("model.layers.3.self_attn.q_proj.weight", "attention"),
        ("model.layers.3.mlp.down_proj.weight", "mlp"),
        ("lm_head.weight", "head"),
        ("model.layers.3.mlp.down_proj.lora_A.weight", "adapters"),
    ],
)
def test_parts_are_told_by_names(name: str, part: str) -> None:
    assert part_of(name) == part


@pytest.mark.parametrize(("steps", "measured"), [(20, 20), (100, TIMES), (1000, TIMES), (777, TIMES)])
def test_it_is_measured_so_often_over_a_run(steps: int, measured: int) -> None:
    assert sum(is_due(step / steps, (step + 1) / steps) for step in range(steps)) == measured
