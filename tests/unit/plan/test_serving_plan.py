"""Plans of serving: memory by part, what the cache has room for, speed that was measured, and what cannot be planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.serving import small_model, small_tokenizer
from typer.testing import CliRunner

import lucidlm
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.inference.config import EngineConfig
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel

CONTEXT = 128
TORCH = EngineConfig(backend="torch")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("serve") / "model"
    save_model(small_model(CONTEXT), directory, small_tokenizer())
    return directory


def test_a_plan_is_measured(model: Path) -> None:
    plan = lucidlm.plan.serve(model, max_running=3, engine=TORCH, price_per_hour=1.0, price_per_kwh=0.0).plan
    shape = small_model(CONTEXT).config
    assert plan.token == 2 * 4 * shape.num_layers * shape.num_kv_heads * shape.head_dim
    assert (plan.texts, plan.cached, plan.context) == (3, 3 * CONTEXT, CONTEXT)
    assert plan.memory["cache, full"] == plan.token * plan.cached
    assert plan.fits
    assert plan.speed is not None
    assert min(plan.speed.alone, plan.speed.together, plan.speed.reading) > 1
    assert plan.speed.texts == 3
    assert plan.cost == pytest.approx(1e6 / plan.speed.together / 3600)
    assert plan.advice == ()


def test_a_cache_that_is_small_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lucidlm.inference.engine.opening._blocks", lambda *_: CONTEXT // 32)
    plan = lucidlm.plan.serve(model, max_running=4, engine=TORCH).plan
    assert plan.texts == 1
    assert "longer ones wait" in plan.advice[0]


def test_an_accelerator_that_is_not_here_is_planned_by_its_memory(model: Path) -> None:
    found = lucidlm.plan.serve(model, on="h100", max_running=8)
    plan = found.plan
    assert plan.memory["weights"] == 2 * plan.parameters
    assert plan.texts == 8
    assert plan.speed is None
    assert plan.cost is None
    assert plan.most_speed == pytest.approx(3350e9 / plan.memory["weights"])
    assert found.to_dict()["tokens_a_second"] is None
    assert "ServingResult(serve" in repr(found)


def test_the_command(model: Path) -> None:
    call = ["plan", "serve", str(model), "--max-running", "2", "--backend", "torch"]
    printed = CliRunner().invoke(app, call, catch_exceptions=False)
    assert printed.exit_code == 0
    for name in ("memory there is", "cache, full", "texts of the whole context: 2 of 128", "writing, 2 together"):
        assert name in printed.stdout
    found = json.loads(CliRunner().invoke(app, [*call, "--json"], catch_exceptions=False).stdout)
    assert found["tokens_a_second"]["texts"] == 2
    assert found["memory_bytes"]["peak"] == sum(
        size for part, size in found["memory_bytes"].items() if part not in ("peak", "available")
    )


def test_what_does_not_write_is_refused(tmp_path: Path) -> None:
    shape: dict[str, Any] = {"embedding_dim": 32, "num_heads": 2, "ff_dim": 48, "num_layers": 1}
    save_model(LanguageModel(ModelConfig(vocab_size=280, causal=False, **shape)), tmp_path, small_tokenizer())
    with pytest.raises(InputError, match="is not a causal language model"):
        lucidlm.plan.serve(tmp_path)
    with pytest.raises(InputError, match="no accelerator 'abacus'"):
        lucidlm.plan.serve(tmp_path, on="abacus")
