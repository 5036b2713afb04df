"""Recipes: a result of the documentation, from its data to its figures, as one YAML file that anyone can run.

A recipe prepares and pretrains, or starts from the model of another recipe (`base`), fine-tunes, evaluates, and writes a
report. In its strings `${data}` stands for a folder of data sets, or one data set, that the caller names. What is
finished is kept: a recipe that was stopped goes on where it stood, and two that share a base train it once. The demo is
a recipe too, one of `BUILT_IN`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.record import RECORD
from lucidlm.core.config import Config
from lucidlm.core.errors import InputError
from lucidlm.core.io import require_vacant, write_text
from lucidlm.core.progress import log
from lucidlm.data.corpus.cards import CARD
from lucidlm.data.corpus.prepare import PrepareConfig, prepare
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_model
from lucidlm.evaluate.record import EVALUATION, Evaluation
from lucidlm.inference.decode import generate
from lucidlm.inference.sampler import SamplingConfig
from lucidlm.report.files import REPORT, SAMPLES
from lucidlm.report.label_curve import report_curve
from lucidlm.report.language import Language
from lucidlm.report.run import report_run
from lucidlm.tasks import tasks
from lucidlm.tasks.base.parts import read_parts
from lucidlm.tasks.base.shots import labels_of
from lucidlm.train.checkpoints import resumable
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import finetune
from lucidlm.train.label_curve.config import LabelCurveConfig
from lucidlm.train.label_curve.run import label_curve
from lucidlm.train.loop import Outcome
from lucidlm.train.pretrain.run import PretrainConfig, pretrain

BUILT_IN = Path(__file__).with_name("recipes")
"""The folder of the recipes that are installed with the package."""

SETTINGS = "recipe.yaml"
LABEL_CURVE = "label-curve"
"""The folder of the label curve."""
EXAMPLES = ("task", "data", "test", "fields", "encoding", "html", "on_error")
"""What fine-tuning and the label curve read alike."""


class Budget(Config):
    """Training time in minutes, pretraining and fine-tuning together, and the share of it that pretraining takes."""

    minutes: float = Field(gt=0, allow_inf_nan=False)
    pretraining: float = Field(gt=0, lt=1)


class Folders(Config):
    """The names of the two models' folders."""

    pretrained: str = "pretrained"
    tuned: str = "tuned"


class SamplesConfig(SamplingConfig):
    """The prompts that the pretrained model continues, and how it samples."""

    prompts: tuple[str, ...] = Field(min_length=1)


class Recipe(Config):
    """What a recipe's file holds.

    Parameters
    ----------
    about: one line on what is made.
    language: of the report.
    data: what `${data}` stands for where the caller does not say.
    seed: of all steps that have none of their own.
    base: another recipe's file, beside this one, whose pretrained model this one starts from.
    budget: training time, for a recipe that pretrains and fine-tunes; a step may have its own `minutes`.
    folders: what the models' folders are called.
    prepare, pretrain: a corpus and the training on it; see `PrepareConfig` and `PretrainConfig`, whose `data` is that
        corpus.
    finetune: see `FinetuneConfig`, whose `model` is the one pretrained here, or the base's.
    evaluate: see `EvaluateConfig`; the results stand in folders named by their keys.
    others: other models to tune on the same examples and judge by the same ones, by the name of their folder: settings over
        those of `finetune`, with a `model` of their own. They may be added to a recipe that has been run.
    label_curve: see `LabelCurveConfig`, whose `model` is the pretrained one and whose task and data are `finetune`'s.
    samples: see `SamplesConfig`; the texts are written beside the pretrained model.
    """

    about: str
    language: Literal["en", "zh"] = "en"
    data: str | None = None
    seed: int = 0
    base: str | None = None
    budget: Budget | None = None
    folders: Folders = Folders()
    prepare: dict[str, Any] | None = None
    pretrain: dict[str, Any] | None = None
    finetune: dict[str, Any] | None = None
    evaluate: dict[str, dict[str, Any]] = Field(default={})
    others: dict[str, dict[str, Any]] = Field(default={})
    label_curve: dict[str, Any] | None = None
    samples: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _tunes_what_others_are_tuned_for(self) -> Self:
        if self.others and self.finetune is None:
            raise ValueError("others are tuned as finetune says, and it says nothing")
        return self

    @model_validator(mode="after")
    def _writes_with_what_it_pretrains(self) -> Self:
        if self.samples is not None and (self.pretrain is None or self.pretrain.get("objective") == "masked"):
            raise ValueError("samples are written by a model that is pretrained here, causal or hybrid")
        return self


@dataclass(frozen=True)
class Step:
    """One step of a recipe: what it is called, the file that it leaves when it is done, and what it does."""

    name: str
    result: Path
    run: Callable[[], object]


def load_recipe(path: str | Path, data: str | Path | None = None) -> Recipe:
    """Read a recipe's file, with `data` in place of `${data}`.

    Raises
    ------
    InputError: the file is missing or wrong, or needs data that neither it nor the caller names.
    """
    fields = dict(Recipe.load(path))
    given = fields["data"] if data is None else str(data)
    return Recipe.parse({**_filled(fields, given, path), "data": given}, where=path)


def run_recipe(
    path: str | Path, out: str | Path, data: str | Path | None = None, seed: int | None = None
) -> Outcome | Path:
    """Run a recipe's file below `out`, in a folder of its name; return that folder, or the outcome of a training stopped.

    Parameters
    ----------
    data: the folder that `${data}` stands for.
    seed: in place of the recipe's, in a folder named by it too. The base, which seeds share, is made with its own.

    Raises
    ------
    InputError: the recipe is wrong, needs a folder that was not given, its folder holds something else, or a step of it
        refuses its input.
    """
    recipe, name = load_recipe(path, data), Path(path).stem
    if seed is not None:
        recipe, name = recipe.changed(seed=seed), f"{name}-seed-{seed}"
    home = Path(out) / name
    return run_in(home, recipe, where=path) or home


def run_in(home: Path, recipe: Recipe, *, where: str | Path) -> Outcome | None:
    """Run a recipe in `home`, its base in a folder beside it; return the outcome of a training that a signal stopped.

    Parameters
    ----------
    where: the recipe's file, which errors name and beside which its base is.

    Raises
    ------
    InputError: as `run_recipe`.
    """
    _claim(home, recipe)
    if recipe.base is None:
        return _run_steps(home, recipe, _plan(home, recipe, where))
    file = Path(where).with_name(recipe.base)
    folders = load_recipe(file, recipe.data).folders
    steps = _plan(home, recipe, where, base=home.parent / file.stem / folders.pretrained)
    done = run_recipe(file, home.parent, recipe.data)
    return done if isinstance(done, Outcome) else _run_steps(home, recipe, steps)


def _claim(home: Path, recipe: Recipe) -> None:
    """Note in `home` which recipe is run there; refuse a folder that holds other settings' run, or something else."""
    note = home / SETTINGS
    if not note.exists():
        require_vacant(home)
    elif (before := Recipe.load(note)) != recipe.changed(about=before.about, others=before.others) and any(
        path != note for path in home.iterdir()
    ):
        # A run that got no further than its note stands in nobody's way.
        raise InputError("holds a run with other settings", where=home, fix="Choose another --out, or remove it.")
    recipe.save(note)


def _plan(home: Path, recipe: Recipe, where: str | Path, base: Path | None = None) -> list[Step]:
    """Return a recipe's steps in order; a mistake in its settings or examples is found here, before any training.

    The pretrained model to start from is `base`, or the one that the recipe makes itself.
    """
    corpus, pretrained, tuned = home / "data", home / recipe.folders.pretrained, home / recipe.folders.tuned
    model, seed, steps = base or pretrained, {"seed": recipe.seed}, list[Step]()
    counted = model
    if recipe.prepare is not None:
        preparing = PrepareConfig.parse({**seed, **recipe.prepare}, where)
        name = f"preparing {', '.join(preparing.sources)}"
        steps.append(Step(name, corpus / CARD, partial(prepare, preparing, corpus)))
    if recipe.pretrain is not None:
        loop = _loop(recipe, recipe.pretrain, share=recipe.budget.pretraining if recipe.budget else 1)
        pretraining = PretrainConfig.parse({"data": {str(corpus): 1.0}, **recipe.pretrain, "loop": loop}, where)
        steps.append(Step("pretraining", pretrained / RECORD, partial(_pretrain, pretraining, pretrained)))
    if recipe.finetune is not None:
        loop = _loop(recipe, recipe.finetune, share=1 - recipe.budget.pretraining if recipe.budget else 1)
        tuning = FinetuneConfig.parse({"model": str(model), **recipe.finetune, "loop": loop}, where)
        if not (model / RECORD).exists():
            _require_examples(tuning)
        steps.append(Step(f"fine-tuning for {tuning.task}", tuned / RECORD, partial(_finetune, tuning, tuned)))
        model = tuned
    steps += _evaluations(recipe, model, {key: home / key for key in recipe.evaluate}, where)
    for name, fields in recipe.others.items():
        loop = {"seed": recipe.seed, **fields.get("loop", {})}
        tuning = FinetuneConfig.parse({**(recipe.finetune or {}), **fields, "loop": loop}, where)
        run = partial(_finetune, tuning, home / name)
        steps.append(Step(f"fine-tuning {tuning.model} for {tuning.task}", home / name / RECORD, run))
        beside = {key: home / (name if key == recipe.folders.tuned else f"{name}-{key}") for key in recipe.evaluate}
        steps += _evaluations(recipe, home / name, beside, where)
    if recipe.label_curve is not None:
        shared = {name: value for name, value in (recipe.finetune or {}).items() if name in EXAMPLES and value}
        counting = LabelCurveConfig.parse({"model": str(counted), **shared, **recipe.label_curve}, where)
        curve = home / LABEL_CURVE
        steps.append(Step("learning from few labels", curve / REPORT, partial(_count_labels, counting, curve, recipe)))
    if recipe.samples is not None:
        samples = SamplesConfig.parse({**seed, **recipe.samples}, where)
        steps.append(Step("writing samples", pretrained / SAMPLES, partial(write_samples, pretrained, samples)))
    return steps


def _evaluations(recipe: Recipe, model: Path, folders: dict[str, Path], where: str | Path) -> list[Step]:
    """Return the recipe's evaluations of `model`, by the folders that they are written to."""
    load, steps = cache(partial(load_model, model)), []  # once it is made, and once for all of them
    for key, folder in folders.items():
        settings = EvaluateConfig.parse({"seed": recipe.seed, **recipe.evaluate[key]}, where)
        name = f"evaluating {settings.task} on {settings.data}"
        steps.append(Step(name, folder / EVALUATION, partial(_evaluate, load, settings, folder)))
    return steps


def _run_steps(home: Path, recipe: Recipe, steps: list[Step]) -> Outcome | None:
    """Run the steps that are not done yet, then write the report; return the outcome of a training stopped."""
    changed = not (home / REPORT).exists()
    for number, step in enumerate(steps, 1):
        if step.result.exists():
            continue
        log(f"{home.name}, step {number} of {len(steps)}: {step.name}")
        outcome = step.run()
        if isinstance(outcome, Outcome) and outcome.stopped_by is not None:
            return outcome
        changed = True
    if changed:
        folders = dict.fromkeys(step.result.parent for step in steps if step.result.name != CARD)
        report_run(list(folders), home / REPORT, Language(recipe.language))
    return None


def write_samples(directory: Path, config: SamplesConfig) -> None:
    """Let the model in `directory` continue the prompts, and write the texts there, into samples.jsonl.

    Raises
    ------
    InputError: a prompt is longer than the model's context.
    """
    model, tokenizer = load_model(directory).causal_lm()
    written = generate(model, tokenizer, config.prompts, config)
    lines = [{"prompt": prompt, "text": found.text} for prompt, found in zip(config.prompts, written, strict=True)]
    write_text(directory / SAMPLES, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _pretrain(config: PretrainConfig, out: Path) -> Outcome:
    return pretrain(config, out, resume=resumable(out))


def _finetune(config: FinetuneConfig, out: Path) -> Outcome:
    return finetune(config, out, resume=resumable(out))


def _evaluate(load: Callable[[], LoadedModel], config: EvaluateConfig, out: Path) -> Evaluation:
    return evaluate_model(load(), config, out)


def _count_labels(config: LabelCurveConfig, out: Path, recipe: Recipe) -> None:
    curve, stopped_by = label_curve(config, out)
    if stopped_by is not None:  # what was measured is kept, and nothing is reported yet
        raise KeyboardInterrupt
    report_curve(curve, out / REPORT, Language(recipe.language))


def _loop(recipe: Recipe, fields: dict[str, Any], *, share: float) -> Any:
    """Return the settings of a training's loop: the recipe's seed, its share of the budget, and its own over them."""
    own, minutes = fields.get("loop", {}), {} if recipe.budget is None else {"minutes": share * recipe.budget.minutes}
    # What is no mapping is refused later.
    return {"seed": recipe.seed, **minutes, **own} if isinstance(own, dict) else own


def _require_examples(config: FinetuneConfig) -> None:
    """Refuse examples that fine-tuning could not use."""
    task = tasks.get(config.task)
    labels_of(task, read_parts(config, task)["train"])


def _filled(value: Any, data: str | None, path: str | Path) -> Any:
    """Return `value` with `${data}` replaced in all strings, names included."""
    if isinstance(value, dict):
        return {_filled(key, data, path): _filled(item, data, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, data, path) for item in value]
    if isinstance(value, str) and "${data}" in value:
        if data is None:
            raise InputError("reads data sets from a folder", where=path, fix="Name it: --data FOLDER.")
        return value.replace("${data}", data)
    return value
