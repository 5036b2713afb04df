"""Work shared among processes: results in order, errors as they are, nothing left running."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.parallel import AHEAD, FEW, in_chunks, map_in_order

WORK = """
import os
from lucidlm.core.errors import InputError

def work(item):
    print("noise")
    if item == "unusable":
        raise InputError("is unusable", where="rows.jsonl:7", fix="Mend it.")
    if item == "bug":
        raise KeyError("absent")
    if item == "death":
        os._exit(3)
    return item, os.getpid()
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], tuple[Any, int]]:
    """A function that the other processes can import as well."""
    (tmp_path / "work_of_a_test.py").write_text(WORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "work_of_a_test", raising=False)
    return importlib.import_module("work_of_a_test").work


def workers() -> list[psutil.Process]:
    """The processes that share the work, as they are now."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.is_running() and "popen_loky" in " ".join(child.cmdline())]


def test_results_come_in_the_order_of_the_work_from_several_processes(work) -> None:
    results = list(map_in_order(work, range(100), 2))
    assert [item for item, _ in results] == list(range(100))
    assert os.getpid() not in {process for _, process in results}
    assert not workers()


@pytest.mark.parametrize(("items", "processes"), [(FEW, 4), (100, 1), (0, 4)])
def test_few_items_are_done_here(work, items: int, processes: int) -> None:
    assert list(map_in_order(work, range(items), processes)) == [(item, os.getpid()) for item in range(items)]


def test_what_is_in_flight_is_bounded(work) -> None:
    taken = []
    items = (taken.append(item) or item for item in range(200))
    with closing(map_in_order(work, items, 2)) as results:
        for done, _ in enumerate(results):
            assert len(taken) <= max(FEW + 1, done + 1 + 2 * AHEAD)
    assert len(taken) == 200


def test_an_error_says_what_it_said_in_the_other_process(work) -> None:
    with pytest.raises(InputError) as caught:
        list(map_in_order(work, [*range(20), "unusable", *range(20)], 2))
    assert str(caught.value) == "rows.jsonl:7: is unusable. Mend it."
    assert (caught.value.what, caught.value.where, caught.value.fix) == ("is unusable", "rows.jsonl:7", "Mend it.")
    assert not workers()


def test_a_bug_shows_where_it_is(work) -> None:
    with pytest.raises(KeyError) as caught:
        list(map_in_order(work, [*range(20), "bug"], 2))
    assert "work_of_a_test.py" in str(caught.value.__cause__)


def test_a_process_that_ends_by_itself_is_told(work) -> None:
    with pytest.raises(LucidError, match="ended by itself"):
        list(map_in_order(work, [*range(20), "death"], 2))
    assert not workers()


@pytest.mark.parametrize("reason", [KeyboardInterrupt, InputError])
def test_nothing_is_left_running_when_the_work_is_given_up(work, reason: type[BaseException]) -> None:
    def give_up() -> None:
        with closing(map_in_order(work, range(1000), 2)) as results:
            next(results)
            assert workers()
            raise reason("stop")

    with pytest.raises(reason, match="stop"):
        give_up()
    assert not workers()


def test_a_script_needs_no_guard(tmp_path: Path) -> None:
    script = "from lucidlm.core.parallel import map_in_order\nprint(sum(map_in_order(abs, range(-50, 0), 2)))\n"
    (tmp_path / "script.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "script.py")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "1275\n"


def test_chunks_end_where_their_size_is_reached() -> None:
    assert list(in_chunks(["aa", "b", "cccc", "d"], len, 3)) == [["aa", "b"], ["cccc"], ["d"]]
    assert not list(in_chunks([], len, 3))
