"""Write our tokenizer to the metadata of a GGUF file: the inverse of `read_tokenizer`.

llama.cpp has its own code for each kind of tokenizer, and the file only names the kind. So a tokenizer that llama.cpp would
not reproduce exactly is refused: with other tokens than in training, a model silently gives bad output.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from gguf import GGUFWriter, Keys, TokenType

from lucidlm.core.errors import InputError
from lucidlm.core.progress import log
from lucidlm.interop.gguf.read_tokenizer import ROLES, SPACE, merges_from_scores
from lucidlm.interop.pre_tokenizers import name_of
from lucidlm.tokenize.chat_template import own_template
from lucidlm.tokenize.tokenizer import Tokenizer

SHOWN = 3
"""Most tokens named in a message."""

BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))
"""SentencePiece's tokens for the bytes of characters without a token of their own."""


def write_tokenizer(writer: GGUFWriter, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Add `tokenizer` to the metadata of a model whose embedding has `vocab_size` rows.

    Rows without a token get an unused one. Added tokens without a row are left out: the model cannot read them either.

    Raises
    ------
    InputError: llama.cpp has no equivalent, or a required token has no row.
    """
    definition = json.loads(tokenizer.core.to_str())
    kinds = {"bpe": _write_byte_level, "sentencepiece": _write_sentence_piece, "characters": _write_characters}
    kind = "bpe" if tokenizer.byte_level else tokenizer.kind
    if kind not in kinds:
        raise _refusal(f"is of the kind {kind}, which llama.cpp has nothing for that gives the same tokens")
    # Tokens that a tokenizer appends to a text are not written: llama.cpp would append them to a prompt, too.
    if tokenizer.prefix not in ([], [tokenizer.begin_id]):
        raise _refusal(f"puts {len(tokenizer.prefix)} tokens before a text; llama.cpp puts one there or none")
    ids = {key: found for role, key in ROLES.items() if (found := tokenizer.find(role)) is not None}
    ids |= {Keys.Tokenizer.BOS_ID: tokenizer.begin_id, Keys.Tokenizer.EOS_ID: tokenizer.eos_id}
    _leave_out_rowless(tokenizer, vocab_size, needed=ids.values())
    tokens = _tokens(tokenizer, vocab_size)
    kinds[kind](writer, tokenizer, definition, tokens)
    writer.add_token_types(_types(tokenizer, definition, tokens))
    for key, index in ids.items():
        writer.add_uint32(key, index)
    writer.add_add_bos_token(bool(tokenizer.prefix))
    writer.add_add_eos_token(False)
    if (template := own_template(tokenizer)) is not None:
        writer.add_chat_template(template)


def _leave_out_rowless(tokenizer: Tokenizer, vocab_size: int, needed: Iterable[int]) -> None:
    """Log which tokens from `vocab_size` on are left out; llama.cpp opens no file with more tokens than rows."""
    rowless = range(vocab_size, tokenizer.vocab_size)
    if not rowless:
        return
    learned = max(tokenizer.core.get_vocab(with_added_tokens=False).values(), default=-1)
    if learned >= vocab_size or any(index in rowless for index in needed):
        raise _refusal(
            f"has {tokenizer.vocab_size:,} tokens, the model {vocab_size:,}",
            fix="Only added tokens that begin, end and pad nothing can be left out. Use the tokenizer that the model "
            "was trained with.",
        )
    names = [repr(token) for index in rowless if (token := tokenizer.core.id_to_token(index)) is not None]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    log(f"GGUF: left out tokens that the model has no row for: {', '.join(names[:SHOWN])}{more}")


def _tokens(tokenizer: Tokenizer, vocab_size: int) -> list[str]:
    """Return the tokens in the order of their ids; unused ids get names that no text is tokenised into."""
    return [tokenizer.core.id_to_token(index) or f"[UNUSED_{index}]" for index in range(vocab_size)]


def _types(tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]) -> list[int]:
    types = [TokenType.NORMAL] * len(tokens)
    for index, token in enumerate(tokens):
        if tokenizer.core.id_to_token(index) is None:
            types[index] = TokenType.UNUSED
        elif definition["model"].get("byte_fallback") and token in BYTES:
            types[index] = TokenType.BYTE
    for token in definition["added_tokens"]:
        if token["id"] >= len(tokens):
            continue
        types[token["id"]] = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        if not token["special"] and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            raise _refusal(f"has a token {token['content']!r} that depends on what is around it")
    if tokenizer.unknown_id is not None:
        types[tokenizer.unknown_id] = TokenType.UNKNOWN
    return [kind.value for kind in types]


def _write_byte_level(writer: GGUFWriter, tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]) -> None:
    model = definition["model"]
    name = name_of(tokenizer.core)
    if name is None:
        raise _refusal("cuts text in a way that llama.cpp does not know")
    # Qwen's normalises to NFC first, llama.cpp's Qwen does not; nearly all text is in NFC already.
    if definition["normalizer"] not in (None, {"type": "NFC"}):
        raise _refusal("changes text before cutting it, which llama.cpp does not")
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        raise _refusal("marks the parts of words, which llama.cpp's byte-level BPE does not")
    if not model["merges"]:
        raise _refusal("has no merges, without which llama.cpp opens no byte-level BPE")
    writer.add_token_list(tokens)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_merges([" ".join(merge) for merge in _merges(model)])


def _write_sentence_piece(
    writer: GGUFWriter, tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]
) -> None:
    model = definition["model"]
    prefixed = _space_prefix(definition)
    if prefixed is None:
        raise _refusal("changes or cuts text in a way that llama.cpp's SentencePiece does not")
    merges = _merges(model)
    ranks = {"".join(merge): -float(rank) for rank, merge in reversed(list(enumerate(merges)))}
    scores = [ranks.get(token, 0.0) for token in tokens]
    # llama.cpp merges any two tokens whose concatenation is a token; the list of merges has to agree with that.
    derived = merges_from_scores(model["vocab"], np.array(scores))
    if not model.get("byte_fallback") or set(derived) != set(merges) or not _same_results(derived, merges):
        raise _refusal("merges in an order that no scores of tokens express, which llama.cpp has in their place")
    writer.add_token_list(tokens)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores(scores)
    writer.add_add_space_prefix(prefixed)


def _write_characters(writer: GGUFWriter, tokenizer: Tokenizer, definition: dict[str, Any], tokens: list[str]) -> None:
    """Write a Unigram model whose tokens are characters of equal score, without byte fallback.

    Its one difference: several unknown characters in a row become one unknown token.
    """
    if SPACE in tokens or "\0" in tokens:
        raise _refusal(f"has {SPACE!r} or NUL for a character, which llama.cpp has another use for")
    if tokenizer.unknown_id is None:
        raise _refusal("has no token for unknown characters")
    writer.add_token_list([SPACE if token == " " else token for token in tokens])
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_add_space_prefix(False)
    writer.add_remove_extra_whitespaces(False)


def _same_results(one: list[tuple[str, str]], other: list[tuple[str, str]]) -> bool:
    return ["".join(merge) for merge in one] == ["".join(merge) for merge in other]


def _space_prefix(definition: dict[str, Any]) -> bool | None:
    """Return whether a space is put before a text; None if normalisation differs from SentencePiece's."""
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
    """Return the merges from a tokenizer's JSON: pairs or, in older files, strings with a space."""
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"])
    return [(left, right) for left, right in pairs]


def _refusal(
    what: str,
    fix: str = "Characters, and byte-level and SentencePiece BPE in forms that llama.cpp knows, can be exported.",
) -> InputError:
    return InputError(f"its tokenizer {what}", where="--to gguf", fix=fix)
