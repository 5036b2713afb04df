"""Judging model directories: which examples, what leaked, several tasks at once, the page of results."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import pytest
import yaml
from tests.conftest import made_up_curve, made_up_reviews
from typer.testing import CliRunner

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.save import save_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.core.io import write_text
from lucidlm.data.cleaning.overlap import SKETCH, NgramSketch
from lucidlm.data.examples.records import LabelledText
from lucidlm.evaluate.config import EvaluateConfig, Suite
from lucidlm.evaluate.directory import evaluate_directory
from lucidlm.evaluate.leakage import fine_tuning_leak, pretraining_sketches
from lucidlm.evaluate.record import EVALUATION, PREDICTIONS, read_evaluation
from lucidlm.report.language import Language
from lucidlm.report.results import BEGIN, END, write_results, write_table
from lucidlm.tasks import tasks
from lucidlm.tasks.base.parts import read_parts
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.label_curve.record import CURVE
from lucidlm.train.loop import LoopConfig


def write_csv(path: Path, rows: list[dict[str, str]], names: tuple[str, str] = ("text", "label")) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([names, *((row["text"], row["label"]) for row in rows)])
    return path


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, reviews_csv: Path) -> Path:
    """A classifier, tuned for a few steps on the reviews: nobody may write into its directory."""
    directory = tmp_path_factory.mktemp("tuned") / "judge"
    loop = LoopConfig(max_steps=4, evaluations=1)
    config = FinetuneConfig(task="sentiment", model=str(tiny_model), data=str(reviews_csv), device="cpu", loop=loop)
    finetune(config.changed(test=0.1), directory)
    return directory


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Reviews that the model has not seen."""
    return write_csv(tmp_path / "others.csv", made_up_reviews(50, seed=7))


def evaluate(*arguments: object) -> str:
    found = CliRunner().invoke(app, ["evaluate", *map(str, arguments), "--device", "cpu"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.stdout


def test_the_part_follows_from_the_data(judge: Path, reviews_csv: Path, others: Path, tmp_path: Path) -> None:
    own = evaluate_directory(judge, EvaluateConfig(task="sentiment", data=str(reviews_csv)), tmp_path / "own")
    assert own.data == f"{reviews_csv} (test)"
    assert 20 < own.examples < 60
    assert [score.name for score in own.baselines] == [
        "Transformer alone",
        "n-grams alone",
        "majority class",
        "naive Bayes (word 1–2-grams) + logistic regression",
        "TF-IDF (word 1–2-grams) + logistic regression",
    ]
    assert [score.branch for score in own.baselines] == [True, True, False, False, False]
    fine, pre = own.leakage
    assert (fine.against, fine.checked, fine.copies, fine.overlapping) == ("fine-tuning", True, 0, 0)
    assert pre.checked
    assert own.settings["split"] == "test"
    assert own.counts["inputs read in windows"] < own.examples

    other = evaluate_directory(judge, EvaluateConfig(task="sentiment", data=str(others)), tmp_path / "other")
    assert (other.data, other.examples) == (f"{others} (all)", 50)
    plain = EvaluateConfig(task="sentiment", data=str(others), baselines=False, leakage=False, limit=20)
    found = evaluate_directory(judge, plain, tmp_path / "plain")
    assert (found.baselines, found.leakage, found.examples) == ([], [], 20)
    lines = [json.loads(line) for line in (tmp_path / "plain" / PREDICTIONS).read_text("utf-8").splitlines()]
    places = [int(line["where"].rsplit(":", 1)[1]) for line in lines]
    assert places == sorted(places)
    again = evaluate_directory(judge, plain, tmp_path / "again")
    assert again.model.metrics == found.model.metrics


def test_data_that_have_grown_are_parted_as_they_were(
    judge: Path, reviews_csv: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """New examples may be judged by; none that the model learned from is, also if it recorded no bounds."""
    grown = tmp_path / "reviews.csv"
    rows = list(csv.DictReader(reviews_csv.read_text("utf-8").splitlines()))
    for name, bounds in (("new", None), ("old", {})):
        write_csv(grown, rows)
        config = FinetuneConfig(task="sentiment", model=str(tiny_model), data=str(grown), test=0.1)
        parts = read_parts(config, tasks.get("sentiment"), bounds)
        loaded = load_model(judge)
        provenance = {**loaded.record["provenance"], "bounds": parts.bounds}
        provenance["config"] = {**provenance["config"], "data": str(grown)}
        if name == "old":
            del provenance["bounds"], provenance["config"]["on_conflict"]
        save_model(loaded.model, tmp_path / name, loaded.tokenizer, provenance=provenance)
        write_csv(grown, [*made_up_reviews(100, seed=5), *rows])
        asked = EvaluateConfig(task="sentiment", data=str(grown), baselines=False, leakage=False, device="cpu")
        evaluate_directory(tmp_path / name, asked, tmp_path / f"{name} results")
        lines = (tmp_path / f"{name} results" / PREDICTIONS).read_text("utf-8").splitlines()
        texts = {json.loads(line)["text"] for line in lines}
        assert {example.text for example in parts["test"]} < texts
        assert not {example.text for part in ("train", "validation") for example in parts[part]} & texts


def test_a_copy_of_the_training_data_is_recognised(judge: Path, reviews_csv: Path, tmp_path: Path) -> None:
    copy = tmp_path / "innocent.csv"
    shutil.copy(reviews_csv, copy)
    printed = evaluate(judge, "--task", "sentiment", "--data", copy, "--out", tmp_path / "results", "--no-baselines")
    leak = read_evaluation(tmp_path / "results" / EVALUATION).leakage[0]
    assert leak.examples == 400
    assert leak.copies > 300
    assert leak.overlapping >= leak.copies
    assert "innocent.csv:" in leak.named[0].where
    assert f"{leak.copies} are copies" in printed
    page = (tmp_path / "results" / "report.html").read_text("utf-8")
    assert "seen in fine-tuning" in page
    assert f"{leak.copies} are copies" in page


def test_shared_wording_is_found_and_short_texts_accuse_nobody() -> None:
    task = tasks.get("sentiment")
    seen = "the director calls the plot wonderful and the critic finds the cast superb in all of the long scenes"
    training = [LabelledText(seen, "positive", "train:1"), LabelledText("good", "positive", "train:2")]
    trials = [f"Yes: {seen.upper()}!", "good film", "good", "quite another text that has nothing to do with it at all"]
    leak = fine_tuning_leak(task, [LabelledText(text, "", f"t:{n}") for n, text in enumerate(trials, 1)], training)
    assert (leak.overlapping, leak.copies) == (2, 1)
    assert sorted(found.where for found in leak.named) == ["t:1", "t:3"]


def test_the_sketch_of_the_pretraining_data_is_found_or_its_lack_said(
    judge: Path, tiny_model: Path, tmp_path: Path
) -> None:
    assert len(pretraining_sketches(load_model(judge))[0]) == 1  # by way of the model it was made from
    lost = tmp_path / "lost"
    shutil.copytree(tiny_model, lost)
    record = {**load_model(lost).record, "provenance": {"data": {str(tmp_path / "gone"): "0"}}}
    model = replace(load_model(lost), record=record)
    sketches, reason = pretraining_sketches(model)
    assert sketches == []
    assert "no sketch" in reason
    NgramSketch.of(["some text of eight words or even more"]).save(lost)
    assert (lost / SKETCH).exists()
    assert len(pretraining_sketches(model)[0]) == 1


def test_fields_may_have_other_names(judge: Path, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "named.csv", made_up_reviews(20, seed=3), ("review", "stars"))
    options = ["--field", "text=review", "--label-field", "stars"]
    printed = evaluate(judge, "--task", "sentiment", "--data", data, "--out", tmp_path / "out", *options)
    assert "20 examples" in printed
    assert "against majority class, accuracy: " in printed


def test_several_tasks_at_once(judge: Path, others: Path, tmp_path: Path) -> None:
    twice = ["--task", "sentiment", "--data", others, "--task", "sentiment", "--data", others, "--no-baselines"]
    evaluate(judge, *twice, "--out", tmp_path / "pairs")
    assert {path.parent.name for path in (tmp_path / "pairs").rglob(EVALUATION)} == {"sentiment", "sentiment-2"}
    assert (tmp_path / "pairs" / "report.html").exists()

    suite = {name: {"task": "sentiment", "data": str(others), "limit": n} for name, n in (("few", 9), ("more", 12))}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"evaluations": suite}))
    evaluate(judge, "--config", tmp_path / "suite.yaml", "--no-baselines", "--out", tmp_path / "suite")
    assert {name: read_evaluation(tmp_path / "suite" / name / EVALUATION).examples for name in suite} == {
        "few": 9,
        "more": 12,
    }
    with pytest.raises(InputError, match="evaluations"):
        Suite(evaluations={})


def test_a_pretrained_model_is_judged_as_it_is(tiny_model: Path, reviews_csv: Path, tmp_path: Path) -> None:
    config = EvaluateConfig(task="perplexity", data=str(reviews_csv), limit=12)
    found = evaluate_directory(tiny_model, config, tmp_path)
    assert found.examples == 12
    assert found.first.name in found.model.metrics
    (leak,) = found.leakage
    assert leak.checked
    assert leak.overlapping > 5  # most of these reviews are what it was pretrained on
    with pytest.raises(InputError, match="was not fine-tuned for perplexity, so nothing says how data are split"):
        evaluate_directory(tiny_model, config.changed(split="test"), tmp_path)


def test_bad_input_is_refused(judge: Path, tiny_model: Path, others: Path, tmp_path: Path) -> None:
    def attempt(model: Path = judge, **fields: object) -> None:
        evaluate_directory(model, EvaluateConfig(**{"task": "sentiment", "data": str(others), **fields}), tmp_path)

    bad = write_csv(tmp_path / "bad.csv", [*made_up_reviews(4), {"text": "so so", "label": "mixed"}])
    with pytest.raises(InputError, match=r"bad\.csv:6: the label 'mixed' is not one the model knows"):
        attempt(data=str(bad))
    with pytest.raises(InputError, match="was fine-tuned for sentiment, not for text-classification"):
        attempt(task="text-classification")
    with pytest.raises(InputError, match="the task sentiment has no field 'colour'"):
        attempt(fields={"colour": "c"})
    with pytest.raises(InputError, match="holds a language model, not a classifier"):
        attempt(tiny_model)
    alone = write_csv(tmp_path / "alone.csv", made_up_reviews(2))
    with pytest.raises(InputError, match=r"holds no examples|is left to train on"):
        attempt(data=str(alone), split="validation")
    assert not (tmp_path / EVALUATION).exists()


def test_the_page_of_results(judge: Path, others: Path, tmp_path: Path) -> None:
    for name, limit in (("b", 30), ("a", 40)):
        config = EvaluateConfig(task="sentiment", data=str(others), limit=limit)
        evaluate_directory(judge, config, tmp_path / "runs" / name)
    write_results([tmp_path / "runs"], tmp_path / "results.md")
    page = (tmp_path / "results.md").read_text("utf-8")
    for piece in (
        "### a",
        "Judged on: ",
        "40 examples",
        "parameters",
        "trained in",
        "TF-IDF",
        "(p = ",
        "lucidlm evaluate",
    ):
        assert piece in page
    assert page.index("### a") < page.index("### b")
    write_results([tmp_path / "runs"], tmp_path / "again.md")
    assert (tmp_path / "again.md").read_text("utf-8") == page
    found = CliRunner().invoke(
        app, ["results", str(tmp_path / "runs"), "--out", str(tmp_path / "zh.md"), "--language", "zh"]
    )
    assert found.exit_code == 0
    assert "情感分类" in (tmp_path / "zh.md").read_text("utf-8")
    with pytest.raises(InputError, match=r"no eval\.json below it"):
        write_results([tmp_path / "nothing"], tmp_path / "none.md")


def test_the_table_of_results_in_a_page(judge: Path, others: Path, tmp_path: Path) -> None:
    evaluate_directory(judge, EvaluateConfig(task="sentiment", data=str(others)), tmp_path / "run")
    page = tmp_path / "page.md"
    page.write_text(f"# Mine\n{BEGIN}\nold\n{END}\nThe end.\n", encoding="utf-8")
    for _ in range(2):
        found = CliRunner().invoke(app, ["results", str(tmp_path / "run"), "--out", str(page), "--table"])
        assert found.exit_code == 0
    before, table, after = re.split(f"{re.escape(BEGIN)}\n|{re.escape(END)}\n", page.read_text("utf-8"))
    assert (before, after) == ("# Mine\n", "The end.\n")
    header, _, row = table.strip().splitlines()
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert others.name in cells["data"]
    figure = read_evaluation(tmp_path / "run" / EVALUATION).model.metrics["accuracy"]
    assert cells["result"] == f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
    assert "trained from scratch" in cells["model"]
    page.write_text(f"{END}\n{BEGIN}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"has no line <!-- results --> with a line <!-- end of results --> below it"):
        write_table([tmp_path / "run"], page)
    with pytest.raises(InputError, match="file not found"):
        write_table([tmp_path / "run"], tmp_path / "none.md")
    with pytest.raises(InputError, match=r"no eval\.json below it"):
        write_table([tmp_path / "nothing"], page)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_label_curves_on_the_page_of_results(tmp_path: Path, language: Literal["en", "zh"]) -> None:
    methods = {"pretrained": 0.7, "other model": 0.8, "from scratch": 0.6, "baseline": 0.65}
    curve = made_up_curve([*methods], lambda method, _, seed: methods[method] + seed / 100)
    write_text(tmp_path / "runs" / "few" / CURVE, curve.model_dump_json())
    write_results([tmp_path / "runs"], tmp_path / "results.md", Language(language))
    page = (tmp_path / "results.md").read_text("utf-8")
    assert "](labels-few.svg)" in page
    assert "| 32 | 0.7050 [0.7000, 0.7100] | 0.8050 [0.8000, 0.8100] | 0.6050 [0.6000, 0.6100] |" in page
    picture = ElementTree.parse(tmp_path / "labels-few.svg").getroot()
    words = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
    names = [Language(language).name(name) for name in ("pretrained", "other model", "from scratch")]
    assert {*names, "20", "50"} <= words
    lines = [path for path in picture.iter("{http://www.w3.org/2000/svg}path") if path.get("class") == "curve"]
    assert len(lines) == 3 * len(methods)
