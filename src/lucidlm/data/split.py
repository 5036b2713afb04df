"""Which part of the data a text belongs to, told from the text alone."""

from __future__ import annotations

import hashlib

from lucidlm.data.cards import Split


def split_of(text: str, validation: float = 0.05, test: float = 0.05) -> Split:
    """Return the split that `text` falls into: a share of `test`, one of `validation`, and the rest for training.

    The text's BLAKE2b hash decides, so the same text falls into the same split wherever it is met: what fine-tuning
    holds out was never pretrained on, given the same (cleaned) text and shares. Raising `validation` moves texts out
    of training only; those of the test split stay.
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"
