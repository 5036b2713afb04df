"""How a model's states become the vector of a text: poolings, prompts, lengths.

As in Sentence-BERT (Reimers and Gurevych 2019, arXiv:1908.10084).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from lucidlm.model.transformer import Transformer

Purpose = Literal["query", "document"]
PROMPTS_FOR: dict[Purpose, tuple[str, ...]] = {"query": ("query",), "document": ("document", "passage", "corpus")}
"""What prompts are called that are for queries and for what is searched, the first that is there being taken."""


def _last(hidden: Tensor, within: Tensor) -> Tensor:
    return hidden[torch.arange(len(hidden), device=hidden.device), within.sum(1) - 1]


def _mean(hidden: Tensor, within: Tensor) -> Tensor:
    return (hidden * within[..., None]).sum(1) / within.sum(1, keepdim=True)


def _weighted_mean(hidden: Tensor, within: Tensor) -> Tensor:
    """Each state weighs as much as its place, from 1 (Muennighoff 2022, arXiv:2202.08904)."""
    weights = within * torch.arange(1, within.shape[1] + 1, device=within.device)
    return (hidden * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)


POOLINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": lambda hidden, within: hidden[:, 0],
    "max": lambda hidden, within: hidden.masked_fill(~within[..., None], float("-inf")).amax(1),
    "mean": _mean,
    "mean_sqrt_len_tokens": lambda hidden, within: _mean(hidden, within) * within.sum(1, keepdim=True).sqrt(),
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}
"""Of hidden states (B, T, D) and which of the tokens are a text's (B, T), the texts' states (B, D); in the order in which
several stand in one vector."""


@dataclass(frozen=True)
class SentenceSettings:
    """How texts become vectors.

    Parameters
    ----------
    poolings: names from `POOLINGS`; of several the vector holds one after another.
    normalize: whether vectors are brought to length one.
    max_length: the most tokens that are read at once; None: the model's context.
    lower: whether texts are put into lower case first, whatever the tokenizer does.
    prompts: texts that are put before others, by their names; `default` names the one where no other is for it.
    similarity: how vectors are compared, in sentence-transformers' words.
    refused: why nothing can be embedded by these settings here, if so.
    """

    poolings: tuple[str, ...] = ("mean",)
    normalize: bool = True
    max_length: int | None = None
    lower: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default: str | None = None
    similarity: str = "cosine"
    refused: str | None = None

    def prompt(self, purpose: Purpose | None) -> str:
        """Return what is put before a text."""
        names = (*(PROMPTS_FOR[purpose] if purpose else ()), self.default or "")
        return next((self.prompts[name] for name in names if name in self.prompts), "")

    def states(self, backbone: Transformer, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the texts' states (B, poolings * D); `tokens` (B, T) are padded on the right from `lengths` (B,)."""
        within = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]  # (B, T)
        # What pads the right is invisible to causal attention anyway.
        hidden = backbone(tokens, mask=None if backbone.config.causal else within[:, None])  # (B, T, D)
        return torch.cat([POOLINGS[name](hidden, within) for name in self.poolings], dim=-1)
