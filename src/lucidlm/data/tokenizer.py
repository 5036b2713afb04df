"""Text to token ids and back: byte-level BPE for real corpora, characters for tiny ones.

- Byte-level BPE (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; Radford et al.
  2019 for the bytes) starts from the 256 bytes, so any string encodes and decodes back unchanged.
- Before merging, text is cut by `PIECES`, so that no token spans two words, or Chinese and Latin script.
- What a text says is never a command: the characters `<|endoftext|>` in a document are encoded as the characters they
  are. Control tokens enter a sequence by id only.
- Saved as `tokenizer.json` + `tokenizer_config.json`, which `transformers.AutoTokenizer` opens.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers

from lucidlm.core.errors import InputError
from lucidlm.core.io import read_json, write_json, write_text

END, PAD, MASK, UNKNOWN = "<|endoftext|>", "<|pad|>", "<|mask|>", "<|unk|>"
CONTROL = (END, PAD, MASK, "<|im_start|>", "<|im_end|>")
"""The control tokens every tokenizer trained here has, with ids 0 to 4; `END` both ends and begins a document."""

SMALLEST_BPE = len(CONTROL) + 256
"""The smallest vocabulary of byte-level BPE: the control tokens and the bytes, no merges."""

PIECES = "|".join(
    (
        r"['’](?i:[sdmt]|ll|re|ve)\b",  # the endings of English contractions
        r" ?[\p{L}\p{M}&&[^\p{Han}]]+",  # a word in any script but Han, with the space before it
        r"\p{Han}+",  # a run of Chinese characters
        r"\p{N}{1,3}",  # digits, three at most, so that numbers share their pieces
        r" ?[^\s\p{L}\p{N}\p{Han}]+[\r\n]*",  # punctuation and symbols, with the end of line after them
        r"\s*[\r\n]+",  # blank lines
        r"\s+(?!\S)",  # spaces, but for the last one before a word
        r"\s+",
    )
)
"""What a token may not reach across: the pieces of a text that BPE merges within."""

Kind = Literal["bpe", "characters"]


class Tokenizer:
    """A tokenizer over `tokenizers.Tokenizer`, with the few operations that the package needs.

    Parameters
    ----------
    core: the tokenizer proper; byte-level BPE, or one made by `train_characters`.
    config: what goes into `tokenizer_config.json`; it names the control tokens (and may hold a chat template).
    """

    def __init__(self, core: tokenizers.Tokenizer, config: dict[str, Any] | None = None) -> None:
        self.core = core
        self.config = config or _config(core)
        self.core.no_padding()
        self.core.no_truncation()
        self.core.encode_special_tokens = True  # `tokenizers`' name for "control tokens in a text are only text"

    @classmethod
    def train_bpe(cls, texts: Iterable[str], vocab_size: int, *, exact: bool = True) -> Tokenizer:
        """Train byte-level BPE on `texts`, which are streamed; the same texts give the same tokenizer.

        Texts may have too few repeated pieces for `vocab_size` tokens; unless `exact`, the vocabulary is then smaller.

        Raises
        ------
        InputError: `vocab_size` is less than `SMALLEST_BPE`, or, if `exact`, more than the texts support.
        """
        if vocab_size < SMALLEST_BPE:
            raise InputError(
                f"a byte-level vocabulary has at least {SMALLEST_BPE} tokens, not {vocab_size:,}",
                where="--vocab-size",
                fix=f"Pass {SMALLEST_BPE} or more.",
            )
        core = tokenizers.Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(Regex(PIECES), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
        )
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=list(CONTROL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        core.train_from_iterator(texts, trainer)
        if (reached := core.get_vocab_size()) < vocab_size and exact:
            raise InputError(
                f"a vocabulary of {vocab_size:,} is more than the data supports: it reaches {reached:,}",
                where="--vocab-size",
                fix=f"Pass {reached} or less, auto, or more text.",
            )
        return cls(core)

    @classmethod
    def train_characters(cls, texts: Iterable[str]) -> Tokenizer:
        """Make a tokenizer in which every character of `texts` is a token and any other becomes `<|unk|>`."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        if not characters:
            raise InputError("there is no text to take characters from", fix="Pass a corpus that is not empty.")
        vocabulary = {token: i for i, token in enumerate([*CONTROL, UNKNOWN, *sorted(characters)])}
        # BPE without merges takes a text apart into characters, faster than any pre-tokeniser does.
        core = tokenizers.Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN))
        core.decoder = decoders.Fuse()
        core.add_special_tokens([*CONTROL, UNKNOWN])
        return cls(core)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Load a tokenizer from a directory that holds `tokenizer.json`, or from that file itself.

        Raises
        ------
        InputError: there is none, it is damaged, or it is of a kind the package does not read.
        """
        path = Path(path)
        file = path / "tokenizer.json" if path.is_dir() else path
        config_file = file.with_name("tokenizer_config.json")
        if not file.is_file():
            raise InputError("no tokenizer is here (tokenizer.json is missing)", where=path)
        try:
            core = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing more precise
            raise InputError(
                f"is not a tokenizer ({error})", where=file, fix="The file is damaged; make it again."
            ) from None
        if not isinstance(core.model, models.BPE) or not isinstance(core.decoder, decoders.ByteLevel | decoders.Fuse):
            raise InputError(
                f"is a {type(core.model).__name__} tokenizer; byte-level BPE is what can be read",
                where=file,
                fix="Choose another tokenizer, or train one.",
            )
        tokenizer = cls(core, read_json(config_file) if config_file.is_file() else None)
        if core.token_to_id(tokenizer._named("eos_token", END)) is None:
            raise InputError(
                "has no token that ends a document", where=file, fix="Name it as eos_token in tokenizer_config.json."
            )
        return tokenizer

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into `directory`, each atomically."""
        write_text(Path(directory) / "tokenizer.json", self.core.to_str(pretty=True))
        write_json(Path(directory) / "tokenizer_config.json", self.config)

    # ------------------------------------------------------------------ text to ids and back

    def encode(self, text: str, add_eos: bool = False) -> list[int]:
        """Return the ids of `text`, followed by that of the end of a document if `add_eos`."""
        ids = self.core.encode(text, add_special_tokens=False).ids
        return [*ids, self.eos_id] if add_eos else ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, encoded on all cores."""
        return [encoding.ids for encoding in self.core.encode_batch_fast(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Return the text of `ids`; broken UTF-8 becomes U+FFFD, and control tokens are left out if `skip_special`."""
        return self.core.decode([int(i) for i in ids], skip_special_tokens=skip_special)

    def stream_decoder(self) -> StreamDecoder:
        """Return a decoder that takes ids one at a time and gives out whole characters."""
        return StreamDecoder(self)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for: none for a control token, perhaps a part of a character."""
        if token_id in self._special:
            return b""
        token = self.core.id_to_token(token_id)
        if token is None:
            raise ValueError(f"there is no token {token_id} in a vocabulary of {self.vocab_size}")
        return bytes(_BYTE_OF[character] for character in token) if self.kind == "bpe" else token.encode()

    # ------------------------------------------------------------------ facts

    @property
    def kind(self) -> Kind:
        return "bpe" if isinstance(self.core.decoder, decoders.ByteLevel) else "characters"

    @cached_property
    def vocab_size(self) -> int:
        """How many tokens there are, control tokens included."""
        return self.core.get_vocab_size()

    @cached_property
    def eos_id(self) -> int:
        """The token after each document; it also stands before a text that begins one."""
        return self._id("eos_token", END)

    @cached_property
    def pad_id(self) -> int:
        return self._id("pad_token", PAD)

    @cached_property
    def mask_id(self) -> int:
        """The token that hides another, for masked language models."""
        return self._id("mask_token", MASK)

    @cached_property
    def unknown_id(self) -> int | None:
        """The token of characters that are not in the vocabulary, or None where every string can be encoded."""
        return self.core.token_to_id(UNKNOWN) if self.kind == "characters" else None

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the tokenizer's definition, in hexadecimal: equal for tokenizers that encode alike."""
        return hashlib.sha256(json.dumps(json.loads(self.core.to_str()), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(i for i, token in self.core.get_added_tokens_decoder().items() if token.special)

    def _named(self, role: str, default: str) -> str:
        token = self.config.get(role) or default
        return token["content"] if isinstance(token, dict) else token

    def _id(self, role: str, default: str) -> int:
        token = self._named(role, default)
        token_id = self.core.token_to_id(token)
        if token_id is None:
            raise InputError(
                f"the tokenizer has no token {token!r}",
                where=f"tokenizer_config.json, field {role}",
                fix="Choose a tokenizer that has one, or train one.",
            )
        return token_id


class StreamDecoder:
    """Turns ids that arrive one at a time into text, holding back a character until all its bytes are there.

    The parts joined are what `Tokenizer.decode` makes of all ids at once.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the text that `token_id` completes, which may be empty."""
        return self._utf8.decode(self._tokenizer.token_bytes(int(token_id)))

    def flush(self) -> str:
        """Return what was held back: empty, or U+FFFD for a character that was never completed."""
        return self._utf8.decode(b"", final=True)


def _config(core: tokenizers.Tokenizer) -> dict[str, Any]:
    """Return what `transformers` has to be told about a tokenizer made here."""
    unknown = {"unk_token": UNKNOWN} if core.token_to_id(UNKNOWN) is not None else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "mask_token": MASK,
        **unknown,
        "clean_up_tokenization_spaces": False,
    }


def _byte_alphabet() -> dict[str, int]:
    """Return the byte each character of a byte-level token stands for (Radford et al. 2019).

    Printable Latin-1 characters stand for themselves, the other bytes, in order, for the characters from U+0100 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
