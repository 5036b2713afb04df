"""A recipe does what it says, once; its mistakes are named by file and field."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lucidlm.checkpoint.directory import load_model
from lucidlm.core.errors import InputError
from lucidlm.evaluate.record import EVALUATION, read_evaluation
from lucidlm.recipe import Recipe, run_recipe

RECIPES = sorted((Path(__file__).resolve().parents[2] / "recipes").glob("*.yaml"))
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
    assert len(evaluation.baselines) == 2
    assert "<html" in (home / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    run_recipe(recipes / "judge.yaml", tmp_path / "runs", reviews_csv.parent)
    said = capsys.readouterr().err
    assert not any(step in said for step in ("preparing", "pretraining", "fine-tuning", "evaluating"))


def test_a_folder_of_data_is_asked_for(recipes: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"judge\.yaml: reads data sets from a folder\. Name it: --data"):
        run_recipe(recipes / "judge.yaml", tmp_path / "runs")


def test_a_wrong_field_is_named(recipes: Path, tmp_path: Path, reviews_csv: Path) -> None:
    (recipes / "base.yaml").write_text("about: x\nfine_tune: {}\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"base\.yaml: fine_tune"):
        run_recipe(recipes / "judge.yaml", tmp_path / "runs", reviews_csv.parent)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_recipes_that_come_along_are_sound(path: Path) -> None:
    recipe = Recipe.load(path)
    assert recipe.base is None or path.with_name(recipe.base) in RECIPES
    if recipe.finetune is not None:
        test = {fields["data"] for fields in recipe.evaluate.values()}
        sources = {recipe.finetune["data"], recipe.finetune.get("validation_data")}
        # The same source is parted by hash; any other has to be another file.
        assert test.isdisjoint(sources) or recipe.finetune.get("test") != 0
