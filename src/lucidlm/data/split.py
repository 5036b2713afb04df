"""Which part of the data a text belongs to, told from the text alone."""

from __future__ import annotations

import hashlib

from lucidlm.data.cards import Split


def split_of(text: str, validation: float = 0.05, test: float = 0.05) -> Split:
    """Return the split that `text` falls into: a share of `test`, one of `validation`, and the rest for training.

    The BLAKE2b hash of the text decides (any white space counting as one space, as in finding copies). So the same
    text falls into the same split wherever it is met: what fine-tuning holds out was never pretrained on, given the
    same shares. Raising `validation` moves texts out of training only; those of the test split stay.
    """
    digest = hashlib.blake2b(" ".join(text.split()).encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "big") / 2**64
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"
