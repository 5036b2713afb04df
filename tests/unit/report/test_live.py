"""Runs followed while they are written: what is read of them, and how a terminal shows it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lucidlm.core.errors import InputError
from lucidlm.core.io import write_text
from lucidlm.report.live.drawing import draw, draw_curve, line, shown
from lucidlm.report.live.following import POINTS, Curve, FollowedFolder, FollowedRun
from lucidlm.train.metrics_log import MetricsLog, latest_figures, read_lines


def step_row(step: int, steps: int = 100) -> dict[str, Any]:
    return {
        "step": step,
        "tokens": 64 * step,
        "train_loss": 1.0 + 4.0 / step,
        "learning_rate": 3e-3,
        "tokens_per_second": 1234.5,
        "wall_seconds": 2.0 * step,
        "progress": step / steps,
        "memory": 3_200_000_000,
    }


def write(run: Path, *rows: dict[str, Any] | str) -> None:
    run.mkdir(parents=True, exist_ok=True)
    with (run / "metrics.jsonl").open("a") as file:
        for row in rows:
            file.write(row if isinstance(row, str) else json.dumps(row) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    write(path, *(step_row(step) for step in range(1, 26)), {"step": 25, "tokens": 9, "validation_loss": 1.5})
    return path


def followed(path: Path) -> FollowedRun:
    found = FollowedRun(path.name, path)
    found.read()
    return found


def picture(path: Path, encoding: str = "utf-8") -> str:
    folder = FollowedFolder(path)
    folder.read()
    with (path.parent / "terminal").open("w", encoding=encoding) as file:
        console = Console(file=file, width=80, force_terminal=True, color_system=None, legacy_windows=False)
        console.print(draw(folder, console))
    return (path.parent / "terminal").read_text(encoding=encoding)


# ---------------------------------------------------------------------- reading


def test_what_a_run_says_of_itself(run: Path) -> None:
    found = followed(run)
    assert (found.state, found.ended) == ("running", False)
    assert (found.last["step"], found.total, found.left) == (25, 100, 150.0)
    assert found.evaluation["validation_loss"] == 1.5
    assert found.training.points[-1] == (25, 1.16)
    assert found.validation.points == [(25, 1.5)]
    assert latest_figures(run / "metrics.jsonl")["validation_loss"] == 1.5


def test_a_line_is_read_once_it_is_whole(run: Path) -> None:
    found, whole = followed(run), json.dumps(step_row(26))
    write(run, whole[:20])
    found.read()
    assert (found.last["step"], found.damaged) == (25, 0)
    write(run, whole[20:] + "\n")
    found.read()
    assert (found.last["step"], found.damaged) == (26, 0)
    assert len(found.training.points) == 26


def test_damaged_lines_are_counted_and_left_out(run: Path) -> None:
    write(
        run,
        '{"step": 26, "tr\n',
        "[]\n",
        '{"tokens": 7}\n',
        '{"step": true}\n',
        step_row(27),
        '{"step": 28, "train_loss": NaN}\n',
    )
    found = followed(run)
    assert (found.damaged, found.last["step"], len(found.training.points)) == (4, 28, 26)
    assert "4 damaged lines of metrics.jsonl are left out" in picture(run)


def test_a_run_that_goes_on_is_read_anew(run: Path) -> None:
    found = followed(run)
    log = MetricsLog(run, resume_at=20)
    log.write(**{**step_row(21), "train_loss": 9.0})
    log.close()
    found.read()
    assert len(found.training.points) == 21
    assert found.training.points[-1] == (21, 9.0)
    assert not found.validation.points  # step 25 has not come again


def test_a_log_that_is_away_for_a_moment_is_awaited(run: Path) -> None:
    found = followed(run)
    (run / "metrics.jsonl").rename(run / "elsewhere")
    found.read()
    assert (found.last["step"], found.state) == (25, "running")
    write(run, step_row(1))
    found.read()
    assert (found.last["step"], len(found.training.points)) == (1, 1)


def test_resuming_leaves_damaged_lines_out(run: Path) -> None:
    write(run, "not json\n", step_row(26), '{"step": 27')
    MetricsLog(run, resume_at=26).close()
    lines, end = read_lines(run / "metrics.jsonl")
    assert len(lines) == 27
    assert end == (run / "metrics.jsonl").stat().st_size


def test_states(run: Path) -> None:
    os.utime(run / "metrics.jsonl", (0, 0))
    found = followed(run)
    assert (found.state, found.ended) == ("silent", False)
    assert "no sign of life for" in line(found)
    write_text(run / "ended.json", '{"state": "failed", "error": "the loss is not finite"}')
    found.read()
    assert (found.state, found.ended, found.error) == ("failed", True, "the loss is not finite")
    assert "the loss is not finite" in picture(run)
    write_text(run / "ended.json", '{"state": "stopped", "error": ""}')
    found.read()
    assert (found.state, found.ended) == ("stopped", True)
    write_text(run / "ended.json", "damaged")
    found.read()
    assert found.state == "silent"
    write_text(run / "lucidlm.json", "{}")
    found.read()
    assert (found.state, found.ended) == ("finished", True)


def test_a_curve_takes_as_many_points_as_it_may(tmp_path: Path) -> None:
    curve, count = Curve(), 10 * POINTS
    for step in range(count):
        curve.add(step, 2.0 * step)
    assert POINTS <= len(curve.points) < 2 * POINTS
    assert all(value == 2 * step for step, value in curve.points)
    steps = [step for step, _ in curve.points]
    assert steps == sorted(steps)
    assert steps[-1] > count - 2 * count / POINTS


def test_a_folder_of_runs(tmp_path: Path, run: Path) -> None:
    folder = FollowedFolder(tmp_path)
    folder.read()
    assert [one.name for one in folder.runs] == ["model"]
    write(tmp_path / "recipe" / "tuned", step_row(1))
    (tmp_path / "judged").mkdir()
    (tmp_path / "judged" / "eval.json").write_text("{}")  # measured, never trained
    folder.read()
    assert [one.name for one in folder.runs] == ["model", "recipe/tuned"]
    assert not folder.ended
    shown = picture(tmp_path)
    assert "recipe/tuned" in shown
    assert "1.5000" in shown


def test_what_is_no_directory_here(tmp_path: Path, run: Path) -> None:
    for path in (run / "metrics.jsonl", Path("ssh://host/run")):
        with pytest.raises(InputError, match="is no local directory"):
            FollowedFolder(path)
    folder = FollowedFolder(tmp_path / "not yet")
    folder.read()
    assert not folder.ended
    assert "there is no such directory yet" in " ".join(picture(tmp_path / "not yet").split())


# ---------------------------------------------------------------------- showing


def test_the_picture_has_all_figures(run: Path) -> None:
    (run / "samples.jsonl").write_text('{"prompt": "a", "text": "ab \\u001b[2J\\ncd"}\nnot json\n')
    found = picture(run)
    for part in (
        "25 of 100 (25%)",
        "1.1600",
        "at step 25: validation loss 1.5000",
        "1,234 tokens/s",
        "learning rate",
        "3.2 GB",
        "2 min 30 s",
        "model: running",
        "ab �[2J cd",
    ):
        assert part in found
    assert "\x1b[2J" not in found


def test_spikes_and_roll_backs_are_told(run: Path) -> None:
    for step in (12, 1_200):
        write(run, {"step": step, "event": "spike", "loss": 9.5, "grad_norm": 3.0})
    write(run, {"step": 30, "event": "roll-back", "at": 44, "to": 30, "skipped": [30, 43]})
    found = line(followed(run))
    assert "spikes 2, last at step 1,200, roll-backs 1, last at step 44, memory" in found
    assert "step 25 of 100" in found
    assert "2, last at step 1,200" in picture(run)


def test_a_terminal_without_unicode_gets_ascii(run: Path) -> None:
    (run / "samples.jsonl").write_text(json.dumps({"text": "好" * 100}) + "\n")
    found = picture(run, encoding="ascii")
    assert "*" in found
    assert "???" in found
    assert "o on held-out text" in found


def test_one_line_has_the_same(run: Path) -> None:
    found = line(followed(run))
    assert found.startswith(
        "model: step 25 of 100 (25%), loss 1.1600, 1,234 tokens/s, learning rate 0.003, memory 3.2 GB, "
    )
    assert found.endswith("50 s, 2 min 30 s left, validation loss 1.5000, running")


def test_old_runs_say_less(tmp_path: Path) -> None:
    write(tmp_path / "old", {"step": 3, "train_loss": 2.0})
    found = followed(tmp_path / "old")
    assert (found.total, found.left) == (None, None)
    assert line(found) == "old: step 3, loss 2.0000, running"


def test_a_curve_falls_from_the_upper_left_to_the_lower_right() -> None:
    training = [(step, 10.0 - step / 10) for step in range(101)]
    lines = draw_curve(training, [(100, 0.0)], width=20, height=5, plain=True)
    rows = [text.partition("|")[2] for text in lines[:5]]
    assert rows[0].startswith("*")
    assert rows[-1].endswith("o")
    places = [row.index("*") for row in rows]
    assert places == sorted(places)
    assert [text.split("|")[0].strip() for text in lines[:5]] == ["9.500", "", "4.750", "", "0.000"]
    assert lines[-1].split() == ["step", "0", "100"]
    assert {len(text) for text in lines} == {31}


def test_one_point_is_a_curve_too() -> None:
    assert any("●" in text for text in draw_curve([], [(5, 2.0)], width=20, height=3))
    assert "⠁" in draw_curve([(5, 2.0)], [], width=20, height=3)[0]


def test_nothing_steers_the_terminal() -> None:
    assert shown("a\x1b]0;x\x07b\r\nc — 中") == "a�]0;x�b�\nc — 中"
