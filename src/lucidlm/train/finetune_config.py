"""What a fine-tuning run is: its settings, whole, so that it can be replayed."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lucidlm.core.config import Config
from lucidlm.core.devices import Precision
from lucidlm.data.document import OnError
from lucidlm.model.directory import Loaded
from lucidlm.model.heads import LanguageModel, Pooling
from lucidlm.model.lora import LoraConfig
from lucidlm.tasks.base import tasks
from lucidlm.tasks.matching import Matching
from lucidlm.train.loop import LoopConfig
from lucidlm.train.optim import OptimizerConfig
from lucidlm.train.schedule import ScheduleConfig


class FinetuneConfig(Config):
    """A fine-tuning run, whole: saved as `config.yaml` beside what it makes, it can be replayed.

    Parameters
    ----------
    task: a name from the registry of tasks.
    model: the directory of the pretrained model.
    data: a source of examples; the parts that `split_of` calls validation and test are left out of training.
    fields: the names that fields have in the data, by the names that the task knows them by (text: review).
    validation_data: a source of its own to choose the best weights by; nothing of `data` is then held out for that.
    encoding: how the bytes of `data` stand for text.
    validation, test: shares of the data held out; validation chooses the weights, test is for `evaluate`.
    shots: train on so many examples only, drawn at random: of each label where examples have labels. None: all.
    strategy: train all weights ("full"), low-rank adapters beside them ("lora"), or the head alone ("head").
    layer_decay: factor on the learning rates from each block to the one below it (Howard and Ruder 2018,
        arXiv:1801.06146), so that what is most general changes least; 1: all alike.
    max_length: tokens read at once; None: the model's context. What happens to longer inputs is the task's to say.
    attention: whether a token sees all of its input or only what stands before it; "auto" is the model's own way.
    pooling: read a text's class or embedding from the last token's state, the first one's or the mean; None: the first
        one's of a model that has segments (BERT), which was pretrained for that, else the mean; embeddings of a model that
        sentence-transformers made: its own.
    epochs: passes over the training examples.
    batch_size: examples a step.
    dropout: as in `ModelConfig`; None: 0.1 for what was pretrained here, which is small and had none, and the model's own
        for others: deep ones that were pretrained without it do badly with it.
    token_dropout: share of an input's tokens left out in training, others each time, so that the model cannot lean on
        single words (Iyyer et al. 2015, "Deep Unordered Composition Rivals Syntactic Methods"); classification only.
    label_smoothing: share of the target spread over the other labels or tokens (Szegedy et al. 2015, arXiv:1512.00567).
    class_weights: "balanced" weighs each label by the inverse of its share, for data where labels are unequal.
    temperature: of the softmax over similarities when embeddings are learned.
    synthetic: a source of plain text to make questions from before the real ones are learned; question answering only.
    """

    task: str
    model: str
    data: str
    fields: dict[str, str] = Field(default={})
    validation_data: str | None = None
    encoding: str = "utf-8"
    on_error: OnError = "stop"
    validation: float = Field(default=0.05, ge=0, lt=1)
    test: float = Field(default=0.05, ge=0, lt=1)
    shots: int | None = Field(default=None, ge=1)
    strategy: Literal["full", "lora", "head"] = "full"
    lora: LoraConfig = LoraConfig()
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    max_length: int | None = Field(default=None, ge=8)
    attention: Literal["auto", "causal", "bidirectional"] = "auto"
    pooling: Pooling | None = None
    epochs: float = Field(default=3.0, gt=0)
    batch_size: int = Field(default=32, ge=1)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    token_dropout: float = Field(default=0.2, ge=0, lt=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    temperature: float = Field(default=0.05, gt=0)
    synthetic: str | None = None
    device: str = "auto"
    precision: Precision = "auto"
    loop: LoopConfig = LoopConfig(
        # A third of pretraining's rates, falling all the way: the backbone is to be bent, not learned anew.
        optimizer=OptimizerConfig(learning_rate=1e-3, muon_learning_rate=3e-3),
        schedule=ScheduleConfig(warmup=0.1, decay=0.9),
        evaluations=6,
        patience=100,
    )

    def for_model(self, loaded: Loaded) -> FinetuneConfig:
        """Return the settings with those filled in that depend on the model to be tuned."""
        shape, pretrained_here = loaded.model.config, "config" in loaded.record["provenance"]
        # Models of sentence-transformers keep their own way.
        embeds = isinstance(loaded.model, LanguageModel) and loaded.model.sentence is not None
        embeds = embeds and isinstance(tasks.get(self.task), Matching)
        usual = 0.1 if pretrained_here else shape.dropout
        return self.changed(
            max_length=self.max_length or shape.context_length,
            pooling=self.pooling or (None if embeds else "first" if shape.token_types else "mean"),
            dropout=usual if self.dropout is None else self.dropout,
        )
