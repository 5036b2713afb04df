"""Texts for requests: from the event loop, which serves them, to the engine's thread, which writes, and back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from lucidlm.control.config import ConstraintConfig
from lucidlm.control.constraint import ConstraintCompiler
from lucidlm.control.steering import SteeringVector
from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.engine.backend import Direction
from lucidlm.inference.engine.engine import Engine
from lucidlm.inference.engine.loop import EngineLoop, News
from lucidlm.inference.engine.opening import open_backend, open_draft_model
from lucidlm.inference.guard import Guard
from lucidlm.inference.sampler import Sampler, sampling_of
from lucidlm.inference.sequence import SequenceState, start_rows
from lucidlm.model.heads import LanguageModel
from lucidlm.serve.errors import ApiError, as_api_error, queue_full
from lucidlm.tokenize.tokenizer import Tokenizer

RETRY_AFTER = 2
"""Seconds after which a request that was turned away may come again."""


@dataclass(frozen=True, slots=True)
class Written:
    """What became of one of a request's texts in a step of the engine.

    Parameters
    ----------
    choice: which of the texts it is.
    first, end: the places of its new tokens among `row.tokens`.
    """

    choice: int
    row: SequenceState
    news: News
    first: int
    end: int


class ServedWriter:
    """A causal language model whose engine runs in a thread of its own, for many requests at a time.

    Parameters
    ----------
    max_running, max_waiting: texts that are written at a time, and that may wait for it.
    guard: what the texts have to pass.
    vectors: what the texts may be steered by, by name, and how strongly each one is where a request does not say it.

    Raises
    ------
    InputError: see `open_backend` and `open_draft_model`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: EngineConfig,
        max_running: int,
        max_waiting: int,
        guard: Guard | None = None,
        vectors: Mapping[str, tuple[SteeringVector, float]] | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.steering = {name: strength for name, (_, strength) in (vectors or {}).items()}
        self.defaults = SamplingConfig(**sampling_of(model.generation.fields))
        directions = [Direction(vector.layer, vector.direction) for vector, _ in (vectors or {}).values()]
        backend = open_backend(model, config, max_running, tokenizer, directions)
        self.engine = Engine(
            backend,
            Sampler(model.config.vocab_size, tokenizer),
            most_running=max_running,
            draft_model=open_draft_model(model, tokenizer, config),
            guard=guard,
        )
        self._constraints = ConstraintCompiler(tokenizer, model.config.vocab_size)
        self._loop = EngineLoop(self.engine)
        self._mailbox = _Mailbox()
        self._most, self._taken = max_running + max_waiting, 0

    @property
    def context(self) -> int:
        """Tokens of the longest text."""
        return self.model.config.context_length

    @property
    def healthy(self) -> bool:
        """Whether the engine's thread lives and goes on."""
        return self._loop.healthy

    def rows(
        self,
        prompts: Sequence[str | list[int]],
        sampling: SamplingConfig,
        constraint: ConstraintConfig,
        ends: Sequence[int] = (),
        steering: Mapping[str, float] | None = None,
    ) -> list[SequenceState]:
        """Return prompts as sequences that can be written; to compile a large constraint may take a second.

        Parameters
        ----------
        steering: how strongly they are steered by the vectors of these names; by others as the server is set.

        Raises
        ------
        ApiError: there is no vector of such a name.
        InputError: a prompt does not fit, or holds a token that the model has no row for; the constraint is none.
        """
        all_ends = [*self.model.generation.ends, *ends]
        processors = self._constraints.processors(constraint)
        strengths = self._strengths(steering or {})
        return start_rows(self.model.config, self.tokenizer, prompts, sampling, all_ends, processors, strengths)

    def _strengths(self, asked: Mapping[str, float]) -> tuple[float, ...]:
        unknown = next((name for name in asked if name not in self.steering), None)
        if unknown is not None:
            names = ", ".join(self.steering)
            known = f"there is {names}" if names else "the server was started without any"
            raise ApiError(f"steer: there is no vector {unknown[:100]!r}; {known}", param="steer")
        return tuple({**self.steering, **asked}.values())

    async def write(self, rows: Sequence[SequenceState]) -> AsyncGenerator[Written, None]:
        """Yield what becomes of `rows`, until all have ended; whoever stops listening ends them.

        Raises
        ------
        ApiError: too many texts are being written already, or writing has failed.
        """
        if self._taken + len(rows) > self._most:
            message = f"{self._taken:,} texts are being written or wait for it: come again later"
            raise queue_full(message, RETRY_AFTER)
        self._taken += len(rows)
        heard = asyncio.Queue[tuple[int, News]]()
        read, left = [0] * len(rows), len(rows)
        try:
            for choice, row in enumerate(rows):
                self._loop.submit(
                    row, self._mailbox.listener(lambda news, choice=choice: heard.put_nowait((choice, news)))
                )
            while left:
                choice, news = await heard.get()
                if news.failure is not None:
                    raise as_api_error(news.failure)
                left -= news.last
                first, read[choice] = read[choice], news.tokens
                yield Written(choice, rows[choice], news, first, news.tokens)
        finally:
            for row in rows:
                self._loop.cancel(row)
            self._taken -= len(rows)

    def close(self) -> None:
        """End the engine's thread."""
        self._loop.stop()


class _Mailbox:
    """Carries news from the engine's thread to the event loop, all of a step's at once: waking the loop takes longer than
    anything else on the way."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[News], None], News]] = []
        self._lock = Lock()

    def listener(self, told: Callable[[News], None]) -> Callable[[News], None]:
        """Return what the engine's thread may call, for `told` to be called in the event loop that is running now."""
        loop = asyncio.get_running_loop()

        def tell(news: News) -> None:
            with self._lock:
                self._waiting.append((told, news))
                first = len(self._waiting) == 1
            if first:
                loop.call_soon_threadsafe(self._deliver)

        return tell

    def _deliver(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for told, news in waiting:
            told(news)
