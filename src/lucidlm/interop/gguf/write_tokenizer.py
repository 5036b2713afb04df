"""Our tokenizer as a GGUF file's metadata: the way back from `tokenizer.py`.

llama.cpp has its own code for each kind of tokenizer, and the file says only which, so what it would not do as we do is
refused rather than written: a model that is given other tokens than those it was trained on says nonsense quietly.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from lucidlm.core.errors import InputError
from lucidlm.interop.gguf.read_tokenizer import (
    BYTE,
    CONTROL,
    NORMAL,
    ROLES,
    SPACE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    merges_from_scores,
)
from lucidlm.interop.pre_tokenizers import name_of
from lucidlm.tokenize.chat_template import own_template
from lucidlm.tokenize.tokenizer import Tokenizer

BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
"""What SentencePiece spells the bytes of characters it has no token for."""


def tokenizer_metadata(tokenizer: Tokenizer, vocab_size: int) -> dict[str, Any]:
    """Return the metadata that describe `tokenizer`, with unused tokens up to the model's `vocab_size`.

    Raises
    ------
    InputError: llama.cpp has none like it, or the model has fewer tokens.
    """
    if tokenizer.vocab_size > vocab_size:
        raise _refusal(f"has {tokenizer.vocab_size:,} tokens, the model {vocab_size:,}")
    definition = json.loads(tokenizer.core.to_str())
    kinds = {"bpe": _byte_level, "sentencepiece": _sentence_piece, "characters": _characters}
    kind = "bpe" if tokenizer.byte_level else tokenizer.kind
    if kind not in kinds:
        raise _refusal(f"is of the kind {kind}, which llama.cpp has nothing for that gives the same tokens")
    tokens = _tokens(tokenizer, vocab_size)
    described = {"tokens": tokens, **kinds[kind](tokenizer, definition, tokens)}
    # What a tokenizer puts after a whole text is not asked for: llama.cpp would put it after a prompt, too.
    if tokenizer.prefix not in ([], [tokenizer.begin_id]):
        raise _refusal(f"puts {len(tokenizer.prefix)} tokens before a text; llama.cpp puts one there or none")
    ids = {key: found for role, key in ROLES.items() if (found := tokenizer.find(role)) is not None}
    ids |= {"bos_token_id": tokenizer.begin_id, "eos_token_id": tokenizer.eos_id}
    metadata = {
        **described,
        "token_type": _types(tokenizer, definition, tokens),
        **ids,
        "add_bos_token": bool(tokenizer.prefix),
        "add_eos_token": False,
    }
    template = own_template(tokenizer)
    return {f"tokenizer.ggml.{key}": value for key, value in metadata.items()} | (
        {} if template is None else {"tokenizer.chat_template": template}
    )


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> list[str]:
    """Return the tokens in the order of their ids; those that there are not get names that no text is cut into."""
    return [tokenizer.core.id_to_token(index) or f"[UNUSED_{index}]" for index in range(vocab_size)]


def _types(tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]) -> list[int]:
    types = [NORMAL] * tokenizer.vocab_size + [UNUSED] * (len(tokens) - tokenizer.vocab_size)
    for index in range(tokenizer.vocab_size):
        if tokenizer.core.id_to_token(index) is None:
            types[index] = UNUSED
        elif definition["model"].get("byte_fallback") and tokens[index] in BYTES:
            types[index] = BYTE
    for token in definition["added_tokens"]:
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
        if not token["special"] and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            raise _refusal(f"has a token {token['content']!r} that depends on what is around it")
    if tokenizer.unknown_id is not None:
        types[tokenizer.unknown_id] = UNKNOWN
    return types


def _byte_level(tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    model = definition["model"]
    name = name_of(tokenizer.core)
    if name is None:
        raise _refusal("cuts text in a way that llama.cpp does not know")
    # Qwen's brings text into the form NFC first, llama.cpp's Qwen does not: nearly all text is in it.
    if definition["normalizer"] not in (None, {"type": "NFC"}):
        raise _refusal("changes text before cutting it, which llama.cpp does not")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _refusal("marks the parts of words, which llama.cpp's byte-level BPE does not")
    if not model["merges"]:
        raise _refusal("has no merges, without which llama.cpp opens no byte-level BPE")
    return {"model": "gpt2", "pre": name, "merges": [" ".join(merge) for merge in _merges(model)]}


def _sentence_piece(tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    model = definition["model"]
    prefixed = _space_prefix(definition)
    if prefixed is None:
        raise _refusal("changes or cuts text in a way that llama.cpp's SentencePiece does not")
    merges = _merges(model)
    ranks = {"".join(merge): -float(rank) for rank, merge in reversed(list(enumerate(merges)))}
    scores = [ranks.get(token, 0.0) for token in tokens]
    # llama.cpp merges any two tokens that together are one; that has to be what the list of merges says.
    derived = merges_from_scores(model["vocab"], np.array(scores))
    if not model.get("byte_fallback") or set(derived) != set(merges) or not _same_results(derived, merges):
        raise _refusal("merges in an order that no scores of tokens express, which llama.cpp has in their place")
    return {"model": "llama", "pre": "default", "scores": scores, "add_space_prefix": prefixed}


def _characters(tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    """Return a Unigram whose tokens are characters without bytes, all as likely as each other.

    Its one difference: of several unknown characters in a row it makes one unknown token.
    """
    if SPACE in tokens or "\0" in tokens:
        raise _refusal(f"has {SPACE!r} or NUL for a character, which llama.cpp has another use for")
    if tokenizer.unknown_id is None:
        raise _refusal("has no token for unknown characters")
    return {
        "model": "t5",
        "pre": "default",
        "tokens": [SPACE if token == " " else token for token in tokens],
        "scores": [0.0] * len(tokens),
        "add_space_prefix": False,
        "remove_extra_whitespaces": False,
    }


def _same_results(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> bool:
    return ["".join(merge) for merge in one] == ["".join(merge) for merge in other]


def _space_prefix(definition: dict[str, Any]) -> bool | None:
    """Return whether a text begins with a space that is put there; None if more is done to it than SentencePiece does."""
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    normalizer, pre = definition["normalizer"], definition["pre_tokenizer"]
    if pre is None:
        steps = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
        return {repr([spaces]): False, repr([prepend, spaces]): True}.get(repr(steps))
    # SentencePiece and llama.cpp put a space before a text that begins with one, too; Metaspace does not.
    schemes = {"never": False, "first": True, "always": True}
    if normalizer is None and pre["type"] == "Metaspace" and pre["replacement"] == SPACE and pre["split"] is False:
        return schemes.get(pre["prepend_scheme"])
    return None


def _merges(model: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the merges from a tokenizer's JSON, where they are pairs, or in older files texts with a space."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _refusal(what: str) -> InputError:
    return InputError(
        f"its tokenizer {what}",
        where="--to gguf",
        fix="Characters, and byte-level and SentencePiece BPE in forms that llama.cpp knows, can be exported.",
    )
