"""Learning vectors by contrast: what is sought with comes close to its item, and away from the others of the batch."""

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

from lucidlm.checkpoint.directory import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.data.examples.records import Match
from lucidlm.data.split import Split
from lucidlm.model.heads import LanguageModel
from lucidlm.model.pooling import SentenceSettings
from lucidlm.predict.classifier import pad
from lucidlm.predict.embedder import TextEmbedder
from lucidlm.tasks.base.retrieval import Ranker, Retrieval
from lucidlm.tokenize.embedding_rows import padding
from lucidlm.train.finetune.backbone import backbone_config, pretrained_backbone
from lucidlm.train.finetune.config import RetrievalConfig
from lucidlm.train.finetune.objective import TaskObjective

HISTORY = 16
"""Most texts of a history that are read in one step; of a longer one others each time."""


@dataclass
class MatchBatch:
    """What is sought with, and the items.

    Parameters
    ----------
    queries, query_lengths: the texts of all histories, (H, T) int64 padded on the right, and their lengths (H,).
    owners: (H,) int64, whose history each text belongs to, from 0 to B - 1.
    items, item_lengths: the items in the order of their owners, (B, T') int64, and their lengths (B,).
    also_right: (B, B) bool, items that are no wrong answer to another's query.
    """

    queries: Tensor
    query_lengths: Tensor
    owners: Tensor
    items: Tensor
    item_lengths: Tensor
    also_right: Tensor


class MatchObjective(TaskObjective[RetrievalConfig, Match, MatchBatch]):
    """Cross-entropy of the right item among all of the batch, and of the right query among all (InfoNCE both ways).

    van den Oord et al. 2018 (arXiv:1807.03748) and Radford et al. 2021 (arXiv:2103.00020): logits are cosines divided
    by `temperature`, and the loss is the mean of both ways. Where two examples of a batch share query or item, or one's
    item is in the other's history, neither is held against the other. A text that is sought with itself is read twice,
    under different dropout (SimCSE, Gao et al. 2021, arXiv:2104.08821). Of a text longer than the model reads, training
    takes another stretch each time, while judging reads all of it, in windows.
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
        InputError: a batch would hold one example, so nothing to tell it from; or texts are to be told from themselves
            without dropout, which makes both readings the same.
        """
        backbone, tokenizer = pretrained_backbone(loaded, config.model)
        if min(config.batch_size, len(examples["train"])) < 2:
            place, fix = (
                ("batch_size", "Pass 2 or more.") if config.batch_size < 2 else (config.data, "Pass more data.")
            )
            raise InputError("items are learned by telling them from the others of a batch", where=place, fix=fix)
        shape = backbone_config(backbone.config, config)
        if not shape.dropout and all(stands_for_itself(example) for example in examples["train"]):
            raise InputError(
                "without queries a text is learned from two readings under dropout, and there is none",
                where="dropout",
                fix="Pass 0.1, or data with queries.",
            )
        model = LanguageModel(shape, seed=None)
        model.load_state_dict(loaded.model.state_dict())
        assert isinstance(loaded.model, LanguageModel)
        model.generation = loaded.model.generation
        said = loaded.model.sentence if config.pooling is None else None
        if said is not None:
            if any(said.prompts.values()):
                log(f"{config.model}: its prompts ({', '.join(said.prompts)}) are left out, in tuning and afterwards")
            length = config.max_length or shape.context_length
            said = SentenceSettings(said.poolings, max_length=length, lower=said.lower)
        embedder = TextEmbedder(model.to(device), tokenizer, config.pooling or "mean", config.max_length, sentence=said)
        return cls(config, task, examples, model, tokenizer, Ranker(embedder, task.again))

    def encode(self, examples: Sequence[Match]) -> list[int]:
        assert isinstance(self.predictor, Ranker)
        self.embedder = self.predictor.embedder
        texts = list(dict.fromkeys(chain.from_iterable((*example.query, example.item) for example in examples)))
        self.ids = dict(zip(texts, self.embedder.encode(texts), strict=True))
        return [sum(self._length(text) for text in (*one.query[:HISTORY], one.item)) for one in examples]

    def _length(self, text: str) -> int:
        return min(len(self.ids[text]), self.embedder.max_tokens) + 1

    def collate(self, rows: np.ndarray, generator: np.random.Generator) -> MatchBatch:
        batch = [self.train[row] for row in rows]
        histories = [self._drawn(example.query, generator) for example in batch]
        queries, query_lengths = self._read(list(chain.from_iterable(histories)), generator)
        items, item_lengths = self._read([example.item for example in batch], generator)
        owners = np.repeat(np.arange(len(batch)), [len(history) for history in histories])
        also_right = [[one is not other and _agree(one, other) for other in batch] for one in batch]
        device = next(self.model.parameters()).device
        made = (queries, query_lengths, torch.from_numpy(owners), items, item_lengths, torch.tensor(also_right))
        return MatchBatch(*(tensor.to(device) for tensor in made))

    def _drawn(self, query: tuple[str, ...], generator: np.random.Generator) -> tuple[str, ...]:
        if len(query) <= HISTORY:
            return query
        return tuple(query[place] for place in sorted(generator.choice(len(query), HISTORY, replace=False)))

    def _read(self, texts: Sequence[str], generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return token ids (n, T), padded, and lengths (n,): of each text what fits, another stretch each time."""
        max_tokens, windows = self.embedder.max_tokens, []
        for ids in (self.ids[text] for text in texts):
            start = generator.integers(len(ids) - max_tokens + 1) if len(ids) > max_tokens else 0
            windows.append(self.embedder.window(ids[start : start + max_tokens]))
        return pad(windows, padding(self.tokenizer, self.embedder.model.config.vocab_size))

    def counted(self, batch: MatchBatch) -> int:
        return len(batch.items)

    def tokens(self, batch: MatchBatch) -> int:
        return int(batch.query_lengths.sum() + batch.item_lengths.sum())

    def loss(self, model: nn.Module, batch: MatchBatch) -> Tensor:
        assert isinstance(model, LanguageModel)
        states = self.embedder.sentence.states
        read = functional.normalize(states(model.model, batch.queries, batch.query_lengths).float(), dim=-1)
        items = functional.normalize(states(model.model, batch.items, batch.item_lengths).float(), dim=-1)
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
        if alone := sum(stands_for_itself(example) for example in self.train):
            lines.append(f"{alone:,} texts have no query: each is sought with itself, read under other dropout")
        if long := self.embedder.long(list(self.ids.values())):
            lines.append(f"{long:,} texts are longer than {max_tokens:,} tokens: read in stretches of that length")
        if many := sum(len(example.query) > HISTORY for example in self.train):
            lines.append(f"{many:,} histories have more than {HISTORY} items: that many of them are read at a time")
        return lines


def stands_for_itself(example: Match) -> bool:
    """Return whether a text is sought with itself."""
    return example.query == (example.item,)


def _agree(one: Match, other: Match) -> bool:
    """Return whether `other`'s item is no wrong answer to `one`'s query, nor the other way round."""
    same = one.item == other.item or one.query == other.query
    return same or other.item in one.query or one.item in other.query
