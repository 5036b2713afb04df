"""The parts of a training step: what is added up, and that the host waits for the device once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lucidlm.core.devices import Compute, to_device
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import IGNORE_INDEX
from lucidlm.train.pretrain.run import TokenBatch, TokenObjective
from lucidlm.train.step import accumulate_gradients, clip_gradients, count_targets, read_figures

META = torch.device("meta")
SHAPE = ModelConfig(vocab_size=16, embedding_dim=8, num_heads=2, ff_dim=16, num_layers=2)


def batches(device: torch.device, *, masked: bool) -> list[TokenBatch]:
    """Two micro-batches of pretraining."""
    made = []
    for seed in range(2):
        tokens = torch.randint(16, (3, 8), generator=torch.Generator().manual_seed(seed))
        targets = tokens.clone()
        targets[:, ::2] = IGNORE_INDEX
        places = (targets != IGNORE_INDEX).flatten().nonzero()[:, 0]
        moved = (to_device(x, device) for x in (tokens, targets, places))
        made.append(TokenBatch(*moved, counted=len(places), bidirectional=masked))
    return made


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_made_without_a_look_at_the_device(masked: bool, cpu: Compute) -> None:
    """Nothing on the meta device has a value, so whatever reads one fails."""
    model = LanguageModel(SHAPE, seed=None).to(META)
    objective = TokenObjective.__new__(TokenObjective)  # its loss needs nothing of what its constructor makes
    made = batches(META, masked=masked)
    losses = accumulate_gradients(model, objective, made, cpu)
    norm = clip_gradients(model, 1.0)
    assert (losses.shape, losses.device, norm.device) == ((2,), META, META)
    assert not losses.requires_grad
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_figures_are_those_of_the_whole_batch(cpu: Compute) -> None:
    model, objective = LanguageModel(SHAPE), TokenObjective.__new__(TokenObjective)
    made = batches(cpu.device, masked=False)
    assert count_targets(objective, made) == 24
    loss, norm = read_figures(accumulate_gradients(model, objective, made, cpu), clip_gradients(model, 1e9))
    tokens, targets = torch.cat([one.tokens for one in made]), torch.cat([one.targets for one in made])
    expected = nn.functional.cross_entropy(model(tokens).flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX)
    assert loss == pytest.approx(expected.item(), abs=1e-6)
    squares = [parameter.grad.square().sum() for parameter in model.parameters() if parameter.grad is not None]
    assert norm == pytest.approx(torch.stack(squares).sum().sqrt().item(), rel=1e-5)
