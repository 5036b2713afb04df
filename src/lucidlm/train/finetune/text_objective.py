"""Learning to write: cross-entropy of the tokens that are the model's to write, given the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.checkpoint.directory import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Example
from lucidlm.data.split import Split
from lucidlm.model.heads import LanguageModel
from lucidlm.predict.text_generator import Lengths, SequenceWriter, TeacherForcing, prefix_mask, teacher_forcing
from lucidlm.tasks.base.text_generation import TextGeneration
from lucidlm.tokenize.embedding_rows import padding
from lucidlm.tokenize.prompts import TokenizedExample
from lucidlm.train.finetune.backbone import pretrained_backbone
from lucidlm.train.finetune.config import FinetuneConfig
from lucidlm.train.finetune.objective import TaskObjective

JUDGED = 200
"""Validation examples that texts are written for, greedily, to choose the best weights by; the loss is that of all."""


@dataclass(slots=True)
class SequenceBatch:
    """Sequences and, where their prompts are read both ways, what each token sees, (B, T, T)."""

    inputs: TeacherForcing
    mask: Tensor | None


class SequenceObjective(TaskObjective[Example, SequenceBatch]):
    """Cross-entropy of what is to be written.

    With `attention: bidirectional` the tokens before the first one to be written see each other. Of a sequence longer
    than the model reads, training takes another stretch each time.
    """

    measures_loss: ClassVar[bool] = True

    @classmethod
    def build(
        cls,
        config: FinetuneConfig,
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
        model = LanguageModel(shape, seed=None)
        model.load_state_dict(loaded.model.state_dict())
        assert isinstance(loaded.model, LanguageModel)
        model.generation = loaded.model.generation
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
        return self._batch([self._stretch(self.tokenized[row], generator) for row in rows])

    def _stretch(self, one: TokenizedExample, generator: np.random.Generator) -> TokenizedExample:
        """Return as much of a sequence as fits: all of it, or another stretch each time."""
        if len(one.ids) <= self.max_tokens + 1:
            return one
        return one.window(int(generator.integers(len(one.ids) - self.max_tokens)), self.max_tokens + 1)

    def _batch(self, tokenized: Sequence[TokenizedExample]) -> SequenceBatch:
        device = next(self.model.parameters()).device
        inputs = teacher_forcing(tokenized, padding(self.tokenizer, self.writer.model.config.vocab_size)).to(device)
        mask = None
        if self.writer.bidirectional:
            prefixes = torch.tensor([one.prefix for one in tokenized], device=device)
            mask = prefix_mask(prefixes, inputs.tokens.shape[1])
        return SequenceBatch(inputs, mask)

    def counted(self, batch: SequenceBatch) -> int:
        return len(batch.inputs.targets)

    def tokens(self, batch: SequenceBatch) -> int:
        return batch.inputs.read

    def loss(self, model: nn.Module, batch: SequenceBatch) -> Tensor:
        assert isinstance(model, LanguageModel)
        hidden = model.model(batch.inputs.tokens, mask=batch.mask)
        # Only what is to be written goes through the head, the widest product of all.
        hidden = hidden.flatten(0, 1).index_select(0, batch.inputs.places)
        total, _ = model.cross_entropy(hidden[None], batch.inputs.targets[None], self.config.label_smoothing)
        return total

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Judge what the model writes for some of the validation examples, and its loss on all of them."""
        if not self.validation:
            return {}
        chosen = numpy_generator(0, "judged").permutation(len(self.validation))[:JUDGED]
        examples = [self.validation[row] for row in sorted(chosen)]
        beams, self.writer.beams = self.writer.beams, 1
        try:
            answers = self.writer.predict(examples)
        finally:
            self.writer.beams = beams
        tokenized = self.writer.tokenize(self.validation)
        loss = sum(self.writer.costs(tokenized)) / max(1, sum(int(one.counted.sum()) for one in tokenized))
        metrics = {f"validation_{metric.name}": metric(examples, answers) for metric in self.task.metrics(examples)}
        return {**metrics, "validation_loss": loss}

    def provenance(self) -> dict[str, Any]:
        """Return the form of the prompt and the length of answers, which prediction needs."""
        assert isinstance(self.task, TextGeneration)
        return {"writing": {"settings": self.task.settings(), "lengths": asdict(self.writer.lengths)}}

    def report(self) -> list[str]:
        assert isinstance(self.task, TextGeneration)
        said = list(self.task.doubts(self.train))
        if cut := sum(one.left_out > 0 for one in self.tokenized):
            said.append(f"{cut:,} examples do not fit into {self.max_tokens:,} tokens: their prompts are shortened")
        if long := sum(len(one.ids) > self.max_tokens + 1 for one in self.tokenized):
            said.append(
                f"{long:,} texts are longer than {self.max_tokens:,} tokens: learned in stretches of that length"
            )
        return said
