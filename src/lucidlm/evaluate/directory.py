"""Evaluate a model on the examples of a task, or a language model on prepared tokens."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.record import RECORD
from lucidlm.core.devices import choose_compute
from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.progress import log
from lucidlm.data.corpus.loader import TokenCorpus
from lucidlm.data.examples.config import TunedOn
from lucidlm.data.split import Bounds, Split
from lucidlm.distributed.failure import explained
from lucidlm.distributed.ranks import ALONE, Ranks, join
from lucidlm.evaluate.config import EvaluateConfig
from lucidlm.evaluate.leakage import Leak, fine_tuning_leak, pretraining_leak
from lucidlm.evaluate.record import Evaluation
from lucidlm.evaluate.runner import evaluate_task
from lucidlm.inference.held_out import validate
from lucidlm.tasks.base.parts import Parts, as_judged, read_parts
from lucidlm.tasks.base.shots import draw, draw_shots, labels_of
from lucidlm.tasks.base.task import Task, read_examples, tasks
from lucidlm.tokenize.tokenizer import Tokenizer


def evaluate_directory(
    directory: str | Path, config: EvaluateConfig, out: str | Path | None = None, *, resume: bool = True
) -> Evaluation:
    """Load the model in `directory` and evaluate it; for several evaluations load it once and use `evaluate_model`.

    Started by torchrun, each process is one rank of the evaluation.
    """
    ranks = join(config.device)
    with explained(ranks):
        return evaluate_model(load_model(directory), config, out, resume=resume, ranks=ranks)


def evaluate_model(
    loaded: LoadedModel,
    config: EvaluateConfig,
    out: str | Path | None = None,
    *,
    resume: bool = True,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Evaluate a model on the examples of a task and write the results to `out`. The model moves to `config.device`.

    Parameters
    ----------
    out: where eval.json, predictions.jsonl and statistics.npz go; None: the model's directory.
    resume: continue an interrupted evaluation from the predictions in `out`.
    ranks: which of several processes this is: each gives its share of the answers, the first one judges and writes.

    Raises
    ------
    InputError: the model or data cannot be used, a label is unknown, or the chosen split is empty.
    """
    task = tasks.get(config.task)
    tuned, bounds = _fine_tuning(loaded, task)
    compute = choose_compute(config.device)
    ranks.require_same(compute)
    loaded.model.to(compute.device)
    predictor = task.predictor(loaded)
    examples, training, part = _examples(task, config, tuned, bounds, loaded.source)
    leakage: list[Leak] = []
    if config.leakage and ranks.first:
        if tuned is not None and training is not None:
            leakage.append(fine_tuning_leak(task, examples, training))
        elif tuned is not None:
            reason = f"{tuned.data} cannot be read any more"
            leakage.append(Leak(against="fine-tuning", checked=False, reason=reason))
        leakage.append(pretraining_leak(task, examples, loaded))
    with fast_matmul(compute.device):
        return evaluate_task(
            task,
            predictor,
            examples,
            name=Path(loaded.source).resolve().name,
            data=f"{config.data} ({part})",
            training=(training or ()) if config.baselines else (),
            leakage=leakage,
            out=loaded.source if out is None else out,
            fingerprint=loaded.fingerprint,
            resume=resume,
            settings={"model": loaded.source, **config.model_dump(mode="json"), "split": part},
            seed=config.seed,
            ranks=ranks,
        )


def _examples(
    task: Task[Any, Any], config: EvaluateConfig, tuned: TunedOn | None, bounds: Bounds, model: str
) -> tuple[list[Any], list[Any] | None, str]:
    """Return the examples to evaluate on, the training examples if they can still be read, and the split's name."""
    own = tuned is not None and _same_source(config.data, tuned.data)
    part = ("test" if own else "all") if config.split == "auto" else config.split
    if tuned is None and part != "all":
        raise InputError(
            f"was not fine-tuned for {task.name}, so nothing says how data are split",
            where=model,
            fix="Judge it on all of a file: --split all.",
        )
    how = {
        "fields": {**(tuned.fields if tuned is not None else {}), **config.fields},
        "encoding": config.encoding or (tuned.encoding if tuned is not None else "auto"),
        "html": config.html or (tuned.html if tuned is not None else "auto"),
        "on_error": config.on_error,
    }
    parts = None
    if tuned is not None and (own or part != "all"):
        reading = tuned.model_copy(update={"data": config.data, **how, **({} if own else {"validation_data": None})})
        parts = read_parts(reading, task, bounds)
    if parts is None:
        examples = as_judged(task, read_examples(task, config.data, **how), config.data)
    elif part == "all":
        examples = as_judged(task, [example for found in parts.values() for example in found], config.data)
    else:
        examples = parts[part]  # pyright: ignore[reportArgumentType]
    if not examples:
        raise InputError(
            f"its part {part!r} holds no examples",
            where=config.data,
            fix="Choose another --split; the model was fine-tuned with nothing held out there.",
        )
    found = len(examples)
    examples = draw(examples, config.limit, config.seed)
    log(
        f"{config.data}: {len(examples):,} examples ({part})"
        + (f" of {found:,}" if len(examples) < found else "")
        + (", held out when the model was fine-tuned" if own and part == "test" else "")
    )
    return examples, _training(task, config, tuned, bounds, parts if own else None), part


def _training(
    task: Task[Any, Any], config: EvaluateConfig, tuned: TunedOn | None, bounds: Bounds, parts: Parts | None
) -> list[Any] | None:
    """Return the examples that the model was fine-tuned on (the same draw for few shots); None if they cannot be read."""
    if not (config.baselines or config.leakage):
        return None
    if tuned is None:
        if config.training is None:
            return None
        how = {"fields": config.fields, "encoding": config.encoding or "auto", "html": config.html or "auto"}
        return read_examples(task, config.training, **how)
    try:
        training = (parts or read_parts(tuned, task, bounds))["train"]
    except InputError as error:
        log(f"No baselines, and no look for examples that the model was fine-tuned on: {error}")
        return None
    if tuned.shots is not None:
        training = draw_shots(training, tuned.shots, labels_of(task, training), tuned.seed)
    return training


def _same_source(one: str, other: str) -> bool:
    return one == other or (os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other))


def _fine_tuning(loaded: LoadedModel, task: Task[Any, Any]) -> tuple[TunedOn | None, Bounds]:
    """Return the settings of the model's fine-tuning data for `task`, None without fine-tuning, and the split bounds.

    Raises
    ------
    InputError: it was fine-tuned for another task, and `task` is one to fine-tune for.
    """
    provenance = loaded.record["provenance"]
    made_for = provenance.get("task")
    if made_for == task.name:
        # Models without recorded bounds were split by the hash of the text alone.
        tuned = TunedOn.from_run(provenance["config"], where=Path(loaded.source) / RECORD)
        return tuned, {label: (tested, held_out) for label, (tested, held_out) in provenance.get("bounds", {}).items()}
    if made_for in set(tasks) and task.tunable:
        raise InputError(f"was fine-tuned for {made_for}, not for {task.name}", where=loaded.source)
    return None, {}


def evaluate_language_model(
    directory: str | Path, data: str | Path, part: Split = "test", device: str = "auto"
) -> dict[str, Any]:
    """Measure the loss, perplexity and bits per byte of a causal model on one part of prepared data.

    Started by torchrun, each process reads its share of the batches.

    Raises
    ------
    InputError: the model is of another kind, or the data were prepared with another tokenizer.
    """
    ranks = join(device)
    with explained(ranks):
        return _held_out(directory, data, part, device, ranks)


def _held_out(directory: str | Path, data: str | Path, part: Split, device: str, ranks: Ranks) -> dict[str, Any]:
    compute = choose_compute(device)
    ranks.require_same(compute)
    target = compute.device
    model, tokenizer = load_model(directory, device=target).causal_lm(fix="Pass --task to judge a classifier.")
    if tokenizer.fingerprint != Tokenizer.load(data).fingerprint:
        raise InputError(
            "was prepared with another tokenizer than the model's",
            where=data,
            fix=f"Prepare it again with --tokenizer-from {directory}.",
        )
    corpus = TokenCorpus.open(data, part)
    with torch.inference_mode(), fast_matmul(target):
        found = validate(model, [corpus], model.config.context_length, corpus.tokens, target, None, ranks)
    names = {"validation_loss": "loss"}
    return {
        "data": str(data),
        "part": part,
        "tokens": corpus.tokens,
        "bytes": corpus.bytes,
        **{names.get(name, name): value for name, value in found.items()},
    }
