"""A recipe does what it says, once; its mistakes are named by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lucidlm.checkpoint.load import load_model
from lucidlm.cli.main import app
from lucidlm.core.errors import InputError
from lucidlm.evaluate.record import EVALUATION, read_evaluation
from lucidlm.recipe import BUILT_IN, LABEL_CURVE, Recipe, run_recipe
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.label_curve.record import BASELINE, CURVE, PRETRAINED, read_curve
from lucidlm.train.pretrain.run import PretrainConfig

RECIPES = sorted([*(Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"), *BUILT_IN.glob("*.yaml")])
LOOP = {"max_steps": 4, "evaluations": 1}
BASE = {
    "about": "a small backbone",
    "prepare": {"sources": ["${data}/reviews.csv"], "vocab_size": 300, "near": "off"},
    "pretrain": {
        "depth": 1,
        "shape": {"embedding_dim": 32, "num_heads": 2},
        "context_length": 64,
        "compile": "off",
        "loop": LOOP,
    },
}
TUNED = {
    "about": "a small judge",
    "base": "base.yaml",
    "finetune": {"task": "sentiment", "data": "${data}/reviews.csv", "loop": LOOP},
    "evaluate": {"test": {"task": "sentiment", "data": "${data}/reviews.csv"}},
    "label_curve": {"shots": [4], "seeds": 1, "least_steps": 2, "epochs": 1, "scratch": False},
}


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, fields in (("base", BASE), ("judge", TUNED)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    return folder


def test_a_recipe_runs_from_its_base_to_its_figures_and_only_once(
    recipes: Path, tmp_path: Path, reviews_csv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = run_recipe(recipes / "judge.yaml", tmp_path / "runs", reviews_csv.parent)
    assert home == tmp_path / "runs" / "judge"
    assert load_model(tmp_path / "runs" / "base" / "pretrained").record["kind"] == "language"
    assert load_model(home / "tuned").record["labels"] == ["negative", "positive"]
    evaluation = read_evaluation(home / "test" / EVALUATION)
    assert "accuracy" in evaluation.model.metrics
    assert len(evaluation.baselines) == 5
    curve = read_curve(home / LABEL_CURVE / CURVE)
    assert [point.method for point in curve.points] == [PRETRAINED, BASELINE]
    page = (home / "report.html").read_text(encoding="utf-8")
    assert "What labels are worth" in page
    assert "by number of labelled examples" in page
    assert "Made on " in page
    capsys.readouterr()
    run_recipe(recipes / "judge.yaml", tmp_path / "runs", reviews_csv.parent)
    said = capsys.readouterr().err
    assert not any(step in said for step in ("preparing", "pretraining", "fine-tuning", "evaluating", "learning"))


def test_other_models_are_tuned_and_judged_beside(recipes: Path, tmp_path: Path, reviews_csv: Path) -> None:
    file, model = recipes / "judge.yaml", tmp_path / "runs" / "base" / "pretrained"
    home = run_recipe(file, tmp_path / "runs", reviews_csv.parent)
    assert isinstance(home, Path)
    fields = {**TUNED, "others": {"again": {"model": str(model), "wide": False, "loop": LOOP}}}
    file.write_text(yaml.safe_dump(fields), encoding="utf-8")
    run_recipe(file, tmp_path / "runs", reviews_csv.parent)
    assert (
        read_evaluation(home / "again-test" / EVALUATION).examples
        == read_evaluation(home / "test" / EVALUATION).examples
    )
    assert load_model(home / "again").record["provenance"]["config"]["wide"] is False
    assert "again-test" in (home / "report.html").read_text(encoding="utf-8")
    file.write_text(yaml.safe_dump({"about": "x", "others": {"a": {"model": "m"}}}), encoding="utf-8")
    with pytest.raises(InputError, match="others are tuned as finetune says"):
        run_recipe(file, tmp_path / "other-runs", reviews_csv.parent)


def test_seeds_have_folders_of_their_own_and_share_the_base(recipes: Path, tmp_path: Path, reviews_csv: Path) -> None:
    runs, data = tmp_path / "runs", reviews_csv.parent
    command = [
        "recipe",
        str(recipes / "judge.yaml"),
        "--data",
        str(data),
        "--out",
        str(runs),
        "--seed",
        "3",
        "--seed",
        "4",
    ]
    found = CliRunner().invoke(app, command, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    assert sorted(path.name for path in runs.iterdir()) == ["base", "judge-seed-3", "judge-seed-4"]
    for seed in (3, 4):
        assert load_model(runs / f"judge-seed-{seed}" / "tuned").record["provenance"]["seed"] == seed
    assert load_model(runs / "base" / "pretrained").record["provenance"]["seed"] == 0


def test_a_folder_of_data_is_asked_for(recipes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"judge\.yaml: reads data sets from a folder\. Name it: --data"):
        run_recipe(recipes / "judge.yaml", tmp_path / "runs")


def test_a_wrong_field_is_named(recipes: Path, tmp_path: Path, reviews_csv: Path) -> None:
    (recipes / "base.yaml").write_text("about: x\nfine_tune: {}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"base\.yaml: fine_tune"):
        run_recipe(recipes / "judge.yaml", tmp_path / "runs", reviews_csv.parent)


def test_budget_seed_and_samples(recipes: Path, tmp_path: Path, reviews_csv: Path) -> None:
    fields = {
        **BASE,
        **{name: TUNED[name] for name in ("finetune", "evaluate")},
        "data": str(reviews_csv.parent),
        "language": "zh",
        "seed": 3,
        "budget": {"minutes": 50, "pretraining": 0.6},
        "folders": {"tuned": "test"},
        "samples": {"prompts": ["This", "The film"], "length": 3},
    }
    (recipes / "whole.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    home = run_recipe(recipes / "whole.yaml", tmp_path / "runs")
    assert home == tmp_path / "runs" / "whole"
    pretraining = PretrainConfig.load(home / "pretrained" / "config.yaml").loop
    tuning = FinetuneConfig.load(home / "test" / "config.yaml").loop
    assert (pretraining.seed, pretraining.minutes) == (3, pytest.approx(30))
    assert (tuning.seed, tuning.minutes) == (3, pytest.approx(20))
    assert read_evaluation(home / "test" / EVALUATION).settings["seed"] == 3
    assert len((home / "pretrained" / "samples.jsonl").read_text(encoding="utf-8").splitlines()) == 2
    assert 'lang="zh' in (home / "report.html").read_text(encoding="utf-8")
    before = (home / "report.html").stat().st_mtime_ns
    run_recipe(recipes / "whole.yaml", tmp_path / "runs")
    assert (home / "report.html").stat().st_mtime_ns == before


def test_a_folder_keeps_to_the_settings_it_was_begun_with(recipes: Path, tmp_path: Path, reviews_csv: Path) -> None:
    run_recipe(recipes / "base.yaml", tmp_path / "runs", reviews_csv.parent)
    described = {**BASE, "about": "another description"}
    (recipes / "base.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    run_recipe(recipes / "base.yaml", tmp_path / "runs", reviews_csv.parent)
    (recipes / "base.yaml").write_text(yaml.safe_dump({**BASE, "seed": 1}), encoding="utf-8")
    with pytest.raises(InputError, match=r"base: holds a run with other settings\. Choose another --out"):
        run_recipe(recipes / "base.yaml", tmp_path / "runs", reviews_csv.parent)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"evaluate": {"test": {"task": "sentiment", "date": "x"}}}, "base.yaml: .*date"),
        ({"pretrain": {"depth": 1, "loop": "long"}}, "base.yaml: loop"),
        ({"finetune": {"task": "sentiment", "data": "nowhere.csv"}}, "nowhere.csv: there is no such file"),
        ({"pretrain": {"objective": "masked"}, "samples": {"prompts": ["a"]}}, "base.yaml: samples are written by"),
    ],
)
def test_mistakes_are_found_before_anything_is_made(
    recipes: Path, tmp_path: Path, reviews_csv: Path, fields: dict[str, object], message: str
) -> None:
    (recipes / "base.yaml").write_text(yaml.safe_dump({**BASE, **fields}), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        run_recipe(recipes / "base.yaml", tmp_path / "runs", reviews_csv.parent)
    assert not (tmp_path / "runs" / "base" / "data").exists()


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_come_along_are_sound(path: Path) -> None:
    recipe = Recipe.load(path)
    assert recipe.base is None or path.with_name(recipe.base) in RECIPES
    if recipe.finetune is not None:
        test = {fields["data"] for fields in recipe.evaluate.values()}
        sources = {recipe.finetune["data"], recipe.finetune.get("validation_data")}
        # The same source is parted by hash; any other has to be another file.
        assert test.isdisjoint(sources) or recipe.finetune.get("test") != 0
