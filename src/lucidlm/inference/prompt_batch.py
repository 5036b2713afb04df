"""Prompts in one batch: read once, then a new token a row at a time, with the cache underneath.

Prompts of unequal length are padded on the left, with positions and masks that make the padding invisible; prompts of
equal length need neither. A prefix of each prompt may see all of itself (prefix language models: Raffel et al. 2019,
arXiv:1910.10683, section 3.2); what follows it is causal.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from lucidlm.core.matmul import fast_matmul
from lucidlm.inference.kv_cache import KeyValueCache
from lucidlm.model.heads import LanguageModel

MANY = 64
"""Tokens read at once whose products are large ones."""


class PromptBatch:
    """Prompts on their way to texts, one row each.

    Parameters
    ----------
    prompts: token ids, none of them empty.
    prefixes: how many tokens at the beginning of each prompt attend to each other; None: none, all is causal.
    """

    def __init__(
        self, model: LanguageModel, prompts: Sequence[Sequence[int]], prefixes: Sequence[int] | None = None
    ) -> None:
        self.model = model
        self.caches = [KeyValueCache() for _ in range(model.config.num_layers)]
        device = model.head.device
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        self._tokens = torch.tensor(rows, device=device)
        self._padding = torch.tensor(padding, device=device)[:, None]  # (B, 1)
        self._prefixes = None if prefixes is None else torch.tensor(list(prefixes), device=device)[:, None]
        self._ragged = any(padding)

    def read(self) -> Tensor:
        """Let the model read the tokens that it has not; return the last one's hidden state, (B, D)."""
        past, length = self.caches[0].length, self._tokens.shape[1]
        columns = torch.arange(past + length, device=self._tokens.device)
        positions = (columns[past:] - self._padding).clamp_(min=0)  # (B, T)
        mask = None
        if past:
            mask = (columns >= self._padding)[:, None] if self._ragged else None  # (B, 1, S)
        elif self._ragged or self._prefixes is not None:
            mask = self._first_mask(columns)
        many = self._tokens.numel() >= MANY
        with fast_matmul(self._tokens.device) if many else nullcontext():
            return self.model.model(self._tokens, positions=positions, mask=mask, caches=self.caches)[:, -1]

    def _first_mask(self, columns: Tensor) -> Tensor:
        """Return (B, T, T) bool, which tokens of the prompts attend to which."""
        seen = columns <= columns[:, None]
        if self._prefixes is not None:
            seen = seen | (columns < self._padding + self._prefixes)[:, None]
        # Padding sees itself, as a softmax has to see something; nothing else sees padding.
        return (columns >= self._padding)[:, None] & seen | (columns == columns[:, None])

    def append(self, tokens: Tensor) -> None:
        """Put a token (B,) after each row, to be read next."""
        self._tokens = tokens[:, None]

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (int64) only; one that is named several times is there several times."""
        self._tokens, self._padding = self._tokens[rows], self._padding[rows]
        for cache in self.caches:
            cache.keep(rows)
