"""What a fine-tuning run is: its settings, whole, so that it can be replayed.

`FinetuneConfig` has the settings of all tasks. Each kind of task that is learned in a way of its own has a class with
the settings of that way; `FinetuneConfig(task=…, …)` makes the one of its task. So one name and flat YAML serve every
task, and a setting that a task does not know is refused instead of ignored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from lucidlm.core.config import Config
from lucidlm.core.settings import Device, Precision
from lucidlm.data.examples.config import PartsConfig
from lucidlm.model.config import LoraConfig, ModelConfig, Pooling
from lucidlm.model.flops import count_parameters
from lucidlm.train.config import Force, LoopConfig, OptimizerName, ScheduleConfig

if TYPE_CHECKING:
    from lucidlm.checkpoint.loaded import LoadedModel

Tuning = Literal["full", "lora", "head"]

LabelSmoothing = Annotated[
    float, Field(ge=0, lt=1, description="Share of a target spread over the others (not for embeddings, similarity).")
]
"""Szegedy et al. 2015, arXiv:1512.00567: over the other labels, tokens, or positions."""

TextPooling = Annotated[
    Pooling | None,
    Field(description="Read a text from its last, first or mean state (labels, similarity, embeddings only)."),
]
"""None: the first state of a model that has segments (BERT), which was pretrained for that; of a causal model made
elsewhere the last one, which has seen the whole text, but for embeddings; else the mean. Embeddings of a model that
sentence-transformers made: the model's own way."""

MUON_RATE = 1e-3
"""A third of pretraining's rate: fine-tuning changes the backbone little."""

FEWEST_EPOCHS, MOST_EPOCHS = 2, 10


class FinetuneConfig(PartsConfig):
    """A fine-tuning run, whole: saved as `config.yaml` beside what it makes, it can be replayed.

    Called with a `task` it makes the settings of the task's kind: `FinetuneConfig(task="sentiment", …)` is a
    `ClassificationConfig`.

    Parameters
    ----------
    shots: drawn at random, of each label where examples have labels. None: all examples.
    layer_decay: factor on the learning rates from each block to the one below it (Howard and Ruder 2018,
        arXiv:1801.06146), so that what is most general changes least; 1: all alike.
    max_length: None: the model's context. How longer inputs are read depends on the task.
    attention: "bidirectional" attends to all of the input, "causal" to earlier tokens only; "auto" is the model's own
        way.
    epochs: the loop's `max_steps` and `minutes` may end them sooner. None: as many as give `enough_steps`, from 2 to 10, so
        that few examples are learned too (Mosbach et al. 2021, arXiv:2006.04884).
    dropout: as in `ModelConfig`; None: 0.1 for what was pretrained here, which is small and had none, and the model's own
        for others: deep ones that were pretrained without it do badly with it.
    monitor: the validation figure that the best weights are chosen by: one of the task's metrics, or "loss"; None: the
        task's first metric, or "macro_f1" where labels are weighted or far out of balance.
    """

    kind: ClassVar[str] = ""
    """What tasks with these settings are called in messages."""
    enough_steps: ClassVar[int] = 100
    """Steps that few examples are repeated for."""

    model: str = Field(description="The directory of a pretrained model.")
    shots: int | None = Field(default=None, ge=1, description="Train on so many examples (of each label) only.")
    tuning: Tuning = Field(default="full", description="Train all weights, LoRA adapters or the head.")
    lora: LoraConfig = LoraConfig()
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="Factor on the rates from each block to the next below."
    )
    max_length: int | None = Field(default=None, ge=8, description="Tokens that are read at once.")
    attention: Literal["auto", "causal", "bidirectional"] = Field(
        default="auto", description="Which tokens of the input a token attends to."
    )
    epochs: float | None = Field(default=None, gt=0, description="Passes over the training examples.")
    batch_size: int = Field(default=32, ge=1, description="Examples a step; of questions 16.")
    dropout: float | None = Field(default=None, ge=0, lt=1, description="Share of activations dropped in training.")
    monitor: str | None = Field(default=None, description="The figure that the best weights are chosen by.")
    device: Device = "auto"
    precision: Precision = "auto"
    force: Force = False
    loop: LoopConfig = LoopConfig(schedule=ScheduleConfig(warmup=0.1, decay=0.9), evaluations=3, patience=100)

    def __new__(cls, *_: Any, **fields: Any) -> Self:
        chosen: Any = config_class(fields["task"]) if cls is FinetuneConfig and "task" in fields else cls
        return super().__new__(chosen)

    @classmethod
    def variants(cls) -> tuple[type[Config], ...]:
        return (cls, *KINDS) if cls is FinetuneConfig else (cls,)

    @model_validator(mode="before")
    @classmethod
    def _are_of_this_kind(cls, fields: Any) -> Any:
        """Refuse settings of other kinds by name."""
        for name, value in fields.items() if "task" in fields else ():
            having = (other.kind for other in KINDS if name in other.model_fields.keys() - cls.model_fields.keys())
            owners = list(dict.fromkeys(having))
            # Texts without labels have none that could disagree.
            if name == "on_conflict" and value != "drop" and not issubclass(cls, ClassificationConfig):
                owners = [ClassificationConfig.kind]
            if owners:
                raise ValueError(
                    f"{name} is a setting of {' and '.join(owners)}, not of {fields['task']}: leave it out"
                )
        return fields

    def for_model(self, loaded: LoadedModel) -> Self:
        """Return the settings with those filled in that depend on the model to be tuned.

        Weights that Muon made are updated by Muon, all others by AdamW: Muon harms models made elsewhere.
        """
        shape, here = loaded.model.config, pretrained_here(loaded)
        made_by = optimizer_of(loaded) if here else "adamw"
        optimizer = self.loop.optimizer.completed(made_by, MUON_RATE if here else adamw_rate(shape, self.tuning))
        usual = 0.1 if here else shape.dropout
        return self.changed(
            max_length=self.max_length or shape.context_length,
            dropout=usual if self.dropout is None else self.dropout,
            loop=self.loop.changed(optimizer=optimizer),
        )

    def planned_steps(self, steps_per_epoch: int) -> int:
        """Return how many steps the run has: those of its epochs, or `max_steps` where that is fewer."""
        epochs = self.epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, self.enough_steps / steps_per_epoch))
        whole = math.ceil(epochs * steps_per_epoch)
        return min(whole, self.loop.max_steps or whole)


class RegressionConfig(FinetuneConfig):
    """Fine-tuning of what gives texts a number.

    Parameters
    ----------
    token_dropout: drawn anew each time, so that the model cannot lean on single words (Iyyer et al. 2015, "Deep
        Unordered Composition Rivals Syntactic Methods"). None: 0.2 for what was pretrained here, none for others.
    """

    kind: ClassVar[str] = "similarity"

    pooling: TextPooling = None
    token_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Share of a text's tokens left out in training (labels, similarity only)."
    )

    def for_model(self, loaded: LoadedModel) -> Self:
        shape, here = loaded.model.config, pretrained_here(loaded)
        usual = 0.2 if here else 0.0
        last = shape.causal and self.attention != "bidirectional" and not here
        return (
            super()
            .for_model(loaded)
            .changed(
                pooling=self.pooling or ("last" if last else usual_pooling(shape)),
                token_dropout=usual if self.token_dropout is None else self.token_dropout,
            )
        )


class ClassificationConfig(RegressionConfig):
    """Fine-tuning of a classifier of texts.

    Parameters
    ----------
    class_weights: "balanced" weighs each label by the inverse of its share, for data where labels are unequal.
    """

    kind: ClassVar[str] = "text classification"

    label_smoothing: LabelSmoothing = 0.0
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="balanced: rare labels weigh more (labels only)."
    )


class TextClassificationConfig(ClassificationConfig):
    """Fine-tuning of a classifier that gives a single text one label.

    Parameters
    ----------
    wide: a linear model over counted n-grams beside the Transformer, fitted after it (see `lucidlm.model.ngrams`). None:
        beside what was pretrained here.
    """

    wide: bool | None = Field(
        default=None, description="Add a linear model over counted n-grams (one label a text only)."
    )

    def for_model(self, loaded: LoadedModel) -> Self:
        return super().for_model(loaded).changed(wide=pretrained_here(loaded) if self.wide is None else self.wide)


class TextGenerationConfig(FinetuneConfig):
    """Fine-tuning of a model that writes: translation, summarization, dialogue and the like."""

    kind: ClassVar[str] = "text generation"

    label_smoothing: LabelSmoothing = 0.0


class QuestionAnsweringConfig(FinetuneConfig):
    """Fine-tuning of a reader that marks answers in a text.

    To point at a place in a text is learned slowly: with 607 questions and those made of other text MiniLM came to an F1 of
    43 on 151 held-out ones in 635 steps, and to 57 in 1,270.
    """

    kind: ClassVar[str] = "question answering"
    enough_steps: ClassVar[int] = 1500

    batch_size: int = Field(default=16, ge=1, description="Examples a step.")

    label_smoothing: LabelSmoothing = 0.0
    synthetic: str | None = Field(default=None, description="Plain text to make questions from first (questions only).")


class TokenTaggingConfig(FinetuneConfig):
    """Fine-tuning of a tagger of words, which marks named entities."""

    kind: ClassVar[str] = "token tagging"

    label_smoothing: LabelSmoothing = 0.0


class RetrievalConfig(FinetuneConfig):
    """Fine-tuning of embeddings: search and recommendation."""

    kind: ClassVar[str] = "search and recommendation"

    pooling: TextPooling = None
    temperature: float = Field(default=0.05, gt=0, description="Of the softmax over similarities (embeddings only).")

    def for_model(self, loaded: LoadedModel) -> Self:
        own = getattr(loaded.model, "sentence", None) is not None  # sentence-transformers made it: its own way stays
        pooling = self.pooling or (None if own else usual_pooling(loaded.model.config))
        return super().for_model(loaded).changed(pooling=pooling)


KINDS = (
    ClassificationConfig,
    TextClassificationConfig,
    RegressionConfig,
    TextGenerationConfig,
    QuestionAnsweringConfig,
    TokenTaggingConfig,
    RetrievalConfig,
)


def config_class(task: str) -> type[FinetuneConfig]:
    """Return the class of the settings of a task; `FinetuneConfig` for one that nothing is trained for.

    Raises
    ------
    InputError: there is no such task.
    """
    # Tasks need torch, which a command's help is not to wait for.
    from lucidlm.tasks import tasks
    from lucidlm.tasks.base.retrieval import Retrieval
    from lucidlm.tasks.base.text_generation import TextGeneration
    from lucidlm.tasks.multi_label import MultiLabelClassification
    from lucidlm.tasks.question_answering import QuestionAnswering
    from lucidlm.tasks.sentence_pairs import PairClassification, Similarity
    from lucidlm.tasks.text_classification import TextClassification
    from lucidlm.tasks.token_tagging import TokenTagging

    found, pairs_or_several = tasks.get(task), (PairClassification, MultiLabelClassification)
    kinds = (
        pairs_or_several,
        TextClassification,
        Similarity,
        TextGeneration,
        QuestionAnswering,
        TokenTagging,
        Retrieval,
    )
    return next((config for config, kind in zip(KINDS, kinds, strict=True) if isinstance(found, kind)), FinetuneConfig)


def pretrained_here(loaded: LoadedModel) -> bool:
    """Return whether the model, or the one that it was tuned from, was pretrained by lucidlm."""
    provenance = loaded.record["provenance"]
    return provenance.get("pretrained_here", "config" in provenance)


def optimizer_of(loaded: LoadedModel) -> OptimizerName:
    """Return the optimizer that last updated the weights of a model that was trained here."""
    config = loaded.record["provenance"].get("config", {})
    return config.get("loop", {}).get("optimizer", {}).get("name") or "muon"


def usual_pooling(shape: ModelConfig) -> Pooling:
    """Return how a text is pooled where nothing else is asked for (see `TextPooling`)."""
    return "first" if shape.token_types else "mean"


def adamw_rate(shape: ModelConfig, tuning: Tuning) -> float:
    """Return AdamW's rate for a model made elsewhere: the smaller, the larger the model.

    For all weights of a model of 100 M parameters 5e-5 if it is bidirectional, as BERT's authors advise, and 1.75e-4 if it
    is causal: SmolLM2 learned from 600 sentences in two epochs at 1.5e-4 what it did not at 8.6e-5, and still less at
    4.3e-5. And so on by the root of the size, from 2e-4 to 1e-5. Adapters and heads start from nothing and take twenty
    times as much, but 1e-3 at most.
    """
    usual = 1.75e-4 if shape.causal else 5e-5
    rate = min(2e-4, max(1e-5, usual * math.sqrt(1e8 / count_parameters(shape))))
    return rate if tuning == "full" else min(1e-3, 20 * rate)
