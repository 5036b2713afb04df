"""Progress goes to standard error: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import importlib
import io
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lucidlm.core import progress


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock)
    return clock


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, width=200))
    return stream


def test_a_file_gets_plain_lines_now_and_then(clock: Clock, written: io.StringIO) -> None:
    with progress.ProgressBar("reading", 100, "MB") as task:
        for _ in range(4):
            clock.now += 5
            task.advance(20, note="a.txt")
    lines = written.getvalue().splitlines()
    assert lines == [
        "reading: 60 of 100 MB, 4 MB/s, 15 s, 10 s left, a.txt",
        "reading: 80 of 100 MB, 4 MB/s, 20 s, 5 s left, a.txt",
    ]
    assert "\x1b" not in written.getvalue()


def test_a_resumed_task_counts_only_its_own_work_in_the_rate(clock: Clock, written: io.StringIO) -> None:
    with progress.ProgressBar("training", 300, "steps", done=100) as task:
        clock.now += 10
        task.advance(100)
    assert written.getvalue() == "training: 200 of 300 steps, 10 steps/s, 10 s, 10 s left\n"


def test_a_task_that_fails_reports_no_end(clock: Clock, written: io.StringIO) -> None:
    with pytest.raises(RuntimeError), progress.ProgressBar("reading", 100, "MB"):
        raise RuntimeError
    assert written.getvalue() == ""


def test_track_passes_items_through(clock: Clock, written: io.StringIO) -> None:
    assert list(progress.track("abc", "letters", 3, "letters")) == ["a", "b", "c"]
    assert written.getvalue().startswith("letters: 3 of 3 letters")


def test_a_terminal_gets_a_bar_whose_total_may_change(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, width=120, force_terminal=True, highlight=False))
    with progress.ProgressBar("training", None, "steps") as task:
        task.total = 8
        task.advance(2, "loss 1.5")
    assert "training" in stream.getvalue()
    assert "25%" in stream.getvalue()
    assert "loss 1.5" in stream.getvalue()


def test_what_is_said_is_not_read_as_markup(written: io.StringIO) -> None:
    progress.log("a [bold] path [/tmp/x]")
    assert written.getvalue() == "a [bold] path [/tmp/x]\n"


def test_nothing_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    progress.log("hello")
    with progress.ProgressBar("work") as task:
        task.advance()
    assert capsys.readouterr().out == ""


def test_of_tasks_within_tasks_the_outer_one_has_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=stream, width=120, force_terminal=True, highlight=False))
    for _ in range(2):
        with progress.ProgressBar("reading", 100, "MB"), progress.ProgressBar("fetching", 10, "MB") as inner:
            inner.advance(10)
    lines = stream.getvalue()
    assert lines.count("fetching: 10 of 10 MB") == 2  # said, where the bars are drawn
    assert "reading" in lines
    assert "fetching \x1b" not in lines


WIDGETS = """
class Output:
    shown = []
    def __enter__(self): return self
    def __exit__(self, *error): pass
    def clear_output(self, wait=False): Output.shown.append("cleared")
    def close(self): pass
"""
DISPLAY = "shown = []\ndef display(thing): shown.append(thing)\n"


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    """A console as rich makes it in a notebook, and all that is displayed there; the widgets are not installed."""
    (tmp_path / "IPython").mkdir()
    (tmp_path / "IPython" / "__init__.py").write_text("")
    (tmp_path / "IPython" / "display.py").write_text(DISPLAY)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("IPython", "IPython.display", "ipywidgets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(
        progress, "console", Console(file=io.StringIO(), width=100, force_jupyter=True, highlight=False)
    )
    found = importlib.import_module("IPython.display").shown
    yield found
    for name in ("IPython", "IPython.display", "ipywidgets"):
        sys.modules.pop(name, None)


def test_a_notebook_with_widgets_gets_a_bar(notebook: list[Any], tmp_path: Path) -> None:
    (tmp_path / "ipywidgets.py").write_text(WIDGETS)
    importlib.invalidate_caches()
    assert progress.draws_bars()
    with progress.ProgressBar("training", 8, "steps") as task:
        task.advance(8)
    output = importlib.import_module("ipywidgets").Output
    assert any(isinstance(thing, output) for thing in notebook)
    assert output.shown


@pytest.mark.skipif(find_spec("ipywidgets") is not None, reason="the widgets are installed here")
def test_a_notebook_without_widgets_gets_lines(notebook: list[Any], clock: Clock) -> None:
    assert not progress.draws_bars()
    with progress.ProgressBar("training", 8, "steps") as task:
        clock.now += 2
        task.advance(8)
    assert "training: 8 of 8 steps" in repr([vars(thing) for thing in notebook])
