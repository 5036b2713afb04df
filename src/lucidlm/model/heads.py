"""What is put on top of the Transformer: next or masked token, sequence class, answer span."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lucidlm.core.seeds import torch_generator
from lucidlm.model.attention import LayerCache
from lucidlm.model.config import ModelConfig
from lucidlm.model.loss import IGNORED, token_losses
from lucidlm.model.transformer import Transformer, initialise

Pooling = Literal["last", "mean"]


class LanguageModel(nn.Module):
    """A distribution over the vocabulary at every position: the next token (causal) or the masked one (bidirectional)."""

    def __init__(self, config: ModelConfig, seed: int | None = 0) -> None:
        """Build with fresh weights drawn from `seed`; None leaves them as they come, to be loaded."""
        super().__init__()
        self.config = config
        self.model = Transformer(config)
        tied = config.tied_embeddings
        self.lm_head = None if tied else nn.Linear(config.embedding_dim, config.vocab_size, bias=False)
        if seed is not None:
            initialise(self, config, torch_generator(seed, "weights"))

    @property
    def head(self) -> Tensor:
        """The output embedding (V, D)."""
        return self.model.embed_tokens.weight if self.lm_head is None else self.lm_head.weight

    def forward(
        self,
        tokens: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        caches: Sequence[LayerCache] | None = None,
    ) -> Tensor:
        """Return logits (B, T, V) for `tokens` (B, T) int64; see `Transformer.forward` for the rest."""
        hidden = self.model(tokens, positions=positions, mask=mask, caches=caches)
        return functional.linear(hidden, self.head.to(hidden.dtype))

    def loss(self, tokens: Tensor, targets: Tensor, *, both_ways: bool = False) -> tuple[Tensor, Tensor]:
        """Return summed cross-entropy in nats and counted positions, for `tokens` and `targets` (B, T) int64.

        `both_ways` lets tokens of a causal model see those after them too.
        """
        switched = both_ways and self.config.causal
        everything = tokens.new_ones(1, 1, tokens.shape[1], dtype=torch.bool) if switched else None
        hidden = self.model(tokens, mask=everything)
        if both_ways or not self.config.causal:
            # Few positions of a masked batch count, so only those go through the head, the widest product of all.
            counted = targets != IGNORED
            hidden, targets = hidden[counted][None], targets[counted][None]
        return token_losses(hidden, self.head, targets)


def text_states(backbone: Transformer, tokens: Tensor, lengths: Tensor, pooling: Pooling) -> Tensor:
    """Return one state (B, D) a text: the "last" token's, or the "mean" of all.

    `tokens` (B, T) int64 are padded on the right to T from `lengths` (B,) int64.
    """
    within = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
    # What pads the right is invisible to causal attention anyway, and to any where nothing is padded.
    hidden = backbone(tokens, mask=None if backbone.config.causal else within[:, None])  # (B, T, D)
    if pooling == "last":
        return hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
    return (hidden * within[..., None]).sum(1) / lengths[:, None]


class SequenceClassifier(nn.Module):
    """One class for a whole text.

    Causal backbones have a linear `score`, as transformers' Qwen3ForSequenceClassification; bidirectional ones the dense
    layer, GELU and `classifier` of EuroBertForSequenceClassification.

    Parameters
    ----------
    pooling: read the class from the "last" token's state (transformers' way for causal models), or from the "mean".
    """

    def __init__(self, config: ModelConfig, labels: Sequence[str], pooling: Pooling, seed: int | None = 0) -> None:
        super().__init__()
        self.config, self.labels = config, list(labels)
        self.pooling: Pooling = pooling
        self.model = Transformer(config)
        self.dropout = nn.Dropout(config.dropout)
        width = config.embedding_dim
        if config.causal:
            self.score = nn.Linear(width, len(self.labels), bias=False)
        else:
            self.dense = nn.Linear(width, width)
            self.classifier = nn.Linear(width, len(self.labels))
        if seed is not None:
            initialise(self, config, torch_generator(seed, "weights"))

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return logits (B, labels) for `tokens` (B, T) int64, padded on the right to T from `lengths` (B,) int64."""
        pooled = self.dropout(text_states(self.model, tokens, lengths, self.pooling))
        if self.config.causal:
            return self.score(pooled)
        return self.classifier(functional.gelu(self.dense(pooled)))


class SpanExtractor(nn.Module):
    """Where in the text an answer starts and where it ends; named as transformers' Qwen3ForQuestionAnswering."""

    def __init__(self, config: ModelConfig, seed: int | None = 0) -> None:
        super().__init__()
        self.config = config
        self.transformer = Transformer(config)
        self.qa_outputs = nn.Linear(config.embedding_dim, 2)
        if seed is not None:
            initialise(self, config, torch_generator(seed, "weights"))

    def forward(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return start and end logits, each (B, T), minus infinity past `lengths` (B,); `tokens` (B, T) int64."""
        within = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
        hidden = self.transformer(tokens, mask=None if self.config.causal else within[:, None])
        start, end = self.qa_outputs(hidden).masked_fill(~within[..., None], float("-inf")).unbind(-1)
        return start, end


Model = LanguageModel | SequenceClassifier | SpanExtractor
