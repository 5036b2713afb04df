"""Runs that are killed, for real, and go on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import tiny_pretraining

from lucidlm.train.finetune.run import FinetuneConfig
from lucidlm.train.loop import LoopConfig
from lucidlm.train.pretrain.run import PretrainConfig

STEPS, CHECKPOINT = 60, 15


def lucidlm(*arguments: object) -> subprocess.Popen[str]:
    """Start the command line in a process of its own, whose standard error can be read as it comes."""
    command = [sys.executable, "-m", "lucidlm", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished(*arguments: object) -> str:
    """Run a command to its end, which has to be a good one; return its standard error."""
    process = lucidlm(*arguments)
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert output == ""
    return errors


def killed(number: signal.Signals, *arguments: object) -> tuple[int, str]:
    """Send a signal as soon as the first checkpoint is announced; return the exit code and standard error."""
    process = lucidlm(*arguments)
    assert process.stderr is not None
    errors = ""
    for line in process.stderr:
        errors += line
        if line.startswith("checkpoint "):
            process.send_signal(number)
            break
    errors += process.communicate()[1]
    return process.returncode, errors


def digest(model: Path) -> str:
    return hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()


def losses(model: Path) -> list[tuple[int, float]]:
    rows = [json.loads(line) for line in (model / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["train_loss"]) for row in rows if "train_loss" in row]


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> tuple[Path, Path]:
    """A configuration file and what comes of it when nobody disturbs it."""
    root = tmp_path_factory.mktemp("straight")
    loop = {"max_steps": STEPS, "evaluations": 3, "patience": 9, "checkpoint_steps": CHECKPOINT}
    config: PretrainConfig = tiny_pretraining(tiny_data, loop=loop)
    config.save(root / "run.yaml")
    finished("pretrain", "--config", root / "run.yaml", "--out", root / "model")
    return root / "run.yaml", root / "model"


@pytest.fixture(scope="module")
def finetuning(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("straight")
    loop = LoopConfig(max_steps=STEPS, evaluations=3, patience=9, checkpoint_steps=CHECKPOINT)
    config = FinetuneConfig(
        task="sentiment", model=str(tiny_model), data=str(reviews_csv), epochs=9, loop=loop, device="cpu"
    )
    config.save(root / "run.yaml")
    finished("finetune", "--config", root / "run.yaml", "--out", root / "model")
    return root / "run.yaml", root / "model"


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_goes_on_to_the_same_bits(
    tmp_path: Path, request: pytest.FixtureRequest, command: str, number: signal.Signals
) -> None:
    config, straight = request.getfixturevalue({"pretrain": "pretraining", "finetune": "finetuning"}[command])
    out = tmp_path / "model"
    code, errors = killed(number, command, "--config", config, "--out", out)
    assert not (out / "lucidlm.json").exists()
    if number == signal.SIGKILL:
        assert code == -signal.SIGKILL
    else:
        assert code == 128 + signal.SIGTERM
        assert "stopped by SIGTERM at step" in errors
        assert "--resume" in errors
        assert "Traceback" not in errors
    errors = finished(command, "--out", out, "--resume")
    assert "resuming at step" in errors
    assert digest(out) == digest(straight)
    assert losses(out) == losses(straight)
    assert len(losses(out)) == STEPS


def test_ctrl_c_ends_cleanly(tmp_path: Path, pretraining: tuple[Path, Path]) -> None:
    code, errors = killed(signal.SIGINT, "pretrain", "--config", pretraining[0], "--out", tmp_path / "model")
    assert code == 130
    assert "SIGINT received: saving a checkpoint after this step" in errors
    assert "stopped by SIGINT at step" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "model" / "report.html").exists()


def test_a_saved_configuration_replays_to_the_same_bits(tmp_path: Path, pretraining: tuple[Path, Path]) -> None:
    straight = pretraining[1]
    finished("pretrain", "--config", straight / "config.yaml", "--out", tmp_path / "again")
    assert digest(tmp_path / "again") == digest(straight)
    assert (tmp_path / "again" / "config.yaml").read_bytes() == (straight / "config.yaml").read_bytes()
