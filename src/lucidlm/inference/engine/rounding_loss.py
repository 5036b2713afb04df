"""What rounded weights cost on a text: bits per byte, beside the weights as they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional

from lucidlm.core.errors import InputError
from lucidlm.inference.engine.backend import Backend, Stretch
from lucidlm.tokenize.tokenizer import Tokenizer

BYTES = 16_384
"""How much of a text is read: some seconds' work, and enough to tell a tenth of a percent."""
WINDOW = 512
FEWEST = 256
"""Tokens that a text has to have, for its figure to mean something."""


def read_windows(text: str, tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Return the beginning of the file `text` as token ids, in windows that fit into a context.

    Raises
    ------
    InputError: there is no such file, it is not text in UTF-8, or it is too short.
    """
    try:
        with Path(text).open("rb") as file:
            said = file.read(BYTES).decode("utf-8", errors="ignore" if Path(text).stat().st_size > BYTES else "strict")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read as a text ({error})", where=text) from None
    ids, width = tokenizer.encode(said), min(WINDOW, context)
    if len(ids) < FEWEST:
        raise InputError(f"has {len(ids)} tokens, too few to measure by", where=text, fix=f"Pass {FEWEST} or more.")
    return [ids[start : start + width] for start in range(0, len(ids) - 1, width)]


@torch.inference_mode()
def nats(backend: Backend, windows: Sequence[list[int]]) -> float:
    """Return what the tokens of `windows` cost, each but the first given those before it in its window."""
    total = 0.0
    for window in windows:
        blocks = list(range(-(-len(window) // backend.block_size)))
        if len(window) > 1:
            logits = backend.read([Stretch(window[:-1], 0, blocks, wanted=len(window) - 1)])
            targets = torch.tensor(window[1:], device=logits.device)
            total += functional.cross_entropy(logits, targets, reduction="sum").item()
    return total
