"""How data were read is remembered by what was learned from them, and told by the flags of all commands that read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.conftest import made_up_reviews
from typer.testing import CliRunner

from lucidlm.checkpoint.load import load_model
from lucidlm.cli.main import app
from lucidlm.core.config import read_yaml
from lucidlm.data.corpus.cards import DataCard
from lucidlm.evaluate.directory import EvaluateConfig, _fine_tuning, evaluate_directory
from lucidlm.evaluate.record import PREDICTIONS
from lucidlm.tasks import tasks

CODEC = "koi8-r"


def write(path: Path, rows: list[dict[str, str]], codec: str = CODEC) -> Path:
    lines = [f"{row['text']} <b>очень</b> &amp; да|{row['label']}" for row in rows]
    path.write_bytes("\n".join(["text|label", *lines]).encode(codec))
    return path


def lucidlm(*arguments: object) -> str:
    found = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A classifier, tuned for two steps on reviews in an encoding that had to be named, with HTML in all of them."""
    folder = tmp_path_factory.mktemp("tuned")
    data = write(folder / "own.csv", made_up_reviews(60, seed=1))
    flags = ["--max-steps", 2, "--test", 0.2, "--device", "cpu", "--encoding", CODEC, "--html", "yes"]
    lucidlm("finetune", "sentiment", "--model", tiny_model, "--data", data, "--out", folder / "judge", *flags)
    return folder / "judge"


def texts(judge: Path, data: Path, out: Path, **options) -> list[str]:
    plain = {"baselines": False, "leakage": False, "limit": 5, "device": "cpu"}
    evaluate_directory(judge, EvaluateConfig(task="sentiment", data=str(data), **plain, **options), out)
    return [json.loads(line)["text"] for line in (out / PREDICTIONS).read_text("utf-8").splitlines()]


def test_a_model_is_judged_on_data_read_as_it_learned_from_them(judge: Path, tmp_path: Path) -> None:
    others = write(tmp_path / "others.csv", made_up_reviews(20, seed=2))
    for name, data in (("own", judge.parent / "own.csv"), ("others", others)):
        assert all(text.endswith(" очень & да") for text in texts(judge, data, tmp_path / name))


def test_flags_go_before_what_is_remembered(judge: Path, tmp_path: Path) -> None:
    others = write(tmp_path / "others.csv", made_up_reviews(20, seed=2), "utf-8")
    found = texts(judge, others, tmp_path / "a", encoding="auto", html="no")
    assert all(text.endswith(" <b>очень</b> &amp; да") for text in found)


def test_models_of_earlier_versions_took_all_for_html(judge: Path) -> None:
    loaded = load_model(judge)
    assert loaded.record["provenance"]["config"].pop("html") == "yes"
    tuned, _ = _fine_tuning(loaded, tasks.get("sentiment"))
    assert tuned is not None
    assert (tuned.html, tuned.encoding) == ("yes", CODEC)


@pytest.mark.parametrize(
    ("flags", "mode", "changed"), [([], "auto", 2), (["--html", "yes"], "yes", 3), (["--html", "no"], "no", 0)]
)
def test_preparation_says_how_it_read(tmp_path: Path, flags: list[str], mode: str, changed: int) -> None:
    rows = ["<p>One &amp; two</p>", "Three.<br />Four", "the <b> tag"] + [f"text number {n} of many" for n in range(60)]
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows), encoding="utf-8")
    lucidlm("data", "prepare", data, "--out", tmp_path / "out", "--near-duplicates", "off", *flags)
    card = DataCard.load(tmp_path / "out")
    assert (card.settings["clean"]["html"], card.settings["encoding"]) == (mode, "auto")
    assert next(step for step in card.steps if step.name == "clean").counts.get("html", 0) == changed


def test_label_curves_read_as_asked_for(tmp_path: Path, tiny_model: Path) -> None:
    data = [write(tmp_path / name, made_up_reviews(30, seed=n)) for n, name in enumerate(("a.csv", "b.csv"))]
    flags = ["--shots", 2, "--seeds", 1, "--least-steps", 1, "--epochs", 1, "--device", "cpu"]
    reading = ["--encoding", CODEC, "--html", "no"]
    source = ["--model", tiny_model, "--data", data[0], "--test-data", data[1], "--out", tmp_path / "curve"]
    lucidlm("label-curve", "sentiment", *source, *flags, *reading)
    config = read_yaml(tmp_path / "curve" / "config.yaml")
    assert (config["encoding"], config["html"]) == (CODEC, "no")
