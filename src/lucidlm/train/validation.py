"""How well a language model predicts held-out tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lucidlm.data.loader import TokenCorpus, sequential_windows
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import IGNORED, token_losses

BATCH = 16

Hide = Callable[[Tensor, str], tuple[Tensor, Tensor]]


def validate(
    model: LanguageModel,
    corpora: Sequence[TokenCorpus],
    context: int,
    limit: int,
    device: torch.device,
    hide: Hide | None,
) -> dict[str, float]:
    """Read the first `limit` tokens of `corpora`, in consecutive windows of `context`, and return the loss.

    For causal models every token is predicted once from what its window holds before it, and the figures are
    `validation_loss` (nats a token), `perplexity`, and `bits_per_byte`, which can be compared across tokenizers. For
    masked ones `hide` chooses what is to be told, the same at every call; a loss over hidden tokens has no bits per byte.
    """
    nats, counted = 0.0, 0  # summed in float64 on the host: a corpus has more tokens than fp32 can count
    for corpus in corpora:
        read = 0
        for number, (windows, counts) in enumerate(sequential_windows(corpus, context, batch_size=BATCH)):
            if hide is None:
                tokens, targets = windows[:, :-1], windows[:, 1:].masked_fill(~counts, IGNORED)
            else:
                tokens, targets = hide(windows, f"validation-{number}")
            hidden = model.model(tokens.to(device))
            total, count = token_losses(hidden, model.head, targets.to(device))
            nats, counted, read = nats + total.item(), counted + int(count), read + tokens.numel()
            if read >= limit / len(corpora):
                break
    loss = nats / max(counted, 1)
    found = {"validation_loss": loss, "perplexity": math.exp(min(loss, 700.0))}
    if hide is None:
        bytes_per_token = sum(corpus.bytes for corpus in corpora) / max(sum(corpus.tokens for corpus in corpora), 1)
        found["bits_per_byte"] = loss / math.log(2) / bytes_per_token
    return found
