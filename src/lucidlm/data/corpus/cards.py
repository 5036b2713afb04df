"""The data card: what a prepared directory was made from, what happened to it on the way, and what it holds.

`data_card.json` is written last, so a directory that has one is complete; it lists every other file with its size and
SHA-256, and nothing is read from the directory before it has been held against that list.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from lucidlm.core.amounts import size
from lucidlm.core.config import describe
from lucidlm.core.errors import InputError
from lucidlm.core.io import check_file, read_json, sha256, write_json
from lucidlm.data.split import Split
from lucidlm.tokenize.tokenizer import TokenizerKind

CARD = "data_card.json"
FORMAT = "lucidlm-data-1"

SplitBy = Literal["hash", "position"]


class Record(BaseModel):
    """A part of the card; fields that nobody knows are refused."""

    model_config = ConfigDict(extra="forbid")


class SourceRecord(Record):
    """Where documents came from. `sha256` is over the texts as they were read, so it tells whether a source changed.

    `revision` is the commit of a repository on the hub.
    """

    uri: str
    revision: str | None = None
    licence: str | None = None
    documents: int
    bytes: int
    sha256: str


class StepRecord(Record):
    """One step of the preparation: documents in and out, and what the step counted besides (by reason or by kind)."""

    name: str
    documents_in: int
    documents_out: int
    counts: dict[str, int] = {}


class TokenizerRecord(Record):
    """The tokenizer, and how many of the corpus's characters it has no token for: never any with bytes.

    `trained_on` is how many UTF-8 bytes of the corpus it learned from: a sample of a large one, none if it was there before.
    """

    kind: TokenizerKind
    vocab_size: int
    fingerprint: str
    bytes_per_token: float
    trained_on: int = 0
    unknown: int = 0
    characters: int = 0
    first_unknown: str = ""
    first_unknown_at: str = ""


class SplitRecord(Record):
    """A split: `tokens` include one end-of-document token per document; `bytes` are UTF-8 bytes of text."""

    documents: int
    tokens: int
    bytes: int
    shards: list[str]


class FileRecord(Record):
    bytes: int
    sha256: str


class DataCard(Record):
    """The card of a prepared directory."""

    format: Literal["lucidlm-data-1"] = FORMAT
    name: str
    created: str
    lucidlm: str
    sources: list[SourceRecord]
    steps: list[StepRecord]
    split_by: SplitBy
    tokenizer: TokenizerRecord
    splits: dict[Split, SplitRecord]
    settings: dict[str, Any]
    files: dict[str, FileRecord] = {}

    def save(self, directory: str | Path) -> None:
        """Record every file of `directory` and write the card, which makes the directory complete."""
        directory = Path(directory)
        for path in sorted(directory.iterdir()):
            self.files[path.name] = FileRecord(bytes=path.stat().st_size, sha256=sha256(path))
        write_json(directory / CARD, self.model_dump(mode="json"))

    def summary(self) -> str:
        """Return what the card says in a few lines."""
        lines = [
            f"{step.name}: {step.documents_in:,} documents in, {step.documents_out:,} out{listed(step.counts)}"
            for step in self.steps
        ]
        lines += [
            f"{name}: {split.documents:,} documents, {split.tokens:,} tokens, {split.bytes / 1e6:,.1f} MB"
            for name, split in self.splits.items()
        ]
        tokenizer = self.tokenizer
        lines.append(
            f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} tokens, {tokenizer.bytes_per_token:.2f} bytes each"
            + (f", trained on {size(tokenizer.trained_on)}" if tokenizer.trained_on else "")
        )
        if tokenizer.unknown:
            lines.append(
                f"unknown to the tokenizer: {tokenizer.unknown:,} characters, first: {tokenizer.first_unknown}"
                + (f" at {tokenizer.first_unknown_at}" if tokenizer.first_unknown_at else "")
            )
        return "\n".join(lines)

    @classmethod
    def load(cls, directory: str | Path, *, verify: bool = False) -> DataCard:
        """Read the card of `directory` and check that its files are there in full; with `verify`, their bytes too.

        Raises
        ------
        InputError: there is no card, it is damaged or of another version, or a file is missing, truncated or altered.
        """
        path = Path(directory) / CARD
        if not path.is_file():
            what = "there is no such directory"
            if Path(directory).is_dir():
                what = f"holds no prepared data ({CARD} is missing)"
            raise InputError(what, where=directory, fix="Make it with `lucidlm data prepare`.")
        fields = read_json(path)
        if fields.get("format") != FORMAT:
            raise InputError(
                f"was written by another version (format {fields.get('format')}, not {FORMAT})",
                where=path,
                fix="Prepare the data again.",
            )
        try:
            card = cls.model_validate(fields)
        except ValidationError as error:
            raise InputError(f"is damaged ({describe(error)})", where=path, fix="Prepare the data again.") from None
        card.check(directory, card.files, verify=verify)
        return card

    def check(self, directory: str | Path, names: Iterable[str], *, verify: bool) -> None:
        """Hold the named files against their recorded sizes and, with `verify`, their checksums."""
        for name in names:
            expected = self.files[name]
            checksum = expected.sha256 if verify else None
            fix = "Prepare the data again."
            check_file(Path(directory) / name, expected.bytes, checksum, record="the data card", fix=fix)


def listed(counts: dict[str, int]) -> str:
    """Return the counts in brackets, largest first and zeros left out; nothing if there are none."""
    parts = [f"{number:,} {name}" for name, number in sorted(counts.items(), key=lambda item: -item[1]) if number]
    return f" ({', '.join(parts)})" if parts else ""
