"""What a step holds in memory: traced without content as it is with it; and the refusal of what cannot fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.conftest import tiny_pretraining

from lucidlm.core.devices import Compute
from lucidlm.core.errors import InputError
from lucidlm.model.config import LoraConfig, ModelConfig
from lucidlm.model.flops import count_parameters
from lucidlm.model.heads import LanguageModel
from lucidlm.model.lora import add_adapters
from lucidlm.train import memory
from lucidlm.train.config import OptimizerConfig
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.memory import StepShape, step_memory
from lucidlm.train.pretrain.run import pretrain

SHAPE = ModelConfig(vocab_size=512, embedding_dim=64, num_heads=2, ff_dim=192, num_layers=3, context_length=64)
STEP = StepShape(4, 64)
ADAMW, MUON = OptimizerConfig(name="adamw").completed(), OptimizerConfig().completed()


def test_what_lasts_is_counted_exactly(cpu: Compute) -> None:
    weights = 4 * count_parameters(SHAPE)
    adamw, muon = (step_memory(SHAPE, STEP, optimizer, cpu) for optimizer in (ADAMW, MUON))
    assert adamw.weights == adamw.gradients == muon.weights == weights
    assert adamw.optimizer == pytest.approx(2 * weights, rel=1e-3)  # it counts its steps as well
    assert weights < muon.optimizer < adamw.optimizer
    assert adamw.total == sum(adamw.parts().values())


def test_the_trace_holds_what_a_real_step_holds(cpu: Compute) -> None:
    with memory._Storages() as storages:
        model = LanguageModel(SHAPE, seed=None)
        lasting = 2 * storages.live
        tokens = torch.zeros(STEP.rows, STEP.length, dtype=torch.int64)
        storages.peak = storages.live
        model.loss(tokens, tokens)[0].backward()
        real = storages.peak - lasting
    traced = memory._passes(SHAPE, STEP, cpu, lambda model: None)
    assert traced == pytest.approx(real, rel=0.01)


def test_blocks_are_alike(cpu: Compute) -> None:
    whole = memory._passes(SHAPE, STEP, cpu, lambda model: None)
    assert step_memory(SHAPE, STEP, ADAMW, cpu).activations == pytest.approx(whole, rel=0.01)


def test_more_at_once_needs_more(cpu: Compute) -> None:
    few, many = (step_memory(SHAPE, StepShape(rows, 64), ADAMW, cpu).activations for rows in (4, 16))
    assert 3 < many / few < 5
    narrow = Compute(torch.device("cpu"), torch.bfloat16, "")
    assert step_memory(SHAPE, StepShape(16, 64), ADAMW, narrow).activations < many


def test_frozen_weights_have_no_gradients(cpu: Compute) -> None:
    def adapt(model: torch.nn.Module) -> None:
        add_adapters(model, LoraConfig(), 0)

    full = step_memory(SHAPE, STEP, ADAMW, cpu)
    adapted = step_memory(SHAPE, STEP, ADAMW, cpu, adapt)
    frozen = step_memory(SHAPE, STEP, ADAMW, cpu, lambda model: model.requires_grad_(False))
    assert adapted.weights > full.weights
    assert adapted.gradients < full.gradients / 2
    assert frozen.gradients == frozen.optimizer == 0
    assert 0 < frozen.activations < adapted.activations


def test_a_gpu_is_planned_without_one(cpu: Compute) -> None:
    gpu = Compute(torch.device("cuda"), torch.bfloat16, "")
    assert step_memory(SHAPE, STEP, ADAMW, gpu).activations > 4 * SHAPE.vocab_size * SHAPE.embedding_dim


def test_no_step_needs_more_than_the_quick_bound(cpu: Compute) -> None:
    for shape in (SHAPE, SHAPE.changed(vocab_size=4096, num_layers=1), SHAPE.changed(activation="gelu", bias=True)):
        for step in (STEP, StepShape(1, 512), StepShape(64, 8, accumulates=True)):
            traced = step_memory(shape, step, MUON, cpu)
            assert traced.total <= memory._no_more_than(shape, step), (shape, step)


def test_a_run_that_cannot_fit_is_refused_unless_forced(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: 2**20)
    with pytest.raises(InputError, match=r"1.0 MB of memory are free.*weights.*optimizer state.*--force"):
        pretrain(tiny_pretraining(tiny_data), tmp_path / "model")
    assert not (tmp_path / "model").exists()
    pretrain(tiny_pretraining(tiny_data, force=True), tmp_path / "model")
    model, reviews = str(tmp_path / "model"), str(tmp_path / "reviews.csv")
    (tmp_path / "reviews.csv").write_text("text,label\n" + "".join(f"{n} is good,{n % 2}\n" for n in range(200)))
    with pytest.raises(InputError, match="memory are free"):
        finetune(FinetuneConfig(task="sentiment", model=model, data=reviews, device="cpu"), tmp_path / "judge")
    assert not (tmp_path / "judge").exists()
