"""fp8: blocks compute in it, learn as in bf16, and leave the same model; what cannot is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from tests.conftest import tiny_pretraining
from torch import nn

from lucidlm.checkpoint.load import load_model
from lucidlm.core import devices, extras
from lucidlm.core.errors import InputError
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.train.fp8 import take_products_in_fp8
from lucidlm.train.pretrain import run as pretraining
from lucidlm.train.pretrain.config import PretrainConfig
from lucidlm.train.pretrain.run import pretrain

SHAPE = ModelConfig(vocab_size=64, embedding_dim=32, num_heads=2, ff_dim=96, num_layers=2, context_length=16)


def losses(model: LanguageModel, steps: int) -> list[float]:
    """Return the loss of each step of learning a chain in which half of the tokens follow from the one before."""
    generator = torch.Generator().manual_seed(0)
    optimizer, found = torch.optim.AdamW(model.parameters(), 1e-2), []
    for _ in range(steps):
        tokens = torch.randint(64, (32, 17), generator=generator)
        known = torch.rand(32, 17, generator=generator) < 0.5
        for place in range(1, 17):
            follows = (5 * tokens[:, place - 1] + 1) % 64
            tokens[:, place] = torch.where(known[:, place], follows, tokens[:, place])
        loss = model.loss(tokens[:, :-1], tokens[:, 1:])[0] / tokens[:, 1:].numel()
        found.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found


@pytest.mark.fp8
@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed: make extras")
class TestWithTorchao:
    def test_it_learns_as_without(self, capfd: pytest.CaptureFixture[str]) -> None:
        plain, rounded = LanguageModel(SHAPE), LanguageModel(SHAPE)
        names = list(rounded.state_dict())
        take_products_in_fp8(rounded.model, emulated=True)
        assert list(rounded.state_dict()) == names
        assert type(rounded.model.layers[0].mlp.up_proj) is not nn.Linear
        expected, found = losses(plain, 60), losses(rounded, 60)
        assert found[0] != expected[0]
        assert expected[-1] < 0.75 * expected[0]
        assert sum(found[-10:]) == pytest.approx(sum(expected[-10:]), rel=0.01)
        assert capfd.readouterr() == ("", "")

    def test_a_run_leaves_a_model_like_any_other(
        self, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(devices, "has_fp8_units", lambda device: True)
        monkeypatch.setattr(
            pretraining, "take_products_in_fp8", lambda model: take_products_in_fp8(model, emulated=True)
        )
        shape = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 96, "num_layers": 1}
        config = tiny_pretraining(tiny_data).changed(precision="fp8", compile="off", shape=shape)
        pretrain(config, tmp_path / "model")
        assert type(load_model(tmp_path / "model").causal_lm()[0].model.layers[0].mlp.up_proj) is nn.Linear


def test_it_is_compiled_unless_told_otherwise() -> None:
    config = PretrainConfig.parse({"data": {"d": 1.0}, "precision": "fp8", "loop": {"max_steps": 1}}, where="run")
    assert config.compiled
    assert not config.changed(compile="off").compiled
    assert not config.changed(precision="bf16").compiled


def test_what_cannot_is_refused(tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"--precision: cpu has no fp8 units; .* Leave it out or pass bf16"):
            pretrain(tiny_pretraining(tiny_data).changed(precision="fp8"), tmp_path / "model")
        assert not list(tmp_path.iterdir())
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"torchao is not installed.*lucidlm\[fp8\]"):
        take_products_in_fp8(LanguageModel(SHAPE).model)
    monkeypatch.setattr(extras, "find_spec", lambda name: object())
    odd = SHAPE.changed(embedding_dim=24, ff_dim=40)
    with pytest.raises(InputError, match="no layer has widths that are multiples of 16"):
        take_products_in_fp8(LanguageModel(odd).model)
