"""The whole demo in miniature, through the command line: a few hundred reviews, seconds instead of minutes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lucidlm.checkpoint.load import load_model
from lucidlm.data.corpus.cards import DataCard
from lucidlm.data.corpus.loader import TokenCorpus
from lucidlm.data.split import split_of
from lucidlm.recipe import BUILT_IN, load_recipe
from lucidlm.tasks import tasks
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import read_parts
from lucidlm.train.pretrain.run import PretrainConfig


def demo(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lucidlm", "demo", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def contents(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


LANGUAGES = ["en", "zh"]


@pytest.fixture(scope="module", params=LANGUAGES)
def finished(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, reviews_csv: Path, reviews_zh_jsonl: Path
) -> tuple[str, Path, Path, subprocess.CompletedProcess[str]]:
    """The language, the data, the directory that the demo made, and what it said."""
    data = {"en": reviews_csv, "zh": reviews_zh_jsonl}[request.param]
    out = tmp_path_factory.mktemp("demo") / "demo"
    found = demo("--lang", request.param, "--data", data, "--minutes", 0.15, "--out", out)
    assert found.returncode == 0, found.stderr
    return request.param, data, out, found


Finished = tuple[str, Path, Path, subprocess.CompletedProcess[str]]


def test_it_leaves_everything_it_promises(finished: Finished) -> None:
    _, data, out, _ = finished
    card = DataCard.load(out / "data", verify=True)
    assert [source.uri for source in card.sources] == [str(data)]
    assert load_model(out / "model").record["kind"] == "language"
    judge = load_model(out / "judge").record
    assert (judge["kind"], judge["labels"]) == ("classifier", ["negative", "positive"])
    assert judge["provenance"]["config"]["model"] == str(out / "model")
    samples = [json.loads(line) for line in (out / "model" / "samples.jsonl").read_text("utf-8").splitlines()]
    assert len(samples) == 4
    assert all(sample["prompt"] for sample in samples)


def test_another_model_is_judged_beside_the_one_made_here(finished: Finished, tmp_path: Path) -> None:
    """What is done stays, whether the other model is asked for from the start or later."""
    language, data, out, _ = finished
    copy = tmp_path / "demo"
    shutil.copytree(out, copy)
    before = contents(copy)
    asked = ("--lang", language, "--data", data, "--minutes", 0.15, "--out", copy)
    model = copy / "model"
    found = demo(*asked, "--model", model)
    assert found.returncode == 0, found.stderr
    assert load_model(copy / "other").record["provenance"]["config"]["model"] == str(model)
    assert found.stdout.count("TF-IDF") > 2
    after = contents(copy)
    kept = {name for name in before if name not in ("report.html", "recipe.yaml")}
    assert all(after[name] == before[name] for name in kept)
    assert "other" in (copy / "report.html").read_text("utf-8")
    assert demo(*asked).returncode == 0  # without it nothing is to be done


def test_it_judges_beside_its_baselines(finished: Finished) -> None:
    language, data, out, found = finished
    evaluation = json.loads((out / "judge" / "eval.json").read_text("utf-8"))
    held_out = held_out_texts(data, language)
    assert evaluation["examples"] == len(held_out)
    names = [score["name"] for score in (evaluation["model"], *evaluation["baselines"])]
    assert names[0] == "judge"
    assert any("majority" in name for name in names)
    assert any("logistic regression" in name for name in names)
    accuracy = evaluation["model"]["metrics"]["accuracy"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert f"{accuracy['value']:.4f}" in found.stdout
    predictions = (out / "judge" / "predictions.jsonl").read_text("utf-8").splitlines()
    assert len(predictions) == len(held_out)


SHARES = {"en": (0.05, 0.2), "zh": (0.05, 0.1)}
"""What of the reviews chooses weights, and what judges: English ones are judged by a fifth, so that a difference shows."""


def held_out_texts(data: Path, language: str) -> set[str]:
    validation, test = SHARES[language]
    config = FinetuneConfig(task="sentiment", model="", data=str(data), validation=validation, test=test)
    return {example.text for example in read_parts(config, tasks.get("sentiment"))["test"]}


def documents(directory: Path, part: str) -> set[str]:
    """Decode the shards of a part back into texts."""
    corpus, tokenizer = TokenCorpus.open(directory, part), Tokenizer.load(directory)  # pyright: ignore[reportArgumentType]
    texts = set()
    for shard in corpus.shards:
        ends = np.flatnonzero(shard == tokenizer.eos_id)
        starts = [0, *(ends[:-1] + 1)]
        texts |= {tokenizer.decode(shard[start:end]) for start, end in zip(starts, ends, strict=True)}
    return texts


def test_what_it_is_judged_on_was_never_trained_on(finished: Finished) -> None:
    language, data, out, _ = finished
    held_out = held_out_texts(data, language)
    assert len(held_out) > 20
    trained = documents(out / "data", "train")
    assert len(trained) > 200
    assert not held_out & trained
    assert all(split_of(text, *SHARES[language]) == "train" for text in trained)
    # Fine-tuning holds out a share of each label, so a few texts stand in another part than in pretraining.
    tested = documents(out / "data", "test")
    assert len(tested & held_out) > 0.8 * max(len(held_out), len(tested))


def test_the_report_is_one_page_that_needs_no_other(finished: Finished) -> None:
    language, _, out, _ = finished
    page = (out / "report.html").read_text("utf-8")
    assert f'lang="{language}' in page
    assert "<svg" in page or "data:image/png;base64," in page
    assert not re.search(r"(src|href)\s*=\s*[\"'](https?:)?//", page)
    assert not re.search(r"<script[^>]+src|<link[^>]+href|@import|url\((?!#|['\"]?data:)", page)
    evaluation = json.loads((out / "judge" / "eval.json").read_text("utf-8"))
    accuracy = evaluation["model"]["metrics"]["accuracy"]["value"]
    assert f"{accuracy:.3f}" in page or f"{accuracy:.4f}" in page or f"{accuracy:.1%}".replace("%", "") in page


def test_it_says_what_to_try_next(finished: Finished) -> None:
    *_, out, found = finished
    for command in ("lucidlm generate", "lucidlm data prepare", "lucidlm finetune", "lucidlm evaluate"):
        assert command in found.stderr
    assert str(out / "report.html") in found.stderr


def test_the_time_given_is_the_training_time(finished: Finished) -> None:
    language, _, out, _ = finished
    pretraining = PretrainConfig.load(out / "model" / "config.yaml").loop.minutes
    tuning = FinetuneConfig.load(out / "judge" / "config.yaml").loop.minutes
    assert pretraining is not None
    assert tuning is not None
    budget = load_recipe(BUILT_IN / f"demo-{language}.yaml").budget
    assert budget is not None
    assert pretraining == pytest.approx(budget.pretraining * 0.15)
    assert pretraining + tuning == pytest.approx(0.15)


def test_a_second_call_keeps_everything(finished: Finished) -> None:
    language, data, out, first = finished
    before = contents(out)
    found = demo("--lang", language, "--data", data, "--minutes", 0.15, "--out", out)
    assert found.returncode == 0, found.stderr
    assert found.stdout == first.stdout
    assert contents(out) == before


def test_other_settings_in_the_same_place_are_refused(finished: Finished) -> None:
    language, data, out, _ = finished
    before = contents(out)
    for arguments in (["--minutes", 9], ["--minutes", 0.15, "--seed", 1]):
        found = demo("--lang", language, "--data", data, "--out", out, *arguments)
        assert found.returncode == 2
        assert "holds a run with other settings" in found.stderr
    assert contents(out) == before


def test_what_is_missing_is_made_again_and_nothing_else(finished: Finished) -> None:
    language, data, out, _ = finished
    before = contents(out)
    (out / "judge" / "eval.json").unlink()
    (out / "report.html").unlink()
    found = demo("--lang", language, "--data", data, "--minutes", 0.15, "--out", out)
    assert found.returncode == 0, found.stderr
    assert "4 of 6" in found.stderr
    assert "2 of 6" not in found.stderr
    after = contents(out)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} <= {"report.html", "judge/eval.json"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_without_a_network_it_says_what_to_pass_instead(tmp_path: Path, reviews_csv: Path, language: str) -> None:
    offline = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    out = tmp_path / "demo"
    found = demo("--lang", language, "--out", out, **offline)
    assert found.returncode == 2
    assert found.stdout == ""
    assert "cannot be downloaded and is not in the cache" in found.stderr
    assert "lucidlm demo --data FILE" in found.stderr
    assert "Traceback" not in found.stderr
    # What it advises works in the same place: the failed call does not stand in its way.
    again = demo("--lang", language, "--data", tmp_path / "nowhere.csv", "--out", out)
    assert "there is no such file or folder" in again.stderr


def test_data_without_labels_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("This is a text about something, and nobody said what it is worth. " * 50)
    found = demo("--data", tmp_path / "notes.txt", "--minutes", 0.02, "--out", tmp_path / "demo")
    assert found.returncode == 2
    assert "label" in found.stderr
    assert "2 of 6" not in found.stderr  # told before any time is spent on training
    assert "Traceback" not in found.stderr
