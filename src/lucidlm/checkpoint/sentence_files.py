"""The files of sentence-transformers: how hidden states become a text's embedding.

`modules.json` lists the modules: the Transformer, a pooling (`1_Pooling/config.json`), perhaps a normalisation.
`sentence_bert_config.json` has the maximum sequence length, `config_sentence_transformers.json` the prompts for queries and
documents, and the similarity function.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json, write_json, write_text
from lucidlm.model.pooling import POOLINGS, SentenceSettings

MODULES, LENGTHS, PROMPTS = "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"

FLAGS = {
    f"pooling_mode_{name}{'_tokens' if name in ('max', 'mean', 'weightedmean') else ''}": name for name in POOLINGS
}
FLAGS["pooling_mode_cls_token"] = FLAGS.pop("pooling_mode_cls")
"""The boolean fields of a pooling's config.json, and the pooling each turns on."""


def transformer_folder(directory: Path) -> Path:
    """Return the folder of the Transformer's files: in older models a subfolder named in modules.json."""
    if (directory / "config.json").is_file() or not (directory / MODULES).is_file():
        return directory
    return directory / dict(_modules(directory / MODULES)).get("Transformer", "")


def read_sentence_settings(directory: Path) -> SentenceSettings | None:
    """Return the settings in `directory`'s sentence-transformers files; None if there are none.

    Modules that are not supported are noted in `refused`: the Transformer can still be used for something else.

    Raises
    ------
    InputError: a file is missing or damaged, or a field is of the wrong type.
    """
    if not (directory / MODULES).is_file():
        return None
    listed = _modules(directory / MODULES)
    kinds = [kind for kind, _ in listed if kind != "Dropout"]
    paths = dict(listed)
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        odd = next((kind for kind in kinds if kind not in ("Transformer", "Pooling", "Normalize")), None)
        what = f"passes texts through {' and '.join(kinds)}" if odd is None else f"has a module {odd}"
        return SentenceSettings(refused=f"{what}; only a Transformer, a Pooling and a Normalize after it are supported")
    pooling = read_json(directory / paths["Pooling"] / "config.json")
    about = read_json(directory / PROMPTS) if (directory / PROMPTS).is_file() else {}
    lengths = directory / paths["Transformer"] / LENGTHS
    reading = read_json(lengths) if lengths.is_file() else {}
    length, prompts, default = (
        reading.get("max_seq_length"),
        about.get("prompts") or {},
        about.get("default_prompt_name"),
    )
    if length is not None and (type(length) is not int or length < 1):
        raise InputError(f"max_seq_length is {length!r}, not a number of tokens", where=lengths)
    if not isinstance(prompts, dict) or not all(isinstance(prompt, str) for prompt in prompts.values()):
        raise InputError("prompts should map names to texts", where=directory / PROMPTS)
    prompted = any(prompts.values()) and pooling.get("include_prompt") is False
    return SentenceSettings(
        poolings=_poolings(pooling, directory / paths["Pooling"] / "config.json"),
        normalize="Normalize" in kinds,
        max_length=length,
        lower=bool(reading.get("do_lower_case")),
        prompts=prompts,
        default=default if isinstance(default, str) else None,
        similarity=str(about.get("similarity_fn_name") or "cosine"),
        refused="leaves its prompts out of the pooling, which is not supported" if prompted else None,
    )


def write_sentence_settings(settings: SentenceSettings, directory: Path, dimension: int) -> list[str]:
    """Write the settings in sentence-transformers' format; return the names of the files at the top of `directory`.

    Parameters
    ----------
    dimension: D, the width of a hidden state.
    """
    listed = [("", "Transformer"), ("1_Pooling", "Pooling"), *([("2_Normalize", "Normalize")] * settings.normalize)]
    flags = {flag: True for flag, name in FLAGS.items() if name in settings.poolings}
    mean = {"pooling_mode_mean_tokens": "mean" in settings.poolings}  # on by default there
    write_json(directory / "1_Pooling" / "config.json", {"word_embedding_dimension": dimension, **mean, **flags})
    if settings.normalize:
        (directory / "2_Normalize").mkdir(exist_ok=True)
    write_json(directory / LENGTHS, {"max_seq_length": settings.max_length, "do_lower_case": settings.lower})
    names = [LENGTHS, MODULES]
    if settings.prompts or settings.similarity != "cosine":
        about = {"prompts": dict(settings.prompts), "default_prompt_name": settings.default}
        write_json(directory / PROMPTS, {**about, "similarity_fn_name": settings.similarity})
        names.append(PROMPTS)
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(listed)
    ]
    write_text(directory / MODULES, json.dumps(modules, indent=2) + "\n")
    return names


def _modules(file: Path) -> list[tuple[str, str]]:
    """Return the kind of each module and the folder of its settings."""
    try:
        listed: Any = json.loads(file.read_text(encoding="utf-8"))
        found = [(str(module["type"]).rpartition(".")[2], str(module["path"])) for module in listed]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError("should list modules, each with type and path", where=file, fix="Restore it.") from None
    for _, path in found:
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise InputError(f"names {path!r}, which is not in the model directory", where=file, fix="Do not use it.")
    return found


def _poolings(fields: Mapping[str, Any], where: Path) -> tuple[str, ...]:
    """Return the names of the poolings in a config.json, in its current or its older form."""
    if (named := fields.get("pooling_mode")) is not None:
        wanted = [named] if isinstance(named, str) else named
    else:
        # Mean pooling is the default.
        flags = {"pooling_mode_mean_tokens": True, **fields}
        wanted = [FLAGS.get(flag, flag) for flag, on in flags.items() if flag.startswith("pooling_mode_") and on]
    if not isinstance(wanted, list) or not wanted or any(name not in POOLINGS for name in wanted):
        raise InputError(f"asks for pooling by {wanted!r}", where=where, fix=f"Known are {', '.join(POOLINGS)}.")
    return tuple(name for name in POOLINGS if name in wanted)
