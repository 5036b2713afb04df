"""On a GPU: what trains, writes and judges on the CPU does there too, in bf16, and fp32 gives the CPU's figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tests.conftest import tiny_pretraining

from lucidlm.checkpoint.load import load_model
from lucidlm.core.devices import choose_compute, describe_machine
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import IGNORE_INDEX, token_losses
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.pretrain.run import pretrain

pytestmark = pytest.mark.gpu


def losses(model: Path) -> list[float]:
    lines = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [line["train_loss"] for line in lines if "train_loss" in line]


def test_it_is_chosen_with_the_format_it_multiplies_fast(gpu: torch.device) -> None:
    compute = choose_compute(str(gpu))
    assert compute.device.type == gpu.type
    if gpu.type == "cuda":
        assert compute.autocasts is torch.cuda.is_bf16_supported(including_emulation=False)
        assert describe_machine().accelerator == torch.cuda.get_device_name()


def test_pretraining_in_fp32_takes_the_cpus_steps(tmp_path: Path, tiny_data: Path, gpu: torch.device) -> None:
    for name, device in (("here", "cpu"), ("there", str(gpu))):
        config = tiny_pretraining(tiny_data, device=device, precision="fp32", loop={"optimizer": {"name": "adamw"}})
        pretrain(config, tmp_path / name)
    assert losses(tmp_path / "there") == pytest.approx(losses(tmp_path / "here"), abs=1e-3)


def test_pretraining_by_default_learns(tmp_path: Path, tiny_data: Path, gpu: torch.device) -> None:
    pretrain(tiny_pretraining(tiny_data, device=str(gpu), loop={"max_steps": 30}), tmp_path / "model")
    assert losses(tmp_path / "model")[-1] < losses(tmp_path / "model")[0] - 0.5


def test_fine_tuning_and_judging(tmp_path: Path, tiny_model: Path, reviews_csv: Path, gpu: torch.device) -> None:
    config = FinetuneConfig(
        task="sentiment", model=str(tiny_model), data=str(reviews_csv), test=0.2, epochs=8, device=str(gpu)
    )
    finetune(config, tmp_path / "judge")
    settings = EvaluateConfig(task="sentiment", data=str(reviews_csv), baselines=False, device=str(gpu))
    there = evaluate_directory(tmp_path / "judge", settings, tmp_path / "there")
    here = evaluate_directory(tmp_path / "judge", settings.changed(device="cpu"), tmp_path / "here")
    assert there.model.metrics["accuracy"].value > 0.9
    assert there.model.metrics["accuracy"].value == pytest.approx(here.model.metrics["accuracy"].value, abs=0.02)


def test_greedy_text_is_the_cpus(tiny_model: Path, gpu: torch.device) -> None:
    loaded = load_model(tiny_model)
    assert isinstance(loaded.model, LanguageModel)
    assert loaded.tokenizer is not None
    prompts, greedy = ["the director", "a critic finds"], SamplingConfig(temperature=0, length=12)
    texts = [
        [found.text for found in generate(loaded.model.to(device), loaded.tokenizer, prompts, greedy)]
        for device in ("cpu", gpu)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("vocab_size", [300, 9000])
def test_the_loss_and_its_gradients_are_the_cpus(gpu: torch.device, vocab_size: int, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, head = (torch.randn(size, 32, generator=generator) for size in (40, vocab_size))
    targets = torch.randint(vocab_size, (2, 20), generator=generator)
    targets[0, :5] = IGNORE_INDEX
    found = []
    for device in (torch.device("cpu"), gpu):
        states, factors = (one.detach().to(device, copy=True).requires_grad_() for one in (hidden, head))
        total, count = token_losses(states.unflatten(0, (2, 20)), factors, targets.to(device), smoothing)
        total.backward()
        assert states.grad is not None
        assert factors.grad is not None
        found.append([total.detach().cpu(), count.cpu(), states.grad.cpu(), factors.grad.cpu()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
