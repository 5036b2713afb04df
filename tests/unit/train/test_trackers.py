"""Trackers: what they are told, by stand-ins and by the packages themselves where they are installed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.conftest import tiny_pretraining

from lucidlm.core import extras
from lucidlm.core.config import Config
from lucidlm.core.errors import InputError
from lucidlm.train.pretrain.run import pretrain
from lucidlm.train.tracking import opening
from lucidlm.train.tracking import tracking as module
from lucidlm.train.tracking.tracking import Tracking

OURS = ("lucidlm.train.tracking.mlflow_tracker", "lucidlm.train.tracking.tensorboard_tracker")


class Inner(Config):
    seed: int = 7


class Settings(Config):
    depth: int = 2
    note: str | None = None
    inner: Inner = Inner()


SETTINGS = {"depth": 2, "note": None, "inner.seed": 7}


class Recorder:
    """A tracker that keeps what it is told, and fails from its call number `fails_at` on."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.told: list[Any] = []
        self.fails_at = fails_at

    def write(self, step: int, figures: Any) -> None:
        self._tell((step, dict(figures)))

    def end(self, state: str) -> None:
        self._tell(state)

    def _tell(self, what: Any) -> None:
        self.told.append(what)
        if len(self.told) >= self.fails_at:
            raise ConnectionError("the server\nis gone")


Recorders = Callable[..., dict[str, Recorder]]


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> Recorders:
    """Put recorders in the place of trackers; those that are none cannot be opened."""

    def install(**found: Recorder | None) -> dict[str, Any]:
        def open_tracker(name: str, directory: Path, settings: Any, resume_at: int | None) -> Recorder:
            recorder = found[name]
            if recorder is None:
                raise ConnectionError("nobody there")
            recorder.told.append(("opened", dict(settings), resume_at))
            return recorder

        monkeypatch.setattr(module, "require_trackers", lambda names: None)
        monkeypatch.setattr(module, "open_tracker", open_tracker)
        return found

    return install


# ---------------------------------------------------------------------- what they are told


def test_a_tracker_gets_settings_figures_and_the_end(tmp_path: Path, recorders: Recorders) -> None:
    found = recorders(mlflow=Recorder())["mlflow"]
    with Tracking(tmp_path, ("mlflow", "mlflow"), None) as tracking:
        tracking.of(Settings())
        tracking.begin(None)
        tracking.write({"step": 1, "train_loss": 2.0})
        tracking.finish(1, {"perplexity": 7.0}, None)
    assert found.told == [
        ("opened", SETTINGS, None),
        (1, {"train_loss": 2.0}),
        (1, {"final/perplexity": 7.0}),
        "finished",
    ]


def test_a_tracker_that_fails_is_left_out_and_said_once(
    tmp_path: Path, recorders: Recorders, capsys: pytest.CaptureFixture[str]
) -> None:
    found = recorders(mlflow=Recorder(fails_at=3), tensorboard=Recorder())
    with Tracking(tmp_path, ("mlflow", "tensorboard"), None) as tracking:
        tracking.of(Settings()).begin(None)
        for step in (1, 2, 3):
            tracking.write({"step": step, "train_loss": 2.0})
    assert [step for step, *_ in found["mlflow"].told[1:]] == [1, 2]
    assert len(found["tensorboard"].told) == 5
    said = "mlflow is left out from here on, the run goes on (ConnectionError: the server is gone)\n"
    assert capsys.readouterr().err == said


def test_one_that_cannot_be_opened_or_closed_stops_nothing(
    tmp_path: Path, recorders: Recorders, capsys: pytest.CaptureFixture[str]
) -> None:
    recorders(mlflow=None, tensorboard=Recorder(fails_at=3))
    with Tracking(tmp_path, ("mlflow", "tensorboard"), None) as tracking:
        tracking.of(Settings()).begin(None)
        tracking.write({"step": 1, "train_loss": 2.0})
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["mlflow", "tensorboard"]


def test_an_error_of_the_run_is_the_runs(tmp_path: Path, recorders: Recorders) -> None:
    found = recorders(mlflow=Recorder())["mlflow"]

    def run() -> None:
        with Tracking(tmp_path, ("mlflow",), None) as tracking:
            tracking.of(Settings()).begin(7)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()
    assert found.told == [("opened", SETTINGS, 7), "failed"]


def test_only_the_first_rank_tells(tmp_path: Path, recorders: Recorders, monkeypatch: pytest.MonkeyPatch) -> None:
    found = recorders(mlflow=Recorder())["mlflow"]
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with Tracking(tmp_path, ("mlflow",), None) as tracking:
        tracking.of(Settings()).begin(None)
        tracking.finish(1, {}, None)
    assert found.told == []


def test_a_whole_run_is_told(tmp_path: Path, tiny_data: Path, recorders: Recorders) -> None:
    opened = recorders(tensorboard=Recorder())["tensorboard"]
    pretrain(tiny_pretraining(tiny_data, loop={"track": ("tensorboard",)}), tmp_path / "model")
    (what, settings, resume_at), *_ = opened.told
    assert (what, settings["model.num_layers"], settings["loop.max_steps"], resume_at) == ("opened", 2, 12, None)
    steps = [step for step, figures in opened.told[1:-2] if "train_loss" in figures]
    assert steps == list(range(1, 13))
    assert sum("validation_loss" in figures for _, figures in opened.told[1:-2]) == 2
    step, final = opened.told[-2]
    assert step == 12
    assert final["final/perplexity"] > 1
    assert opened.told[-1] == "finished"
    assert "track:\n  - tensorboard\n" in (tmp_path / "model" / "config.yaml").read_text()


# ---------------------------------------------------------------------- before a run


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_named_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    config = tiny_pretraining(tmp_path / "no data", loop={"track": (name,)})
    with pytest.raises(InputError, match=rf"--track {name}: the package {name} is not installed\. .*lucidlm\[track\]"):
        pretrain(config, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_mlflow_needs_to_know_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI: says where MLflow's server is, and is not set"):
        opening.require_trackers(("mlflow",))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    opening.require_trackers(("mlflow",))


# ---------------------------------------------------------------------- the calls that are made


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Modules that note the calls made of them, in the place of MLflow and of PyTorch's part for TensorBoard."""
    calls: list[Any] = []

    class Client:
        def log_batch(self, run: str, metrics: Any = (), params: Any = ()) -> None:
            calls.extend(("metric", run, *one) for one in metrics)
            calls.extend(("param", run, *one) for one in params)

    class Writer:
        def __init__(self, folder: str, purge_step: int | None, flush_secs: int) -> None:
            calls.append(("open", Path(folder).name, purge_step))
            self.file_writer = SimpleNamespace(add_summary=lambda summary: calls.append(("summary", summary)))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            calls.append(("scalar", name, value, step))

        def close(self) -> None:
            calls.append("close")

    def start_run(run_id: str | None, run_name: str | None, nested: bool) -> Any:
        calls.append(("start", run_id, run_name, nested))
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    modules = {
        "mlflow": {
            "active_run": lambda: None,
            "start_run": start_run,
            "end_run": lambda state: calls.append(("end", state)),
            "MlflowClient": Client,
        },
        "mlflow.entities": {
            "Metric": lambda key, value, timestamp, step: (key, value, step),
            "Param": lambda key, value: (key, value),
        },
        "torch.utils.tensorboard": {"SummaryWriter": Writer},
        "torch.utils.tensorboard.summary": {"hparams": lambda settings, metrics: [settings]},
    }
    for name, members in modules.items():
        made = ModuleType(name)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)
    for name in OURS:
        sys.modules.pop(name, None)
    yield calls
    for name in OURS:
        sys.modules.pop(name, None)


def test_mlflow_gets_params_metrics_and_an_end(tmp_path: Path, fakes: list[Any]) -> None:
    first = opening.open_tracker("mlflow", tmp_path, {"depth": 2, "note": None, "long": "x" * 7000}, None)
    first.write(1, {"train_loss": 2.0})
    first.write(2, {"train_loss": 1.5})
    first.end("stopped")
    name = tmp_path.name
    assert fakes[:3] == [
        ("start", None, name, False),
        ("param", "abc", "depth", "2"),
        ("param", "abc", "long", "x" * 6000),
    ]
    assert fakes[3:] == [
        ("metric", "abc", "train_loss", 2.0, 1),
        ("metric", "abc", "train_loss", 1.5, 2),
        ("end", "KILLED"),
    ]
    fakes.clear()
    again = opening.open_tracker("mlflow", tmp_path, {"depth": 2}, 2)
    again.end("finished")
    assert fakes == [("start", "abc", None, False), ("end", "FINISHED")]


def test_what_mlflow_does_not_take_comes_up(tmp_path: Path, fakes: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = opening.open_tracker("mlflow", tmp_path, {}, None)

    def refuse(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(sys.modules["mlflow"].MlflowClient, "log_batch", refuse)
    opened.write(1, {"train_loss": 2.0})
    with pytest.raises(ConnectionError):
        opened.end("finished")
    assert fakes[-1] == ("end", "FINISHED")


def test_tensorboard_gets_hyperparameters_and_scalars(tmp_path: Path, fakes: list[Any]) -> None:
    opened = opening.open_tracker("tensorboard", tmp_path, {"depth": 2, "note": None, "betas": [0.9, 0.95]}, None)
    opened.write(1, {"train_loss": 2.0})
    opened.end("finished")
    opening.open_tracker("tensorboard", tmp_path, {"depth": 2}, 7).end("finished")
    assert fakes == [
        ("open", "tensorboard", None),
        ("summary", {"depth": 2, "betas": "[0.9, 0.95]"}),
        ("scalar", "train_loss", 2.0, 1),
        "close",
        ("open", "tensorboard", 8),  # what was written past step 7 is hidden
        "close",
    ]


# ---------------------------------------------------------------------- the packages themselves


def tracked(directory: Path, name: Any) -> None:
    """A run that is stopped at step 3 after its checkpoint of step 2, and goes on to step 4."""
    settings = Settings()
    with Tracking(directory, (name,), None) as tracking:
        tracking.of(settings).begin(None)
        for step in (1, 2, 3):
            tracking.write({"step": step, "train_loss": 1.0 / step})
        tracking.finish(3, {}, 15)
    with Tracking(directory, (name,), None) as tracking:
        tracking.of(settings).begin(2)
        for step in (3, 4):
            tracking.write({"step": step, "train_loss": 2.0 / step})
        tracking.finish(4, {"perplexity": 7.0}, None)


@pytest.mark.skipif(find_spec("mlflow") is None, reason="MLflow is not installed (pip install 'lucidlm[track]')")
@pytest.mark.filterwarnings("default")  # of its dependencies
def test_mlflow_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    tracked(tmp_path / "model", "mlflow")
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

    client = MlflowClient()
    (run,) = client.search_runs(["0"])
    assert (run.info.run_name, run.info.status) == ("model", "FINISHED")
    assert run.data.params == {"depth": "2", "inner.seed": "7"}
    assert run.data.metrics == {"train_loss": 0.5, "final/perplexity": 7.0}
    assert sorted({point.step for point in client.get_metric_history(run.info.run_id, "train_loss")}) == [1, 2, 3, 4]
    said = capsys.readouterr()
    assert said.out == ""
    assert "left out" not in said.err


@pytest.mark.skipif(
    find_spec("tensorboard") is None, reason="TensorBoard is not installed (pip install 'lucidlm[track]')"
)
@pytest.mark.filterwarnings("default")  # of its dependencies
def test_tensorboard_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracked(tmp_path / "model", "tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # pyright: ignore[reportMissingImports]
        EventAccumulator,
    )

    found = EventAccumulator(str(tmp_path / "model" / "tensorboard")).Reload()
    points = [(one.step, one.value) for one in found.Scalars("train_loss")]
    assert points == [(1, 1.0), (2, 0.5), (3, pytest.approx(2 / 3)), (4, 0.5)]
    assert [(one.step, one.value) for one in found.Scalars("final/perplexity")] == [(4, 7.0)]
    assert found.PluginTagToContent("hparams")
    assert "left out" not in capsys.readouterr().err
