"""How many labels pretraining saves: a task learned from few examples and from more, in several ways.

For each number of labelled examples and each seed, the pretrained model is tuned on them, and so is a second one if it is
given; a model of the first one's shape with fresh weights is trained on the very same ones in the same way, and the task's
last baseline is fitted to them. All are judged on the same held-out examples by the task's first metric. What has been
measured is kept in `curve.json`, so that a curve can be gone on with, and more numbers and seeds added to it.
"""

from __future__ import annotations

import copy
import hashlib
import shutil
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lucidlm.checkpoint.load import load_model
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.config import CONFIG
from lucidlm.core.devices import Compute, choose_compute, describe_machine
from lucidlm.core.errors import InputError
from lucidlm.core.io import write_text
from lucidlm.core.matmul import fast_matmul
from lucidlm.core.progress import log
from lucidlm.metrics.statistics import estimate
from lucidlm.model.heads import LanguageModel
from lucidlm.tasks.base.parts import read_parts
from lucidlm.tasks.base.shots import draw, draw_shots, labels_of
from lucidlm.tasks.base.task import Task, tasks, unknown_to
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.run import build_objective
from lucidlm.train.finetune.tuning import apply_tuning
from lucidlm.train.label_curve.config import LabelCurveConfig
from lucidlm.train.label_curve.record import (
    BASELINE,
    CURVE,
    OTHER,
    PRETRAINED,
    SCRATCH,
    LabelCurve,
    Point,
    read_curve,
)
from lucidlm.train.loop import Loop


def label_curve(config: LabelCurveConfig, out: str | Path) -> tuple[LabelCurve, int | None]:
    """Measure what is missing from `out/curve.json`, and return all of it; with the signal that ended it early, if any.

    Raises
    ------
    InputError: model or data cannot be used, or `out` holds a curve of other settings or other data.
    """
    out = Path(out)
    task = tasks.get(config.task)
    parts = read_parts(config.finetuning(1, 0), task)
    pool, held_out = parts["train"], parts["validation" if config.test_data else "test"]
    held_out = draw(held_out, config.limit, seed=0)
    compute, loaded = choose_compute(config.device, config.precision), load_model(config.model)
    models = {PRETRAINED: loaded} if config.other is None else {PRETRAINED: loaded, OTHER: load_model(config.other)}
    metric, label_of = task.metrics(held_out)[0], labels_of(task, pool)
    curve = LabelCurve(
        settings=config.model_dump(mode="json", exclude={"shots", "seeds", "scratch"}),
        fingerprint=_fingerprint(models.values(), [repr(example) for example in (*pool, *held_out)]),
        by_label=label_of is not None,
        metric=metric.name,
        percent=metric.percent,
        test_examples=len(held_out),
        machine=describe_machine().as_dict(),
    )
    _go_on(curve, out / CURVE)
    config.save(out / CONFIG)
    methods = (*models, *([SCRATCH] * config.scratch), *([BASELINE] * bool(task.baselines())))
    done = {(point.method, point.shots, point.seed) for point in curve.points}
    wanted = [(m, k, s) for k in sorted(set(config.shots)) for s in range(config.seeds) for m in methods]
    missing = [key for key in wanted if key not in done]
    if loaded.tokenizer and (unknown := unknown_to(loaded.tokenizer, task, [*pool, *held_out])).characters:
        log(f"{unknown}: the model cannot tell them apart")
    log(f"{len(wanted) - len(missing)} of {len(wanted)} measurements are there; {len(held_out):,} held-out examples")
    for number, (method, shots, seed) in enumerate(missing, start=1):
        few = draw_shots(pool, shots, label_of, seed)
        log(f"{number} of {len(missing)}: {method}, {len(few):,} examples, seed {seed}")
        start = time.monotonic()
        if method == BASELINE:
            baseline = task.baselines()[-1].fit(few)
            seconds, curve.baseline = time.monotonic() - start, baseline.name
            answers = baseline.predict(held_out)
        else:
            tuning = config.finetuning(len(few), seed)
            if method == SCRATCH:
                tuning = tuning.changed(tuning="full")
            begun = _copied(models[method]) if method in models else _fresh(loaded, seed)
            predictor, stopped_by = _train(tuning, task, begun, few, compute, out / "run")
            if stopped_by is not None:
                return curve, stopped_by
            seconds = time.monotonic() - start
            with torch.inference_mode(), fast_matmul(compute.device):
                answers = predictor.predict(held_out)
        found = estimate(metric.value, metric.statistics(held_out, answers))
        value, low, high = found.value, found.low, found.high
        point = Point(
            method=method,
            shots=shots,
            seed=seed,
            examples=len(few),
            value=value,
            low=low,
            high=high,
            seconds=round(seconds, 1),
        )
        curve.points.append(point)
        write_text(out / CURVE, curve.model_dump_json(indent=2) + "\n")
        log(f"{metric.name} {value:.4f} [{low:.4f}, {high:.4f}], {seconds:,.0f} s of training")
    return curve, None


def _copied(loaded: LoadedModel) -> LoadedModel:
    """Return a copy of a pretrained model, which training overwrites."""
    return replace(loaded, model=copy.deepcopy(loaded.model))


def _fresh(loaded: LoadedModel, seed: int) -> LoadedModel:
    """Return a model of the same shape with fresh weights."""
    assert isinstance(loaded.model, LanguageModel), "nothing else is tuned"
    record = {**loaded.record, "provenance": {"pretrained_here": True}}
    return replace(loaded, model=LanguageModel(loaded.model.config, seed), record=record)


def _train(
    config: FinetuneConfig,
    task: Task[Any, Any],
    loaded: LoadedModel,
    examples: list[Any],
    compute: Compute,
    directory: Path,
) -> tuple[Any, int | None]:
    """Return the predictor with the trained model, and the signal that stopped the training, if one did."""
    config = config.for_model(loaded)
    objective = build_objective(config, task, loaded, {"train": examples, "validation": [], "test": []}, compute.device)
    apply_tuning(objective.model, config, objective.head)
    shutil.rmtree(directory, ignore_errors=True)
    try:
        outcome = Loop(objective.model, objective, config.loop, compute, directory).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    objective.model.eval()
    return objective.predictor, outcome.stopped_by


def _go_on(curve: LabelCurve, path: Path) -> None:
    """Take over the points of the curve in `path`, if there is one and it is of the same things."""
    if not path.exists():
        return
    earlier = read_curve(path)
    usual = {name: field.default for name, field in LabelCurveConfig.model_fields.items()}  # of settings that are newer
    different = [name for name, value in curve.settings.items() if earlier.settings.get(name, usual[name]) != value]
    if different or earlier.fingerprint != curve.fingerprint:
        raise InputError(
            f"was measured with another {different[0]}"
            if different
            else "was measured with another model or other data",
            where=path,
            fix="Choose another --out.",
        )
    curve.points, curve.baseline = earlier.points, earlier.baseline


def _fingerprint(models: Iterable[LoadedModel], examples: Sequence[str]) -> str:
    digest = hashlib.sha256("".join(loaded.fingerprint for loaded in models).encode())
    for example in examples:
        digest.update(example.encode() + b"\n")
    return digest.hexdigest()
