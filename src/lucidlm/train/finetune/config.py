"""What a fine-tuning run is: its settings, whole, so that it can be replayed."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.devices import Precision
from lucidlm.model.config import ModelConfig
from lucidlm.model.flops import count_parameters
from lucidlm.model.heads import LanguageModel, Pooling
from lucidlm.model.lora import LoraConfig
from lucidlm.tasks.base.parts import PartsConfig
from lucidlm.tasks.base.retrieval import Retrieval
from lucidlm.tasks.base.task import tasks
from lucidlm.train.loop import LoopConfig
from lucidlm.train.optim import OptimizerName
from lucidlm.train.schedule import ScheduleConfig

Tuning = Literal["full", "lora", "head"]

MUON_RATE = 1e-3
"""A third of pretraining's rate: the backbone is to be bent, not learned anew."""

ENOUGH_STEPS, FEWEST_EPOCHS, MOST_EPOCHS = 100, 2, 10


class FinetuneConfig(PartsConfig):
    """A fine-tuning run, whole: saved as `config.yaml` beside what it makes, it can be replayed.

    Parameters
    ----------
    model: the directory of the pretrained model.
    shots: train on so many examples only, drawn at random: of each label where examples have labels. None: all.
    tuning: train all weights ("full"), low-rank adapters beside them ("lora"), or the head alone ("head").
    layer_decay: factor on the learning rates from each block to the one below it (Howard and Ruder 2018,
        arXiv:1801.06146), so that what is most general changes least; 1: all alike.
    max_length: tokens read at once; None: the model's context. What happens to longer inputs is the task's to say.
    attention: whether a token sees all of its input or only what stands before it; "auto" is the model's own way.
    pooling: read a text's class or embedding from the last token's state, the first one's or the mean; None: the first
        one's of a model that has segments (BERT), which was pretrained for that, else the mean; embeddings of a model that
        sentence-transformers made: its own.
    epochs: passes over the training examples; the loop's `max_steps` and `minutes` may end them sooner. None: as many as
        give 100 steps, from 2 to 10, so that few examples are learned too (Mosbach et al. 2021, arXiv:2006.04884).
    batch_size: examples a step.
    dropout: as in `ModelConfig`; None: 0.1 for what was pretrained here, which is small and had none, and the model's own
        for others: deep ones that were pretrained without it do badly with it.
    token_dropout: share of an input's tokens left out in training, others each time, so that the model cannot lean on
        single words (Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods"); classification only.
        None: 0.2 for what was pretrained here, none for others.
    label_smoothing: share of the target spread over the other labels or tokens (Szegedy et al. 2015, arXiv:1512.00567).
    class_weights: "balanced" weighs each label by the inverse of its share, for data where labels are unequal.
    monitor: the figure on the validation examples that the best weights are chosen by: one of the task's metrics, or
        "loss"; None: the task's first metric, or "macro_f1" where labels are weighted or far out of balance.
    temperature: of the softmax over similarities when embeddings are learned.
    synthetic: a source of plain text to make questions from before the real ones are learned; question answering only.
    """

    model: str
    shots: int | None = Field(default=None, ge=1)
    tuning: Tuning = "full"
    lora: LoraConfig = LoraConfig()
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    max_length: int | None = Field(default=None, ge=8)
    attention: Literal["auto", "causal", "bidirectional"] = "auto"
    pooling: Pooling | None = None
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    token_dropout: float | None = Field(default=None, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    monitor: str | None = None
    temperature: float = Field(default=0.05, gt=0)
    synthetic: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    loop: LoopConfig = LoopConfig(
        schedule=ScheduleConfig(warmup=0.1, decay=0.9),
        evaluations=3,
        patience=100,
    )

    def for_model(self, loaded: LoadedModel) -> FinetuneConfig:
        """Return the settings with those filled in that depend on the model to be tuned.

        Weights that Muon made are moved by Muon, all others by AdamW: Muon takes models made elsewhere out of shape.
        """
        shape, here = loaded.model.config, pretrained_here(loaded)
        made_by = optimizer_of(loaded) if here else "adamw"
        optimizer = self.loop.optimizer.completed(made_by, MUON_RATE if here else adamw_rate(shape, self.tuning))
        # Models of sentence-transformers keep their own way.
        embeds = isinstance(loaded.model, LanguageModel) and loaded.model.sentence is not None
        embeds = embeds and isinstance(tasks.get(self.task), Retrieval)
        usual = 0.1 if here else shape.dropout
        return self.changed(
            max_length=self.max_length or shape.context_length,
            pooling=self.pooling or (None if embeds else "first" if shape.token_types else "mean"),
            dropout=usual if self.dropout is None else self.dropout,
            token_dropout=(0.2 if here else 0.0) if self.token_dropout is None else self.token_dropout,
            loop=self.loop.changed(optimizer=optimizer),
        )

    def planned_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps the run has: those of its epochs, or `max_steps` where that is fewer."""
        epochs = self.epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, ENOUGH_STEPS / steps_per_epoch))
        whole = math.ceil(epochs * steps_per_epoch)
        return min(whole, self.loop.max_steps or whole)


def pretrained_here(loaded: LoadedModel) -> bool:
    """Return whether the model, or the one that it was tuned from, was pretrained by lucidlm."""
    provenance = loaded.record["provenance"]
    return provenance.get("pretrained_here", "config" in provenance)


def optimizer_of(loaded: LoadedModel) -> OptimizerName:
    """Return the optimiser that last moved the weights of a model that was trained here."""
    config = loaded.record["provenance"].get("config", {})
    return config.get("loop", {}).get("optimizer", {}).get("name") or "muon"


def adamw_rate(shape: ModelConfig, tuning: Tuning) -> float:
    """Return AdamW's rate for a model made elsewhere: the smaller, the larger the model.

    5e-5 for all weights of a model of 100 M parameters, as BERT's authors advise, and so on by the root of the size, from
    2e-4 to 1e-5. Adapters and heads start from nothing and take twenty times as much, but 1e-3 at most.
    """
    rate = min(2e-4, max(1e-5, 5e-5 * math.sqrt(1e8 / count_parameters(shape))))
    return rate if tuning == "full" else min(1e-3, 20 * rate)
