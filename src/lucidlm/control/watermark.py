"""A watermark in the choice of tokens, and its detection (Kirchenbauer et al. 2023, arXiv:2301.10226).

The token before and a key decide which share of the vocabulary is green. Writing makes green tokens likelier; whoever has
the key counts them, which needs no model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.inference.logits_processor import LogitsProcessor, MakeProcessors
from lucidlm.tokenize.tokenizer import Tokenizer

SHARE = 0.5
"""Of the vocabulary that is green: with a quarter, as in the paper, texts of little choice show it less."""

STRENGTH = 2.0
"""What is added to the logits of green tokens."""

FEWEST = 16
"""Pairs of tokens below which nothing can be said."""


def watermarking(key: str, vocab_size: int, strength: float = STRENGTH) -> MakeProcessors:
    """Return what makes the watermark of each text of a model with this many tokens.

    Parameters
    ----------
    strength: what is added to the logits of green tokens; more shows in shorter texts and costs more quality.
    """
    secret = _secret(key)
    return lambda prompt, _: [_Watermark(secret, vocab_size, strength, prompt[-1])]


class _Watermark(LogitsProcessor):
    def __init__(self, secret: int, vocab_size: int, strength: float, before: int) -> None:
        self._secret, self._tokens, self._strength, self._before = secret, np.arange(vocab_size), strength, before

    def process(self, logits: Tensor) -> None:
        green = torch.from_numpy(_is_green(self._secret, self._before, self._tokens))
        logits += self._strength * green.to(logits.device)

    def push(self, token: int) -> None:
        self._before = token

    def fork(self) -> _Watermark:
        return copy(self)


@dataclass(frozen=True)
class Detection:
    """Whether a text has a watermark.

    Parameters
    ----------
    pairs: different pairs of neighbouring tokens, which are what is counted: one that comes again says nothing new.
    green: how many of their second tokens are green.
    z: standard deviations above what is expected without a watermark.
    p_value: how often a text without one would have as many.
    """

    pairs: int
    green: int
    z: float
    p_value: float

    def verdict(self) -> str:
        """Say it in a sentence."""
        counted = f"{self.green:,} of {self.pairs:,} tokens are green, {SHARE * self.pairs:,.0f} by chance"
        found = f"(z = {self.z:.1f}, p = {self.p_value:.2g})"
        said = "the watermark of this key is there" if self.p_value < 1e-3 else "no watermark of this key shows"
        return f"{said}: {counted} {found}"


def detect(text: str, tokenizer: Tokenizer, key: str) -> Detection:
    """Look for the watermark of a key in a text, by the tokenizer of the model that may have written it.

    Raises
    ------
    InputError: the text is too short to tell.
    """
    ids = tokenizer.encode(text)
    pairs = np.array(sorted({*pairwise(ids)})).reshape(-1, 2)
    if len(pairs) < FEWEST:
        raise InputError(f"has {len(pairs)} different pairs of tokens, at least {FEWEST} tell anything", where="TEXT")
    secret = _secret(key)
    green = sum(int(_is_green(secret, int(before), np.array([token]))[0]) for before, token in pairs)
    z = (green - SHARE * len(pairs)) / math.sqrt(len(pairs) * SHARE * (1 - SHARE))
    return Detection(len(pairs), green, z, float(norm.sf(z)))


def _secret(key: str) -> int:
    if not key:
        raise InputError("an empty key is no secret", where="--watermark", fix="Pass a long text that nobody guesses.")
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")


def _is_green(secret: int, before: int, tokens: np.ndarray | Sequence[int]) -> np.ndarray:
    """Return which tokens (n,) are green behind the token `before`, (n,) bool: splitmix64 of all three decides."""
    with np.errstate(over="ignore"):
        state = np.uint64(secret) + np.uint64(before) * np.uint64(0x9E3779B97F4A7C15)
        mixed = _mix(np.asarray(tokens).astype(np.uint64) + _mix(np.atleast_1d(state)))
    return mixed < np.uint64(SHARE * 2**64)


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
