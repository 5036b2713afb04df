"""Evaluation on several ranks: what one process writes, whoever gave the answers and whatever becomes of the ranks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import made_up_reviews
from tests.ranks import Launch, launch

from lucidlm.evaluate.answers import PARTIAL
from lucidlm.evaluate.record import EVALUATION, PREDICTIONS, STATISTICS
from lucidlm.train.config import LoopConfig
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune

TASKS = ("sentiment", "perplexity", "generation")
REVIEWS, TEXTS = 1000, 90
"""Enough for several pieces that ranks can share: reading takes larger ones than writing."""


def write_lines(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def calls(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, tiny_data: Path, reviews_csv: Path
) -> dict[str, list[object]]:
    """The arguments of `evaluate` for each task, and for prepared data."""
    root = tmp_path_factory.mktemp("judged")
    loop = LoopConfig(max_steps=4, evaluations=1)
    config = FinetuneConfig(task="sentiment", model=str(tiny_model), data=str(reviews_csv), device="cpu", loop=loop)
    finetune(config, root / "judge")
    reviews = write_lines(root / "reviews.jsonl", made_up_reviews(REVIEWS, seed=7))
    texts = write_lines(root / "texts.jsonl", [{"text": row["text"]} for row in made_up_reviews(TEXTS, seed=8)])
    asked: dict[str, list[object]] = {"sentiment": [root / "judge", "--task", "sentiment", "--data", reviews]}
    for task in TASKS[1:]:
        asked[task] = [tiny_model, "--task", task, "--data", texts]
    return {**asked, "prepared": [tiny_model, "--data", tiny_data, "--split", "validation"]}


def commands(calls: dict[str, list[object]], root: Path) -> list[list[object]]:
    return [["evaluate", *call, "--out", root / name, "--device", "cpu"] for name, call in calls.items()]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, calls: dict[str, list[object]]) -> Launch:
    root = tmp_path_factory.mktemp("one")
    return launch(root, 1, commands(calls, root))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, calls: dict[str, list[object]]) -> Launch:
    """Two ranks, of which one is killed when it is to answer for the second time."""
    root = tmp_path_factory.mktemp("two")
    return launch(root, 2, commands(calls, root), restarts=1, KILL="sentiment:1:2")


def without_times(found: Any) -> Any:
    if isinstance(found, dict):
        return {name: without_times(value) for name, value in found.items() if name != "seconds"}
    return [without_times(value) for value in found] if isinstance(found, list) else found


@pytest.mark.parametrize("task", TASKS)
def test_the_files_are_those_of_one_process(one: Launch, two: Launch, task: str) -> None:
    assert one.code == two.code == 0, one.errors + two.errors
    first, second = (json.loads((launched.root / task / EVALUATION).read_text()) for launched in (one, two))
    assert without_times(second) == without_times(first)
    for name in (PREDICTIONS, STATISTICS):
        assert (two.root / task / name).read_bytes() == (one.root / task / name).read_bytes()
    assert (two.root / task / "report.html").exists()
    assert not (two.root / task / PARTIAL).exists()


def test_results_are_printed_once(one: Launch, two: Launch) -> None:
    tables, figures = zip(*(launched.output.split("{", 1) for launched in (one, two)), strict=True)
    assert tables[0] == tables[1]
    first, second = (json.loads("{" + part) for part in figures)
    assert second == {**first, **{name: pytest.approx(first[name], rel=1e-6) for name in ("loss", "perplexity")}}


def test_a_killed_rank_stops_all_and_the_evaluation_goes_on_where_it_stood(two: Launch) -> None:
    assert "exitcode: -9) local_rank: 1" in two.errors
    assert two.errors.count("lucidlm: ") <= 1, "torchrun may stop the other one before it has noticed"
    kept = re.search(rf"goes on after ([\d,]+) of {REVIEWS:,} answers kept in", two.errors)
    assert kept is not None
    assert 0 < int(kept[1]) < REVIEWS


def test_fewer_examples_than_ranks_are_refused_once(
    tmp_path: Path, calls: dict[str, list[object]], tiny_model: Path
) -> None:
    few = write_lines(tmp_path / "few.jsonl", [{"text": "A moving film."}])
    call = ["evaluate", tiny_model, "--task", "perplexity", "--data", few, "--out", tmp_path / "out", "--device", "cpu"]
    found = launch(tmp_path, 2, [call])
    assert found.code != 0
    assert "lucidlm: there are 2 ranks and 1 examples to judge on. Start fewer ranks." in found.errors
    assert found.errors.count("lucidlm: ") == 1
    assert not (tmp_path / "out" / EVALUATION).exists()
