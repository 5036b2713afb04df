"""What preparing does to documents one by one, whatever came before them: most of the work, shared by all cores."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from lucidlm.data.cleaning.clean import Cleaner
from lucidlm.data.cleaning.dedup import Fingerprint, fingerprints
from lucidlm.data.cleaning.overlap import NgramSketch
from lucidlm.data.cleaning.pii import Masker
from lucidlm.data.corpus.config import PrepareConfig
from lucidlm.data.document import Document
from lucidlm.data.split import Split, split_of


class Candidate(NamedTuple):
    """A clean text, kept unless it is a copy; `masked` counts what was masked in it."""

    text: str
    where: str
    split: Split
    fingerprint: Fingerprint
    masked: dict[str, int]


@dataclass(frozen=True)
class CleanChunk:
    """What becomes of some documents: the candidates among them, what cleaning counted, and how many were held back."""

    candidates: list[Candidate]
    counts: Counter[str]
    held_back: int


@dataclass(frozen=True)
class DocumentCleaner:
    """Does to documents what depends on nothing but each of them.

    Parameters
    ----------
    excluded: what nothing may share wording with.
    """

    config: PrepareConfig
    excluded: NgramSketch | None

    def __call__(self, documents: list[Document]) -> CleanChunk:
        """Clean, hold back, fingerprint, split and mask documents."""
        config, clean = self.config, Cleaner(self.config.clean)
        cleaned = [(clean(document.text, plain=document.plain), document.where) for document in documents]
        texts = [(text, where) for text, where in cleaned if text is not None]
        kept = [found for found in texts if self.excluded is None or not self.excluded.shared(found[0])]
        candidates = []
        for (text, where), fingerprint in zip(
            kept, fingerprints([text for text, _ in kept], config.near_threshold), strict=True
        ):
            # The split is that of the text before masking, by which fine-tuning will know it.
            split, mask = split_of(text, config.validation, config.test), Masker()
            candidates.append(
                Candidate(mask(text) if config.pii else text, where, split, fingerprint, dict(mask.counts))
            )
        return CleanChunk(candidates, clean.counts, len(texts) - len(kept))
