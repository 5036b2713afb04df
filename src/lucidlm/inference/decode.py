"""Continue prompts with a causal language model, several at once.

- After the prompts are read (`prompt_batch.PromptBatch`), each step reads one new token a row; the rest is in the cache.
- A row that has ended leaves the batch, so the last rows do not pay for those that are done.
- A row's randomness comes from the seed and its own prompt: what else is in the batch does not change its text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.core.seeds import torch_generator
from lucidlm.inference.end_of_text import ends_of
from lucidlm.inference.prompt_batch import PromptBatch
from lucidlm.inference.sampler import SamplingConfig, choose
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.embedding_rows import refuse_beyond
from lucidlm.tokenize.tokenizer import Tokenizer

Reason = Literal["eos", "stop", "length", "context"]
"""Why a text ended: the model said so, a stop string came, the length asked for or the model's context was full."""


@dataclass(frozen=True)
class Generation:
    """The continuation of one prompt.

    Parameters
    ----------
    text: what follows the prompt, up to a stop string; a character that the end cuts in half is left out.
    tokens: every id that was chosen, those of a stop string and the end-of-text token included.
    """

    text: str
    tokens: list[int]
    reason: Reason


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    config: SamplingConfig,
    on_text: Callable[[int, str], None] | None = None,
    *,
    ends: Collection[int] = (),
) -> list[Generation]:
    """Continue each of `prompts`, texts or token ids, all in one batch; an empty one begins a new document.

    The texts end at the model's context: it is not moved on, which would mean reading everything again for each token.

    Parameters
    ----------
    on_text: called with a prompt's index and each new piece of its text: whole characters, nothing of a stop string.
    ends: tokens that end a text besides those of the tokenizer and the model.

    Raises
    ------
    InputError: a prompt is longer than the model's context or holds a token that the model has no row for; the model is
        not causal.
    """
    rows = start_rows(model.config, tokenizer, prompts, config, [*model.generation.ends, *ends])
    for row, piece in _decode(model, tokenizer, rows, config):
        if on_text is not None and piece:
            on_text(row.index, piece)
    return [row.generation() for row in rows]


def stream(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str | list[int], config: SamplingConfig
) -> Iterator[str]:
    """Yield the continuation of `prompt` piece by piece; joined, the pieces are the text that `generate` returns."""
    rows = start_rows(model.config, tokenizer, [prompt], config, model.generation.ends)
    return (piece for _, piece in _decode(model, tokenizer, rows, config) if piece)


class SequenceState:
    """One prompt on its way to a text.

    Parameters
    ----------
    room: the most tokens that may be chosen.
    ends: the tokens that end the text.
    """

    def __init__(
        self,
        index: int,
        prompt: list[int],
        tokenizer: Tokenizer,
        config: SamplingConfig,
        room: int,
        ends: frozenset[int],
    ) -> None:
        self.index, self.prompt, self.ends = index, prompt, ends
        self.tokens: list[int] = []
        self.reason: Reason | None = None
        self.limit = min(config.length, room)
        self._at_limit: Reason = "length" if config.length <= room else "context"
        self._stop = config.stop
        self._decoder = tokenizer.stream_decoder(prompt)
        self._text, self._released = "", 0
        # Stop strings are looked for where control tokens are spelt out, which they are not in the text.
        self._control = _spelt(tokenizer, ends) if config.stop else {}
        self._watched = ""
        self._hidden: list[tuple[int, int]] = []

    def push(self, token: int) -> str:
        """Take the next token; return the text that it makes certain, which may be empty."""
        self.tokens.append(token)
        said = "" if token in self.ends else self._decoder.push(token)
        self._text += said
        if (found := self._stopped_at(said, token)) is not None:
            self._text, self.reason = self._text[:found], "stop"
        elif token in self.ends:
            self.reason = "eos"
        elif len(self.tokens) == self.limit:
            self.reason = self._at_limit
        end = len(self._text) if self.reason is not None else self._in_text(len(self._watched) - self._may_be_stop())
        piece = self._text[self._released : end]
        self._released = end
        return piece

    def generation(self) -> Generation:
        assert self.reason is not None
        return Generation(self._text, self.tokens, self.reason)

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
) -> list[SequenceState]:
    """Return the prompts as rows, for a model of this configuration, `ends` being what its files say of ends of text.

    See `generate` for what raises `InputError`.
    """
    if isinstance(prompts, str):
        raise TypeError("prompts is a list of prompts, not one string")
    if not model.causal:
        raise InputError("a masked language model fills gaps; it cannot continue a text", fix="Use a causal model.")
    rows, context = [], model.context_length
    all_ends = ends_of(tokenizer, ends, model.vocab_size)
    for index, prompt in enumerate(prompts):
        ids = tokenizer.encode_prompt(prompt) if isinstance(prompt, str) else prompt or [tokenizer.begin_id]
        refuse_beyond(ids, model.vocab_size, tokenizer, f"prompt {index + 1}" if len(prompts) > 1 else "the prompt")
        if len(ids) > context:
            raise InputError(
                f"the prompt has {len(ids):,} tokens, the model's context {context:,}",
                where=f"prompt {index + 1}" if len(prompts) > 1 else None,
                fix="Shorten it.",
            )
        # The last token to be chosen is never read, so it may stand just past the context.
        rows.append(SequenceState(index, ids, tokenizer, config, context - len(ids) + 1, all_ends))
    return rows


@torch.inference_mode()
def _decode(
    model: LanguageModel, tokenizer: Tokenizer, rows: list[SequenceState], config: SamplingConfig
) -> Iterator[tuple[SequenceState, str]]:
    """Generate tokens until every row has ended; yield a row and its new text for each token chosen."""
    if not rows:
        return
    was_training = model.training
    model.eval()
    try:
        batch = _Batch(model, tokenizer, rows, config)
        while batch.rows:
            tokens = batch.choose()
            for row, token in zip(batch.rows, tokens.tolist(), strict=True):
                yield row, row.push(token)
            batch.append(tokens)
    finally:
        model.train(was_training)


def suppressed_tokens(vocab_size: int, tokenizer: Tokenizer, ends: Collection[int]) -> Tensor:
    """Return (V,) bool, the tokens that stand for nothing a text may hold: padding, mask, unknown, unused rows.

    Those that end a text are not among them, though some tokenizers pad with one.
    """
    suppressed = torch.arange(vocab_size) >= tokenizer.vocab_size
    for token in (tokenizer.find("pad_token"), tokenizer.find("mask_token"), tokenizer.unknown_id):
        if token is not None and token < vocab_size:
            suppressed[token] = True
    suppressed[list(ends)] = False
    return suppressed


class Sampler:
    """Chooses the next token of each row: holds the randomness that is left and, for the repetition penalty, what stands
    in the rows.

    Parameters
    ----------
    suppressed: (V,) bool, the tokens that are never chosen; see `suppressed_tokens`.
    """

    def __init__(self, rows: list[SequenceState], config: SamplingConfig, suppressed: Tensor) -> None:
        self.config, self._suppressed, self._step = config, suppressed, 0
        self._noise = None if config.greedy else _noise(rows, config).to(suppressed.device)
        self._seen = None
        if config.repetition_penalty != 1:
            self._seen = suppressed.new_zeros(len(rows), len(suppressed))
            for seen, row in zip(self._seen, rows, strict=True):
                seen[row.prompt] = True

    def choose(self, logits: Tensor) -> Tensor:
        """Return the next token of each row, (B,) int64, from `logits` (B, V) fp32, which are overwritten."""
        noise = None if self._noise is None else self._noise[:, self._step]
        tokens = choose(logits.masked_fill_(self._suppressed, float("-inf")), self.config, seen=self._seen, noise=noise)
        self._step += 1
        if self._seen is not None:
            self._seen.scatter_(1, tokens[:, None], True)
        return tokens

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows (int64) only."""
        self._noise = None if self._noise is None else self._noise[rows]
        self._seen = None if self._seen is None else self._seen[rows]


class _Batch:
    """The rows that are not at their end, and what goes with them."""

    def __init__(
        self, model: LanguageModel, tokenizer: Tokenizer, rows: list[SequenceState], config: SamplingConfig
    ) -> None:
        self.rows, self._model = rows, model
        self._prompts = PromptBatch(model, [row.prompt for row in rows])
        suppressed = suppressed_tokens(model.config.vocab_size, tokenizer, rows[0].ends)
        self._chooser = Sampler(rows, config, suppressed.to(model.head.device))

    def choose(self) -> Tensor:
        """Return the next token of each row, (B,)."""
        return self._chooser.choose(self._model.logits(self._prompts.read()).float())

    def append(self, tokens: Tensor) -> None:
        """Put the chosen `tokens` (B,) after each row, and drop the rows that have ended."""
        self._prompts.append(tokens)
        going = [index for index, row in enumerate(self.rows) if row.reason is None]
        if len(going) < len(self.rows):
            self.rows = [self.rows[index] for index in going]
            kept = torch.tensor(going, dtype=torch.int64, device=tokens.device)
            self._chooser.keep(kept)
            self._prompts.keep(kept)


def _noise(rows: list[SequenceState], config: SamplingConfig) -> Tensor:
    """Return (B, steps) fp64, uniform in [0, 1): for each row a stream of its own, that nothing but its prompt decides.

    A prompt that is there several times has a stream for each time.
    """
    steps = max(row.limit for row in rows)
    times: Counter[tuple[int, ...]] = Counter()
    streams = []
    for row in rows:
        prompt = tuple(row.prompt)
        generator = torch_generator(config.seed, "generate", times[prompt], *prompt)
        streams.append(torch.rand(steps, dtype=torch.float64, generator=generator))
        times[prompt] += 1
    return torch.stack(streams)
