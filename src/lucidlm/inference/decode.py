"""Continue prompts with a causal language model, several at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterator, Sequence

from lucidlm.inference.config import EngineConfig, SamplingConfig
from lucidlm.inference.engine.engine import MOST_RUNNING, Engine
from lucidlm.inference.engine.opening import open_backend, open_draft_model
from lucidlm.inference.engine.scheduler import most_blocks
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.inference.guard import Guard
from lucidlm.inference.logits_processor import MakeProcessors
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import Generation, SequenceState, start_rows
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer

OnText = Callable[[int, str], None]
"""Called with a prompt's index and each new piece of its text: whole characters, nothing of a stop string."""

Pieces = Generator[str, None, Generation]
"""Yields a text piece by piece, and returns it whole."""


class Writer:
    """A causal language model that continues texts, one call after the other: a beginning that was read for one text is
    not read again for the next."""

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer,
        config: EngineConfig | None = None,
        guard: Guard | None = None,
        *,
        release_weights: bool = False,
    ) -> None:
        """Make it ready.

        Parameters
        ----------
        config: what computes.
        guard: what texts have to pass. It is not asked about prompts.
        release_weights: see `open_backend`.

        Raises
        ------
        InputError: see `open_backend` and `open_draft_model`.
        """
        self.model, self.tokenizer = model, tokenizer
        config = config or EngineConfig()
        draft_model = open_draft_model(model, tokenizer, config)
        backend = open_backend(model, config, 16, tokenizer, release_weights=release_weights)
        sampler = Sampler(model.config.vocab_size, tokenizer)
        self._engine = Engine(backend, sampler, draft_model=draft_model, guard=guard)

    def generate(
        self,
        prompts: Sequence[str | list[int]],
        config: SamplingConfig,
        on_text: OnText | None = None,
        *,
        ends: Collection[int] = (),
        processors: MakeProcessors | None = None,
    ) -> list[Generation]:
        """Continue each of `prompts`; see `generate`."""
        rows = _rows(self.model, self.tokenizer, prompts, config, ends, processors)
        return _generations(self._engine, self.model, rows, on_text)

    def stream(
        self, prompt: str | list[int], config: SamplingConfig, *, processors: MakeProcessors | None = None
    ) -> Pieces:
        """Yield the continuation of `prompt` piece by piece; see `stream`."""
        (row,) = _rows(self.model, self.tokenizer, [prompt], config, processors=processors)
        return _pieces(self._engine, self.model, row)


def generate(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    config: SamplingConfig,
    on_text: OnText | None = None,
    *,
    ends: Collection[int] = (),
    processors: MakeProcessors | None = None,
    guard: Guard | None = None,
) -> list[Generation]:
    """Continue each of `prompts`, texts or token ids, together; an empty one begins a new document. PyTorch computes.

    The texts end at the model's context: it is not moved on, which would mean reading everything again for each token.

    Parameters
    ----------
    ends: tokens that end a text besides those of the tokenizer and the model.
    processors: makes what changes the logits of each text, such as what holds it to a form (`lucidlm.control`).
    guard: what each text has to pass; one that does not ends where it last has. It is not asked about prompts.

    Raises
    ------
    InputError: a prompt is longer than the model's context or holds a token that the model has no row for; the model is
        not causal; a text cannot be what it is held to.
    """
    rows = _rows(model, tokenizer, prompts, config, ends, processors)
    return _generations(_engine_for(model, tokenizer, rows, guard), model, rows, on_text)


def stream(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompt: str | list[int],
    config: SamplingConfig,
    *,
    processors: MakeProcessors | None = None,
    guard: Guard | None = None,
) -> Pieces:
    """Yield the continuation of `prompt` piece by piece; joined, the pieces are the text that `generate` returns."""
    (row,) = _rows(model, tokenizer, [prompt], config, processors=processors)
    return _pieces(_engine_for(model, tokenizer, [row], guard), model, row)


def _rows(
    model: LanguageModel,
    tokenizer: Tokenizer,
    prompts: Sequence[str | list[int]],
    config: SamplingConfig,
    ends: Collection[int] = (),
    processors: MakeProcessors | None = None,
) -> list[SequenceState]:
    return start_rows(model.config, tokenizer, prompts, config, [*model.generation.ends, *ends], processors)


def _engine_for(
    model: LanguageModel, tokenizer: Tokenizer, rows: Sequence[SequenceState], guard: Guard | None
) -> Engine:
    """Return an engine with as much room as these sequences can need at a time."""
    needed = sorted(most_blocks(row, BLOCK) for row in rows)
    backend = TorchBackend(model, sum(needed[-MOST_RUNNING:]))
    return Engine(backend, Sampler(model.config.vocab_size, tokenizer), guard=guard)


def _generations(
    engine: Engine, model: LanguageModel, rows: Sequence[SequenceState], on_text: OnText | None
) -> list[Generation]:
    for row, piece in _write(engine, model, rows):
        if on_text is not None:
            on_text(row.index, piece)
    return [row.generation() for row in rows]


def _pieces(engine: Engine, model: LanguageModel, row: SequenceState) -> Pieces:
    for _, piece in _write(engine, model, [row]):
        yield piece
    return row.generation()


def _write(engine: Engine, model: LanguageModel, rows: Sequence[SequenceState]) -> Iterator[tuple[SequenceState, str]]:
    """Write until every row has ended; yield a row and its new text, whenever there is some.

    What others let the same engine write meanwhile is theirs.
    """
    was_training = model.training
    model.eval()
    try:
        for row in rows:
            engine.add(row)
        while any(row.reason is None for row in rows):
            engine.step()
            yield from _new(rows)
        yield from _new(rows)  # another may have let them end
        if (failure := next((row.failure for row in rows if row.failure is not None), None)) is not None:
            raise failure
    finally:  # nobody may want to hear the rest
        for row in rows:
            engine.cancel(row)
        model.train(was_training)


def _new(rows: Sequence[SequenceState]) -> Iterator[tuple[SequenceState, str]]:
    return ((row, piece) for row in rows if (piece := row.take()))
