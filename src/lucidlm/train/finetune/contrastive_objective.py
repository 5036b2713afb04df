"""Contrastive learning of embeddings: a query is drawn to its positive item, away from the batch's other items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.examples.records import Match
from lucidlm.data.split import Split
from lucidlm.model.heads import LanguageModel
from lucidlm.model.pooling import SentenceSettings
from lucidlm.predict.batching import cut_by_length, pad
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.tasks.base.retrieval import Ranker, Retrieval
from lucidlm.train.finetune.backbone import backbone_config, language_model, pretrained_backbone
from lucidlm.train.finetune.config import RetrievalConfig
from lucidlm.train.finetune.objective import TaskObjective, random_window

HISTORY = 16
"""Most texts of a history that one step reads; of a longer history a random sample."""


@dataclass
class TextParts:
    """Texts in parts of like length.

    Parameters
    ----------
    parts: token ids (n, T) int64 of each part, padded on the right, and their lengths (n,).
    places: (N,) int64, where each text stands in the parts, one after another.
    """

    parts: list[tuple[Tensor, Tensor]]
    places: Tensor


@dataclass
class ContrastiveBatch:
    """Queries and their positive items.

    Parameters
    ----------
    queries: the H texts of all queries (a history has several).
    owners: (H,) int64, the example that each text belongs to, from 0 to B - 1.
    items: the positive item of each of the B examples.
    also_right: (B, B) bool, other examples' items that are no negatives of a query.
    """

    queries: TextParts
    owners: Tensor
    items: TextParts
    also_right: Tensor


class ContrastiveObjective(TaskObjective[RetrievalConfig, Match, ContrastiveBatch]):
    """Cross-entropy of the positive item among all of the batch, and of its query among all (InfoNCE both ways).

    van den Oord et al. 2018 (arXiv:1807.03748) and Radford et al. 2021 (arXiv:2103.00020): logits are cosines divided
    by `temperature`, and the loss is the mean of both ways. Two examples of a batch are no negatives of each other if they
    share query or item, or one's item is in the other's history. A text without a query is its own positive: it is read
    twice, under different dropout (SimCSE, Gao et al. 2021, arXiv:2104.08821). Training reads a random window of a text
    that is longer than the model's context; prediction reads all its windows.
    """

    @classmethod
    def build(
        cls,
        config: RetrievalConfig,
        task: Retrieval,
        loaded: LoadedModel,
        examples: dict[Split, list[Match]],
        device: torch.device,
    ) -> Self:
        """Take the pretrained model as it is: its states, pooled, are the vectors.

        Raises
        ------
        InputError: a batch would hold one example, so no negatives; or no text has a query and there is no dropout, so
            that both readings of a text are the same.
        """
        backbone, tokenizer = pretrained_backbone(loaded, config.model)
        if min(config.batch_size, len(examples["train"])) < 2:
            place, fix = (
                ("batch_size", "Pass 2 or more.") if config.batch_size < 2 else (config.data, "Pass more data.")
            )
            raise InputError("items are learned by telling them from the others of a batch", where=place, fix=fix)
        shape = backbone_config(backbone.config, config)
        if not shape.dropout and all(has_no_query(example) for example in examples["train"]):
            raise InputError(
                "without queries a text is learned from two readings under dropout, and there is none",
                where="dropout",
                fix="Pass 0.1, or data with queries.",
            )
        model = language_model(loaded, shape)
        assert isinstance(loaded.model, LanguageModel)
        sentence = loaded.model.sentence if config.pooling is None else None
        if sentence is not None:
            if any(sentence.prompts.values()):
                names = ", ".join(sentence.prompts)
                log(f"{config.model}: its prompts ({names}) are left out, in tuning and afterwards")
            length = config.max_length or shape.context_length
            sentence = SentenceSettings(sentence.poolings, max_length=length, lower=sentence.lower)
        pooling = config.pooling or "mean"
        embedder = TextEmbedder.from_model(model.to(device), tokenizer, pooling, config.max_length, sentence=sentence)
        return cls(config, task, examples, model, tokenizer, Ranker(embedder, task.again))

    def encode(self, examples: Sequence[Match]) -> list[int]:
        assert isinstance(self.predictor, Ranker)
        self.embedder = self.predictor.embedder
        texts = list(dict.fromkeys(chain.from_iterable((*example.query, example.item) for example in examples)))
        self.ids = dict(zip(texts, self.embedder.encode(texts), strict=True))
        return [sum(self._length(text) for text in (*one.query[:HISTORY], one.item)) for one in examples]

    def _length(self, text: str) -> int:
        return min(len(self.ids[text]), self.embedder.max_tokens) + 1

    def micro_batches(self, rows: np.ndarray, step: int) -> list[ContrastiveBatch]:
        """Return the whole batch, whose examples are each other's negatives; its texts are read in parts."""
        return [self.collate(rows, numpy_generator(self.config.loop.seed, "batch", step))]

    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> ContrastiveBatch:
        batch = [self.train[row] for row in rows]
        histories = [self._drawn(example.query, generator) for example in batch]
        queries = self._read(list(chain.from_iterable(histories)), generator)
        items = self._read([example.item for example in batch], generator)
        owners = torch.from_numpy(np.repeat(np.arange(len(batch)), [len(history) for history in histories]))
        also_right = torch.tensor([[one is not other and _agree(one, other) for other in batch] for one in batch])
        return ContrastiveBatch(queries, owners.to(self.device), items, also_right.to(self.device))

    def _drawn(self, query: tuple[str, ...], generator: np.random.Generator) -> tuple[str, ...]:
        if len(query) <= HISTORY:
            return query
        return tuple(query[place] for place in sorted(generator.choice(len(query), HISTORY, replace=False)))

    def _read(self, texts: Sequence[str], generator: np.random.Generator) -> TextParts:
        """Return the tokens of `texts`: a random window of each that does not fit."""
        max_tokens = self.embedder.max_tokens
        windows = [self.embedder.window(random_window(self.ids[text], max_tokens, generator)) for text in texts]
        cuts = cut_by_length(np.array([len(ids) for ids in windows]), self.device)
        padded = [pad([windows[row] for row in rows], self.padding_id) for rows in cuts]
        parts = [(tokens.to(self.device), lengths.to(self.device)) for tokens, lengths in padded]
        return TextParts(parts, torch.from_numpy(np.argsort(np.concatenate(cuts))).to(self.device))

    def counted(self, batch: ContrastiveBatch) -> int:
        return len(batch.items.places)

    def tokens(self, batch: ContrastiveBatch) -> int:
        return sum(int(lengths.sum()) for texts in (batch.queries, batch.items) for _, lengths in texts.parts)

    def _vectors(self, model: LanguageModel, texts: TextParts) -> Tensor:
        """Return each text's vector, fp32 (N, D), of length one."""
        found = [self.embedder.sentence.states(model.model, *part).float() for part in texts.parts]
        return functional.normalize(torch.cat(found)[texts.places], dim=-1)

    def loss(self, model: nn.Module, batch: ContrastiveBatch) -> Tensor:
        assert isinstance(model, LanguageModel)
        read, items = self._vectors(model, batch.queries), self._vectors(model, batch.items)
        sums = torch.zeros_like(items).index_add(0, batch.owners, read)
        with torch.autocast(items.device.type, enabled=False):
            logits = functional.normalize(sums, dim=-1) @ items.T / self.config.temperature  # (B, B)
        logits = logits.masked_fill(batch.also_right, float("-inf"))
        right = torch.arange(len(items), device=items.device)
        there, back = (functional.cross_entropy(way, right, reduction="sum") for way in (logits, logits.T))
        return (there + back) / 2

    def save_extras(self, directory: Path) -> None:
        self.embedder.describe_to_sentence_transformers(directory)

    def report(self) -> list[str]:
        max_tokens, lines = self.embedder.max_tokens, []
        if alone := sum(has_no_query(example) for example in self.train):
            lines.append(f"{alone:,} texts have no query: each is its own positive, read under other dropout")
        if long := self.embedder.long(list(self.ids.values())):
            lines.append(f"{long:,} texts are longer than {max_tokens:,} tokens: read in stretches of that length")
        if many := sum(len(example.query) > HISTORY for example in self.train):
            lines.append(f"{many:,} histories have more than {HISTORY} items: that many of them are read at a time")
        return lines


def has_no_query(example: Match) -> bool:
    """Return whether the text is its own query."""
    return example.query == (example.item,)


def _agree(one: Match, other: Match) -> bool:
    """Return whether neither item is a negative of the other example's query."""
    same = one.item == other.item or one.query == other.query
    return same or other.item in one.query or one.item in other.query
