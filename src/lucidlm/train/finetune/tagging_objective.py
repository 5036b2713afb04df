"""Fine-tuning for token tagging: cross-entropy of the tag of each word's first token, with a new head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.data.examples.bio import entities
from lucidlm.data.examples.records import TaggedSentence
from lucidlm.data.split import Split
from lucidlm.model.heads import TokenClassifier
from lucidlm.predict.batching import pad
from lucidlm.predict.token_tagger import EncodedWords, TokenTagger
from lucidlm.tasks.token_tagging import TokenTagging
from lucidlm.train.finetune.backbone import backbone_config, pretrained_backbone
from lucidlm.train.finetune.config import TokenTaggingConfig
from lucidlm.train.finetune.objective import TaskObjective, random_window

IGNORED = -100
"""The target of tokens that carry no tag, as transformers writes it."""


@dataclass
class TagBatch:
    """Token ids (B, T) int64 padded on the right, their lengths (B,), the numbers of their tags (B, T), `IGNORED` where a
    token has none, and how many have one."""

    tokens: Tensor
    lengths: Tensor
    targets: Tensor
    counted: int


class TaggingObjective(TaskObjective[TokenTaggingConfig, TaggedSentence, TagBatch]):
    """Cross-entropy of the words' tags; training reads a random window of a sentence that is longer than the model's."""

    head: ClassVar[tuple[str, ...]] = ("score", "classifier")

    @classmethod
    def build(
        cls,
        config: TokenTaggingConfig,
        task: TokenTagging,
        loaded: LoadedModel,
        examples: dict[Split, list[TaggedSentence]],
        device: torch.device,
    ) -> Self:
        """Put a new head on the pretrained backbone, whose attention is bidirectional by default.

        Raises
        ------
        InputError: the model cannot be used, or no training example has an entity.
        """
        backbone, tokenizer = pretrained_backbone(loaded, config.model)
        shape = backbone_config(backbone.config, config, bidirectional=True)
        model = TokenClassifier(shape, task.discover_labels(examples["train"]), seed=config.loop.seed)
        model.model.load_state_dict(backbone.state_dict())
        tagger = TokenTagger.from_model(model.to(device), tokenizer, config.max_length or shape.context_length)
        return cls(config, task, examples, model, tokenizer, tagger)

    def encode(self, examples: Sequence[TaggedSentence]) -> list[int]:
        assert isinstance(self.predictor, TokenTagger)
        self.tagger = self.predictor
        self.encoded = self.tagger.encode([example.tokens for example in examples])
        numbers = {label: number for number, label in enumerate(self.tagger.model.labels)}
        self.targets = [
            _targets(found, [numbers[tag] for tag in example.tags])
            for found, example in zip(self.encoded, examples, strict=True)
        ]
        return [min(len(found.ids), self.tagger.max_tokens) for found in self.encoded]

    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> TagBatch:
        before, after = ([IGNORED] * len(ids) for ids in (self.tokenizer.prefix, self.tokenizer.suffix))
        windows, targets = [], []
        for row in rows:
            both = np.stack([self.encoded[row].ids, self.targets[row]], axis=1)  # (tokens, 2)
            ids, tags = random_window(both, self.tagger.max_tokens, generator).T
            windows.append(np.array(self.tokenizer.whole(ids)))
            targets.append(np.array([*before, *tags, *after]))
        tokens, lengths, padded = (*pad(windows, self.padding_id), pad(targets, IGNORED)[0])
        counted = int((padded != IGNORED).sum())
        return TagBatch(tokens.to(self.device), lengths.to(self.device), padded.to(self.device), counted)

    def counted(self, batch: TagBatch) -> int:
        return max(1, batch.counted)  # a window may lie within a single word

    def tokens(self, batch: TagBatch) -> int:
        return int(batch.lengths.sum())

    def loss(self, model: nn.Module, batch: TagBatch) -> Tensor:
        logits = model(batch.tokens, batch.lengths).float()
        return functional.cross_entropy(
            logits.flatten(0, 1),
            batch.targets.flatten(),
            ignore_index=IGNORED,
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )

    def report(self) -> list[str]:
        lines = [f"types of entities {', '.join(self.tagger.types)}"]
        found = {kind for example in self.validation for kind, _, _ in entities(example.tags)}
        if strange := sorted(found - set(self.tagger.types)):
            lines.append(f"only the validation examples have entities of {', '.join(strange)}: they count as not found")
        if count := sum(len(found.ids) > self.tagger.max_tokens for found in self.encoded):
            lines.append(f"{count:,} sentences are longer than {self.tagger.max_tokens:,} tokens: read in windows")
        return lines


def _targets(encoded: EncodedWords, tags: Sequence[int]) -> np.ndarray:
    """Return the number of the tag of each token, (tokens,) int64: of words' first tokens, `IGNORED` for the others."""
    targets = np.full(len(encoded.ids), IGNORED)
    read = encoded.firsts >= 0
    targets[encoded.firsts[read]] = np.array(tags)[read]
    return targets
