"""Greedy and beam search: the text that a model finds likeliest, or nearly so.

Beams are compared by log-probability over a power of their length, ((5 + n) / 6) ** 0.6, as Wu et al. (2016,
arXiv:1609.08144, section 7) do, since a sum of logarithms favours short texts. One beam is greedy search.

The search itself knows no model. `SequenceBeams` lets the engine search for one of its sequences; `beam_search` writes for
tasks, whose prompts may be read both ways, which blocks of cache that are filled in chunks and shared cannot be.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lucidlm.core.errors import InputError, LucidError
from lucidlm.inference.config import LENGTH_PENALTY
from lucidlm.inference.prompt_batch import PromptBatch
from lucidlm.inference.sampler import Sampler, likelihood
from lucidlm.inference.sequence import Likelihood, SequenceState
from lucidlm.model.heads import LanguageModel


@dataclass(frozen=True, slots=True)
class Beam:
    """A text, or the beginning of one.

    Parameters
    ----------
    tokens: its ids, without the one that ends it.
    log_probability: of all, the end's included.
    end: the token that ends it; None: it goes on, or its length ends it.
    parent: the place, among the beams before, of the one that it goes on from.
    """

    tokens: list[int]
    log_probability: float
    end: int | None = None
    parent: int = 0


class BeamSearch:
    """The beams of one prompt: the likeliest beginnings, and the best text that has ended.

    No text is empty: an end at once is what beams of models that know little find likeliest of all (Stahlberg and
    Byrne 2019, arXiv:1908.10090).

    Parameters
    ----------
    limit: the most tokens of a text, 1 or more.
    width: how many beginnings are kept at a time.
    ends: the tokens that end a text.
    alpha: the power of the length that scores are divided by, 0 or more.
    """

    def __init__(self, limit: int, width: int, ends: Collection[int], alpha: float = LENGTH_PENALTY) -> None:
        self.beams = [Beam([], 0.0)]
        """Empty once the search is over."""
        self.best: Beam | None = None
        self._limit, self._width, self._ends, self._alpha = limit, width, frozenset(ends), alpha
        self._score, self._ended = -math.inf, 0

    @property
    def enough(self) -> int:
        """How many of the likeliest tokens behind a beam matter: one for each end at most, so of these enough go on."""
        return (1 + len(self._ends)) * self._width

    def step(self, log_probabilities: Sequence[Sequence[float]], tokens: Sequence[Sequence[int]]) -> None:
        """Extend the beams by a token each, given the likeliest `tokens` behind each of them."""
        length = len(self.beams[0].tokens) + 1
        candidates = sorted(
            (
                (beam.log_probability + value, parent, token)
                for parent, beam in enumerate(self.beams)
                for value, token in zip(log_probabilities[parent], tokens[parent], strict=True)
                if value > -math.inf and (length > 1 or token not in self._ends)
            ),
            key=lambda one: -one[0],
        )
        for score, parent, token in candidates[: self._width]:  # ends beyond those do not count
            if token in self._ends:
                self._ended += 1
                self._note(Beam(self.beams[parent].tokens, score, token, parent), length)
        going = [one for one in candidates if one[2] not in self._ends][: self._width]
        beams = [Beam([*self.beams[parent].tokens, token], score, None, parent) for score, parent, token in going]
        if length >= self._limit and not self._ended and beams:
            self._note(beams[0], length)
        over = (
            length >= self._limit
            or self._ended >= self._width
            or not beams
            or self._score >= beams[0].log_probability / self._norm(self._limit)  # none can still become better
        )
        self.beams = [] if over else beams

    def _note(self, beam: Beam, length: int) -> None:
        score = beam.log_probability / self._norm(length)
        if score > self._score:
            self.best, self._score = beam, score

    def _norm(self, length: int) -> float:
        return ((5 + length) / 6) ** self._alpha


@torch.inference_mode()
def beam_search(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    *,
    ends: Collection[int],
    suppressed: Tensor,
    beams: int = 1,
    prefixes: Sequence[int] | None = None,
) -> list[Beam]:
    """Continue `prompts` in one batch, each until one of `ends` or `limits` (1 or more) tokens; a text that has ended
    leaves the batch.

    Parameters
    ----------
    suppressed: (V,) bool, tokens that are never written.
    beams: how many beginnings of a text are kept at a time.
    prefixes: see `PromptBatch`.
    """
    batch, device = PromptBatch(model, prompts, prefixes), model.head.device
    searches = [BeamSearch(limit, beams, ends) for limit in limits]
    going = searches
    while going:
        logits = model.logits(batch.read()).float()  # (all beams, V)
        costs = logits.log_softmax(-1).masked_fill_(suppressed, -math.inf)
        values, tokens = (found.tolist() for found in costs.topk(min(going[0].enough, costs.shape[-1])))
        kept, start = [], 0
        for search in going:
            end = start + len(search.beams)
            search.step(values[start:end], tokens[start:end])
            kept += [start + beam.parent for beam in search.beams]
            start = end
        going = [search for search in going if search.beams]
        if going:
            if kept != list(range(len(logits))):
                batch.keep(torch.tensor(kept, device=device))
            new = [beam.tokens[-1] for search in going for beam in search.beams]
            batch.append(torch.tensor(new, device=device))
    return [search.best or Beam([], -math.inf) for search in searches]


class SequenceBeams:
    """The beam search for one of the engine's sequences, which gets all its tokens once the search is over.

    Log-probabilities are changed by the sequence's settings and processors, and not made to sum to one again, as
    transformers has it.
    """

    def __init__(self, row: SequenceState) -> None:
        self._row = row
        self._search = BeamSearch(row.limit, row.config.num_beams, row.ends, row.config.length_penalty)
        self._processors = [[one.fork() for one in row.processors]]
        self._likelihoods: list[list[Likelihood]] = [[]]
        self._of_best: list[Likelihood] = []

    @property
    def beams(self) -> list[Beam]:
        """What it goes on with; none once it is over."""
        return self._search.beams

    def step(self, sampler: Sampler, logits: Tensor) -> None:
        """Extend the beams by a token each, given the logits (n, V) after them, fp32."""
        try:
            self._step(sampler, logits)
        except LucidError as error:
            self._row.fail(error)

    def _step(self, sampler: Sampler, logits: Tensor) -> None:
        search, before = self._search, self._search.best
        logprobs = logits.log_softmax(-1)
        scores = logprobs.clone()
        for row, processors in zip(scores, self._processors, strict=True):
            for processor in processors:
                processor.process(row)
        scores = sampler.shift(self._row, [beam.tokens for beam in search.beams], scores)
        values, tokens = (found.tolist() for found in scores.topk(min(search.enough, scores.shape[-1])))
        search.step(values, tokens)
        if search.best is not None and search.best is not before:
            self._of_best = self._told(search.best, logprobs)
        if search.beams:
            self._likelihoods = [self._told(beam, logprobs) for beam in search.beams]
            self._processors = [[one.fork() for one in self._processors[beam.parent]] for beam in search.beams]
            for beam, processors in zip(search.beams, self._processors, strict=True):
                for processor in processors:
                    processor.push(beam.tokens[-1])
        else:
            self._write()

    def _told(self, beam: Beam, logprobs: Tensor) -> list[Likelihood]:
        """Return the likelihoods of a beam's tokens, if they are wanted, given the model's log-probabilities (n, V)."""
        if (count := self._row.config.logprobs) is None:
            return []
        token = beam.tokens[-1] if beam.end is None else beam.end
        return [*self._likelihoods[beam.parent], likelihood(logprobs[beam.parent], token, count)]

    def _write(self) -> None:
        """Give the sequence what was found."""
        if (best := self._search.best) is None:
            what = "no token may follow: what is asked of the text contradicts itself"
            raise InputError(what, fix="Ask for less.")
        self._row.likelihoods += self._of_best
        for token in best.tokens if best.end is None else [*best.tokens, best.end]:
            self._row.push(token)
