"""Fine-tuning for generation: cross-entropy of the target tokens, given the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Example
from lucidlm.data.split import Split
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.sequence_writer import Lengths, SequenceWriter, TeacherForcing, prefix_mask, teacher_forcing
from lucidlm.tasks.base.text_generation import TextGeneration
from lucidlm.tokenize.prompts import TokenizedExample
from lucidlm.train.finetune.backbone import language_model, pretrained_backbone
from lucidlm.train.finetune.config import TextGenerationConfig
from lucidlm.train.finetune.objective import TaskObjective

JUDGED = 200
"""Validation examples that texts are generated for, greedily; the loss is measured on all of them."""


@dataclass(slots=True)
class SequenceBatch:
    """Sequences and, if attention over their prompts is bidirectional, the attention mask (B, T, T)."""

    inputs: TeacherForcing
    mask: Tensor | None


class SequenceObjective(TaskObjective[TextGenerationConfig, Example, SequenceBatch]):
    """Cross-entropy of the target tokens.

    With `attention: bidirectional` the tokens before the first target attend to each other (a prefix language model).
    Training reads a random window of a sequence that is longer than the model's context.
    """

    measures_loss: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        config: TextGenerationConfig,
        task: TextGeneration[Any],
        loaded: LoadedModel,
        examples: dict[Split, list[Any]],
        device: torch.device,
    ) -> Self:
        """Take the pretrained model as it is, head included.

        Raises
        ------
        InputError: it is no causal language model, or its tokenizer lacks what the task needs.
        """
        backbone, tokenizer = pretrained_backbone(loaded, config.model)
        if not backbone.config.causal:
            raise InputError(
                "is a masked language model, which fills gaps and does not write",
                where=config.model,
                fix="Pass a causal one.",
            )
        shape = backbone.config if config.dropout is None else backbone.config.changed(dropout=config.dropout)
        model = language_model(loaded, shape)
        tokenizer = task.prepare_tokenizer(tokenizer)
        max_tokens = config.max_length or shape.context_length
        bidirectional = config.attention == "bidirectional"
        writer = task.writer(
            model.to(device), tokenizer, max_tokens, Lengths(1.0, max_tokens), bidirectional=bidirectional
        )
        return cls(config, task, examples, model, tokenizer, writer)

    def encode(self, examples: Sequence[Any]) -> list[int]:
        assert isinstance(self.predictor, SequenceWriter)
        self.writer = self.predictor
        self.max_tokens = self.writer.max_tokens
        self.tokenized = self.writer.tokenize(examples)
        self.writer.lengths = Lengths.learnt(self.tokenized)
        return [min(len(one.ids) - 1, self.max_tokens) for one in self.tokenized]

    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> SequenceBatch:
        return self._batch([self._window(self.tokenized[row], generator) for row in rows])

    def _window(self, one: TokenizedExample, generator: np.random.Generator) -> TokenizedExample:
        """Return all of a sequence if it fits, else a random window of it."""
        if len(one.ids) <= self.max_tokens + 1:
            return one
        return one.window(int(generator.integers(len(one.ids) - self.max_tokens)), self.max_tokens + 1)

    def _batch(self, tokenized: Sequence[TokenizedExample]) -> SequenceBatch:
        inputs = teacher_forcing(tokenized, self.padding_id).to(self.device)
        mask = None
        if self.writer.bidirectional:
            prefixes = torch.tensor([one.prefix for one in tokenized], device=self.device)
            mask = prefix_mask(prefixes, inputs.tokens.shape[1])
        return SequenceBatch(inputs, mask)

    def counted(self, batch: SequenceBatch) -> int:
        return len(batch.inputs.targets)

    def tokens(self, batch: SequenceBatch) -> int:
        return batch.inputs.read

    def loss(self, model: nn.Module, batch: SequenceBatch) -> Tensor:
        assert isinstance(model, LanguageModel)
        hidden = model.model(batch.inputs.tokens, mask=batch.mask)
        # Only the targets' states go through the head, the widest product of all.
        hidden = hidden.flatten(0, 1).index_select(0, batch.inputs.places)
        total, _ = model.cross_entropy(hidden[None], batch.inputs.targets[None], self.config.label_smoothing)
        return total

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the metrics of texts generated for some validation examples, and the mean loss on all of them."""
        if not self.validation:
            return {}
        chosen = numpy_generator(0, "judged").permutation(len(self.validation))[:JUDGED]
        examples = [self.validation[row] for row in sorted(chosen)]
        beams, self.writer.beams = self.writer.beams, 1
        try:
            answers = self.predictions(examples)
        finally:
            self.writer.beams = beams
        tokenized = self.writer.tokenize(self.validation)
        loss = sum(self.ranks.map(self.writer.costs, tokenized)) / max(
            1, sum(int(one.counted.sum()) for one in tokenized)
        )
        return {**self.score(examples, answers), "validation_loss": loss}

    def provenance(self) -> dict[str, Any]:
        """Return the prompt format and the lengths of answers, which prediction needs."""
        assert isinstance(self.task, TextGeneration)
        return {"writing": {"settings": self.task.settings(), "lengths": asdict(self.writer.lengths)}}

    def report(self) -> list[str]:
        assert isinstance(self.task, TextGeneration)
        lines = list(self.task.doubts(self.train))
        if cut := sum(one.left_out > 0 for one in self.tokenized):
            lines.append(f"{cut:,} examples do not fit into {self.max_tokens:,} tokens: their prompts are shortened")
        if long := sum(len(one.ids) > self.max_tokens + 1 for one in self.tokenized):
            lines.append(
                f"{long:,} texts are longer than {self.max_tokens:,} tokens: learned in stretches of that length"
            )
        return lines
