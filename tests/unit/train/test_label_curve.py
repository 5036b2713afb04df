"""The label curve: what it measures, that it goes on where it was, what its page and table show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.conftest import made_up_reviews
from typer.testing import CliRunner

from lucidlm.cli.main import app
from lucidlm.cli.training.label_curve import table
from lucidlm.core.errors import InputError
from lucidlm.report.charts import draw
from lucidlm.report.label_curve import report_curve, summarise
from lucidlm.report.language import Language
from lucidlm.train.label_curve import run as module
from lucidlm.train.label_curve.config import LabelCurveConfig
from lucidlm.train.label_curve.record import BASELINE, CURVE, OTHER, PRETRAINED, SCRATCH, read_curve
from lucidlm.train.label_curve.run import label_curve


@pytest.fixture(scope="module")
def test_data(tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path) -> Path:
    """60 reviews to judge by, and one of those that are drawn from."""
    path = tmp_path_factory.mktemp("held-out") / "test.jsonl"
    text, label = reviews_csv.read_text(encoding="utf-8").splitlines()[1].rsplit(",", 1)
    rows = [*made_up_reviews(60, seed=9), {"text": text, "label": label}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def config(tiny_model: Path, reviews_csv: Path, test_data: Path) -> LabelCurveConfig:
    return LabelCurveConfig(
        task="sentiment",
        model=str(tiny_model),
        data=str(reviews_csv),
        test_data=str(test_data),
        shots=(4, 16),
        seeds=2,
        epochs=1,
        least_steps=3,
        device="cpu",
        precision="fp32",
    )


@pytest.fixture(scope="module")
def measured(config: LabelCurveConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("curve")
    label_curve(config, out)
    return out


def test_every_method_is_measured_at_every_number_with_every_seed(measured: Path) -> None:
    curve = read_curve(measured / CURVE)
    keys = {(point.method, point.shots, point.seed) for point in curve.points}
    assert keys == {(m, k, s) for m in (PRETRAINED, SCRATCH, BASELINE) for k in (4, 16) for s in (0, 1)}
    assert len(curve.points) == len(keys)
    assert {point.examples for point in curve.points} == {8, 32}
    assert (curve.metric, curve.test_examples) == ("accuracy", 61)
    assert all(0 <= point.low <= point.value <= point.high <= 1 for point in curve.points)
    assert curve.baseline is not None
    assert curve.baseline.startswith("TF-IDF")
    assert {path.name for path in measured.iterdir()} == {CURVE, "config.yaml"}
    assert LabelCurveConfig.load(measured / "config.yaml").seeds == 2


def test_the_same_call_measures_nothing_and_more_seeds_add(
    config: LabelCurveConfig, measured: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (measured / CURVE).read_text()
    (tmp_path / CURVE).write_text(before)
    trained: list[int] = []
    monkeypatch.setattr(module, "_train", lambda *args: trained.append(args[0].loop.seed) or (None, 15))
    curve, stopped_by = label_curve(config, tmp_path)
    assert not trained
    assert stopped_by is None
    assert curve == read_curve(tmp_path / CURVE)
    curve, stopped_by = label_curve(config.changed(seeds=3), tmp_path)
    assert trained == [2]
    assert stopped_by == 15
    assert (tmp_path / CURVE).read_text() == before


def test_the_same_numbers_come_out_again(config: LabelCurveConfig, measured: Path, tmp_path: Path) -> None:
    again, _ = label_curve(config.changed(shots=(4,), seeds=1), tmp_path)
    first = {(p.method, p.shots, p.seed): p.value for p in read_curve(measured / CURVE).points}
    assert {(p.method, p.shots, p.seed): p.value for p in again.points}.items() <= first.items()


def test_a_curve_of_other_settings_or_data_is_not_gone_on_with(
    config: LabelCurveConfig, measured: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="another epochs"):
        label_curve(config.changed(epochs=2), measured)
    copy = tmp_path / "copy.jsonl"
    copy.write_text(Path(config.test_data).read_text())
    (tmp_path / CURVE).write_text((measured / CURVE).read_text().replace(config.test_data, str(copy)))
    copy.write_text("".join(copy.read_text().splitlines(keepends=True)[5:]))
    with pytest.raises(InputError, match="other data"):
        label_curve(config.changed(test_data=str(copy)), tmp_path)
    (tmp_path / CURVE).write_text("{}")
    with pytest.raises(InputError, match="not a label curve"):
        read_curve(tmp_path / CURVE)


def test_a_second_model_stands_beside_the_first_and_fresh_weights_may_be_left_out(
    config: LabelCurveConfig, tiny_model: Path, tmp_path: Path
) -> None:
    once = config.changed(shots=(4,), seeds=1, other=str(tiny_model))
    curve, _ = label_curve(once.changed(scratch=False), tmp_path)
    assert [point.method for point in curve.points] == [PRETRAINED, OTHER, BASELINE]
    assert curve.of(PRETRAINED, 4)[0].value == curve.of(OTHER, 4)[0].value  # it is the same one here
    added, _ = label_curve(once, tmp_path)
    assert {point.method for point in added.points} == {PRETRAINED, OTHER, SCRATCH, BASELINE}
    with pytest.raises(InputError, match="another other"):
        label_curve(config.changed(shots=(4,), seeds=1), tmp_path)


def test_a_share_of_the_data_judges_where_no_other_data_do(config: LabelCurveConfig, tmp_path: Path) -> None:
    own = config.changed(test_data=None, test=0.3, shots=(4,), seeds=1, scratch=False)
    curve, _ = label_curve(own, tmp_path / "all")
    assert curve.test_examples == pytest.approx(120, abs=20)
    few, _ = label_curve(own.changed(limit=10), tmp_path / "few")
    assert few.test_examples == 10


def test_an_earlier_curve_lacks_settings_that_are_newer(
    config: LabelCurveConfig, measured: Path, tmp_path: Path
) -> None:
    fields = json.loads((measured / CURVE).read_text())
    fields["settings"] = {name: value for name, value in fields["settings"].items() if name not in ("other", "test")}
    (tmp_path / CURVE).write_text(json.dumps(fields))
    curve, _ = label_curve(config, tmp_path)
    assert len(curve.points) == 12


def test_few_examples_give_small_batches_and_enough_steps(config: LabelCurveConfig) -> None:
    plain = config.changed(least_steps=150, epochs=3)
    found = [plain.finetuning(examples, 0) for examples in (8, 128, 10_000)]
    assert [tuning.batch_size for tuning in found] == [4, 16, 32]
    assert [tuning.loop.max_steps for tuning in found] == [150, 150, 939]
    assert {tuning.loop.patience for tuning in found} == {None}


def test_the_page_and_the_table_show_means_and_ranges(measured: Path, tmp_path: Path) -> None:
    curve = read_curve(measured / CURVE)
    for code in ("en", "zh"):
        report_curve(curve, tmp_path / f"{code}.html", Language(code))  # pyright: ignore[reportArgumentType]
    page = (tmp_path / "en.html").read_text()
    assert len(re.findall(r'<path class="line"', page)) == 3
    assert len(re.findall(r'<path class="faint"', page)) == 3
    assert "从零开始" in (tmp_path / "zh.html").read_text()
    values = [point.value for point in curve.of(SCRATCH, 16)]
    cell = f"{sum(values) / 2:.4f} [{min(values):.4f}, {max(values):.4f}]"
    assert cell in page
    assert cell in table(curve)
    assert [shots for shots, _ in summarise(curve)] == [4, 16]


def test_a_logarithmic_axis_spaces_ratios_evenly_and_draws_intervals() -> None:
    y, ends = [0.5, 0.6, 0.7], ([0.4, 0.5, 0.6], [0.6, 0.7, 0.9])
    (curve,) = draw([("a", [10, 100, 1000], y, False, True)], log_x=True, intervals=[ends]).curves
    points = np.array([[float(n) for n in point.split()] for point in curve.line[1:].split("L")])
    assert np.ptp(np.diff(points[:, 0])) < 0.2
    bars = [bar.split("L") for bar in curve.faint[1:].split("M")]
    assert len(bars) == 3
    for bar, point in zip(bars, points, strict=True):
        low, high = (float(end.split()[1]) for end in bar)
        assert 0 <= high < point[1] < low <= 1000


def test_the_command(config: LabelCurveConfig, tmp_path: Path) -> None:
    call = ["label-curve", "sentiment", "--model", config.model, "--data", config.data, "--test-data", config.test_data]
    call += ["--shots", "2,4", "--seeds", "1", "--least-steps", "2", "--epochs", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "curve")])
    assert result.exit_code == 0, result.output
    assert "accuracy on 61 examples: mean of 1 seeds" in result.stdout
    assert (tmp_path / "curve" / "report.html").exists()
    assert CliRunner().invoke(app, ["label-curve", "sentiment", "--out", str(tmp_path / "other")]).exit_code != 0
