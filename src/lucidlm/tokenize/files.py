"""The files that tokenizers come in: `tokenizer.json`, or the vocabularies of models older than that; and their settings.

A tokenizer of a model made elsewhere becomes what transformers 5 makes of the same files: by its class
(`classes`), its settings, and the tokens that are named beside its vocabulary (`added_tokens`). A directory of
ours holds in `tokenizer.json` all that there is to know.

A `tokenizer.model` of SentencePiece alone is not read: it is a protocol buffer, which transformers turns into
`tokenizer.json` when it saves the tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import tokenizers
from tokenizers import AddedToken, models

from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json
from lucidlm.core.progress import log
from lucidlm.tokenize.added_tokens import NAMES, add_tokens, merged, named_only
from lucidlm.tokenize.classes import CLASSES, LLAMA3, TokenizerClass, begin_and_end, class_name

T = TypeVar("T")

JSON, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SPECIAL, ADDED = "special_tokens_map.json", "added_tokens.json"
VOCABULARIES = (JSON, "vocab.txt", "vocab.json")
"""Any of these makes a tokenizer: the whole of it, the word pieces of BERT, a byte-level BPE's tokens."""

RECORD = "lucidlm.json"
"""What lies in every model directory of ours."""

LLAMA3_TYPES, SPACED = ("llama", "eurobert"), "\u0120"
"""Types of models whose byte-level vocabularies are Llama 3's, and the token that is a space in these."""

DECODERS = ("ByteLevel", "Fuse", "Sequence", "Metaspace", "WordPiece")


def read_tokenizer(path: Path) -> tuple[tokenizers.Tokenizer, dict[str, Any] | None]:
    """Read a tokenizer, and its settings with the chat template, from a directory, or from a `tokenizer.json` in one.

    Raises
    ------
    InputError: there is none, a file is damaged, or it is of a kind that is not read.
    """
    directory, file = (path, path / JSON) if path.is_dir() else (path.parent, path)
    if not path.exists():
        raise _missing(path)
    config = _settings(directory)
    if file.is_file() and (directory / RECORD).exists():
        core = _built(lambda: tokenizers.Tokenizer.from_file(str(file)), file)
    else:
        model = _object(directory / "config.json")
        core, config = _built(lambda: _made(directory, file, config, model), file if file.is_file() else directory)
    decoder = None if core.decoder is None else type(core.decoder).__name__
    known = isinstance(core.model, models.BPE | models.WordPiece | models.Unigram)
    if not known or decoder not in DECODERS:
        raise InputError(
            f"is a {type(core.model).__name__} tokenizer with the decoder {decoder}, which is not read",
            where=file,
            fix="Known are BPE, WordPiece and Unigram. Choose another tokenizer, or train one.",
        )
    _mark_ends(core, directory)
    # What the older file calls the tokens that are there fills in what the newer one leaves open.
    older = named_only(_object(directory / SPECIAL))
    parts = {name: older[name] for name in NAMES if name in older and core.token_to_id(str(older[name])) is not None}
    return core, {**parts, **config} or None


def _mark_ends(core: tokenizers.Tokenizer, directory: Path) -> None:
    """See to it that every added token that ends a text of the model is special: no text says it, and none shows it."""
    named = [_object(directory / name).get("eos_token_id") for name in ("config.json", "generation_config.json")]
    ids = [index for ends in named for index in (ends if isinstance(ends, list) else [ends])]
    tokens = [token for index, token in core.get_added_tokens_decoder().items() if index in ids and not token.special]
    for token in tokens:
        token.special = True
    core.add_tokens(tokens)


def _settings(directory: Path) -> dict[str, Any]:
    config = merged(_object(directory / CONFIG), _object(directory / SPECIAL))
    if (directory / TEMPLATE).is_file():
        config["chat_template"] = (directory / TEMPLATE).read_text(encoding="utf-8", errors="replace")
    return config


def _object(file: Path) -> dict[str, Any]:
    """Return what a file says, nothing where there is none."""
    return read_json(file) if file.is_file() else {}


def _made(
    directory: Path, file: Path, config: dict[str, Any], model: Mapping[str, Any]
) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Return the tokenizer that transformers makes of the files, and the settings with what they leave to its class."""
    declared, model_type = config.get("tokenizer_class") or model.get("tokenizer_class"), model.get("model_type")
    own, frame = {}, None
    if file.is_file():
        text = file.read_text(encoding="utf-8")
        core = tokenizers.Tokenizer.from_str(text)
        own, frame = core.get_added_tokens_decoder(), core.post_processor
        cls = CLASSES.get(class_name(declared, model_type, '"ByteLevel"' in text) or "")
        if cls is not None and cls.model == type(core.model).__name__:
            config = {key: value for key, value in config.items() if key not in ("add_bos_token", "add_eos_token")}
            config = {**cls.defaults, **config}
            whole = json.loads(text)["model"]
            core = cls.build(whole["vocab"], whole.get("merges"), config, core.normalizer)
            core.post_processor = frame
        else:
            cls = None
    else:
        cls, vocabulary, merges = _vocabulary(directory, declared, model_type)
        config = {**cls.defaults, **config}
        core = cls.build(vocabulary, merges, config, None)
    # Where no class is named, a role alone adds no token.
    special = add_tokens(core, config, _object(directory / ADDED), own, names=bool(declared or model_type))
    if cls is not None and cls.insists:
        core.add_tokens([AddedToken(token, special=True) for token in special])
    if cls is not None and (cls.frame is not None or not file.is_file()):
        core.post_processor = (cls.frame or begin_and_end)(core, config)
    return core, named_only(config)


def _vocabulary(
    directory: Path, declared: str | None, model_type: str | None
) -> tuple[TokenizerClass, dict[str, int], list[tuple[str, str]] | None]:
    """Return the vocabulary of a tokenizer without `tokenizer.json`, its merges, and the class that it is for.

    Raises
    ------
    InputError: the files do not say how a text is cut.
    """
    name = class_name(declared, model_type, byte_level=False)
    cls = CLASSES.get(name or "")
    pieces, tokens, merges = (directory / file for file in ("vocab.txt", "vocab.json", "merges.txt"))
    if tokens.is_file() and merges.is_file():
        vocabulary, pairs = models.BPE.read_file(str(tokens), str(merges))
        if name in (None, "LlamaTokenizer") and model_type in LLAMA3_TYPES and SPACED in vocabulary:
            log(f"{directory}: vocab.json and merges.txt of a {model_type} model are cut as Llama 3 cuts.")
            cls = LLAMA3
        if cls is not None and cls.model == "BPE":
            return cls, vocabulary, pairs
        known = ", ".join(name for name, cls in CLASSES.items() if cls.model == "BPE")
        raise InputError(
            "vocab.json and merges.txt do not say how a text is cut before merging, nor does its family "
            f"(tokenizer_class {declared!r}, model_type {model_type!r})",
            where=directory,
            fix=f"Name the class in {CONFIG}, one of {known}; or save the tokenizer with transformers, which writes {JSON}.",
        )
    if pieces.is_file():
        cls = cls or (CLASSES["BertTokenizer"] if name is None else None)
        if cls is not None and cls.model == "WordPiece":
            lines = pieces.read_text(encoding="utf-8").removesuffix("\n").split("\n")
            return cls, {line.rstrip(): index for index, line in enumerate(lines)}, None
        raise InputError(
            f"vocab.txt is read as BERT's word pieces, which the class {name} does not cut by",
            where=directory,
            fix=f"Save the tokenizer with transformers, if it writes {JSON}, or correct tokenizer_class in {CONFIG}.",
        )
    if (directory / "tokenizer.model").is_file():
        raise InputError(
            "holds SentencePiece's tokenizer.model only, which is not read",
            where=directory,
            fix="Open it with transformers' AutoTokenizer and save_pretrained it: that writes tokenizer.json.",
        )
    raise _missing(directory)


def _built(build: Callable[[], T], file: Path) -> T:
    try:
        return build()
    except (InputError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing more precise, and panics are no Exception
        raise InputError(
            f"is not a tokenizer ({error})", where=file, fix="The file is damaged; make it again."
        ) from None


def _missing(path: Path) -> InputError:
    return InputError(f"no tokenizer is here ({JSON} is missing)", where=path)
