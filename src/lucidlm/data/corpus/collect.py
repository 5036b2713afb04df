"""The first pass over a corpus: every document is read, cleaned, compared with those before it, and spooled if it is kept.

Reading goes from document to document, and so does deduplication, as what is kept depends on what came before. All that
a text alone decides, and nearly all of the time goes there, is done by a `DocumentCleaner` on all cores.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from lucidlm.core.errors import InputError
from lucidlm.core.parallel import in_chunks, map_in_order
from lucidlm.core.progress import ProgressBar
from lucidlm.data.cleaning.dedup import Deduplicator
from lucidlm.data.cleaning.overlap import NgramSketch
from lucidlm.data.corpus.candidates import DocumentCleaner
from lucidlm.data.corpus.cards import SourceRecord, StepRecord, listed
from lucidlm.data.corpus.config import PrepareConfig
from lucidlm.data.corpus.spool import Spool
from lucidlm.data.document import Document
from lucidlm.data.sources.read import read_documents

CHUNK_CHARACTERS = 500_000
"""Characters of documents that are cleaned at once."""


@dataclass
class SourceReader:
    """Reads the sources of a corpus one after the other; `records` tells what was read, `skipped` what was left out."""

    config: PrepareConfig
    task: ProgressBar
    records: list[SourceRecord] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def __iter__(self) -> Iterator[Document]:
        """Yield every document, with what cleaning has to know of it."""
        config = self.config
        fields = [config.text_field] if isinstance(config.text_field, str) else config.text_field
        for uri, name in product(config.sources, fields):
            source, digest = SourceRecord(uri=uri, documents=0, bytes=0, sha256=""), hashlib.sha256()
            for document in read_documents(
                uri,
                text_field=name,
                encoding=config.encoding,
                on_error=config.on_error,
                skipped=self.skipped,
                html=config.clean.html,
            ):
                encoded = document.text.encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
                source.documents += 1
                source.bytes += len(encoded)
                source.revision = source.revision or document.revision
                source.licence = source.licence or document.meta.get("licence")
                self.task.advance(len(encoded) / 1e6)
                yield Document(document.text, document.where, plain=document.plain)
            source.sha256 = digest.hexdigest()
            self.records.append(source)


def collect(
    config: PrepareConfig, spool: Spool, directory: Path, processes: int
) -> tuple[list[SourceRecord], list[StepRecord]]:
    """Spool the documents of a corpus that are kept; return its sources and what each step did.

    Raises
    ------
    InputError: a source cannot be read, or nothing is left of the corpus.
    """
    counts, masked, cleaned, held_back = Counter[str](), Counter[str](), 0, 0
    cleaner = DocumentCleaner(config, _excluded(config))
    source = SourceReader(config, ProgressBar("reading", unit="MB"))
    chunks = in_chunks(source, lambda document: len(document.text), CHUNK_CHARACTERS)
    with (
        source.task,
        closing(map_in_order(cleaner, chunks, processes)) as results,
        Deduplicator(exact=config.exact, near=config.near_threshold, directory=directory) as copies,
    ):
        for chunk in results:
            counts.update(chunk.counts)
            cleaned += len(chunk.candidates) + chunk.held_back
            held_back += chunk.held_back
            for text, where, split, fingerprint, found in chunk.candidates:
                if copies.is_new(fingerprint):
                    spool.write(text, split, where)
                    masked.update(found)
    read, left, kept = sum(record.documents for record in source.records), cleaned - held_back, spool.documents.total()
    skipped = source.skipped
    steps = [
        StepRecord(name="read", documents_in=read + skipped.total(), documents_out=read, counts=dict(skipped)),
        StepRecord(name="clean", documents_in=read, documents_out=cleaned, counts=dict(counts)),
        StepRecord(name="deduplicate", documents_in=left, documents_out=kept, counts=dict(copies.counts)),
    ]
    if config.exclude:
        sharing = {"share wording with excluded data": held_back}
        steps.insert(2, StepRecord(name="exclude", documents_in=cleaned, documents_out=left, counts=sharing))
    if config.pii:
        steps.append(StepRecord(name="mask", documents_in=kept, documents_out=kept, counts=dict(masked)))
    if not kept:
        lost = "; ".join(f"{step.name}: {step.documents_out:,} left{listed(step.counts)}" for step in steps)
        raise InputError(
            f"nothing is left of the corpus ({lost})",
            where=", ".join(config.sources),
            fix="Pass more text, or relax the settings under `clean` in a --config file.",
        )
    return source.records, steps


def _excluded(config: PrepareConfig) -> NgramSketch | None:
    """Return the n-grams of the sources that nothing may share wording with; None if there are no such sources."""
    if not config.exclude:
        return None
    texts = (
        document.text
        for uri, field in config.exclude.items()
        for document in read_documents(uri, text_field=field, encoding=config.encoding, on_error=config.on_error)
    )
    return NgramSketch.of(texts)
