"""One prompt on its way to a text: what has been chosen so far, which text that makes, and whether it has ended."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Literal

import torch
from torch import Tensor

from lucidlm.core.errors import InputError, LucidError
from lucidlm.core.seeds import torch_generator
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.guard import stretch_end
from lucidlm.inference.logits_processor import LogitsProcessor, MakeProcessors
from lucidlm.model.config import ModelConfig
from lucidlm.tokenize.embedding_rows import refuse_beyond
from lucidlm.tokenize.streaming import UNFINISHED
from lucidlm.tokenize.tokenizer import Tokenizer

Reason = Literal["eos", "stop", "complete", "length", "context", "guarded", "cancelled", "failed"]
"""Why a text ended: the model said so, a stop string came, what it is held to left nothing to add, the length asked for or
the model's context was full, what came next did not pass a guard, nobody wanted more of it, or what it is held to could not
be met, or judged."""


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the model found a token, and what it found likelier, in natural logarithms of probabilities.

    Parameters
    ----------
    logprob: of the token that was chosen.
    top: ids of the likeliest tokens and theirs, the likeliest first.
    """

    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Generation:
    """The continuation of one prompt.

    Parameters
    ----------
    text: what follows the prompt, up to a stop string; a character that the end cuts in half is left out.
    tokens: every id that was chosen, those of a stop string and the end-of-text token included, but not those of text that
        did not pass a guard.
    likelihoods: of each token, if they were asked for.
    """

    text: str
    tokens: list[int]
    reason: Reason
    likelihoods: list[Likelihood] = field(default_factory=list)


class SequenceState:
    """One prompt on its way to a text.

    Its text is released as soon as it is certain. If it is `guarded`, which whoever writes it says before it begins, that
    takes a judgement: where one is `due`, either `release` or `refuse` follows.

    Parameters
    ----------
    room: the most tokens that may be chosen.
    ends: the tokens that end the text.
    sample: which of several texts for this prompt it is: each has randomness of its own.
    processors: what changes its logits, in this order.
    steering: how strongly each of the backend's directions is added to its states; none: not at all.
    """

    def __init__(
        self,
        index: int,
        prompt: list[int],
        tokenizer: Tokenizer,
        config: SamplingConfig,
        room: int,
        ends: frozenset[int],
        sample: int = 0,
        processors: Sequence[LogitsProcessor] = (),
        steering: tuple[float, ...] = (),
    ) -> None:
        self.index, self.prompt, self.ends, self.steering = index, prompt, ends, steering
        self.config, self._sample = config, sample
        self.tokens: list[int] = []
        self.likelihoods: list[Likelihood] = []
        self.reason: Reason | None = None
        self.failure: LucidError | None = None
        self.processors = processors
        self.limit = min(config.length, room)
        self._at_limit: Reason = "length" if config.length <= room else "context"
        self._stop = config.stop
        self._decoder = tokenizer.stream_decoder(prompt)
        self._text, self._certain, self._taken = "", 0, 0
        self.guarded = False
        self._released = self._released_tokens = self._judged_tokens = 0
        self._reached: list[int] = []  # how long the text was with each token, if it is guarded
        # Stop strings are looked for where control tokens are spelt out, which they are not in the text.
        self._control = _spelt(tokenizer, ends) if config.stop else {}
        self._watched = ""
        self._hidden: list[tuple[int, int]] = []

    @cached_property
    def choice(self) -> tuple[SamplingConfig, frozenset[int]]:
        """What its next token depends on beside logits and noise: sequences that share this object are chosen together."""
        return _the_same((self.config.changed(length=1, stop=(), seed=0, logprobs=None), self.ends))

    @cached_property
    def noise(self) -> list[float]:
        """The randomness of each choice, uniform in [0, 1): seed, prompt and sample alone decide it."""
        generator = torch_generator(self.config.seed, "generate", self._sample, *self.prompt)
        return torch.rand(self.limit, dtype=torch.float64, generator=generator).tolist()

    @property
    def text(self) -> str:
        """What follows the prompt by now, as far as it has passed if it is guarded; else the end of it may turn out to be a
        stop string's."""
        return self._text[: self._released] if self.guarded else self._text

    @property
    def released_tokens(self) -> int:
        """How many of its tokens may be told: those of text that a guard may refuse may not."""
        return self._released_tokens if self.guarded else len(self.tokens)

    def process(self, logits: Tensor) -> None:
        """Let its processors change the logits (V,) of the next token; where one cannot, the text ends, with a `failure`."""
        try:
            for processor in self.processors:
                processor.process(logits)
            # One processor by itself leaves something, or says that it cannot.
            if len(self.processors) > 1 and not torch.isfinite(logits.max()):
                raise InputError(
                    "no token may follow: what is asked of the text contradicts itself", fix="Ask for less."
                )
        except LucidError as error:
            self.fail(error)
            logits.zero_()  # one is chosen for nothing, but NaN would not do

    def settle(self, token: int) -> int:
        """Return the next token, which was chosen to be `token`."""
        for processor in self.processors:
            token = processor.settle(token, self.limit - len(self.tokens) - 1)
        return token

    def push(self, token: int) -> None:
        """Add the next token; `take` then has the text that it makes certain."""
        self.tokens.append(token)
        ended = self._ended_by(token)
        said = "" if token in self.ends else self._decoder.push(token)
        if ended is not None:  # characters may be held back until it is certain that they are whole
            said += self._decoder.flush().rstrip(UNFINISHED)
        self._text += said
        stopped = self._stopped_at(said, token) if self._stop else None
        if stopped is not None:
            self._text = self._text[:stopped]
        self.reason = ended if stopped is None else "stop"
        watching = self._stop and self.reason is None
        self._certain = self._in_text(len(self._watched) - self._may_be_stop()) if watching else len(self._text)
        if self.guarded:
            self._reached.append(len(self._text))
        else:
            self._released = self._certain

    def _ended_by(self, token: int) -> Reason | None:
        """Return why the text ends with its last token, which is `token`; None if it goes on."""
        if token in self.ends:
            return "eos"
        for processor in self.processors:
            processor.push(token)
        if any(processor.complete for processor in self.processors):
            return "complete"
        return self._at_limit if len(self.tokens) == self.limit else None

    def take(self) -> str:
        """Return the text that has been released since this was last called, which may be none."""
        piece, self._taken = self._text[self._taken : self._released], self._released
        return piece

    def due(self) -> tuple[str, int] | None:
        """Return the text that is to be judged now, and how much of it has passed before; None: none is yet."""
        if self.reason == "failed":
            return None
        if self.reason is not None:
            return self._text, self._released
        open_text = self._text[self._released : self._certain]
        end = stretch_end(open_text, len(self.tokens) - self._judged_tokens)
        return None if end is None else (self._text[: self._released + end], self._released)

    def release(self, length: int) -> None:
        """Let so many characters of the text out, which have passed."""
        self._released, self._judged_tokens = length, len(self.tokens)
        if self.reason is not None:
            self._released_tokens = len(self.tokens)
        elif length:
            # Behind the token that reaches this far there may be parts of a character that has not been judged.
            place = bisect_left(self._reached, length)
            self._released_tokens = place + (self._reached[place] == length)

    def refuse(self) -> None:
        """End the text where it has been released."""
        self._text, self.reason = self._text[: self._released], "guarded"

    def fail(self, error: LucidError) -> None:
        """End it: it cannot go on, or cannot be judged."""
        self.reason, self.failure = "failed", error

    def generation(self) -> Generation:
        assert self.reason is not None
        count = self.released_tokens
        return Generation(self.text, self.tokens[:count], self.reason, self.likelihoods[:count])

    def _stopped_at(self, said: str, token: int) -> int | None:
        """Watch what was said, and the token if it is a control token; return where a stop string ends the text."""
        before = len(self._watched)
        self._watched += said
        if token in self._control:
            self._hidden.append((len(self._watched), len(self._control[token])))
            self._watched += self._control[token]
        starts = (self._watched.find(stop, max(0, before - len(stop) + 1)) for stop in self._stop)
        first = min((start for start in starts if start >= 0), default=None)
        return None if first is None else self._in_text(first)

    def _in_text(self, place: int) -> int:
        """Return how much of the text stands before a place in what is watched."""
        return place - sum(min(max(0, place - start), size) for start, size in self._hidden)

    def _may_be_stop(self) -> int:
        """Return how many of the last characters that are watched may turn out to begin a stop string."""
        sizes = (
            size for stop in self._stop for size in range(len(stop) - 1, 0, -1) if self._watched.endswith(stop[:size])
        )
        return max(sizes, default=0)


@lru_cache(maxsize=1024)
def _the_same(choice: tuple[SamplingConfig, frozenset[int]]) -> tuple[SamplingConfig, frozenset[int]]:
    """Return the same object for settings that are equal, as long as there are few of them."""
    return choice


def _spelt(tokenizer: Tokenizer, ends: frozenset[int]) -> dict[int, str]:
    """Return the tokens that do not show in a text, and how they are spelt."""
    added = tokenizer.core.get_added_tokens_decoder()
    spelt = {index: token.content for index, token in added.items() if token.special}
    return spelt | {index: tokenizer.core.id_to_token(index) or "" for index in ends}


def start_rows(
    model: ModelConfig,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    config: SamplingConfig,
    ends: Collection[int] = (),
    processors: MakeProcessors | None = None,
    steering: tuple[float, ...] = (),
) -> list[SequenceState]:
    """Return the prompts as rows, for a model of this configuration, `ends` being what its files say of ends of text.

    See `generate` for what raises `InputError`.
    """
    if isinstance(prompts, str):
        raise TypeError("prompts is a list of prompts, not one string")
    if not model.causal:
        raise InputError("a masked language model fills gaps; it cannot continue a text", fix="Use a causal model.")
    _refuse_unknown([token for token, _ in config.logit_bias], model.vocab_size, "logit_bias")
    rows, context = [], model.context_length
    samples: Counter[tuple[int, ...]] = Counter()
    all_ends = ends_of(tokenizer, ends, model.vocab_size)
    for index, prompt in enumerate(prompts):
        where = f"prompt {index + 1}" if len(prompts) > 1 else "the prompt"
        if isinstance(prompt, str):
            ids = tokenizer.encode_prompt(prompt)
            refuse_beyond(ids, model.vocab_size, tokenizer, where)
        else:
            ids = prompt or [tokenizer.begin_id]
            _refuse_unknown(ids, model.vocab_size, where)
        if len(ids) > context:
            raise InputError(
                f"the prompt has {len(ids):,} tokens, the model's context {context:,}",
                where=f"prompt {index + 1}" if len(prompts) > 1 else None,
                fix="Shorten it.",
            )
        # The last token to be chosen is never read, so it may stand just past the context.
        key = tuple(ids)
        own = () if processors is None else processors(ids, all_ends)
        if config.num_beams > 1:
            for processor in own:
                processor.fork()  # refuses what it refuses before anything is written
        room = context - len(ids) + 1
        rows.append(SequenceState(index, ids, tokenizer, config, room, all_ends, samples[key], own, steering))
        samples[key] += 1
    return rows


def _refuse_unknown(tokens: Sequence[int], vocab_size: int, where: str) -> None:
    """Refuse ids that somebody made up."""
    if (unknown := next((token for token in tokens if not 0 <= token < vocab_size), None)) is not None:
        raise InputError(f"there is no token {unknown} in a vocabulary of {vocab_size:,}", where=where)
