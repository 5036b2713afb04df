"""Pre-tokenizers of byte-level BPE, which split a text before merging, by llama.cpp's names for them.

A GGUF file has only the name (`tokenizer.ggml.pre`); the rules are in llama.cpp's src/llama-vocab.cpp, and ours were
compared with llama.cpp on real text (tests/parity/test_llama_cpp.py). Listed are those of the architectures that
`interop/gguf/architectures.py` reads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import tokenizers
from tokenizers import Regex, pre_tokenizers

from lucidlm.tokenize.byte_level import PIECES
from lucidlm.tokenize.classes import word_pieces

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Radford et al. 2019."""


@dataclass(frozen=True)
class PreTokenizer:
    """The rules of one pre-tokenizer.

    Parameters
    ----------
    names: llama.cpp's names for it; the first is used for writing.
    cuts: regular expressions, each applied to the pieces that the one before it left.
    ignore_merges: a piece that is in the vocabulary becomes that token, without merging.
    begins: texts begin with BOS, unless the file says otherwise.
    """

    names: tuple[str, ...]
    cuts: tuple[str, ...]
    ignore_merges: bool = False
    begins: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        """Return it as a pre-tokenizer of `tokenizers`."""
        splits = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in self.cuts]
        return pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(False, use_regex=False)])


PRE_TOKENIZERS = (
    PreTokenizer(
        ("gpt-2", "phi-2", "olmo", "mpt", "jais", "gigachat", "exaone4", "trillion", "granite-docling"), (GPT2,)
    ),
    PreTokenizer(
        ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"),
        (r"\p{N}", GPT2),
    ),
    PreTokenizer(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"),
        (word_pieces(r"\p{N}{1,3}"),),
        ignore_merges=True,
        begins=True,
    ),
    PreTokenizer(("dbrx", "smaug-bpe"), (word_pieces(r"\p{N}{1,3}"),)),
    PreTokenizer(
        ("qwen2", "deepseek-r1-qwen", "megrez", "hunyuan", "solar-open", "stablelm2", "grok-2"),
        (word_pieces(r"\p{N}"),),
    ),
    PreTokenizer(("deepseek-coder",), (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", r"\p{N}")),
    PreTokenizer(("default",), (r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")),
)
BY_NAME = {name: pre for pre in PRE_TOKENIZERS for name in pre.names}

CLOSEST_TO_OURS = "dbrx"
"""llama.cpp does not have ours, `PIECES`. Each piece of this one is nearly always one or more whole pieces of ours. As no
token of ours spans two pieces, merging gives the same tokens; benchmarks/RESULTS.md has the share."""


def name_of(core: tokenizers.Tokenizer) -> str | None:
    """Return llama.cpp's name for the pre-tokenizer of a byte-level BPE, or None if it has no equivalent."""
    state = json.loads(core.to_str())
    cuts = _cuts(state["pre_tokenizer"])
    if cuts == (PIECES,):
        return CLOSEST_TO_OURS
    for pre in PRE_TOKENIZERS:
        if pre.cuts == cuts and pre.ignore_merges == bool(state["model"].get("ignore_merges")):
            return pre.names[0]
    return None


def _cuts(state: dict | None) -> tuple[str, ...] | None:
    """Return the patterns of a pre-tokenizer from its JSON, or None if it does anything else as well."""
    steps = state["pretokenizers"] if state and state["type"] == "Sequence" else [state]
    cuts: list[str] = []
    for step in steps:
        match step:
            case {"type": "Split", "pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}:
                cuts.append(cut)
            case {"type": "Digits", "individual_digits": True}:
                cuts.append(r"\p{N}")
            case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": use_regex} if step is steps[-1]:
                return (*cuts, GPT2) if use_regex else tuple(cuts)
            case _:
                return None
    return None
