"""Continue prompts with a causal language model, several at once: what the engine does, as one call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.engine.engine import MOST_RUNNING, Engine
from lucidlm.inference.engine.torch_backend import BLOCK, TorchBackend
from lucidlm.inference.sampler import Sampler
from lucidlm.inference.sequence import Generation, SequenceState, start_rows
from lucidlm.model.heads import LanguageModel
from lucidlm.tokenize.tokenizer import Tokenizer


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
    for row, piece in _decode(model, tokenizer, rows):
        if on_text is not None and piece:
            on_text(row.index, piece)
    return [row.generation() for row in rows]


def stream(
    model: LanguageModel, tokenizer: Tokenizer, prompt: str | list[int], config: SamplingConfig
) -> Iterator[str]:
    """Yield the continuation of `prompt` piece by piece; joined, the pieces are the text that `generate` returns."""
    rows = start_rows(model.config, tokenizer, [prompt], config, model.generation.ends)
    return (piece for _, piece in _decode(model, tokenizer, rows) if piece)


def _decode(
    model: LanguageModel, tokenizer: Tokenizer, rows: list[SequenceState]
) -> Iterator[tuple[SequenceState, str]]:
    """Generate tokens until every row has ended; yield a row and its new text for each token chosen."""
    needed = sorted(-(-(len(row.prompt) + row.limit) // BLOCK) for row in rows)
    backend = TorchBackend(model, sum(needed[-MOST_RUNNING:]))
    engine = Engine(backend, Sampler(model.config.vocab_size, tokenizer, model.head.device))
    for row in rows:
        engine.add(row)
    was_training = model.training
    model.eval()
    try:
        while engine.running or engine.waiting:
            yield from engine.step()
    finally:
        model.train(was_training)
