"""Build our tokenizer from the metadata of a GGUF file.

Three kinds are supported: "gpt2", byte-level BPE with merges; "llama", SentencePiece's BPE with scores instead of merges;
and "t5", SentencePiece's Unigram, if its tokens are single characters, which is how we write character tokenizers.
Checked is what llama.cpp takes for granted: lists have equal lengths, tokens are unique, and ids are in range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tokenizers
from gguf import Keys, TokenType
from tokenizers import AddedToken, decoders, models, normalizers, processors

from lucidlm.core.errors import InputError
from lucidlm.interop.gguf.header import Header
from lucidlm.interop.pre_tokenizers import BY_NAME
from lucidlm.tokenize.tokenizer import Tokenizer

ROLES = {
    "bos_token": Keys.Tokenizer.BOS_ID,
    "eos_token": Keys.Tokenizer.EOS_ID,
    "unk_token": Keys.Tokenizer.UNK_ID,
    "pad_token": Keys.Tokenizer.PAD_ID,
    "mask_token": Keys.Tokenizer.MASK_ID,
}
"""Special tokens by their names in transformers, with the metadata keys of their ids."""

LONGEST_TOKEN = 1024
"""Characters. Finding the merges of a token takes time quadratic in its length."""

SPACE = "▁"
"""SentencePiece's character for a space."""


def read_tokenizer(header: Header) -> Tokenizer:
    """Return the tokenizer, including its chat template.

    Raises
    ------
    InputError: its kind or pre-tokenizer is not supported, or its metadata are inconsistent.
    """
    tokens = _tokens(header)
    kind = header.require(Keys.Tokenizer.MODEL, str)
    builders = {"gpt2": _byte_level, "llama": _sentence_piece, "t5": _characters}
    if kind not in builders:
        fix = "Known are gpt2 (byte-level BPE) and llama (SentencePiece BPE)."
        raise InputError(f"has a tokenizer of the kind {kind!r}, which is not known", where=header.path, fix=fix)
    config = _config(header, tokens)
    try:
        core, begins = builders[kind](header, tokens)
        _add_special(core, tokens, _numbers(header, Keys.Tokenizer.TOKEN_TYPE, len(tokens), TokenType.NORMAL))
        bos = config.get("bos_token")
        if bos is not None and header.get(Keys.Tokenizer.ADD_BOS, bool, begins):
            special = [(bos, core.token_to_id(bos))]
            core.post_processor = processors.TemplateProcessing(single=[bos, "$A"], special_tokens=special)
    except InputError:
        raise
    except Exception as error:  # the library raises nothing more precise
        raise InputError(f"its tokenizer cannot be built ({error})", where=header.path) from None
    return Tokenizer(core, config)


def _tokens(header: Header) -> list[str]:
    tokens = header.require(Keys.Tokenizer.LIST, list)
    # llama.cpp renames empty tokens the same way: several of them would not be unique.
    tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(tokens)]
    if len(set(tokens)) < len(tokens):
        raise InputError("lists a token twice in tokenizer.ggml.tokens", where=header.path, fix="Get the file again.")
    if (longest := max(map(len, tokens), default=0)) > LONGEST_TOKEN:
        raise InputError(
            f"has a token of {longest:,} characters; they have {LONGEST_TOKEN:,} at most", where=header.path
        )
    return tokens


def _numbers(header: Header, key: str, count: int, default: float | None) -> np.ndarray:
    """Return one number per token, `default` where the file has none."""
    if default is not None and key not in header.metadata:
        return np.full(count, default)
    numbers = header.require(key, np.ndarray)
    if len(numbers) != count:
        raise InputError(f"{key} has {len(numbers):,} elements for {count:,} tokens", where=header.path)
    return numbers


def _config(header: Header, tokens: list[str]) -> dict[str, Any]:
    """Return the contents of `tokenizer_config.json`."""
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    for role, key in ROLES.items():
        index = header.get(key, int)
        if index is None:
            continue
        if not 0 <= index < len(tokens):
            what = f"{key} is {index:,}, there are {len(tokens):,} tokens"
            raise InputError(what, where=header.path)
        config[role] = tokens[index]
    if "eos_token" not in config:
        raise InputError("names no token that ends a text (tokenizer.ggml.eos_token_id)", where=header.path)
    config.setdefault("pad_token", config["eos_token"])  # padding is masked, so any token will do
    if template := header.get(Keys.Tokenizer.CHAT_TEMPLATE, str):
        config["chat_template"] = template
    return config


def _byte_level(header: Header, tokens: list[str]) -> tuple[tokenizers.Tokenizer, bool]:
    """Return byte-level BPE, and whether its texts begin with BOS by default."""
    name = header.get(Keys.Tokenizer.PRE, str, "default")
    if name not in BY_NAME:
        fix = f"Known are {', '.join(sorted(BY_NAME))}."
        raise InputError(f"its tokenizer cuts text the way {name!r}, which is not known", where=header.path, fix=fix)
    pre = BY_NAME[name]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges: dict[tuple[str, str], None] = {}  # of duplicate merges the first counts
    for merge in header.require(Keys.Tokenizer.MERGES, list):
        left, _, right = merge[1:].partition(" ")  # the first character is never the space between the two
        merges[merge[:1] + left, right] = None
    core = tokenizers.Tokenizer(models.BPE(vocabulary, list(merges), ignore_merges=pre.ignore_merges))
    core.pre_tokenizer = pre.build()
    core.decoder = decoders.ByteLevel()
    return core, pre.begins


def _sentence_piece(header: Header, tokens: list[str]) -> tuple[tokenizers.Tokenizer, bool]:
    """Return SentencePiece's BPE with merges, as transformers' converter builds it, and True: its texts begin with BOS."""
    vocabulary = {token: index for index, token in enumerate(tokens)}
    merges = merges_from_scores(vocabulary, _numbers(header, Keys.Tokenizer.SCORES, len(tokens), None))
    unknown = header.get(Keys.Tokenizer.UNK_ID, int)
    core = tokenizers.Tokenizer(
        models.BPE(
            vocabulary,
            merges,
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    with_prefix = header.get(Keys.Tokenizer.ADD_PREFIX, bool, True)
    to_pieces = [normalizers.Prepend(SPACE)] if with_prefix else []
    core.normalizer = normalizers.Sequence([*to_pieces, normalizers.Replace(" ", SPACE)])
    stripped = [decoders.Strip(" ", 1, 0)] if with_prefix else []
    core.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *stripped]
    )
    return core, True


def _characters(header: Header, tokens: list[str]) -> tuple[tokenizers.Tokenizer, bool]:
    """Return a character tokenizer, a BPE without merges, and False: its texts do not begin with BOS."""
    types = _numbers(header, Keys.Tokenizer.TOKEN_TYPE, len(tokens), TokenType.NORMAL)
    if any(len(tokens[index]) != 1 for index in (types == TokenType.NORMAL).nonzero()[0]):
        raise InputError("has a Unigram tokenizer, of which only those of characters are read", where=header.path)
    unknown = tokens[header.require(Keys.Tokenizer.UNK_ID, int)]
    vocabulary = {" " if token == SPACE else token: index for index, token in enumerate(tokens)}
    core = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=unknown))
    core.decoder = decoders.Fuse()
    return core, False


def merges_from_scores(vocabulary: dict[str, int], scores: np.ndarray) -> list[tuple[str, str]]:
    """Return all pairs of tokens whose concatenation is a token, by descending score of that.

    SentencePiece merges the pair whose result has the highest score; BPE merges the pair that is listed first.
    """
    pairs = [
        (-float(scores[index]), vocabulary[token[:cut]], vocabulary[token[cut:]], token[:cut], token[cut:])
        for token, index in vocabulary.items()
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    return [(left, right) for _, _, _, left, right in sorted(pairs)]


def _add_special(core: tokenizers.Tokenizer, tokens: list[str], types: np.ndarray) -> None:
    """Register the special tokens, and the user-defined ones that are matched before pre-tokenization."""
    for special, kinds in ((True, (TokenType.CONTROL, TokenType.UNKNOWN)), (False, (TokenType.USER_DEFINED,))):
        found = [
            AddedToken(tokens[index], special=special, normalized=False) for index in np.isin(types, kinds).nonzero()[0]
        ]
        (core.add_special_tokens if special else core.add_tokens)(found)
