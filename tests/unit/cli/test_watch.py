"""`lucidlm watch` off a terminal and on one, without waiting: time passes when it would sleep."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lucidlm.cli.main import app
from lucidlm.cli.training import watch as module
from lucidlm.core.errors import InputError

Watch = Callable[..., Result]


def write(run: Path, *rows: dict[str, float]) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Call the command; what happens while it sleeps is given as functions, one for each time, and the end is Ctrl-C."""

    def call(path: object, *flags: str, meanwhile: tuple[Callable[[], object], ...] = ()) -> Result:
        clock, events = [0.0], iter(meanwhile)

        def sleep(seconds: float) -> None:
            clock[0] += seconds
            event = next(events, None)
            if event is None:
                raise KeyboardInterrupt
            event()

        monkeypatch.setattr(module, "sleep", sleep)
        monkeypatch.setattr(module, "monotonic", lambda: clock[0])
        return CliRunner().invoke(app, ["watch", str(path), *flags])

    return call


def test_a_run_is_followed_to_its_end(tmp_path: Path, watch: Watch) -> None:
    run = tmp_path / "model"
    found = watch(
        run,
        meanwhile=(
            lambda: None,
            lambda: write(run, {"step": 1, "train_loss": 3.0}),
            lambda: write(run, {"step": 2, "train_loss": 2.9}),  # too soon to be told
            lambda: write(run, {"step": 2, "validation_loss": 2.8}),
            lambda: (run / "lucidlm.json").write_text("{}"),
        ),
    )
    assert found.exit_code == 0
    assert found.output.splitlines() == [
        f"{run}: there is no such directory yet; waiting for it (Ctrl-C ends)",
        "model: step 1, loss 3.0000, running",
        "model: step 2, loss 2.9000, validation loss 2.8000, running",
        "model: step 2, loss 2.9000, validation loss 2.8000, finished",
    ]


def test_steps_are_told_now_and_then(tmp_path: Path, watch: Watch) -> None:
    def step(number: int) -> Callable[[], None]:
        return lambda: write(tmp_path / "model", {"step": number, "train_loss": 1.0})

    found = watch(tmp_path / "model", "--interval", "4", meanwhile=tuple(step(number) for number in range(1, 11)))
    assert found.exit_code == 130  # Ctrl-C
    assert re.findall(r"step (\d+)", found.output) == ["1", "5", "9"]


def test_a_run_that_did_not_finish_is_told_by_the_exit_code(tmp_path: Path, watch: Watch) -> None:
    write(tmp_path / "model", {"step": 1, "train_loss": 3.0})
    (tmp_path / "model" / "ended.json").write_text('{"state": "failed", "error": "no space left on the disk"}')
    found = watch(tmp_path / "model")
    assert found.exit_code == 1
    assert found.output.splitlines() == ["model: step 1, loss 3.0000, failed", "no space left on the disk"]


def test_a_folder_is_followed_until_ctrl_c(tmp_path: Path, watch: Watch) -> None:
    write(tmp_path / "runs" / "a", {"step": 1, "train_loss": 3.0})
    (tmp_path / "runs" / "a" / "lucidlm.json").write_text("{}")
    found = watch(
        tmp_path / "runs", meanwhile=(lambda: write(tmp_path / "runs" / "b", {"step": 2, "train_loss": 2.0}),)
    )
    assert found.exit_code == 130
    assert found.output.splitlines() == ["a: step 1, loss 3.0000, finished", "b: step 2, loss 2.0000, running"]


def test_once_shows_and_ends(tmp_path: Path, watch: Watch) -> None:
    write(tmp_path / "model", {"step": 1, "train_loss": 3.0})
    found = watch(tmp_path / "model", "--once")
    assert (found.exit_code, found.output) == (0, "model: step 1, loss 3.0000, running\n")
    nothing = watch(tmp_path / "nothing", "--once")
    assert isinstance(nothing.exception, InputError)
    assert "nothing: holds no run that has left a step. Pass what --out named." in str(nothing.exception)


def test_a_terminal_gets_a_picture(tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # by which rich takes any output for a terminal
    monkeypatch.setenv("TERM", "xterm")
    run = tmp_path / "model"
    write(run, {"step": 1, "train_loss": 3.0})
    found = watch(run, meanwhile=(lambda: (run / "lucidlm.json").write_text("{}"),))
    assert found.exit_code == 0
    assert "╭" in found.output
    assert "finished" in found.output
    assert "loss in training" in found.output
