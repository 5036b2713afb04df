"""Muon, its orthogonalisation, and the handle that drives both optimisers as one."""

import copy

import pytest
import torch
from torch import nn

from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.train.config import MUON_RATIO, OptimizerConfig
from lucidlm.train.optim import Muon, Optimizers, build_optimizer, orthogonalise

CONFIG = ModelConfig(vocab_size=11, embedding_dim=8, num_heads=2, ff_dim=24, num_layers=2, context_length=16)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 16, 40), (2, 40, 16), (1, 1, 8)])
def test_orthogonalised_singular_values_are_near_one(shape: tuple[int, int, int]) -> None:
    matrices = random(*shape)
    if shape[1] == shape[2]:
        matrices += 8 * torch.eye(shape[1])  # A random square matrix has a singular value near nothing.
    values = torch.linalg.svdvals(orthogonalise(matrices, 5))
    assert values.min() > 0.85
    assert values.max() < 1.15
    closer = torch.linalg.svdvals(orthogonalise(matrices, 8))
    assert (closer - 1).abs().max() < 1e-3


def test_orthogonalised_keeps_the_singular_vectors() -> None:
    matrix = random(12, 20)
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    torch.testing.assert_close(orthogonalise(matrix[None], 9)[0], u @ vh, atol=1e-4, rtol=0)


def test_batched_equals_one_by_one() -> None:
    matrices = random(5, 16, 40)
    one_by_one = torch.cat([orthogonalise(matrix[None], 5) for matrix in matrices])
    torch.testing.assert_close(orthogonalise(matrices, 5), one_by_one, atol=1e-5, rtol=0)


def test_orthogonalising_nothing_gives_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(2, 4, 6), 5), torch.zeros(2, 4, 6))


def train(model: LanguageModel, optimizer: Optimizers, first: int, last: int) -> list[float]:
    losses = []
    for step in range(first, last):
        tokens = torch.randint(11, (4, 17), generator=torch.Generator().manual_seed(step))
        total, count = model.loss(tokens[:, :-1], tokens[:, 1:])
        (total / count).backward()
        optimizer.set_scale(1 / (1 + step))
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total.item())
    return losses


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_resumed_run_has_the_bits_of_the_uninterrupted_one(name: str) -> None:
    config = OptimizerConfig(name=name)
    model = LanguageModel(CONFIG)
    optimizer = build_optimizer(model, config)
    train(model, optimizer, 0, 3)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    expected = train(model, optimizer, 3, 6)

    resumed = LanguageModel(CONFIG, seed=7)
    resumed.load_state_dict(weights)
    again = build_optimizer(resumed, config)
    again.load_state_dict(state)
    assert train(resumed, again, 3, 6) == expected
    for name, parameter in model.named_parameters():
        assert torch.equal(resumed.get_parameter(name), parameter), name


def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest() -> None:
    model = LanguageModel(CONFIG)
    muon, adamw = build_optimizer(model, OptimizerConfig()).members
    assert isinstance(muon, Muon)
    names = {parameter: name for name, parameter in model.named_parameters()}
    moved = {names[parameter] for group in muon.param_groups for parameter in group["params"]}
    assert len(moved) == 7 * CONFIG.num_layers
    assert all("proj" in name for name in moved)
    rest = {names[parameter] for group in adamw.param_groups for parameter in group["params"]}
    assert moved | rest == set(names.values())
    assert not moved & rest
    vectors = {
        names[parameter] for group in adamw.param_groups if not group["weight_decay"] for parameter in group["params"]
    }
    assert vectors == {name for name in rest if "norm" in name}


def test_frozen_parameters_stay() -> None:
    model = LanguageModel(CONFIG)
    model.model.requires_grad_(False)
    model.model.layers[0].requires_grad_(True)
    before = copy.deepcopy(model.state_dict())
    train(model, build_optimizer(model, OptimizerConfig()), 0, 2)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("model.layers.0.") for name in changed)


def test_adamw_alone_is_torch_adamw() -> None:
    model, reference = LanguageModel(CONFIG), LanguageModel(CONFIG)
    config = OptimizerConfig(name="adamw", learning_rate=3e-3, weight_decay=0.1)
    matrices = [parameter for parameter in reference.parameters() if parameter.dim() > 1]
    vectors = [parameter for parameter in reference.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    plain = Optimizers([torch.optim.AdamW(groups, 3e-3, config.betas, config.eps)])
    train(model, build_optimizer(model, config), 0, 4)
    train(reference, plain, 0, 4)
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(model.get_parameter(name), parameter, atol=1e-6, rtol=1e-5)


def least_squares(optimizer_of: type, steps: int = 60, **options: float) -> float:
    """Return the loss after fitting a badly conditioned linear map."""
    inputs = random(256, 16) * torch.logspace(0, -1.5, 16)
    targets = inputs @ random(16, 16, seed=1)
    weight = nn.Parameter(torch.zeros(16, 16))
    optimizer = Optimizers([optimizer_of([weight], **options)])
    for step in range(steps):
        loss = (inputs @ weight - targets).square().mean()
        loss.backward()
        optimizer.set_scale(1 - step / steps)
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


def test_muon_fits_a_badly_conditioned_map_better_than_gradient_descent() -> None:
    muon = least_squares(Muon, lr=0.5)
    descent = min(least_squares(torch.optim.SGD, lr=rate, momentum=0.95) for rate in (0.1, 0.3, 1.0, 3.0))
    assert muon < descent / 2


def test_weight_decay_is_decoupled() -> None:
    weight = nn.Parameter(random(4, 6))
    before = weight.detach().clone()
    weight.grad = torch.zeros(4, 6)
    Muon([weight], 0.5, weight_decay=0.2).step()
    torch.testing.assert_close(weight.detach(), before * 0.9)


def test_set_scale_scales_the_peak_not_the_last_rate() -> None:
    optimizer = build_optimizer(LanguageModel(CONFIG), OptimizerConfig(learning_rate=0.4, muon_learning_rate=0.2))
    optimizer.set_scale(0.5)
    optimizer.set_scale(0.5)
    assert [group["lr"] for member in optimizer.members for group in member.param_groups] == [0.1, 0.2, 0.2]


def test_one_learning_rate_sets_those_of_both_optimisers() -> None:
    optimizer = build_optimizer(LanguageModel(CONFIG), OptimizerConfig(learning_rate=0.3))
    rates = {type(member): {group["lr"] for group in member.param_groups} for member in optimizer.members}
    assert rates == {Muon: {0.3 * MUON_RATIO}, torch.optim.AdamW: {0.3}}


def test_what_is_not_set_is_pretrainings() -> None:
    completed = OptimizerConfig().completed()
    assert (completed.name, completed.learning_rate) == ("muon", 3e-3)
    assert completed.muon_learning_rate == pytest.approx(1e-2)
    assert completed.completed("adamw", 1.0) == completed
    assert OptimizerConfig(learning_rate=1e-5).completed("adamw", 1.0).learning_rate == 1e-5


def test_muon_refuses_vectors() -> None:
    with pytest.raises(ValueError, match="matrices only"):
        Muon([nn.Parameter(torch.zeros(3))], 0.1)


def test_a_wrong_setting_names_its_field() -> None:
    with pytest.raises(InputError, match="learning_rate"):
        OptimizerConfig(learning_rate=-1)
