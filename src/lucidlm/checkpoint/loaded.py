"""A loaded model with its tokenizer and record: what `load_model` returns and everything else takes.

A directory is read once: record, paths and fingerprint are taken from here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lucidlm.checkpoint.generation_config import GENERATION_CONFIG
from lucidlm.checkpoint.sentence_files import LENGTHS, MODULES, PROMPTS, transformer_folder
from lucidlm.core.errors import InputError
from lucidlm.core.io import sha256
from lucidlm.model.heads import LanguageModel, Model
from lucidlm.tokenize.files import RECORD, VOCABULARIES
from lucidlm.tokenize.tokenizer import Tokenizer

SETTINGS = (
    "config.json",
    GENERATION_CONFIG,
    *VOCABULARIES,
    "merges.txt",
    "tokenizer_config.json",
    "adapter_config.json",
    MODULES,
    LENGTHS,
    PROMPTS,
)
"""The files beside the weights that change what a model computes."""


@dataclass(frozen=True)
class LoadedModel:
    """A model, in evaluation mode, with what was read beside its weights.

    Parameters
    ----------
    tokenizer: None where there is none: such a model is used by token ids only.
    record: the contents of `lucidlm.json` (kind, model, provenance, …), or the same for a model made elsewhere.
    source: the model as the user named it, for error messages.
    paths: the directory or file it was read from, followed by the base model's if that is an adapter. Empty for a model
        built in memory.
    """

    model: Model
    tokenizer: Tokenizer | None
    record: dict[str, Any]
    source: str = ""
    paths: tuple[Path, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 that identifies the model: its record's, which covers all files, or else that of the files.

        Files without a record are hashed on first use, so generating text does not wait for it.
        """
        assert self.paths, "built in memory"
        return self.record.get("checksum") or _files_sha256(self.paths)

    def require_causal(self, fix: str = "Pass a causal language model.") -> LanguageModel:
        """Return the model if it is a causal language model.

        Raises
        ------
        InputError: it is not; the message ends with `fix`.
        """
        if isinstance(self.model, LanguageModel) and self.model.config.causal:
            return self.model
        kind = "masked" if isinstance(self.model, LanguageModel) else self.record.get("kind", "classifier")
        what = f"is not a causal language model: a {kind} model does not continue text"
        raise InputError(what, where=self.source, fix=fix)

    def require_tokenizer(self) -> Tokenizer:
        """Return the tokenizer.

        Raises
        ------
        InputError: there is none.
        """
        if self.tokenizer is None:
            raise InputError("has no tokenizer.json", where=self.source, fix="Restore it beside the weights.")
        return self.tokenizer

    def causal_lm(self, fix: str = "Pass a causal language model.") -> tuple[LanguageModel, Tokenizer]:
        """Return a causal language model and its tokenizer.

        Raises
        ------
        InputError: it is another kind of model, or has no tokenizer.
        """
        return self.require_causal(fix), self.require_tokenizer()


def _files_sha256(paths: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and contents of all files of the models at `paths`."""
    digest = hashlib.sha256()
    for path in paths:
        for name, file in _files(path):
            digest.update(f"{name} {sha256(file)}\n".encode())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name, relative to `path`, and the path of each file of the model at `path`."""
    if path.is_file():
        yield path.suffix, path
        return
    if (path / RECORD).is_file():
        yield RECORD, path / RECORD  # it has the checksums of the others
        return
    home = transformer_folder(path)
    found = {folder / name for folder in (path, home) for name in SETTINGS if (folder / name).is_file()}
    # Modules of sentence-transformers have folders of their own; the second pattern includes the index of shards.
    for file in sorted({*found, *path.glob("*/config.json"), *home.glob("*.safetensors*")}):
        yield file.relative_to(path).as_posix(), file
