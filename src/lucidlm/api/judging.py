"""How good a model is, whether two differ, and what a prediction rests on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack, overload

from lucidlm.api.results import ComparisonResult, EvaluationResult, ExplanationResult, HeldOutResult
from lucidlm.api.settings import FIELDS, EvaluateSettings, paths
from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.arguments import require_count, require_path, require_text, wrong_type
from lucidlm.core.devices import choose_compute
from lucidlm.core.errors import InputError
from lucidlm.core.flat import resolve
from lucidlm.data.split import Split
from lucidlm.evaluate.comparison import compare_evaluations
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory, evaluate_language_model
from lucidlm.explain import explanation
from lucidlm.explain.explanation import Method
from lucidlm.report.files import REPORT
from lucidlm.report.run import report_run

Source = str | Path


@overload
def evaluate(
    model: Source,
    *,
    task: str,
    data: Source,
    out: Source | None = None,
    config: Source | None = None,
    resume: bool = True,
    **settings: Unpack[EvaluateSettings],
) -> EvaluationResult: ...


@overload
def evaluate(
    model: Source,
    *,
    config: Source,
    out: Source | None = None,
    resume: bool = True,
    **settings: Unpack[EvaluateSettings],
) -> EvaluationResult: ...


@overload
def evaluate(model: Source, *, data: Source, split: Split = "test", device: str = "auto") -> HeldOutResult: ...


def evaluate(
    model: Source,
    *,
    task: str | None = None,
    data: Source | None = None,
    out: Source | None = None,
    config: Source | None = None,
    resume: bool = True,
    **settings: Any,
) -> EvaluationResult | HeldOutResult:
    """Judge a model, beside its baselines: `lucidlm evaluate`.

    >>> lucidlm.evaluate("judge", task="sentiment", data="test.jsonl")
    >>> lucidlm.evaluate("model", data="data", split="test")  # a language model on prepared data

    Parameters
    ----------
    model: a model directory.
    task: what to judge; None, without a config: the loss on prepared data.
    data: its examples, or a directory that `prepare` made.
    out: where results go; None: the model's directory.
    config: a configuration (YAML) of one evaluation; what is given as well wins.
    resume: go on after the answers that a stopped evaluation left.
    settings: the flags of the command, which are the fields of `EvaluateConfig`.

    Raises
    ------
    InputError: a setting is wrong, model or data cannot be used, or a label is unknown.
    """
    directory = require_path(model, "model")
    given = dict(settings)
    if data is not None:
        given["data"] = require_path(data, "data")
    elif config is None:
        raise InputError("is needed", where="data", fix="Pass examples, or a directory that prepare made.")
    if task is None and config is None:
        return _on_prepared_data(directory, **given)
    if task is not None:
        given["task"] = require_text(task, "task")
    chosen = resolve(EvaluateConfig, config, paths(EvaluateConfig, given, FIELDS))
    place = Path(directory if out is None else require_path(out, "out"))
    found = evaluate_directory(directory, chosen, place, resume=resume)
    report_run([directory] if place == Path(directory) else [directory, place], place / REPORT)
    return EvaluationResult(found, place / REPORT)


def _on_prepared_data(
    model: str, data: str, split: Split = "test", device: str = "auto", **others: Any
) -> HeldOutResult:
    for name in others:
        raise InputError("is a setting of tasks", where=name, fix="Pass task=, or leave it out.")
    return HeldOutResult(model, evaluate_language_model(model, data, split, device))


def compare(*evaluations: Source, metric: str | None = None, seed: int = 0) -> ComparisonResult:
    """Compare models that were evaluated on the same examples, paired: `lucidlm compare`.

    >>> lucidlm.compare("judge", "other-judge")

    Parameters
    ----------
    evaluations: folders that hold an eval.json, two or more.
    metric: what to compare by; None: the task's first metric.

    Raises
    ------
    InputError: there are fewer than two, or they are not of the same task and data.
    """
    if len(evaluations) == 1 and not isinstance(evaluations[0], str | Path):
        raise wrong_type(evaluations[0], "evaluations", "Pass each folder by itself: compare('a', 'b').")
    folders = [require_path(folder, f"evaluations[{index}]") for index, folder in enumerate(evaluations)]
    return ComparisonResult(compare_evaluations(folders, metric, require_count(seed, "seed")))


def explain(
    model: Source | LoadedModel,
    text: str,
    *,
    target: str | None = None,
    method: Method | None = None,
    steps: int = 50,
    seed: int = 0,
    device: str = "auto",
) -> ExplanationResult:
    """Explain a prediction: what each piece of a text adds to the target's log-probability: `lucidlm explain`.

    >>> lucidlm.explain("judge", "A dull film with a wonderful ending.")
    >>> lucidlm.explain("model", "The capital of France is", target=" Paris")

    Parameters
    ----------
    model: a model directory or another source of a model, or one that `load_model` opened.
    text: a prompt, or what is classified.
    target: a continuation (a new word begins with a space) or a label; None: the likeliest.
    method: "integrated-gradients" (needs captum) or "occlusion"; None: the first, or the second where the model counts
        n-grams too, which gradients do not reach.
    steps: of the integral, at least.

    Raises
    ------
    InputError: text, target or model cannot be explained, or captum is not installed.
    """
    require_text(text, "text")
    if target is not None:
        require_text(target, "target")
    if method not in (None, *(known := ("integrated-gradients", "occlusion"))):
        raise InputError(f"there is no method {method!r}", where="method", fix=f"Choose one of: {', '.join(known)}.")
    loaded = model if isinstance(model, LoadedModel) else load_model(require_path(model, "model"))
    found = explanation.explain(
        loaded,
        text,
        target,
        method=method,
        steps=require_count(steps, "steps"),
        seed=require_count(seed, "seed"),
        device=choose_compute(device).device,
    )
    return ExplanationResult(found)
