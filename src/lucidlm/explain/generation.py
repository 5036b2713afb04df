"""Token by token: what each token of a generated text rests on, of all the tokens before it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.explain.attribution.methods import UNITS, Method, attribute, require_applicable
from lucidlm.explain.checks.faithfulness import Deletion
from lucidlm.explain.explanation import frozen
from lucidlm.explain.pieces import Unit, cut, joined_by
from lucidlm.explain.predictions import continued
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.decode import generate
from lucidlm.metrics.statistics import Estimate, estimate, ratio

CHECKED = 8
"""How many pieces, evenly spread, are tested against random deletion: each takes some hundred readings."""


@dataclass(frozen=True)
class GenerationExplanation:
    """What each piece of a continuation rests on.

    Parameters
    ----------
    pieces: of the text and its continuation; those from `start` on are the continuation's.
    logprobs: of each piece of the continuation, in nats.
    attributions: for each piece of the continuation, what each piece before it adds.
    checked, better: how many pieces were tested, and how many of them beat random deletion at p < 0.05.
    gain: how many points of probability more than random ones the most attributed pieces cost when deleted, in the mean
        of those tested, with its bootstrap interval; None: there was nothing to test.
    """

    text: str
    continuation: str
    method: Method
    pieces: tuple[str, ...]
    start: int
    logprobs: tuple[float, ...]
    attributions: tuple[tuple[float, ...], ...]
    checked: int
    better: int
    gain: Estimate | None

    @property
    def unit(self) -> str:
        """What the attributions are measured in."""
        return UNITS.get(self.method, "in nats")

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values for JSON."""
        gain = None if self.gain is None else self.gain.model_dump()
        return {**asdict(self), "gain": gain, "unit": self.unit}

    def verdict(self) -> list[str]:
        """Return, in a sentence, what the check says."""
        if (gain := self.gain) is None:
            return ["faithfulness: not tested, the text is one piece"]
        words = "better than random" if gain.low > 0 else "NOT SHOWN to be better than random"
        return [
            f"{words}: deleting the most attributed pieces costs {100 * gain.value:+.1f} points of probability more than "
            f"random ones (95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}); at p < 0.05 for {self.better} "
            f"of the {self.checked} pieces tested"
        ]


def explain_generation(
    loaded: LoadedModel,
    text: str,
    continuation: str | None = None,
    *,
    length: int = 20,
    by: Unit = "token",
    method: Method = "relevance",
    steps: int = 50,
    seed: int = 0,
) -> GenerationExplanation:
    """Explain each piece of a continuation of `text` by all pieces before it.

    Parameters
    ----------
    continuation: None: `length` tokens that the model writes, always the likeliest one.

    Raises
    ------
    InputError: the model continues no texts, the text is empty, or both together are longer than the model's context.
    """
    if not text.strip():
        raise InputError("is empty", where="TEXT", fix="Pass a text to explain.")
    if length < 1:
        raise InputError("is less than 1", where="--length", fix="Pass 20, say.")
    model, tokenizer = loaded.causal_lm(fix="Leave out --length, which is for models that continue texts.")
    if continuation is None:
        [written] = generate(model, tokenizer, [text], SamplingConfig(temperature=0, length=length))
        continuation = written.text
    if not continuation:
        raise InputError("the model writes nothing behind this text", where="TEXT", fix="Pass another, or --target.")
    ids, pieces = cut(tokenizer, text + continuation, first=len(tokenizer.prefix))
    read = torch.tensor([*tokenizer.prefix, *ids], device=model.head.device)
    if len(read) > model.config.context_length:
        raise InputError(
            f"and what follows have {len(read):,} tokens, the model reads {model.config.context_length:,} at once",
            where="TEXT",
            fix="Explain a part of it.",
        )
    pieces = joined_by(by, text + continuation, pieces)
    ends = np.cumsum([len(piece.text) for piece in pieces])
    start = max(1, int(np.searchsorted(ends, len(text), side="right")))
    predictions = [
        continued(model, tokenizer, read[: piece.places[0]], pieces[:index], read[piece.places].tolist())
        for index, piece in enumerate(pieces[start:], start)
    ]
    if not predictions:
        raise InputError("has no piece of its own behind the text", where="--target", fix="Pass --by token.")
    require_applicable(predictions[0], method)
    with frozen(model):
        values = [attribute(prediction, method, steps=steps, seed=seed).values for prediction in predictions]
        logprobs = [float(prediction.scores([prediction.whole])[0]) for prediction in predictions]
        places = [index for index in _spread(len(predictions)) if len(values[index]) > 1]
        tests = [Deletion(predictions[index], seed).judge(values[index]) for index in places]
    gains = [test.figures.comprehensiveness - test.random.comprehensiveness for test in tests]
    return GenerationExplanation(
        text,
        continuation,
        method,
        tuple(piece.text for piece in pieces),
        start,
        tuple(logprobs),
        tuple(tuple(row.tolist()) for row in values),
        len(tests),
        sum(test.better for test in tests),
        estimate(ratio, np.array([(gain, 1.0) for gain in gains])) if gains else None,
    )


def _spread(count: int) -> list[int]:
    """Return up to `CHECKED` of the numbers below `count`, evenly spread."""
    return sorted({int(place) for place in np.linspace(0, count - 1, min(CHECKED, count)).round()})
