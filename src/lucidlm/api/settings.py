"""The keywords of the functions, which are the command line's flags, and the fields of the configuration they stand for.

The types here are for editors and type checkers; what is passed is checked by the configuration itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from lucidlm.core.config import Config
from lucidlm.core.flat import paths_of

PREPARE = {"near_duplicates": "near"}
LOOP = {"optimizer": "loop.optimizer.name", "schedule": "loop.schedule.name"}
FIELDS = {"text_field": "fields.text", "label_field": "fields.label"}
PRETRAIN = {"context": "context_length", **LOOP}
FINETUNE = {**LOOP, **FIELDS}
"""Keywords that are not the names of their fields."""


class LoopSettings(TypedDict, total=False):
    """Settings of every training run."""

    minutes: float | None
    max_steps: int | None
    optimizer: Literal["muon", "adamw"] | None
    learning_rate: float | None
    muon_learning_rate: float | None
    weight_decay: float
    betas: tuple[float, float]
    eps: float
    momentum: float
    newton_schulz_steps: int
    schedule: Literal["trapezoid", "cosine"]
    warmup: float
    decay: float
    floor: float
    clip: float
    evaluations: int
    patience: int | None
    checkpoint_minutes: float
    checkpoint_steps: int | None
    keep: int
    track: Sequence[Literal["tensorboard", "mlflow"]]
    on_spike: Literal["warn", "roll-back"]
    roll_backs: int
    parallel: Literal["auto", "ddp", "fsdp"]
    seed: int
    device: str
    force: bool


class ReadingSettings(TypedDict, total=False):
    """How examples are read."""

    fields: dict[str, str]
    text_field: str
    label_field: str
    encoding: str
    html: Literal["auto", "yes", "no"]
    on_error: Literal["stop", "skip"]


class PrepareSettings(TypedDict, total=False):
    """Settings of `prepare`; see `PrepareConfig` and `CleanConfig`."""

    text_field: str | list[str]
    encoding: str
    html: Literal["auto", "yes", "no"]
    on_error: Literal["stop", "skip"]
    repair: bool
    min_characters: int
    max_characters: int | None
    repetition: bool
    exact: bool
    near_duplicates: Literal["off"] | float
    exclude: dict[str, str]
    pii: bool
    split_by: Literal["auto", "hash", "position"]
    validation: float
    test: float
    tokenizer: Literal["auto", "bpe", "characters"]
    tokenizer_from: str | Path | None
    vocab_size: int | Literal["auto"]
    seed: int


class PretrainSettings(LoopSettings, total=False):
    """Settings of `pretrain`; see `PretrainConfig` and `LoopConfig`."""

    precision: Literal["auto", "fp32", "bf16", "fp8"]
    objective: Literal["causal", "masked", "hybrid"]
    depth: int | None
    embedding_dim: int | None
    num_heads: int | None
    num_kv_heads: int | None
    ff_dim: int | None
    num_layers: int | None
    dropout: float | None
    context: int
    batch_size: int
    micro_batch: int | None
    mask_rate: float
    validation_tokens: int
    compile: Literal["auto", "on", "off"]


class FinetuneSettings(LoopSettings, ReadingSettings, total=False):
    """Settings of `finetune`; see `FinetuneConfig` and `LoopConfig`."""

    precision: Literal["auto", "fp32", "bf16"]
    validation_data: str | Path | None
    on_conflict: Literal["drop", "first", "keep", "stop"]
    validation: float
    test: float
    shots: int | None
    tuning: Literal["full", "lora", "head"]
    rank: int
    alpha: float
    targets: tuple[str, ...] | None
    layer_decay: float
    max_length: int | None
    attention: Literal["auto", "causal", "bidirectional"]
    pooling: Literal["last", "mean", "first"] | None
    epochs: float | None
    batch_size: int
    dropout: float | None
    token_dropout: float | None
    label_smoothing: float
    wide: bool
    class_weights: Literal["none", "balanced"]
    monitor: str | None
    temperature: float
    synthetic: str | Path | None


class LabelCurveSettings(ReadingSettings, total=False):
    """Settings of `label_curve`; see `LabelCurveConfig`."""

    other: str | Path | None
    test: float
    limit: int | None
    scratch: bool
    shots: tuple[int, ...] | list[int]
    seeds: int
    tuning: Literal["full", "lora", "head"]
    epochs: float
    least_steps: int
    max_length: int | None
    device: str
    precision: Literal["auto", "fp32", "bf16"]


class EvaluateSettings(ReadingSettings, total=False):
    """Settings of `evaluate`; see `EvaluateConfig`."""

    split: Literal["auto", "all", "train", "validation", "test"]
    limit: int | None
    baselines: bool
    training: str | Path | None
    leakage: bool
    device: str
    seed: int


def paths(kind: type[Config], settings: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of keywords by the paths of their fields, those that are file paths as strings.

    Raises
    ------
    InputError: there is no setting of some name.
    """
    plain = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    return paths_of(kind, plain, names)
