"""The page of results: seeds of one recipe share a row, other results stand alone."""

from pathlib import Path

from lucidlm.core.io import write_text
from lucidlm.evaluate.leakage import Leak
from lucidlm.evaluate.record import EVALUATION, Evaluation, Measure, Score
from lucidlm.metrics.statistics import Comparison, Estimate
from lucidlm.report.language import Language
from lucidlm.report.results import by_seeds, find_results, write_results


def around(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.02, high=value + 0.02)


def leave(folder: Path, accuracy: float, p_value: float, *, baseline: float = 0.8, data: str = "a") -> None:
    """Write the eval.json of a model and of a baseline beside it."""
    beside = Comparison(difference=around(accuracy - baseline), p_value=p_value)
    found = Evaluation(
        task="sentiment",
        data="films",
        data_sha256=data,
        examples=100,
        measures=[Measure(name="accuracy")],
        model=Score(name="judge", metrics={"accuracy": around(accuracy)}, seconds=1.0),
        baselines=[Score(name="words", metrics={"accuracy": around(baseline)}, comparison=beside, seconds=1.0)],
        leakage=[Leak(against="fine-tuning", examples=100, overlapping=2, share=0.02, copies=1)],
        machine={"cpu": "some", "cores": 2},
        seconds=2.0,
    )
    write_text(folder / EVALUATION, found.model_dump_json())


def test_seeds_of_a_recipe_share_a_row(tmp_path: Path) -> None:
    for seed, (accuracy, p_value) in enumerate([(0.84, 0.001), (0.86, 0.002), (0.82, 0.2)]):
        leave(tmp_path / f"films-seed-{seed}" / "test", accuracy, p_value)
    leave(tmp_path / "films" / "other", 0.9, 0.01)
    write_results([tmp_path], tmp_path / "page.md")
    page = (tmp_path / "page.md").read_text("utf-8")
    table = [line for line in page.splitlines() if line.startswith("| sentiment")]
    assert len(table) == 2
    (row,) = (line for line in table if "seeds" in line)
    assert "0.840 (mean of 3 seeds: 0.820 to 0.860)" in row
    assert "better (p = 0.001); better (p = 0.002); no difference shown (p = 0.2)" in row
    assert "0.800, words" in row
    assert "### films/test\n" in page
    for seed, figure in enumerate(["0.840 [0.820, 0.860]", "0.860 [0.840, 0.880]", "0.820 [0.800, 0.840]"]):
        assert f"| **judge**, seed {seed} | {figure} | – |" in page
    assert "| words | 0.800 [0.780, 0.820] | better (p = 0.001) |" in page
    assert "The rows below the models are of seed 0." in page
    assert "seen in fine-tuning: 2 (2.0 %); 1 are copies.\n" in page
    write_results([tmp_path], tmp_path / "zh.md", Language("zh"))
    assert "3 个随机种子的平均：0.820 至 0.860" in (tmp_path / "zh.md").read_text("utf-8")


def test_rows_that_look_alike_are_named(tmp_path: Path) -> None:
    leave(tmp_path / "one-seed-0" / "test", 0.84, 0.001)
    leave(tmp_path / "other" / "test", 0.86, 0.002, data="b")
    write_results([tmp_path], tmp_path / "page.md")
    table = [line for line in (tmp_path / "page.md").read_text("utf-8").splitlines() if line.startswith("| sentiment")]
    assert [line.split(" | ")[1] for line in table] == ["`films`, one/test", "`films`, other/test"]


def test_seeds_that_were_judged_on_other_examples_stay_apart(tmp_path: Path) -> None:
    leave(tmp_path / "films-seed-0", 0.84, 0.001, data="a")
    leave(tmp_path / "films-seed-1", 0.86, 0.002, data="b")
    leave(tmp_path / "films-seed-10-more", 0.7, 0.5, data="a")
    groups = by_seeds(find_results([tmp_path]))
    assert [[result.place for result in group] for group in groups] == [
        ["films-seed-0"],
        ["films-seed-1"],
        ["films-seed-10-more"],
    ]
    assert [group[0].seed for group in groups] == ["0", "1", None]
