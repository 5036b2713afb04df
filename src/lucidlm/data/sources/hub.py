"""Data sets of the Hugging Face hub: `hf:OWNER/NAME[/CONFIG][@SPLIT][#REVISION]`, as in `hf:stanfordnlp/imdb@test`.

The files of the split are fetched into the hub's cache and read row by row by the readers of their formats.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow
import pyarrow.parquet

from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.data.document import Document, Reading, sources
from lucidlm.data.formats.readers import is_known, known_extensions, read_file
from lucidlm.data.sources.hub_files import Repository, open_repository
from lucidlm.data.sources.hub_layout import DEFAULT, Configuration, Splits, configurations, read_header, splits_by_name

SPECIFICATION = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<part>[^@#]+))?(?:@(?P<split>[^@#]+))?(?:#(?P<revision>[\w./-]+))?"
)
README = "README.md"


@sources.register("hf")
def read_hub(specification: str, reading: Reading) -> Iterator[Document]:
    """Yield the rows of a split (by default "train", or the only one); class labels are given by name.

    CONFIG is a configuration of the data set, or a file or folder in its repository.

    Raises
    ------
    InputError: there is no such data set, configuration, split or revision, no access to it, or no readable data in it.
    LucidError: the hub cannot be reached and the files are not in the cache, or a download was damaged.
    """
    where = f"hf:{specification}"
    if not (match := SPECIFICATION.fullmatch(specification)):
        raise InputError("is not of the form hf:OWNER/NAME/CONFIG@SPLIT#REVISION", where=where)
    repository = open_repository("dataset", match["repo"], match["revision"], where)
    header = {}
    if README in repository.files:
        [readme] = repository.fetch([README])
        header = read_header(readme.read_text(encoding="utf-8", errors="replace"), where)
    name, configuration = _choose_configuration(repository, header, match["part"])
    split = _choose_split(repository, configuration.splits, match["split"])
    paths = configuration.splits[split]
    files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
    part = "" if name in (DEFAULT, match["part"]) else f" of {name}"
    log(f"{where}: split {split}{part}, {files}, commit {repository.commit[:7]}")
    if configuration.ignored_settings:
        log(f"{where}: not heeded of what its README says on reading them: {', '.join(configuration.ignored_settings)}")
    licence, classes = header.get("license"), _classes_in_header(header, name, where)
    for path, place in zip(paths, repository.fetch(paths), strict=True):
        named = classes or _classes_in_parquet(place, path)
        with place.open("rb") as file:
            for document in read_file(file, f"hf:{repository.name}/{path}", reading):
                document.revision = repository.commit
                if licence:
                    document.meta.setdefault("licence", ", ".join(licence) if isinstance(licence, list) else licence)
                if not named or _name_classes(document, named, reading):
                    yield document


def _choose_configuration(
    repository: Repository, header: dict[str, Any], part: str | None
) -> tuple[str, Configuration]:
    """Return the name and the configuration for CONFIG; for a file or folder the name is its path."""
    where = repository.where
    if part in repository.files:
        if not is_known(part):
            what = f"{part} is a file of a type that is not known"
            raise InputError(what, where=where, fix=f"Known are {known_extensions()}.")
        return part, Configuration({"train": [part]})
    folder = (part or "").rstrip("/")
    known = configurations(repository.files, header, where)
    if part is None:
        defaults = [name for name, found in known.items() if found.default or len(known) == 1]
        if len(defaults) != 1:
            what = f"has several configurations: {', '.join(known)}"
            raise InputError(what, where=where, fix=f"Say which: hf:{repository.name}/{next(iter(known))}.")
        name, found = defaults[0], known[defaults[0]]
    elif part in known:
        name, found = part, known[part]
    elif any(path.startswith(f"{folder}/") for path in repository.files):
        name, found = part, Configuration(splits_by_name(repository.files, folder))
    else:
        what = f"has no configuration, file or folder {part!r}"
        raise InputError(what, where=where, fix=f"Its configurations are: {', '.join(known)}.")
    if not found.splits:
        kinds = sorted({PurePosixPath(path).suffix or path for path in repository.files if not path.startswith(".")})
        fix = f"The hub has a copy in parquet of many data sets: hf:{repository.name}#refs/convert/parquet."
        raise InputError(f"holds no data of a kind that is read here ({', '.join(kinds[:9])})", where=where, fix=fix)
    return name, found


def _choose_split(repository: Repository, splits: Splits, asked: str | None) -> str:
    held = f"Its splits are: {', '.join(splits)}"
    if asked is not None and asked not in splits:
        fix = f"{held}. A revision is written hf:{repository.name}#REVISION."
        raise InputError(f"has no split {asked!r}", where=repository.where, fix=fix)
    if asked is None and "train" not in splits and len(splits) > 1:
        fix = f"{held}; say which: hf:{repository.name}@{next(iter(splits))}."
        raise InputError("has no split called train", where=repository.where, fix=fix)
    return asked or ("train" if "train" in splits else next(iter(splits)))


# ---------------------------------------------------------------------- class labels

Classes = dict[str, list[str]]
"""The class names of each field that holds class ids, alone or in lists."""


def _classes_in_header(header: dict[str, Any], configuration: str, where: str) -> Classes:
    described = header.get("dataset_info") or []
    described = described if isinstance(described, list) else [described]
    classes: Classes = {}
    try:
        for info in described:
            alone = len(described) == 1 and configuration == DEFAULT
            if alone or info.get("config_name") in (configuration, None):
                for feature in info.get("features") or []:
                    kind = feature.get("dtype") or feature.get("sequence") or feature.get("list")
                    if isinstance(kind, dict) and (names := (kind.get("class_label") or {}).get("names")):
                        by_number = dict(enumerate(names)) if isinstance(names, list) else names
                        classes[feature["name"]] = [str(by_number[key]) for key in sorted(by_number, key=int)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"the features in the header of its README cannot be read ({type(error).__name__}: {error})"
        raise InputError(what, where=where, fix="Fetch the repository, and pass the file.") from None
    return classes


def _classes_in_parquet(place: Path, path: str) -> Classes:
    """Return the classes in the metadata that `datasets` writes to parquet files."""
    if not path.endswith(".parquet"):
        return {}
    try:
        described = (pyarrow.parquet.read_schema(place).metadata or {}).get(b"huggingface", b"{}")
        features = json.loads(described).get("info", {}).get("features") or {}
    except (pyarrow.ArrowException, OSError, ValueError):
        return {}  # a damaged file is reported when it is read
    kinds = {field: kind.get("feature", kind) for field, kind in features.items() if isinstance(kind, dict)}
    return {
        field: [str(name) for name in kind["names"]]
        for field, kind in kinds.items()
        if isinstance(kind, dict) and kind.get("_type") == "ClassLabel" and kind.get("names")
    }


def _name_classes(document: Document, classes: Classes, reading: Reading) -> bool:
    """Replace class ids by class names, or reject the row; return whether it is kept."""
    field = ""
    try:
        for field, names in classes.items():
            if field in document.meta:
                document.meta[field] = _class_name(document.meta[field], names)
            if field == reading.label_field:
                document.label = _class_name(document.label, names)
    except IndexError as error:
        reading.reject("unknown class", f'field "{field}" holds class {error}', where=document.where)
        return False
    if reading.label_field in classes and document.label is None:
        what = f'field "{reading.label_field}" is empty (class -1 stands for none)'
        reading.reject(f'missing field "{reading.label_field}"', what, where=document.where)
        return False
    return True


def _class_name(value: Any, names: list[str]) -> Any:
    if isinstance(value, list):
        return [_class_name(item, names) for item in value]
    if value is None or value in names or not re.fullmatch(r"-?\d+", str(value)):
        return value
    number = int(value)
    if number >= len(names):
        raise IndexError(f"{number}, and there are {len(names)}, from 0")
    return names[number] if number >= 0 else None
