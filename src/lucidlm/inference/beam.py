"""Greedy and beam search: the text that a model finds likeliest, or nearly so.

Beams are compared by log-probability over a power of their length, ((5 + n) / 6) ** 0.6, as Wu et al. (2016,
arXiv:1609.08144, section 7) do, since a sum of logarithms favours short texts. One beam is greedy search.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lucidlm.inference.prompt_batch import PromptBatch
from lucidlm.model.heads import LanguageModel

ALPHA = 0.6


@dataclass(frozen=True, slots=True)
class Found:
    """The ids that were found, without the one that ends them, and the log-probability of all, the end's included."""

    tokens: list[int]
    log_probability: float


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
) -> list[Found]:
    """Continue `prompts` in one batch, each until one of `ends` or `limits` (1 or more) tokens; a text that has ended
    leaves the batch.

    No text is empty: an end at once is what beams of models that know little find likeliest of all (Stahlberg and
    Byrne 2019, arXiv:1908.10090).

    Parameters
    ----------
    suppressed: (V,) bool, tokens that are never written.
    beams: how many beginnings of a text are kept at a time.
    prefixes: see `PromptBatch`.
    """
    batch = PromptBatch(model, prompts, prefixes)
    search = BeamSearch(limits, beams, model.head.device)
    while len(search.rows):
        logits = model.logits(batch.read()).float()  # (R * K, V)
        costs = logits.log_softmax(-1).masked_fill_(suppressed, float("-inf"))
        if not search.length:
            costs[:, list(ends)] = float("-inf")
        kept, tokens = search.step(costs, list(ends))
        if len(kept):
            if len(kept) != len(logits) or not torch.equal(kept, torch.arange(len(kept), device=kept.device)):
                batch.keep(kept)
            batch.append(tokens)
    return search.found


class BeamSearch:
    """The beams (R, K) of the prompts that are not at their end: scores, texts so far, the best that has ended."""

    def __init__(self, limits: Sequence[int], beams: int, device: torch.device) -> None:
        self.beams, self.length = beams, 0
        self.found = [Found([], float("-inf")) for _ in limits]
        self.rows = torch.arange(len(limits), device=device)
        self._limits = torch.tensor(list(limits), device=device)
        self._scores = torch.zeros(len(limits), 1, device=device)  # a prompt is one beam
        self._texts = torch.zeros(len(limits), 1, 0, dtype=torch.int64, device=device)
        self._best = torch.full((len(limits),), float("-inf"), device=device)
        self._ended = torch.zeros(len(limits), dtype=torch.int64, device=device)

    def step(self, log_probabilities: Tensor, ends: list[int]) -> tuple[Tensor, Tensor]:
        """Extend all beams by a token, given (R * K, V); return which rows of the batch go on, and their new tokens."""
        self.length += 1
        rows, width = self._scores.shape
        vocabulary = log_probabilities.shape[-1]
        totals = self._scores[..., None] + log_probabilities.view(rows, width, vocabulary)  # (R, K, V)
        # A beam has a candidate for each end at most, so of so many enough go on.
        enough = (1 + len(ends)) * self.beams
        scores, places = totals.flatten(1).topk(min(enough, width * vocabulary))  # (R, (1 + ends) K)
        parents, tokens = places // vocabulary, places % vocabulary
        ended = torch.isin(tokens, torch.tensor(ends, device=tokens.device))
        self._note_ended(scores, parents, ended)
        going = ended.to(torch.int8).argsort(dim=-1, stable=True)[:, : self.beams]
        scores, parents, tokens = (x.gather(1, going) for x in (scores, parents, tokens))
        texts = self._texts.gather(1, parents[..., None].expand(-1, -1, self.length - 1))
        self._texts, self._scores = torch.cat((texts, tokens[..., None]), -1), scores

        at_limit = self.length >= self._limits
        self._note(at_limit & (self._ended == 0), scores[:, 0] / self._norm(), self._texts[:, 0], scores[:, 0])
        hopeless = self._best >= scores[:, 0] / _norm(self._limits)  # no beam can still become better than the best
        on = (~(at_limit | hopeless | (self._ended >= self.beams))).nonzero()[:, 0]
        kept = (on[:, None] * width + parents[on]).flatten()
        for name in ("rows", "_limits", "_scores", "_texts", "_best", "_ended"):
            setattr(self, name, getattr(self, name)[on])
        return kept, tokens[on].flatten()

    def _norm(self) -> float:
        return float(_norm(torch.tensor(float(self.length))))

    def _note_ended(self, scores: Tensor, parents: Tensor, ends: Tensor) -> None:
        """Take up the beams that end here; those beyond the K best candidates do not count as ends."""
        among = ends[:, : self.beams]
        self._ended += among.sum(-1)
        best, place = scores[:, : self.beams].masked_fill(~among, float("-inf")).max(-1)
        texts = self._texts[torch.arange(len(parents), device=parents.device), parents.gather(1, place[:, None])[:, 0]]
        self._note(best / self._norm() > self._best, best / self._norm(), texts, best)

    def _note(self, rows: Tensor, normed: Tensor, texts: Tensor, scores: Tensor) -> None:
        for row in rows.nonzero()[:, 0].tolist():
            self._best[row] = normed[row]
            self.found[int(self.rows[row])] = Found(texts[row].tolist(), float(scores[row]))


def _norm(length: Tensor) -> Tensor:
    return ((5 + length) / 6) ** ALPHA
