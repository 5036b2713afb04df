"""Fine-tuning: from a pretrained model directory and the examples of a task to a model that does it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.save import save_model
from lucidlm.core.config import CONFIG
from lucidlm.core.devices import Compute, choose_compute, describe_machine
from lucidlm.core.errors import InputError
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.progress import log
from lucidlm.data.split import Split
from lucidlm.distributed.failure import explained
from lucidlm.distributed.placing import surely_whole
from lucidlm.distributed.ranks import ALONE, Ranks, join
from lucidlm.tasks.base.parts import Parts, read_parts
from lucidlm.tasks.base.retrieval import Retrieval
from lucidlm.tasks.base.shots import draw_shots, labels_of
from lucidlm.tasks.base.task import Task, tasks, unknown_to
from lucidlm.tasks.base.text_generation import TextGeneration
from lucidlm.tasks.multi_label import MultiLabelClassification
from lucidlm.tasks.question_answering import QuestionAnswering
from lucidlm.tasks.sentence_pairs import PairClassification, Similarity
from lucidlm.tasks.text_classification import TextClassification
from lucidlm.tasks.token_tagging import TokenTagging
from lucidlm.train.checkpoints import start_in
from lucidlm.train.config import LoopConfig
from lucidlm.train.finetune.classification_objective import ClassificationObjective
from lucidlm.train.finetune.config import FinetuneConfig, pretrained_here
from lucidlm.train.finetune.contrastive_objective import ContrastiveObjective
from lucidlm.train.finetune.multi_label_objective import MultiLabelObjective
from lucidlm.train.finetune.objective import TaskObjective
from lucidlm.train.finetune.pair_objective import PairObjective, PairScoreObjective
from lucidlm.train.finetune.span_objective import SpanObjective
from lucidlm.train.finetune.tagging_objective import TaggingObjective
from lucidlm.train.finetune.text_objective import SequenceObjective
from lucidlm.train.finetune.tuning import apply_tuning, finish_tuning, tune_backbone
from lucidlm.train.loop import Loop, Outcome, describe_outcome
from lucidlm.train.memory import StepShape, require_memory
from lucidlm.train.tracking.tracking import Tracking
from lucidlm.train.tracking.webhook import read_webhook

OBJECTIVES: dict[type[Task[Any, Any]], type[TaskObjective[Any, Any, Any]]] = {
    PairClassification: PairObjective,  # before what it is a kind of
    TextClassification: ClassificationObjective,
    MultiLabelClassification: MultiLabelObjective,
    Similarity: PairScoreObjective,
    TextGeneration: SequenceObjective,
    QuestionAnswering: SpanObjective,
    TokenTagging: TaggingObjective,
    Retrieval: ContrastiveObjective,
}
"""How each kind of task is learned."""

LOOKED_AT = 50
"""Steps from whose batches it is told how large a step's are."""


@dataclass(frozen=True)
class OpenRun:
    """A run before its first step: its settings, whole, and what it learns from and with."""

    config: FinetuneConfig
    task: Task[Any, Any]
    parts: Parts
    compute: Compute
    loaded: LoadedModel
    objective: TaskObjective[Any, Any, Any]


def open_run(config: FinetuneConfig, ranks: Ranks = ALONE) -> OpenRun:
    """Read the examples and the model of a run.

    Raises
    ------
    InputError: model or data cannot be used.
    """
    task = tasks.get(config.task)
    require_shareable(task, ranks)
    parts = read_parts(config, task)
    if config.shots is not None:
        parts["train"] = draw_shots(parts["train"], config.shots, labels_of(task, parts["train"]), config.loop.seed)
    compute = choose_compute(config.device, config.precision)
    ranks.require_same(compute)
    ranks.require_share(config.batch_size, len(parts["train"]), "examples")
    loaded = load_model(config.model)
    config = config.for_model(loaded)
    objective = build_objective(config, task, loaded, parts, compute.device)
    objective.ranks = ranks
    return OpenRun(config, task, parts, compute, loaded, objective)


def require_shareable(task: Task[Any, Any], ranks: Ranks) -> None:
    """Refuse several ranks for a task that has to see a batch whole.

    Raises
    ------
    InputError: there are several, and it is such a task.
    """
    if ranks.count > 1 and isinstance(task, Retrieval):
        raise InputError(
            f"{task.name} learns to tell a text from all others of a batch, which several ranks do not see together",
            where="task",
            fix="Start one process.",
        )


def step_shape(run: OpenRun) -> StepShape:
    """Return what the largest micro-batch of the first steps reads."""
    steps = run.objective.step_parts(LOOKED_AT)
    rows, length = max((part for parts in steps for part in parts), key=math.prod)
    writes = isinstance(run.task, TextGeneration)
    return StepShape(rows, length, max(map(len, steps)) > 1, counted=1.0 if writes else 0.0)


def finetune(config: FinetuneConfig, out: str | Path, *, resume: bool = False, webhook: str | None = None) -> Outcome:
    """Fine-tune a model for a task and leave a model directory in `out`, beside `config.yaml` and `metrics.jsonl`.

    Started by torchrun, each process is one rank of the run. `webhook` is an address that is told how it ends.

    Raises
    ------
    InputError: model or data cannot be used; `out` holds something else; memory is too short; a tracker is not
        installed.
    LucidError: the loss is not finite, the disk is full.
    """
    with Tracking(Path(out), config.loop.track, read_webhook(webhook)) as tracking:
        ranks = join(config.device)
        with explained(ranks):
            outcome = _finetune(config, Path(out), resume, ranks, tracking)
        tracking.finish(outcome.state.step, outcome.evaluation, outcome.stopped_by)
        return outcome


def _finetune(config: FinetuneConfig, out: Path, resume: bool, ranks: Ranks, tracking: Tracking) -> Outcome:
    ranks.require_one_view(resume, out)
    if not resume and ranks.first:
        start_in(out)
    run = open_run(config, ranks)
    config, objective, parts, compute = run.config, run.objective, run.parts, run.compute
    if not (resume or config.force) and surely_whole(config.loop.parallel, ranks):
        shape, tune = objective.model.config, partial(tune_backbone, config=config)
        require_memory(shape, step_shape(run), config.loop.optimizer, compute, tune, loaded=True)
    if not resume and ranks.first:
        config.save(out / CONFIG)
    trained = apply_tuning(objective.model, config, objective.head)
    sizes = ", ".join(f"{len(found):,} {part}" for part, found in parts.items())
    steps = config.planned_steps(objective.steps_per_epoch)
    for line in (
        f"{config.task}: {sizes}; {compute.device.type}, {compute.reason}",
        *objective.report(),
        trained,
        _describe_plan(config.loop, steps, objective.steps_per_epoch),
    ):
        log(line)
    unknown = unknown_to(objective.tokenizer, run.task, [*parts["train"], *parts["validation"]])
    if unknown.characters:
        log(f"{unknown}: the model cannot tell them apart")
    settings = config.loop.changed(max_steps=steps)
    loop = Loop(
        objective.model,
        objective,
        settings,
        compute,
        out,
        layer_decay=config.layer_decay,
        ranks=ranks,
        tracking=tracking.of(config),
    )
    outcome = loop.run(resume=resume)
    if outcome.stopped_by is None:
        with torch.inference_mode(), fast_matmul(compute.device):
            lines, outcome.evaluation = objective.finish(objective.model.eval())
        for line in lines:
            log(line)
        if ranks.first:
            finish_tuning(objective.model, config, objective.head, out)
            known = {"bounds": parts.bounds, "unknown": unknown.model_dump()}
            origin = {**provenance(run, outcome), **objective.provenance(), **known}
            save_model(objective.model, out, objective.tokenizer, provenance=origin)
            objective.save_extras(out)
    ranks.wait()
    return outcome


def _describe_plan(config: LoopConfig, steps: int, steps_per_epoch: int) -> str:
    optimizer, limit = config.optimizer, config.max_steps
    length = f"{steps:,} steps, {steps / steps_per_epoch:.3g} epochs"
    if limit is not None and steps < limit:
        length += f" (fewer than the {limit:,} allowed: --epochs decides)"
    return f"{length}; {optimizer.name}, learning rate {optimizer.learning_rate:.2g}"


def build_objective(
    config: FinetuneConfig,
    task: Task[Any, Any],
    loaded: LoadedModel,
    parts: dict[Split, list[Any]],
    device: torch.device,
) -> TaskObjective[Any, Any, Any]:
    """Return what `task` is learned by, with the model to be trained on `device`.

    Raises
    ------
    InputError: the model or the examples cannot be used, or the task is one that nothing is trained for.
    """
    for kind, objective in OBJECTIVES.items():
        if isinstance(task, kind):
            return objective.build(config, task, loaded, parts, device)
    raise InputError(f"{task.name} is a task to judge models by, not to train them for", where="task")


def provenance(run: OpenRun, outcome: Outcome) -> dict[str, Any]:
    """Return the record of how a model came to be."""
    config, loaded = run.config, run.loaded
    return {
        "task": config.task,
        "pretrained_here": pretrained_here(loaded),
        **{name: value for name, value in loaded.record["provenance"].items() if name == "imported_from"},
        "data": config.data,
        "seed": config.loop.seed,
        "config": config.model_dump(mode="json"),
        "metrics": describe_outcome(outcome),
        "machine": describe_machine().as_dict(),
    }
