"""The files that tokenizers come in: `tokenizer.json`, or the vocabularies of models older than that; and their settings.

A `tokenizer.model` of SentencePiece alone is not read: it is a protocol buffer, which transformers turns into
`tokenizer.json` when it saves the tokenizer.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json

JSON, CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
VOCABULARIES = (JSON, "vocab.txt", "vocab.json")
"""Any of these makes a tokenizer: the whole of it, the word pieces of BERT, the byte-level BPE of GPT-2."""

DECODERS = ("ByteLevel", "Fuse", "Sequence", "Metaspace", "WordPiece")


def read_core(path: Path) -> tokenizers.Tokenizer:
    """Read the tokenizer proper from a directory, or from a `tokenizer.json`.

    Raises
    ------
    InputError: there is none, it is damaged, or it is of a kind that is not read.
    """
    if path.is_dir() and not (path / JSON).is_file():
        return _from_vocabulary(path)
    file = path / JSON if path.is_dir() else path
    if not file.is_file():
        raise _missing(path)
    core = _built(lambda: tokenizers.Tokenizer.from_file(str(file)), file)
    decoder = None if core.decoder is None else type(core.decoder).__name__
    known = isinstance(core.model, models.BPE | models.WordPiece | models.Unigram)
    if not known or decoder not in DECODERS:
        raise InputError(
            f"is a {type(core.model).__name__} tokenizer with the decoder {decoder}, which is not read",
            where=file,
            fix="Known are BPE, WordPiece and Unigram. Choose another tokenizer, or train one.",
        )
    if isinstance(core.model, models.Unigram):
        _keep_control_out(core)
    return core


def read_config(directory: Path) -> dict[str, Any] | None:
    """Return what `tokenizer_config.json`, or before it `special_tokens_map.json`, say, with the chat template.

    None if neither is there.

    Raises
    ------
    InputError: one is damaged.
    """
    files = [directory / name for name in ("special_tokens_map.json", CONFIG) if (directory / name).is_file()]
    config = {key: value for file in files for key, value in read_json(file).items()}
    if (directory / TEMPLATE).is_file():
        config["chat_template"] = (directory / TEMPLATE).read_text(encoding="utf-8", errors="replace")
    return config or None


def _from_vocabulary(directory: Path) -> tokenizers.Tokenizer:
    if (directory / "vocab.txt").is_file():
        return _built(lambda: _word_pieces(directory), directory / "vocab.txt")
    merges = directory / "merges.txt"
    if (directory / "vocab.json").is_file() and merges.is_file():
        return _built(lambda: _byte_level(directory / "vocab.json", merges), directory / "vocab.json")
    if (directory / "tokenizer.model").is_file():
        raise InputError(
            "holds SentencePiece's tokenizer.model only, which is not read",
            where=directory,
            fix="Open it with transformers' AutoTokenizer and save_pretrained it: that writes tokenizer.json.",
        )
    raise _missing(directory)


def _keep_control_out(core: tokenizers.Tokenizer) -> None:
    """Have control tokens that a text spells out cut in two: for Unigram they are pieces like any other, and likely ones."""
    core.encode_special_tokens = True
    control = [token.content for token in core.get_added_tokens_decoder().values() if token.special]
    found = [token for token in control if len(token) > 1 and _one_piece(core, token)]
    if found:
        inside = "|".join(f"(?<={re.escape(token[0])}){re.escape(token[1:])}" for token in found)
        before = [pre_tokenizers.Split(Regex(inside), "isolated")]
        core.pre_tokenizer = pre_tokenizers.Sequence([*before, *([core.pre_tokenizer] if core.pre_tokenizer else [])])


def _one_piece(core: tokenizers.Tokenizer, token: str) -> bool:
    return any(end - start == len(token) for start, end in core.encode(token, add_special_tokens=False).offsets)


def _word_pieces(directory: Path) -> tokenizers.Tokenizer:
    """Return BERT's tokenizer (Wu et al. 2016, arXiv:1609.08144, section 4.1): lower case unless the settings say no."""
    config = read_config(directory) or {}
    lower, han = config.get("do_lower_case", True), config.get("tokenize_chinese_chars", True)
    core = tokenizers.Tokenizer(models.WordPiece.from_file(str(directory / "vocab.txt"), unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(True, han, config.get("strip_accents"), lower)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.add_special_tokens(["[UNK]", "[SEP]", "[PAD]", "[CLS]", "[MASK]"])
    ids = {token: core.token_to_id(token) for token in ("[CLS]", "[SEP]")}
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=list(ids.items())
    )
    return core


def _byte_level(vocabulary: Path, merges: Path) -> tokenizers.Tokenizer:
    """Return GPT-2's tokenizer (Radford et al. 2019)."""
    core = tokenizers.Tokenizer(models.BPE.from_file(str(vocabulary), str(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([token for token in ("<|endoftext|>",) if core.token_to_id(token) is not None])
    return core


def _built(build: Any, file: Path) -> tokenizers.Tokenizer:
    try:
        return build()
    except (InputError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises nothing more precise, and panics are no Exception
        raise InputError(
            f"is not a tokenizer ({error})", where=file, fix="The file is damaged; make it again."
        ) from None


def _missing(path: Path) -> InputError:
    return InputError("no tokenizer is here (tokenizer.json is missing)", where=path)
