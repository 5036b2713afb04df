"""A text that is held to grammars: what would break one of them is never chosen.

llguidance tells which tokens may follow. What it does not know of is seen to here: that a text whose length is limited
comes to its end in time.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Sequence
from functools import cache, reduce
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from lucidlm.control.config import ConstraintConfig
from lucidlm.control.grammars import grammars
from lucidlm.control.min_length import MinLength
from lucidlm.control.vocabulary import Vocabulary, llguidance
from lucidlm.core.errors import InputError
from lucidlm.inference.logits_processor import LogitsProcessor, MakeProcessors
from lucidlm.tokenize.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher

KEPT = 16
"""Compiled constraints that are kept."""

MOST_STATES = 20_000
"""States of a lexer, of some 2 KB each."""

LONGEST_ENDING = 512
"""Tokens after which no end is looked for."""

MASK_BIASES = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"),
    np.float32(0),
    np.float32(-np.inf),
)
"""(256, 8) what each byte of a mask adds to the logits of its eight tokens."""

SLACK = 64
"""Tokens of room beside a few ends as long as the shortest known, before which nothing is looked at."""


class ConstraintCompiler:
    """Makes constraints for texts of a model with this many tokens, and keeps the last ones."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer, self._vocab_size = tokenizer, vocab_size
        self._vocabularies: dict[frozenset[int], Vocabulary] = {}
        self._kept: OrderedDict[tuple[ConstraintConfig, frozenset[int]], Constraint] = OrderedDict()
        self._lock = Lock()

    def processors(self, config: ConstraintConfig) -> MakeProcessors | None:
        """Return what makes the processors of each text; None if any text will do."""
        form = config.changed(min_length=0)

        def make(_: list[int], ends: frozenset[int]) -> list[LogitsProcessor]:
            found: list[LogitsProcessor] = [MinLength(config.min_length, ends)] if config.min_length else []
            return found if form.empty else [*found, self.compile(form, ends)]

        return None if config.empty else make

    def compile(self, config: ConstraintConfig, ends: frozenset[int]) -> Constraint:
        """Return a constraint for one text, which ends with one of the tokens `ends`.

        Raises
        ------
        InputError: a pattern, schema or grammar is wrong, or of a kind that cannot be followed; no text obeys all that is
            asked for; llguidance is not installed.
        """
        with self._lock:
            if ends not in self._vocabularies:
                self._vocabularies[ends] = Vocabulary(self._tokenizer, self._vocab_size, ends)
            key = config, ends
            if key not in self._kept:
                self._kept[key] = Constraint.of(config, self._vocabularies[ends])
                if len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key].copy()


class Constraint(LogitsProcessor):
    """Holds one text to grammars.

    Parameters
    ----------
    names: what asks for each of the `matchers`.
    hints: tokens that may bring about what is required of a text, tried in turn when it has to end.
    first: tokens that make a whole text; None: none are known.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        names: Sequence[str],
        matchers: Sequence[LLMatcher],
        hints: Sequence[list[int]],
        first: list[int] | None = None,
    ) -> None:
        self._vocabulary, self._names, self._matchers, self._hints = vocabulary, names, matchers, hints
        self._first = self._ending = first
        self._look = SLACK + 4 * len(first or ())  # when so many tokens are left, or fewer

    @classmethod
    def of(cls, config: ConstraintConfig, vocabulary: Vocabulary) -> Constraint:
        """Compile it; see `ConstraintCompiler.compile`."""
        library = llguidance()
        names, matchers = [], []
        for name, grammar in grammars(config):
            limits = library.LLParserLimits(max_lexer_states=MOST_STATES, verbose_errors=False)
            matcher = library.LLMatcher(vocabulary.core, grammar, log_level=0, limits=limits)
            if matcher.is_error():
                raise InputError(_plain(matcher.get_error()), where=name, fix="Correct it, or leave it out.")
            names.append(name)
            matchers.append(matcher)
        hints = [vocabulary.spell(f"{space}{text}".encode()) for text in config.required for space in (" ", "")]
        made = cls(vocabulary, names, matchers, hints)
        made._mask("no text is all that is asked for")
        return cls(vocabulary, names, matchers, hints, made._end([], LONGEST_ENDING))

    def copy(self) -> Constraint:
        """Return the same for another text that begins."""
        return Constraint(self._vocabulary, self._names, _copies(self._matchers), self._hints, self._first)

    def process(self, logits: Tensor) -> None:
        """Rule out what no text that obeys goes on with.

        Raises
        ------
        InputError: nothing is left, or the grammar has become too large to follow.
        """
        mask = self._mask("nothing that obeys can follow what has been written")
        _rule_out(logits, mask)

    def push(self, token: int) -> None:
        for matcher in self._matchers:
            matcher.consume_token(token)

    @property
    def complete(self) -> bool:
        return any(matcher.is_stopped() for matcher in self._matchers) and _accepting(self._matchers)

    def accepts(self, tokens: Sequence[int]) -> bool:
        """Return whether these tokens, after those so far, are a whole text that obeys."""
        return _consume(self._matchers, tokens) and _accepting(self._matchers)

    def settle(self, token: int, left: int) -> int:
        """Return a token with which the text can still end in time, `token` if it is one.

        It is looked at the more often the less room there is. An end that is known is no longer than what is left.
        """
        if token in self._vocabulary.ends:
            return token
        if left > self._look:
            self._ending = None
            return token
        after = self._still_ending(token)
        if after is None or len(after) > left:
            after = self._end([token], left)
        if after is not None:
            self._ending, self._look = after, left - max(1, (left - len(after)) // 4)
            return token
        instead = self._end([], left + 1) if self._ending is None else self._ending
        if instead is None:  # none is known: it may be later
            self._look = left // 2
            return token
        self._look, self._ending = left - 1, instead[1:]
        return instead[0] if instead else self._vocabulary.ends[0]

    def _mask(self, otherwise: str) -> np.ndarray:
        """Return which tokens may follow, a bit each, uint8; where there are none, that is said as `otherwise`."""
        masks = [np.frombuffer(matcher.compute_bitmask(), np.uint8) for matcher in self._matchers]
        for name, matcher in zip(self._names, self._matchers, strict=True):
            if matcher.is_error():
                raise InputError(_plain(matcher.get_error()), where=name, fix="Make it simpler.")
        mask = reduce(np.bitwise_and, masks)
        if not mask.any():
            fix = "Ask for less." if len(self._names) > 1 else "Correct it, or leave it out."
            raise InputError(otherwise, where=" and ".join(self._names), fix=fix)
        return mask

    def _still_ending(self, token: int) -> list[int] | None:
        """Return an end behind one more token, if the one that is known makes one: that is found much sooner."""
        if self._ending is None:
            return None
        if self._ending and token == self._ending[0]:
            return self._ending[1:]
        matchers = _copies(self._matchers)
        return self._ending if _consume(matchers, [token, *self._ending]) and _accepting(matchers) else None

    def _end(self, tokens: Sequence[int], most: int) -> list[int] | None:
        """Return a short end of the text once `tokens` have followed: at most so many tokens, None if none is found."""
        found = (self._end_by(order, tokens, most) for order in self._vocabulary.orders)
        return next((end for end in found if end is not None), None)

    def _end_by(self, order: Sequence[int], tokens: Sequence[int], most: int) -> list[int] | None:
        """Look for it by always taking the token that comes first in `order`."""
        matchers = _copies(self._matchers)
        if not _consume(matchers, tokens):
            return None
        found: list[int] = []
        tired: set[int] = set()  # tokens of which several in a row may lead nowhere
        for hint in self._hints:
            if not _accepting(matchers) and all(matcher.validate_tokens(hint) == len(hint) for matcher in matchers):
                _consume(matchers, hint)
                found += hint
        while len(found) <= most:
            if _accepting(matchers):
                return found
            step = matchers[0].compute_ff_tokens() if len(matchers) == 1 else []
            if not step:
                masks = (np.frombuffer(matcher.compute_bitmask(), np.uint8) for matcher in matchers)
                chosen = self._soonest(reduce(np.bitwise_and, masks), order, tired)
                if chosen is None:
                    return None
                if found and chosen == found[-1] and chosen not in self._vocabulary.marks:
                    tired.add(chosen)
                step = [chosen]
            if not _consume(matchers, step):
                return None
            found += step
        return None

    def _soonest(self, mask: np.ndarray, order: Sequence[int], tired: Collection[int]) -> int | None:
        """Return, of the tokens that a mask of bits allows, the first in `order` that is not tired, else the best other."""
        for token in order:
            if mask[token >> 3] >> (token & 7) & 1 and token not in tired:
                return token
        allowed = _tokens(mask)
        if not len(allowed):
            return None
        late = self._vocabulary.lateness[allowed]
        if tired:
            late = late + np.isin(allowed, list(tired)) * len(self._vocabulary.lateness)
        return int(allowed[late.argmin()])


def _rule_out(logits: Tensor, mask: np.ndarray) -> None:
    """Take the logits (V,) of tokens that a mask of bits does not allow to minus infinity, in place.

    The bias of eight of them is looked up by the byte that says which are allowed: sooner than unpacking and filling.
    """
    if logits.device.type == "cpu":
        bias = torch.from_numpy(MASK_BIASES.take(mask, 0))
    else:  # only the mask is sent
        bias = _mask_biases_on(logits.device).index_select(0, torch.from_numpy(mask.astype(np.int32)).to(logits.device))
    logits += bias.flatten()[: len(logits)]


@cache
def _mask_biases_on(device: torch.device) -> Tensor:
    return torch.from_numpy(MASK_BIASES).to(device)


def _tokens(mask: np.ndarray) -> np.ndarray:
    """Return the tokens (n,) int64 that a mask of bits allows, in order."""
    places = np.flatnonzero(mask)
    rows, bits = np.nonzero(np.unpackbits(mask[places, None], axis=1, bitorder="little"))
    return places[rows] * 8 + bits


def _copies(matchers: Sequence[LLMatcher]) -> list[LLMatcher]:
    return [matcher.deep_copy() for matcher in matchers]


def _accepting(matchers: Sequence[LLMatcher]) -> bool:
    return all(matcher.is_accepting() for matcher in matchers)


def _consume(matchers: Sequence[LLMatcher], tokens: Sequence[int]) -> bool:
    """Let matchers take tokens; return whether all could."""
    return all(matcher.try_consume_tokens(list(tokens)) == len(tokens) for matcher in matchers)


def _plain(message: str) -> str:
    """Return what llguidance says in a line, the place of a mistake included."""
    lines = message.splitlines()
    place = re.match(r"at (\d+)\((\d+)\): ", message)
    for number, line in enumerate(lines):
        if set(line.strip()) == {"^"} and number:
            pattern, column = lines[number - 1], line.index("^")
            said = next((one for one in lines[number:] if one.startswith("error: ")), None)
            if said is not None:
                start = len(pattern) - len(pattern.lstrip())
                return f"{said.removeprefix('error: ')} at character {column - start + 1}, {pattern[column : column + 20]!r}"
    first = lines[0].rstrip(":") if lines else "it cannot be followed"
    if of_schema := re.search(r"failed to compile JSON schema: (.*)", first):
        unknown = re.match(r"Unimplemented keys: \[(.*)\]|Unknown format: (.*)", of_schema[1])
        if unknown is None:
            return of_schema[1]
        what = f"the keyword {unknown[1]}" if unknown[1] else f'the format "{unknown[2]}"'
        return f"nothing can hold a text to {what}"
    if place:
        first = f"line {place[1]}, column {place[2]}: {first[place.end() :]}"
    return first
