"""Adapters, and what each strategy trains: parity, counts, rates by depth, few shots."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.peft import apply_adapter
from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel, SequenceClassifier
from lucidlm.model.lora import LoraConfig, LoraLinear, add_adapters, is_adapter, merge, unmerge
from lucidlm.tasks.base.shots import draw_shots
from lucidlm.train.checkpoints import load_checkpoint, save_checkpoint
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.finetune.tuning import ADAPTER, apply_tuning, finish_tuning
from lucidlm.train.optim import Muon, OptimizerConfig, build_optimizer

SHAPE = ModelConfig(vocab_size=50, embedding_dim=16, num_heads=2, ff_dim=24, num_layers=3, context_length=16)
HEAD = ("score", "dense", "classifier")


def ids() -> Tensor:
    return torch.randint(50, (3, 12), generator=torch.Generator().manual_seed(0))


def adapted(config: LoraConfig | None = None) -> LanguageModel:
    """Return a model whose adapters have something to say."""
    model = LanguageModel(SHAPE).eval()
    add_adapters(model, config or LoraConfig(), seed=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if is_adapter(name):
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(len(name)))
    return model


def classifier() -> SequenceClassifier:
    return SequenceClassifier(SHAPE, ["a", "b"], "last")


def config(**fields: object) -> FinetuneConfig:
    return FinetuneConfig(task="sentiment", model="base", data="data", **fields)


def step(model: nn.Module, optimizer_config: OptimizerConfig | None = None) -> None:
    """Take two steps of training, on the sum of the logits."""
    optimizer = build_optimizer(model, optimizer_config or OptimizerConfig())
    for _ in range(2):
        out = model(ids(), torch.tensor([12, 5, 9])) if isinstance(model, SequenceClassifier) else model(ids())
        out.square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


# ---------------------------------------------------------------------- adapters


def test_fresh_adapters_change_nothing() -> None:
    model = LanguageModel(SHAPE).eval()
    before = model(ids())
    names = add_adapters(model, LoraConfig(rank=4), seed=0)
    assert len(names) == 7 * SHAPE.num_layers
    assert torch.equal(model(ids()), before)


@pytest.mark.parametrize(
    ("dtype", "size", "tolerance"),
    # In float64 nothing but a mistake could show; in fp32 factors are as large as training makes them.
    [(torch.float64, 0.3, 1e-12), (torch.float32, 0.05, 1e-6)],
)
@pytest.mark.parametrize("bias", [False, True])
@torch.no_grad()
def test_merged_computes_the_same_and_unmerged_is_the_very_model(
    bias: bool, dtype: torch.dtype, size: float, tolerance: float
) -> None:
    model = LanguageModel(SHAPE.changed(bias=bias)).to(dtype).eval()
    plain, names = model(ids()), set(model.state_dict())
    add_adapters(model, LoraConfig(rank=4, alpha=10), seed=0)
    model.to(dtype)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            parameter.normal_(0, size, generator=torch.Generator().manual_seed(2))
    before, bits = model(ids()), copy.deepcopy(model.state_dict())
    assert (before - plain).abs().max() > 0.01
    replaced = merge(model)
    assert set(model.state_dict()) == names
    torch.testing.assert_close(model(ids()), before, atol=tolerance, rtol=tolerance)
    unmerge(model, replaced)
    assert model.state_dict().keys() == bits.keys()
    assert all(torch.equal(value, bits[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(ids()), before)


def test_alpha_over_rank_scales_what_adapters_add() -> None:
    one, three = adapted(LoraConfig(rank=4, alpha=4)), adapted(LoraConfig(rank=4, alpha=12))
    x = torch.ones(1, 16)
    adapters = [model.model.layers[0].self_attn.q_proj for model in (one, three)]
    added = [adapter(x) - nn.functional.linear(x, adapter.weight) for adapter in adapters]
    torch.testing.assert_close(3 * added[0], added[1])


def test_only_named_targets_get_adapters() -> None:
    model = LanguageModel(SHAPE)
    names = add_adapters(model, LoraConfig(targets=("q_proj", "v_proj")), seed=0)
    assert {name.rpartition(".")[2] for name in names} == {"q_proj", "v_proj"}
    assert sum(isinstance(module, LoraLinear) for module in model.modules()) == 2 * SHAPE.num_layers


def test_an_unknown_target_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'c_attn'.*q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj"):
        add_adapters(LanguageModel(SHAPE), LoraConfig(targets=("c_attn",)), seed=0)
    with pytest.raises(InputError, match="already"):
        add_adapters(adapted(), LoraConfig(), seed=0)


def test_dropout_acts_in_training_only() -> None:
    model = adapted(LoraConfig(dropout=0.5))
    assert torch.equal(model(ids()), model(ids()))
    model.train()
    assert not torch.equal(model(ids()), model(ids()))


def test_adapters_work_under_autocast_and_with_fast_products() -> None:
    model, expected = adapted(), adapted()(ids())
    with fast_matmul(torch.device("cpu")):
        torch.testing.assert_close(model(ids()), expected, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(ids())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), expected, atol=0.1, rtol=0.1)
    out.float().square().mean().backward()
    assert all((parameter.grad is not None) == is_adapter(name) for name, parameter in model.named_parameters())


def test_checkpoints_hold_adapters(tmp_path: Path) -> None:
    model = adapted()
    step(model)
    weights, _, _ = load_checkpoint(save_checkpoint(tmp_path, 1, model.state_dict(), {}, {}, 1))
    again = LanguageModel(SHAPE, seed=5)
    add_adapters(again, LoraConfig(), seed=9)
    again.load_state_dict(weights)
    assert torch.equal(again.eval()(ids()), model.eval()(ids()))


# ---------------------------------------------------------------------- strategies


@pytest.mark.parametrize("tuning", ["full", "lora", "head"])
def test_a_strategy_trains_what_it_says(tuning: str) -> None:
    model = classifier()
    line = apply_tuning(model, config(tuning=tuning), HEAD)
    before = copy.deepcopy(model.state_dict())
    step(model)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    adapters = {name for name in before if is_adapter(name)}
    assert changed == {"full": set(before), "lora": adapters | {"score.weight"}, "head": {"score.weight"}}[tuning]
    count = sum(before[name].numel() for name in changed)
    total = sum(value.numel() for value in before.values())
    assert line == f"{tuning}: trains {count:,} of {total:,} parameters ({count / total:.1%})"


def test_a_frozen_backbone_keeps_no_activations() -> None:
    model = classifier()
    apply_tuning(model, config(tuning="head"), HEAD)
    assert not model.model(ids()).requires_grad


def test_a_task_without_a_head_cannot_train_it_alone() -> None:
    with pytest.raises(InputError, match="no head"):
        apply_tuning(LanguageModel(SHAPE), config(tuning="head"), ())


def test_finishing_leaves_a_plain_model_and_its_adapter(tmp_path: Path) -> None:
    for tuning in ("full", "lora", "head"):
        model, names = classifier(), set(classifier().state_dict())
        apply_tuning(model, config(tuning=tuning), HEAD)
        step(model)
        expected = model.eval()(ids(), torch.tensor([12, 5, 9]))
        finish_tuning(model, config(tuning=tuning), HEAD, tmp_path / tuning)
        assert set(model.state_dict()) == names
        torch.testing.assert_close(model(ids(), torch.tensor([12, 5, 9])), expected, atol=1e-6, rtol=1e-6)
        assert (tmp_path / tuning / ADAPTER / "adapter_config.json").exists() == (tuning == "lora")


# ---------------------------------------------------------------------- rates


def test_muon_leaves_the_factors_of_adapters_to_adamw() -> None:
    (only,) = build_optimizer(adapted(), OptimizerConfig()).members
    assert isinstance(only, torch.optim.AdamW)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_rates_decay_from_the_head_to_the_embeddings(name: str) -> None:
    model = classifier()
    optimizer = build_optimizer(
        model, OptimizerConfig(name=name, learning_rate=1.0, muon_learning_rate=1.0), layer_decay=0.5
    )
    assert [type(member) for member in optimizer.members] == [Muon, torch.optim.AdamW][name == "adamw" :]
    rates = {id(p): g["lr"] for m in optimizer.members for g in m.param_groups for p in g["params"]}
    for parameter_name, parameter in model.named_parameters():
        if "embed_" in parameter_name:
            expected = 0.5**4
        elif "layers." in parameter_name:
            expected = 0.5 ** (3 - int(parameter_name.split(".")[2]))
        else:
            expected = 1.0
        assert rates[id(parameter)] == expected, parameter_name
    optimizer.set_scale(0.1)
    assert {round(g["lr"] / g["peak_lr"], 9) for m in optimizer.members for g in m.param_groups} == {0.1}
    step(model, OptimizerConfig(name=name))


def test_without_decay_groups_are_as_few_as_before() -> None:
    muon, adamw = build_optimizer(classifier(), OptimizerConfig()).members
    assert (len(muon.param_groups), len(adamw.param_groups)) == (1, 2)


# ---------------------------------------------------------------------- shots


def test_few_shots_are_part_of_more() -> None:
    examples = [(index, "abc"[index % 3]) for index in range(90)]
    few, many = (draw_shots(examples, shots, lambda e: e[1], seed=3) for shots in (4, 20))
    assert Counter(label for _, label in few) == {"a": 4, "b": 4, "c": 4}
    assert Counter(label for _, label in many) == {"a": 20, "b": 20, "c": 20}
    assert set(few) < set(many)
    assert few == draw_shots(examples, 4, lambda e: e[1], seed=3) != draw_shots(examples, 4, lambda e: e[1], seed=4)
    assert len(draw_shots(examples, 7, None, seed=0)) == 7


def test_a_label_with_too_few_examples_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(draw_shots([(0, "a"), (1, "a"), (2, "b")], 2, lambda e: e[1], seed=0)) == 3
    assert "fewer than 2 examples: b has 1" in capsys.readouterr().err


# ---------------------------------------------------------------------- whole runs


def test_fine_tuning_by_each_strategy_with_few_shots(tiny_model: Path, reviews_csv: Path, tmp_path: Path) -> None:
    for tuning in ("lora", "head"):
        settings = FinetuneConfig(
            task="sentiment",
            model=str(tiny_model),
            data=str(reviews_csv),
            shots=8,
            tuning=tuning,
            layer_decay=0.8,
            batch_size=4,
            epochs=2,
            device="cpu",
            precision="fp32",
        )
        out = tmp_path / tuning
        outcome = finetune(settings, out)
        assert outcome.state.step == 8  # 2 × 16 examples in batches of 4
        backbone, before = load_model(out).model.state_dict(), load_model(tiny_model).model.state_dict()
        same = {name for name, value in before.items() if torch.equal(backbone[name], value)}
        if tuning == "head":
            assert same == set(before)
        else:
            assert not any("proj" in name for name in same)
            model = SequenceClassifier(load_model(out).model.config, ["negative", "positive"], "mean", seed=4)
            model.load_state_dict(before, strict=False)
            apply_adapter(model, out / ADAPTER)
            merge(model)
            for name, value in model.state_dict().items():
                assert torch.equal(value, backbone[name]), name
