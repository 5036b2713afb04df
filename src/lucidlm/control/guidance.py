"""Away from what a second reading would say: classifier-free guidance and contrastive decoding.

Both move the logits by what they have over those of a companion that reads the same text: the model itself behind another
prompt (Sanchez et al. 2023, arXiv:2306.17806), or a weaker model behind the same (Li et al. 2023, arXiv:2210.15097, in the
form of O'Brien and Lewis 2023, arXiv:2309.09117).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.inference.engine.backend import Stretch
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.inference.logits_processor import LogitsProcessor, MakeProcessors
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

PLAUSIBLE = 0.1
"""Share of the likeliest token's probability below which a token is not written for being unlike the companion."""


def away_from_prompt(model: LanguageModel, tokenizer: Tokenizer, prompt: str, strength: float) -> MakeProcessors:
    """Return what moves each text of `model` away from what it would write behind another prompt.

    Parameters
    ----------
    strength: 0: nothing; 1: as far again as the two prompts lie apart.

    Raises
    ------
    InputError: the prompt is longer than the model's context.
    """
    ids = tokenizer.encode_prompt(prompt)
    if len(ids) > model.config.context_length:
        what = f"has {len(ids):,} tokens, the model's context {model.config.context_length:,}"
        raise InputError(what, where="--negative-prompt", fix="Shorten it.")
    return lambda _prompt, _ends: [_Guidance(_Companion(model, ids), strength)]


def away_from_model(
    amateur: LanguageModel, its_tokenizer: Tokenizer, tokenizer: Tokenizer, strength: float
) -> MakeProcessors:
    """Return what moves each text away from what a weaker model would write.

    Raises
    ------
    InputError: the two models have different tokens.
    """
    if its_tokenizer.fingerprint != tokenizer.fingerprint:
        raise InputError("its tokens are not those of the model", where="--amateur", fix="Pass one of the same family.")
    return lambda prompt, _: [_Guidance(_Companion(amateur, prompt), strength)]


class _Companion:
    """A model that reads the text too."""

    def __init__(self, model: LanguageModel, prompt: list[int]) -> None:
        self._context = model.config.context_length
        blocks = -(-self._context // BLOCK)
        self._backend, self._blocks = TorchBackend(model, blocks), list(range(blocks))
        self._unread, self._read = list(prompt), 0

    def push(self, token: int) -> None:
        self._unread.append(token)

    def logprobs(self) -> Tensor | None:
        """Return the log-probabilities (V,) of the next token; None once its context is full."""
        if self._read + len(self._unread) > self._context:
            return None
        (logits,) = self._backend.read([Stretch(self._unread, self._read, self._blocks)])
        self._read, self._unread = self._read + len(self._unread), []
        return logits.log_softmax(-1)


class _Guidance(LogitsProcessor):
    def __init__(self, companion: _Companion, strength: float) -> None:
        self._companion, self._strength = companion, strength

    def process(self, logits: Tensor) -> None:
        other = self._companion.logprobs()
        if other is None:
            return
        own, size = logits.log_softmax(-1), min(len(logits), len(other))  # some models have rows for no token
        moved = own.clone()
        moved[:size] += self._strength * (own[:size] - other[:size].to(own.device))
        logits.copy_(torch.where(own < own.max() + math.log(PLAUSIBLE), -math.inf, moved))

    def push(self, token: int) -> None:
        self._companion.push(token)
