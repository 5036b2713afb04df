"""Semantic search: embed the texts of a source once, and find those nearest to a query.

An index is a directory: `vectors.npy` (n, D) float32, `texts.jsonl` with each text and its location, and a manifest with
checksums and the fingerprints of the model and the texts.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.core.io import MANIFEST, atomic_path, require_vacant, verify_manifest, write_manifest, write_text
from lucidlm.core.progress import log
from lucidlm.data.document import Document
from lucidlm.predict.embedder import TextEmbedder

VECTORS = "vectors.npy"
TEXTS = "texts.jsonl"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Item:
    """An indexed text, and where it was read."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result: the text, where it was read, and its similarity to the query (cosine, unless the model differs)."""

    text: str
    where: str
    score: float


class SearchIndex:
    """An exact nearest-neighbour index over texts.

    Parameters
    ----------
    embedder: the model that made the vectors; it embeds the queries.
    items: the n texts.
    vectors: of the items, (n, D) float32; see `TextEmbedder.comparable`.
    """

    def __init__(self, embedder: TextEmbedder, items: Sequence[Item], vectors: np.ndarray) -> None:
        self.embedder, self.items, self.vectors = embedder, list(items), vectors

    @classmethod
    def build(cls, embedder: TextEmbedder, items: Sequence[Item]) -> SearchIndex:
        """Embed the texts; log how many are longer than the context and are read in windows."""
        encoded = embedder.encode([item.text for item in items], "document")
        if long := embedder.long(encoded):
            log(f"{long:,} of {len(items):,} texts are longer than {embedder.max_tokens:,} tokens: read in windows")
        return cls(embedder, items, embedder.comparable(embedder.embed_encoded(encoded, "embedding")))

    def search(self, queries: Sequence[str], top: int = 5) -> list[list[Hit]]:
        """Return the `top` nearest texts of each query, best first.

        Raises
        ------
        InputError: a query is empty.
        """
        if any(not query.strip() for query in queries):
            raise InputError("the query is empty", where="QUERY", fix="Say what to search for.")
        vectors = self.embedder.comparable(self.embedder.embed(queries, purpose="query"))
        return [self._closest(vector, top, frozenset()) for vector in vectors]

    def recommend(self, history: Sequence[str], top: int = 5) -> list[Hit]:
        """Return the `top` texts nearest to the mean vector of a history, excluding the history itself.

        Raises
        ------
        InputError: the history, or an item of it, is empty.
        """
        if not history or any(not text.strip() for text in history):
            raise InputError("the item is empty", where="--like", fix="Pass the text of an item.")
        vectors = self.embedder.comparable(self.embedder.embed(history, purpose="document"))
        return self._closest(self.embedder.comparable(vectors.mean(0)), top, frozenset(history))

    def _closest(self, vector: np.ndarray, top: int, left_out: frozenset[str]) -> list[Hit]:
        scores = self.vectors @ vector
        depth = min(top + len(left_out), len(scores))
        order = np.argpartition(-scores, depth - 1)[:depth]
        order = order[np.lexsort((order, -scores[order]))]
        found = [(self.items[place], float(scores[place])) for place in order.tolist()]
        kept = [Hit(item.text, item.where, score) for item, score in found if item.text not in left_out]
        return kept[:top]

    def save(self, directory: str | Path, model: str) -> None:
        """Save the index; `model` is the fingerprint of the embedder's model.

        Raises
        ------
        InputError: the directory holds something else.
        LucidError: the disk is full.
        """
        directory = Path(directory)
        names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
        if not names <= {VECTORS, TEXTS, MANIFEST}:
            require_vacant(directory, option="--index")
        (directory / MANIFEST).unlink(
            missing_ok=True
        )  # without it the files are not an index, should this be interrupted
        with atomic_path(directory / VECTORS) as path, path.open("wb") as file:
            np.save(file, self.vectors)
        write_text(
            directory / TEXTS, "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in self.items)
        )
        facts = {"format": FORMAT, "model": model, "texts": fingerprint(self.items)}
        write_manifest(directory, [VECTORS, TEXTS], **facts)

    @classmethod
    def load(cls, directory: str | Path, embedder: TextEmbedder, model: str) -> SearchIndex:
        """Load an index; `model` is the fingerprint of the embedder's model.

        Raises
        ------
        InputError: there is no index, it is damaged or of a newer format, or it was made by another model.
        """
        directory = Path(directory)
        if not (directory / MANIFEST).exists():
            raise InputError("holds no index", where=directory, fix="Make one: pass the texts with --in.")
        manifest = verify_manifest(directory)
        if manifest.get("format") != FORMAT:
            raise InputError("is no index that this version reads", where=directory, fix="Make it again.")
        if manifest.get("model") != model:
            raise InputError(
                "was made by another model: its vectors mean nothing to this one",
                where=directory,
                fix="Pass that model, or the texts with --in to embed them again.",
            )
        lines = (
            (directory / TEXTS).read_text(encoding="utf-8").split("\n")[:-1]
        )  # splitlines would also split at line separators inside texts
        return cls(embedder, [Item(**json.loads(line)) for line in lines], np.load(directory / VECTORS))


def collect_items(documents: Iterable[Document], source: str) -> list[Item]:
    """Return the distinct texts of a source; log how many were left out and why.

    Raises
    ------
    InputError: there are none.
    """
    items: dict[str, Item] = {}
    left_out: Counter[str] = Counter()
    for document in documents:
        if not document.text.strip():
            left_out["empty"] += 1
        elif document.text in items:
            left_out["repeated"] += 1
        else:
            items[document.text] = Item(document.text, document.where)
    if left_out:
        log(f"{source}: left out {', '.join(f'{count:,} {reason} texts' for reason, count in left_out.items())}")
    if not items:
        raise InputError("holds no texts to search", where=source, fix="Pass a source that holds text.")
    return list(items.values())


def open_index(
    embedder: TextEmbedder, model: str, items: Sequence[Item], directory: str | Path | None = None
) -> SearchIndex:
    """Return an index of `items`: the one saved in `directory` if items and model match, else a new one, saved there.

    Raises
    ------
    InputError: the directory holds something else, or a damaged index.
    """
    if directory is None:
        return SearchIndex.build(embedder, items)
    if (Path(directory) / MANIFEST).exists():
        manifest = verify_manifest(directory)
        if (manifest.get("model"), manifest.get("texts")) == (model, fingerprint(items)):
            return SearchIndex.load(directory, embedder, model)
        log(f"{directory}: made {_difference(manifest, model)}; embedding the texts again")
    index = SearchIndex.build(embedder, items)
    index.save(directory, model)
    return index


def _difference(manifest: dict[str, object], model: str) -> str:
    return "by another model" if manifest.get("model") != model else "of other texts than the source holds now"


def fingerprint(items: Iterable[Item]) -> str:
    """Return the SHA-256 of the texts and locations, in order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps([item.text, item.where]).encode())
    return digest.hexdigest()
