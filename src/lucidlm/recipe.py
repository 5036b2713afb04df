"""Recipes: a result of the documentation, from its data to its figures, as one YAML file that anyone can run.

A recipe prepares and pretrains, or starts from the model of another recipe (`base`), fine-tunes, and evaluates. In its
strings `${data}` stands for the folder that the caller keeps data sets in. What is finished is kept: a recipe that was
stopped goes on where it stood, and two that share a base train it once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from lucidlm.checkpoint.directory import RECORD
from lucidlm.core.config import Config
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.data.corpus.cards import CARD
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory
from lucidlm.evaluate.record import EVALUATION
from lucidlm.report.run import report_run
from lucidlm.train.checkpoints import resumable
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.loop import Outcome
from lucidlm.train.pretrain.run import PretrainConfig, pretrain


class Recipe(Config):
    """What a recipe's file holds.

    Parameters
    ----------
    about: one line on what is made.
    base: another recipe's file, beside this one, whose model this one starts from.
    prepare, pretrain: a corpus and the training on it; see `PrepareConfig` and `PretrainConfig`, whose `data` is that
        corpus.
    finetune: see `FinetuneConfig`, whose `model` is the one pretrained here, or the base's.
    evaluate: see `EvaluateConfig`; the results stand in folders named by their keys.
    """

    about: str
    base: str | None = None
    prepare: dict[str, Any] | None = None
    pretrain: dict[str, Any] | None = None
    finetune: dict[str, Any] | None = None
    evaluate: dict[str, dict[str, Any]] = Field(default={})


def run_recipe(path: str | Path, out: str | Path, data: str | Path | None = None) -> Outcome | Path:
    """Run a recipe below `out`, in a folder of its name; return that folder, or the outcome of a training stopped.

    Parameters
    ----------
    data: the folder that `${data}` stands for.

    Raises
    ------
    InputError: the recipe is wrong, needs a folder that was not given, or a step of it refuses its input.
    """
    path = Path(path)
    recipe = Recipe.parse(_filled(dict(Recipe.load(path)), data, path), where=path)
    home = Path(out) / path.stem
    corpus, pretrained, tuned = home / "data", home / "pretrained", home / "tuned"
    model = pretrained
    if recipe.base is not None:
        found = run_recipe(path.with_name(recipe.base), out, data)
        if isinstance(found, Outcome):
            return found
        model = found / "pretrained"
    if recipe.prepare is not None and not (corpus / CARD).exists():
        log(f"{path.stem}: preparing its corpus")
        prepare(PrepareConfig.parse(recipe.prepare, where=path), corpus)
    if recipe.pretrain is not None and not (pretrained / RECORD).exists():
        log(f"{path.stem}: pretraining")
        settings = PretrainConfig.parse({"data": {str(corpus): 1.0}, **recipe.pretrain}, where=path)
        outcome = pretrain(settings, pretrained, resume=resumable(pretrained))
        if outcome.stopped_by is not None:
            return outcome
    if recipe.finetune is not None:
        if not (tuned / RECORD).exists():
            log(f"{path.stem}: fine-tuning")
            tuning = FinetuneConfig.parse({"model": str(model), **recipe.finetune}, where=path)
            outcome = finetune(tuning, tuned, resume=resumable(tuned))
            if outcome.stopped_by is not None:
                return outcome
        model = tuned
    for name, fields in recipe.evaluate.items():
        results = home / name
        if not (results / EVALUATION).exists():
            log(f"{path.stem}: evaluating {name}")
            evaluate_directory(model, EvaluateConfig.parse(fields, where=path), results)
    parts = [folder for folder in (pretrained, tuned, *(home / name for name in recipe.evaluate)) if folder.exists()]
    report_run(parts, home / "report.html")
    return home


def _filled(value: Any, data: str | Path | None, path: Path) -> Any:
    """Return `value` with `${data}` replaced in all strings, names included."""
    if isinstance(value, dict):
        return {_filled(key, data, path): _filled(item, data, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, data, path) for item in value]
    if isinstance(value, str) and "${data}" in value:
        if data is None:
            raise InputError("reads data sets from a folder", where=path, fix="Name it: --data FOLDER.")
        return value.replace("${data}", str(data))
    return value
