"""How well a language model predicts held-out tokens."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lucidlm.data.corpus.loader import TokenCorpus, sequential_windows
from lucidlm.distributed.ranks import ALONE, Ranks
from lucidlm.model.heads import LanguageModel
from lucidlm.model.loss import IGNORE_INDEX

BATCH = 16

Hide = Callable[[Tensor, str], tuple[Tensor, Tensor]]


def validate(
    model: LanguageModel,
    corpora: Sequence[TokenCorpus],
    context: int,
    limit: int,
    device: torch.device,
    hide: Hide | None,
    ranks: Ranks = ALONE,
) -> dict[str, float]:
    """Read the first `limit` tokens of `corpora`, in consecutive windows of `context`, and return the loss.

    For causal models every token is predicted once from what its window holds before it, and the figures are
    `validation_loss` (nats a token), `perplexity`, and `bits_per_byte`, which can be compared across tokenizers. For
    masked ones `hide` chooses the targets, the same at every call; a loss over masked tokens has no bits per byte.
    Of several ranks each reads its share of the batches.
    """
    nats, counted = 0.0, 0  # summed in float64 on the host: a corpus has more tokens than fp32 can count
    for corpus in corpora:
        read = 0
        for number, (windows, counts) in enumerate(sequential_windows(corpus, context, batch_size=BATCH)):
            if hide is None:
                tokens, targets = windows[:, :-1], windows[:, 1:].masked_fill(~counts, IGNORE_INDEX)
            else:
                tokens, targets = hide(windows, f"validation-{number}")
            if number % ranks.count == ranks.rank:
                hidden = model.model(tokens.to(device))
                total, _ = model.cross_entropy(hidden, targets.to(device))
                nats += total.item()
                counted += int((targets != IGNORE_INDEX).sum())
            read += tokens.numel()
            if read >= limit / len(corpora):
                break
    nats, counted = (sum(column) for column in zip(*ranks.gather(nats, counted), strict=True))
    loss = nats / max(counted, 1)
    # Finite whatever the loss: what is measured goes into JSON, which has no infinity.
    found = {"validation_loss": loss, "perplexity": perplexity(min(loss, 699.0), 1)}
    if hide is None:
        bytes_per_token = sum(corpus.bytes for corpus in corpora) / max(sum(corpus.tokens for corpus in corpora), 1)
        found["bits_per_byte"] = bits_per_byte(loss, bytes_per_token)
    return found


def bits_per_byte(nats: float, byte_count: float) -> float:
    """Turn the total loss over a text, in nats, into bits per UTF-8 byte of it: comparable across tokenizers."""
    return nats / math.log(2) / byte_count


def perplexity(nats: float, tokens: int) -> float:
    """Turn the total loss over `tokens` predicted tokens, in nats, into perplexity: comparable within one tokenizer."""
    mean = nats / tokens
    return math.exp(mean) if mean < 700 else math.inf  # exp overflows past 709
