"""Text to token ids and back: byte-level BPE for real corpora, characters for tiny ones; of other models WordPiece,
Unigram and SentencePiece's BPE too.

- Byte-level BPE (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"; Radford et al.
  2019 for the bytes) starts from the 256 bytes, so any string encodes and decodes back unchanged. Characters are such
  a BPE too, whose merges put together the characters of the corpus and stop there: others are spelt in bytes.
- Before merging, text is cut by `byte_level.PIECES`, so that no token spans two words, or Chinese and Latin script.
- Text never injects control tokens: `<|endoftext|>` in a document is encoded as plain characters. Control tokens enter a
  sequence by id only, or where it is asked for (`control_tokens` says which they are).
- `prefix` and `suffix` are the special tokens that a tokenizer adds around a text: none if it was trained here, [CLS] and
  [SEP] for BERT, BOS for Llama.
- Saved as `tokenizer.json` + `tokenizer_config.json`, which `transformers.AutoTokenizer` opens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from lucidlm.core.arguments import require_path
from lucidlm.core.errors import InputError
from lucidlm.core.io import write_json, write_text
from lucidlm.tokenize.byte_level import BYTE_OF, byte_level, merges_of_characters
from lucidlm.tokenize.control_tokens import CONTROL, END, MASK, PAD, ROLES, UNKNOWN, control_ids, reader
from lucidlm.tokenize.files import read_tokenizer
from lucidlm.tokenize.streaming import ByteDecoder, ContextDecoder, clean_up

SMALLEST_BPE = len(CONTROL) + 256
"""The smallest vocabulary of byte-level BPE: the control tokens and the bytes, no merges."""

TokenizerKind = Literal["bpe", "characters", "wordpiece", "unigram", "sentencepiece"]
"""How a tokenizer cuts text: by byte-level BPE, into characters, or as BERT and as SentencePiece's two models do."""


class Tokenizer:
    """A tokenizer over `tokenizers.Tokenizer`, with the few operations that the package needs.

    Parameters
    ----------
    core: the tokenizer proper.
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
        core = byte_level(models.BPE())
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
        """Make a tokenizer in which every character of `texts` is a token; any other one is spelt in bytes."""
        characters: set[str] = set()
        for text in texts:
            characters.update(text)
        if not characters:
            raise InputError("there is no text to take characters from", fix="Pass a corpus that is not empty.")
        merges = merges_of_characters(characters)
        tokens = [*CONTROL, *sorted(BYTE_OF), *map("".join, merges)]
        core = byte_level(models.BPE({token: index for index, token in enumerate(tokens)}, merges))
        core.add_special_tokens(list(CONTROL))
        return cls(core)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Load a tokenizer from a model's directory, or from a `tokenizer.json` itself.

        Raises
        ------
        InputError: there is none, it is damaged, or it is of a kind the package does not read.
        """
        path = Path(require_path(path, "path"))
        tokenizer = cls(*read_tokenizer(path))
        if tokenizer.find("eos_token") is None:
            raise InputError(
                "has no token that ends a document", where=path, fix="Name it as eos_token in tokenizer_config.json."
            )
        return tokenizer

    def save(self, directory: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into `directory`, each atomically."""
        write_text(Path(directory) / "tokenizer.json", self.core.to_str(pretty=True))
        write_json(Path(directory) / "tokenizer_config.json", self.config)

    # ------------------------------------------------------------------ text to ids and back

    def encode(self, text: str, add_eos: bool = False, *, special: bool = False) -> list[int]:
        """Return the ids of `text`, followed by that of the end of a document if `add_eos`.

        If `special`, the control tokens that it spells out are control tokens.
        """
        ids = (self.obeying if special else self._reader).encode(text, add_special_tokens=False).ids
        return [*ids, self.eos_id] if add_eos else ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, encoded on all cores."""
        return [encoding.ids for encoding in self._reader.encode_batch_fast(texts, add_special_tokens=False)]

    def encodings(self, texts: Sequence[str], *, whole: bool = False) -> list[tokenizers.Encoding]:
        """Return the ids of each text and where in it they are; if `whole`, with what stands around a whole text."""
        return self._reader.encode_batch(texts, add_special_tokens=whole)

    def encodings_of_words(self, texts: Sequence[Sequence[str]]) -> list[tokenizers.Encoding]:
        """Return the ids of texts given word by word, no token of two words; `word_ids` says of which word each is."""
        return self._reader.encode_batch(
            [list(words) for words in texts], is_pretokenized=True, add_special_tokens=False
        )

    def decode(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Return the text of `ids`; broken UTF-8 becomes U+FFFD, and special tokens are left out if `skip_special`."""
        text = self.read_out(ids, skip_special)
        return clean_up(text) if self.cleans else text

    def read_out(self, ids: Iterable[int], skip_special: bool = True) -> str:
        """Return the text of `ids` as `decode` does, but with the spaces that the settings may have cleaned up."""
        known, hidden = self._tokens, self._special if skip_special else ()
        shown = [index for index in map(int, ids) if index in known and index not in hidden]
        if self.byte_level:
            return b"".join(map(self._spelt, shown)).decode(errors="replace")
        return self.core.decode(shown, skip_special_tokens=False)

    def encode_prompt(self, text: str, *, special: bool = False) -> list[int]:
        """Return the ids of a prompt: `prefix`, and those of the text.

        An empty text is the beginning of a document. If `special`, control tokens may be spelt out, and what begins texts
        is not doubled.
        """
        ids, first = self.encode(text, special=special), self.prefix
        return [*(() if special and ids[: len(first)] == first else first), *ids] or [self.begin_id]

    def whole(self, ids: Iterable[int]) -> list[int]:
        """Return the ids of a whole text, or of a stretch of one, as a model reads it: between `prefix` and `suffix`."""
        return [*self.prefix, *ids, *self.suffix] or [self.eos_id]

    def with_end(self) -> Tokenizer:
        """Return the tokenizer with an end-of-text token after every whole text, unless there is something already.

        Where texts are padded with that same token it would be lost among them, so there it is left out.
        """
        if self.suffix or self.pad_id == self.eos_id:
            return self
        core = tokenizers.Tokenizer.from_str(self.core.to_str())
        around = {index: str(core.id_to_token(index)) for index in (*self.prefix, self.eos_id)}
        core.post_processor = processors.TemplateProcessing(
            single=[*(around[index] for index in self.prefix), "$A", around[self.eos_id]],
            special_tokens=[(token, index) for index, token in around.items()],
        )
        return Tokenizer(core, self.config)

    def stream_decoder(self, context: Sequence[int] = ()) -> ByteDecoder | ContextDecoder:
        """Return a decoder that takes ids one at a time, those that follow `context`, and gives out whole characters."""
        if self.kind in ("bpe", "characters"):
            return ByteDecoder(self)
        return ContextDecoder(self, context, vocab_size=self.vocab_size, cleans=self.cleans)

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that a token stands for: none for a special token, perhaps a part of a character.

        For byte-level BPE and characters; the tokens of others say different things in different places.
        """
        if token_id in self._special:
            return b""
        if token_id not in self._tokens:
            raise ValueError(f"there is no token {token_id} in a vocabulary of {self.vocab_size}")
        return self._spelt(token_id)

    @cached_property
    def _spelt(self) -> Callable[[int], bytes]:
        """The bytes of a token, cached."""

        @cache
        def spelt(token_id: int) -> bytes:
            token = str(self.core.id_to_token(token_id))
            # Tokens that were added to the vocabulary later are spelt in plain characters.
            if self.byte_level and token_id not in self._added and all(map(BYTE_OF.__contains__, token)):
                return bytes(map(BYTE_OF.__getitem__, token))
            return token.encode()

        return spelt

    # ------------------------------------------------------------------ facts

    @cached_property
    def kind(self) -> TokenizerKind:
        if self.byte_level:
            return "characters" if self._stops_at_characters() else "bpe"
        if isinstance(self.core.model, models.BPE):
            # Tokenizers of characters once had no bytes; those are still read.
            return "characters" if isinstance(self.core.decoder, decoders.Fuse) else "sentencepiece"
        return "wordpiece" if isinstance(self.core.model, models.WordPiece) else "unigram"

    @cached_property
    def byte_level(self) -> bool:
        """Whether tokens are bytes and runs of bytes, spelt in the alphabet of Radford et al. 2019."""
        return isinstance(self.core.model, models.BPE) and isinstance(self.core.decoder, decoders.ByteLevel)

    @cached_property
    def control(self) -> frozenset[int]:
        """The ids of control tokens; see `control_tokens.control_ids`."""
        return control_ids(self.core, self.config, [*self.prefix, *self.suffix])

    @cached_property
    def obeying(self) -> tokenizers.Tokenizer:
        """The tokenizer that parses control tokens in a text, as chat templates and prompts with `special` need it."""
        core = tokenizers.Tokenizer.from_str(self.core.to_str())
        core.encode_special_tokens = self.splits_special
        return core

    @cached_property
    def splits_special(self) -> bool:
        """Whether special tokens in a text are split like any other text, as transformers' setting of this name says."""
        return bool(self.config.get("split_special_tokens"))

    @cached_property
    def cleans(self) -> bool:
        """Whether decoding removes spaces before punctuation and contractions; with BPE it never does."""
        return bool(self.config.get("clean_up_tokenization_spaces")) and not isinstance(self.core.model, models.BPE)

    def shows(self, token_id: int, skip_special: bool = True) -> bool:
        """Return whether there is a token with this id, and it is not a special one, if those are left out."""
        return int(token_id) in self._tokens and not (skip_special and int(token_id) in self._special)

    def is_byte(self, token_id: int) -> bool:
        """Return whether a token stands for a byte of a character that the vocabulary lacks."""
        return int(token_id) in self._bytes

    @cached_property
    def vocab_size(self) -> int:
        """How many token ids there are, those of control tokens, and gaps between ids, included."""
        return 1 + max(self._tokens, default=-1)

    @cached_property
    def prefix(self) -> list[int]:
        """The special tokens before a whole text."""
        return self._around[0]

    @cached_property
    def suffix(self) -> list[int]:
        """The special tokens after a whole text."""
        return self._around[1]

    @cached_property
    def begin_id(self) -> int:
        """BOS, or, without one, the token that ends the text before."""
        begin = self.find("bos_token")
        return self.prefix[-1] if self.prefix else self.eos_id if begin is None else begin

    @cached_property
    def eos_id(self) -> int:
        """The token after each document; for tokenizers trained here it also stands before a text that begins one."""
        return self._id("eos_token")

    @cached_property
    def pad_id(self) -> int:
        """The padding token, which attention masks out; the end of text where the tokenizer has none."""
        pad = self.find("pad_token")
        return self.eos_id if pad is None else pad

    @cached_property
    def mask_id(self) -> int:
        """The mask token, for masked language models."""
        return self._id("mask_token")

    @cached_property
    def unknown_id(self) -> int | None:
        """The token of characters that are not in the vocabulary, or None where every string can be encoded."""
        return None if self.byte_level else self.find("unk_token")

    def named(self, role: str) -> str | None:
        """Return the special token that `tokenizer_config.json` names for a role, one of `ROLES`, or None."""
        token = self.config.get(role)
        token = token.get("content") if isinstance(token, dict) else token
        return token if isinstance(token, str) else None

    def find(self, role: str) -> int | None:
        """Return the id of the special token with a role, one of `ROLES`; None if there is none."""
        if (named := self._named(role)) is not None:
            return self.core.token_to_id(named)
        found = (self.core.token_to_id(token) for token in ROLES[role])
        return next((index for index in found if index is not None), None)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the tokenizer's definition, in hexadecimal: equal for tokenizers that encode alike."""
        return hashlib.sha256(json.dumps(json.loads(self.core.to_str()), sort_keys=True).encode()).hexdigest()

    def _stops_at_characters(self) -> bool:
        """Whether some tokens are characters of several bytes, and none reaches beyond a character."""
        longest = 0
        for index in self.core.get_vocab(with_added_tokens=True).values():
            if index not in self._added:
                token = self.token_bytes(index)
                if sum(byte & 0xC0 != 0x80 for byte in token) > 1:  # all bytes but a character's first begin with 10
                    return False
                longest = max(longest, len(token))
        return longest > 1

    @cached_property
    def _added(self) -> dict[int, AddedToken]:
        return self.core.get_added_tokens_decoder()

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(index for index, token in self._added.items() if token.special)

    @cached_property
    def _tokens(self) -> frozenset[int]:
        return frozenset(self.core.get_vocab(with_added_tokens=True).values())

    @cached_property
    def _bytes(self) -> frozenset[int]:
        if b'"ByteFallback"' not in self.core.decoder.__getstate__():
            return frozenset()
        spelt = {f"<0x{byte:02X}>" for byte in range(256)}
        return frozenset(index for token, index in self.core.get_vocab().items() if token in spelt)

    @cached_property
    def _reader(self) -> tokenizers.Tokenizer:
        """The tokenizer for plain text; see `control_tokens.reader`."""
        return reader(self.core, self.control | self._special if self.splits_special else self.control)

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """What the tokenizer's own post-processor puts before and after a text."""
        plain, whole = (self.core.encode("a", add_special_tokens=special).ids for special in (False, True))
        for start in range(len(whole) - len(plain) + 1):
            if whole[start : start + len(plain)] == plain:
                return whole[:start], whole[start + len(plain) :]
        return [], []

    def _named(self, role: str) -> str | None:
        return self.named(role) or (self.named("sep_token") if role == "eos_token" else None)

    def _id(self, role: str) -> int:
        if (found := self.find(role)) is None:
            raise InputError(
                f"the tokenizer has no token {self._named(role) or ROLES[role][0]!r}",
                where=f"tokenizer_config.json, field {role}",
                fix="Choose a tokenizer that has one, or train one.",
            )
        return found


def _config(core: tokenizers.Tokenizer) -> dict[str, Any]:
    """Return the `tokenizer_config.json` of a tokenizer trained here."""
    unknown = {"unk_token": UNKNOWN} if core.token_to_id(UNKNOWN) is not None else {}
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "mask_token": MASK,
        **unknown,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # no segments, which older versions would add
    }
