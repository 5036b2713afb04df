"""From sources to a directory that training opens: read, clean, deduplicate, mask, split, tokenise, pack.

Two passes, so that memory stays bounded whatever the corpus: the first reads and cleans every document and spools
those that are kept to a temporary file; the second trains the tokenizer on a sample of them and packs them all. The
directory is made beside `out` and takes its name when it is complete: an interrupted run leaves nothing half-made.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from uuid import uuid4

import numpy as np

from lucidlm.core.devices import usable_cores
from lucidlm.core.io import disk_errors, require_free_space, require_vacant
from lucidlm.core.progress import log
from lucidlm.core.seeds import numpy_generator
from lucidlm.data.cleaning.overlap import NgramSketch
from lucidlm.data.corpus.cards import DataCard, SplitBy, TokenizerRecord
from lucidlm.data.corpus.collect import collect
from lucidlm.data.corpus.config import PrepareConfig
from lucidlm.data.corpus.pack import dtype_for, pack
from lucidlm.data.corpus.spool import Spool
from lucidlm.data.split import Split
from lucidlm.tokenize.tokenizer import Tokenizer
from lucidlm.tokenize.unknown import count_unknown
from lucidlm.version import __version__

TOKENIZER_SAMPLE = 20_000_000
"""Bytes of a larger corpus that a tokenizer is trained on: 30 MB of film reviews give 0.05 % more bytes a token with 8,192
tokens, 0.1 % with 32,768."""
TINY = 2_000_000
"""Bytes of text below which "auto" takes characters as tokens: too little to learn what longer tokens mean."""


def prepare(config: PrepareConfig, out: str | Path, *, processes: int | None = None) -> DataCard:
    """Prepare a corpus in the new directory `out` and return its card.

    Parameters
    ----------
    processes: among how many the work on documents is shared; None: one for each core. What comes out is the same.

    Raises
    ------
    InputError: a source cannot be read, nothing is left of the corpus, the vocabulary is more than it supports, or
        `out` holds something already.
    LucidError: the disk is full.
    """
    out = require_vacant(out).absolute()
    processes = usable_cores() if processes is None else processes
    given = None if config.tokenizer_from is None else Tokenizer.load(config.tokenizer_from)
    require_free_space(out, 2 * sum(_local_bytes(Path(source)) for source in config.sources))
    with _made_beside(out) as directory:
        with Spool(directory / "spool") as spool:
            sources, steps = collect(config, spool, directory, processes)
            split_by = _choose_split(config, spool)
            tokenizer, trained_on = (given, 0) if given else _train_tokenizer(config, spool, split_by)
            total = spool.bytes.total()
            require_free_space(directory, total * dtype_for(tokenizer.vocab_size).itemsize)
            splits, unknown = pack(_documents(config, spool, split_by), tokenizer, directory, total_bytes=total)
            if unknown.characters:
                unknown = unknown.model_copy(update={"where": _first_place(spool, tokenizer)})
            training = (text for split, text in _documents(config, spool, split_by) if split == "train")
            NgramSketch.of(training, processes=processes).save(directory)
        if unknown.characters:
            log(f"{unknown}: what they say cannot be learned")
        tokenizer.save(directory)
        card = DataCard(
            name=out.name,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            lucidlm=__version__,
            sources=sources,
            steps=steps,
            split_by=split_by,
            tokenizer=TokenizerRecord(
                kind=tokenizer.kind,
                vocab_size=tokenizer.vocab_size,
                fingerprint=tokenizer.fingerprint,
                bytes_per_token=total / sum(split.tokens for split in splits.values()),
                trained_on=trained_on,
                unknown=unknown.characters,
                characters=unknown.of,
                first_unknown=unknown.first,
                first_unknown_at=unknown.where,
            ),
            splits=splits,
            settings=config.model_dump(mode="json"),
        )
        card.save(directory)
    return card


@contextmanager
def _made_beside(out: Path) -> Iterator[Path]:
    """Yield a temporary directory beside `out`; in the end give it that name, or remove it if anything failed."""
    directory = out.with_name(f".{out.name}.{uuid4().hex[:8]}.part")
    with disk_errors(out):
        directory.mkdir(parents=True)
        try:
            yield directory
            os.replace(directory, out)
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _local_bytes(path: Path) -> int:
    """Return the size of a file or folder; 0 for what is elsewhere."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


# ---------------------------------------------------------------------- what is held out


def _choose_split(config: PrepareConfig, spool: Spool) -> SplitBy:
    """Return how documents are held out; "auto" is by hash if each split then comes to a quarter of its share at least."""
    if config.split_by != "auto":
        return config.split_by
    shares: dict[Split, float] = {
        "train": 1 - config.validation - config.test,
        "validation": config.validation,
        "test": config.test,
    }
    total = spool.bytes.total()
    if all(total * share / 4 <= spool.bytes[split] <= total * share * 4 for split, share in shares.items()):
        return "hash"
    log(f"the corpus is {spool.documents.total():,} documents, too few to hold some out: it is cut by position instead")
    return "position"


def _documents(config: PrepareConfig, spool: Spool, split_by: SplitBy) -> Iterator[tuple[Split, str]]:
    """Yield every kept document, or part of one, with its split."""
    if split_by == "hash":
        yield from spool
        return
    total = spool.characters.total()
    held_out = config.validation + config.test
    ends: list[tuple[Split, float]] = [
        ("train", total * (1 - held_out)),
        ("validation", total * (1 - config.test)),
        ("test", total),
    ]
    reach = min(1000, int(total * min(filter(None, (config.validation, config.test)), default=0) / 4))
    position = 0
    for _, text in spool:
        while text:
            split, end = next(part for part in ends if part[1] > position)
            size = _cut_place(text, math.ceil(end) - position, reach)
            yield split, text[:size]
            text, position = text[size:], position + size


def _cut_place(text: str, place: int, reach: int) -> int:
    """Return where to cut `text` at `place` or up to `reach` later: before a line if possible, else a word."""
    for separator in ("\n", " "):
        if (found := text.find(separator, place - 1, place + reach)) >= 0:
            return found + 1
    return min(place, len(text))


# ---------------------------------------------------------------------- the tokenizer


def _train_tokenizer(config: PrepareConfig, spool: Spool, split_by: SplitBy) -> tuple[Tokenizer, int]:
    """Train the tokenizer that `config` asks for; return it, and how many bytes of text it was trained on.

    Characters are those of the whole corpus. BPE learns from the text for training, or from documents of it that are drawn
    at random, each with the same chance, so that they are spread evenly over it.
    """
    total = spool.bytes.total()
    tiny = total < TINY and config.vocab_size == "auto"
    if config.tokenizer == "characters" or (config.tokenizer == "auto" and tiny):
        return Tokenizer.train_characters(text for _, text in spool), total
    rate, generator = TOKENIZER_SAMPLE / total, numpy_generator(config.seed, "tokenizer sample")
    drawn = 0

    def sample() -> Iterator[str]:
        nonlocal drawn
        for split, text in _documents(config, spool, split_by):
            if split == "train" and (rate >= 1 or generator.random() < rate):
                drawn += len(text.encode())
                yield text

    log("training the tokenizer")
    if config.vocab_size != "auto":
        return Tokenizer.train_bpe(sample(), config.vocab_size), drawn
    head = "".join(islice((text for _, text in spool), 1000))[:1_000_000]
    return Tokenizer.train_bpe(sample(), choose_vocab_size(total, head), exact=False), drawn


def _first_place(spool: Spool, tokenizer: Tokenizer) -> str:
    """Return where the first document with an unknown character was read; searched anew, as there is seldom one."""
    found = (where for _, text, where in spool.located() if count_unknown(tokenizer, [text]).characters)
    return next(found, "")


def choose_vocab_size(corpus_bytes: int, sample: str) -> int:
    """Return a power of two from 1,024 to 32,768: about a token per 4,096 bytes, so that each is met often enough.

    But twice the number of characters that make up 99.5 % of `sample` at least: Chinese has thousands, and a word is
    seldom shorter than one.
    """
    _, counts = np.unique(np.frombuffer(sample.encode("utf-32-le"), dtype=np.uint32), return_counts=True)
    frequent = int(np.searchsorted(np.cumsum(np.sort(counts)[::-1]), 0.995 * len(sample))) + 1
    exponent = max(round(math.log2(corpus_bytes / 4096)), math.ceil(math.log2(2 * frequent)))
    return 2 ** min(max(exponent, 10), 15)
