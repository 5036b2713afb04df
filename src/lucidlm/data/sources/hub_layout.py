"""Which files of a data set's repository belong to which split of which configuration.

The header of the README says so, or else the file names do. The rules are those of the `datasets` library
(https://huggingface.co/docs/hub/datasets-data-files-configuration); only formats that we can read count as data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import yaml
from fsspec.utils import glob_translate

from lucidlm.core.errors import InputError
from lucidlm.data.formats.readers import is_known

KINDS = {
    ".parquet": "parquet",
    ".jsonl": "json",
    ".json": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "text",
}
"""Kinds of data by file extension; if two kinds are equally frequent, the first one here is taken."""
NO_DATA = ("config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
DEFAULT = "default"

SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""Words in the names of files and folders that mean a split."""
BREAK = "[-._ 0-9]"
SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
CONVERTED = re.compile(r"(?P<config>[^/]+)/(?:partial-)?(?P<split>[^/]+)/\d{4}\.parquet")
"""File names on `refs/convert/parquet`, the branch where the hub keeps parquet copies of data sets."""

Splits = dict[str, list[str]]
"""The paths of a configuration's files by split, in the order in which they are read."""


@dataclass(frozen=True)
class Configuration:
    """A configuration of a data set.

    Parameters
    ----------
    default: whether it is the default configuration.
    ignored_settings: settings in the README for reading its files that have no effect here.
    """

    splits: Splits
    default: bool = False
    ignored_settings: tuple[str, ...] = ()


def read_header(readme: str, where: str) -> dict[str, Any]:
    """Return the fields of the YAML header of a README.

    Raises
    ------
    InputError: it is not valid YAML.
    """
    found = re.match(r"\ufeff?---[ \t]*\n(.*?\n)?---[ \t]*(?:\n|$)", readme.replace("\r\n", "\n"), re.DOTALL)
    try:
        header = yaml.safe_load(found[1] or "") if found else None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"its header is not valid YAML ({reason})", where=where, fix="Name a file or folder."
        ) from None
    return header if isinstance(header, dict) else {}


def configurations(files: Iterable[str], header: dict[str, Any], where: str) -> dict[str, Configuration]:
    """Return the configurations of a repository by name; without a declaration there is one, "default".

    Raises
    ------
    InputError: the README's list of configurations is malformed, or points outside the repository.
    """
    data = sorted(path for path in files if _kind(path) and PurePosixPath(path).name not in NO_DATA)
    if declared := header.get("configs"):
        try:
            return {str(fields["config_name"]): _declared(fields, data, where) for fields in declared}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            what = f"its field `configs` is not a list of configurations ({type(error).__name__}: {error})"
            raise InputError(what, where=where, fix="Name a file or folder of it.") from None
    if data and all(parts := [CONVERTED.fullmatch(path) for path in data]):
        converted: dict[str, Splits] = {}
        for part in filter(None, parts):
            converted.setdefault(part["config"], {}).setdefault(part["split"], []).append(part[0])
        return {
            name: Configuration(splits, name == DEFAULT or len(converted) == 1) for name, splits in converted.items()
        }
    return {DEFAULT: Configuration(splits_by_name(data), default=True)}


def splits_by_name(files: Iterable[str], folder: str = "") -> Splits:
    """Return the splits by the names of the files below `folder`; only the most frequent kind of data is used.

    Tried in this order: shards in `data/`, folders named after a split, files named after one, everything as "train".
    """
    start = f"{folder}/" if folder else ""
    below = [path.removeprefix(start) for path in sorted(files) if path.startswith(start) and _kind(path)]
    found: Splits = {}
    for path in below:
        if match := SHARD.fullmatch(path):
            found.setdefault(match[1], []).append(path)
    found = {name: found[name] for name in sorted(found, key=lambda name: ([*SPLITS, name].index(name), name))}
    ways = (("**/{0}/**", "**/{0}{1}*/**", "**/*{1}{0}/**", "**/*{1}{0}{1}*/**"), ("**/{0}{1}*", "**/*{1}{0}{1}*"))
    for way in ways:
        if not found:
            patterns = {
                split: [form.format(word, BREAK) for word in words for form in way] for split, words in SPLITS.items()
            }
            found = {split: paths for split in SPLITS if (paths := _matching(patterns[split], below))}
    found = found or {"train": _matching(["**"], below)}
    return {split: [start + path for path in paths] for split, paths in _of_one_kind(found).items() if paths}


def _declared(fields: dict[str, Any], data: list[str], where: str) -> Configuration:
    folder = str(fields.get("data_dir") or "").strip("/").removeprefix("./")
    named = fields.get("data_files")
    if named is None:
        splits = splits_by_name(data, folder)
    else:
        entries = named if isinstance(named, list) else [named]
        patterns: dict[str, list[str]] = {}
        for entry in entries:
            split, paths = (entry["split"], entry["path"]) if isinstance(entry, dict) else ("train", entry)
            patterns.setdefault(str(split), []).extend(paths if isinstance(paths, list) else [paths])
        if elsewhere := [path for paths in patterns.values() for path in paths if "://" in path]:
            fix = "Fetch that by itself, and pass the file."
            raise InputError(f"its data lie elsewhere, at {elsewhere[0]}", where=where, fix=fix)
        start = f"{folder}/" if folder else ""
        resolved = {
            split: _matching([start + path.removeprefix("./") for path in paths], data)
            for split, paths in patterns.items()
        }
        splits = {split: paths for split, paths in _of_one_kind(resolved).items() if paths}
    known = {
        "config_name",
        "data_files",
        "data_dir",
        "default",
        "features",
        "description",
        "version",
        "sep",
        "delimiter",
    }
    default = bool(fields.get("default")) or fields["config_name"] == DEFAULT
    return Configuration(splits, default, tuple(sorted(fields.keys() - known)))


def _kind(path: str) -> str | None:
    suffixes = [suffix.lower() for suffix in PurePosixPath(path).suffixes]
    return next((KINDS[suffix] for suffix in reversed(suffixes) if suffix in KINDS), None) if is_known(path) else None


def _of_one_kind(splits: Splits) -> Splits:
    """Keep the files of one kind in each split: the most frequent kind of the first split."""
    counts = Counter(_kind(path) for path in next(iter(splits.values()), []))
    order = list(dict.fromkeys(KINDS.values()))
    taken = max(order, key=lambda kind: (counts[kind], -order.index(kind)))
    return {split: [path for path in paths if _kind(path) == taken] for split, paths in splits.items()}


def _matching(patterns: list[str], files: list[str]) -> list[str]:
    """Return the files that match any pattern, without duplicates, ordered by pattern and then by name."""
    return list(dict.fromkeys(path for pattern in patterns for path in _matches(pattern, files)))


def _matches(pattern: str, files: list[str]) -> Iterator[str]:
    expression = re.compile(glob_translate(pattern))
    for path in files:
        if expression.match(path) and _special_parts(path) == _special_parts(pattern):
            yield path


def _special_parts(path: str) -> tuple[int, int]:
    """Count hidden parts and folders such as `__MACOSX`, which match only patterns that name them explicitly."""
    parts = PurePosixPath(path).parts
    return sum(part.startswith(".") for part in parts), sum(part.startswith("__") for part in parts[:-1])
