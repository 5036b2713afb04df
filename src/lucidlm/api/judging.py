"""How good a model is, whether two differ, and what a prediction rests on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, Unpack, get_args, overload

from lucidlm.api.explanation_results import ExplanationResult, GenerationExplanationResult, SurveyResult
from lucidlm.api.opening import Model, opened
from lucidlm.api.results import ComparisonResult, EvaluationResult, HeldOutResult
from lucidlm.api.settings import FIELDS, EvaluateSettings, paths
from lucidlm.core.arguments import require_count, require_path, require_text, wrong_type
from lucidlm.core.errors import InputError
from lucidlm.core.flat import resolve
from lucidlm.data.split import Split
from lucidlm.distributed.ranks import first_rank
from lucidlm.evaluate.comparison import compare_evaluations
from lucidlm.evaluate.directory import EvaluateConfig, evaluate_directory, evaluate_language_model
from lucidlm.explain import explanation, generation, survey
from lucidlm.explain.attribution.methods import METHODS, Method
from lucidlm.explain.pieces import Unit
from lucidlm.report.files import REPORT
from lucidlm.report.run import report_run

N = TypeVar("N", bound=str)
Source = str | Path
UNITS_OF_TEXT: tuple[Unit, ...] = get_args(Unit)


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
    """Judge a model, beside its baselines: `lucidlm evaluate`. Started by torchrun, ranks share the examples.

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
    if first_rank():
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
    model: Model,
    text: str,
    *,
    context: str | None = None,
    target: str | None = None,
    rather_than: str | None = None,
    by: Unit = "token",
    method: Method | None = None,
    steps: int = 50,
    seed: int = 0,
    device: str = "auto",
) -> ExplanationResult:
    """Explain a prediction: what each piece of a text adds to it: `lucidlm explain`.

    >>> lucidlm.explain("judge", "A dull film with a wonderful ending.", by="word")
    >>> lucidlm.explain("model", "The capital of France is", target=" Paris", rather_than=" London")
    >>> lucidlm.explain("reader", "Who wrote it?", context="It was written by Ada.", by="word")

    Parameters
    ----------
    model: a model directory or another source of a model, or one that `load_model` opened.
    text: a prompt, what is classified, or a question.
    context: the passage in which a model that finds answers looks for one.
    target: a continuation (a new word begins with a space), a label, or words of the passage, none of them for no answer;
        None: what the model gives.
    rather_than: another one: why the target rather than this.
    by: "token", "word" or "sentence": what gets an attribution.
    method: one of `lucidlm.explain.attribution.methods.METHODS`; None: docs/explanation.md says which.
    steps: of integrated gradients, at least.

    Raises
    ------
    InputError: text, target or model cannot be explained, or not by this method.
    """
    require_text(text, "text")
    for name, given in ("context", context), ("target", target), ("rather_than", rather_than):
        if given is not None:
            require_text(given, name)
    with opened(model, device) as loaded:
        found = explanation.explain(
            loaded,
            text,
            target,
            context=context,
            rather_than=rather_than,
            by=_one_of(by, UNITS_OF_TEXT, "by"),
            method=None if method is None else _one_of(method, METHODS, "method"),
            steps=require_count(steps, "steps"),
            seed=require_count(seed, "seed"),
        )
    return ExplanationResult(found)


def explain_generated(
    model: Model,
    text: str,
    *,
    continuation: str | None = None,
    length: int = 20,
    by: Unit = "token",
    method: Method = "relevance",
    steps: int = 50,
    seed: int = 0,
    device: str = "auto",
) -> GenerationExplanationResult:
    """Explain each token that a model writes by all tokens before it: `lucidlm explain --length`.

    >>> lucidlm.explain_generated("model", "Once upon a time", length=20)

    Parameters
    ----------
    continuation: what follows the text; None: `length` tokens that the model writes, always the likeliest.

    The others are those of `explain`, which says what is raised too.
    """
    with opened(model, device) as loaded:
        found = generation.explain_generation(
            loaded,
            require_text(text, "text"),
            None if continuation is None else require_text(continuation, "continuation"),
            length=require_count(length, "length"),
            by=_one_of(by, UNITS_OF_TEXT, "by"),
            method=_one_of(method, METHODS, "method"),
            steps=require_count(steps, "steps"),
            seed=require_count(seed, "seed"),
        )
    return GenerationExplanationResult(found)


def explain_data(
    model: Model,
    data: Source,
    *,
    limit: int | None = 50,
    by: Unit = "word",
    steps: int = 50,
    seed: int = 0,
    device: str = "auto",
) -> SurveyResult:
    """Compare the methods over labelled texts, and show what drives each label: `lucidlm explain --data`.

    >>> lucidlm.explain_data("judge", "test.jsonl", limit=100)

    Parameters
    ----------
    data: examples, as `evaluate` reads them.
    limit: how many of them are explained, drawn at random; None: all.

    The others are those of `explain`.

    Raises
    ------
    InputError: the model was not fine-tuned to give each text one label, or the data cannot be used.
    """
    with opened(model, device) as loaded:
        found = survey.survey(
            loaded,
            require_path(data, "data"),
            limit=None if limit is None else require_count(limit, "limit"),
            by=_one_of(by, UNITS_OF_TEXT, "by"),
            steps=require_count(steps, "steps"),
            seed=require_count(seed, "seed"),
        )
    return SurveyResult(found)


def _one_of(value: N, known: Sequence[N], name: str) -> N:
    if value not in known:
        shown = ", ".join(str(one) for one in known)
        raise InputError(f"there is no {name} {value!r}", where=name, fix=f"Choose one of: {shown}.")
    return value
