"""How the next token is chosen from the model's logits.

Each filter is a pure function on logits (B, V) that takes what it rules out to minus infinity; `choose` applies those
that are asked for, in the order that transformers has: repetition penalty, temperature, top-k, top-p, min-p. Biases and
the penalties that OpenAI's protocol has come before.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lucidlm.checkpoint.generation_config import GENERATION_CONFIG
from lucidlm.core.devices import to_device
from lucidlm.inference.config import SamplingConfig
from lucidlm.inference.sequence import Likelihood, SequenceState
from lucidlm.tokenize.tokenizer import Tokenizer

ELSEWHERE = (
    "num_beams",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "no_repeat_ngram_size",
    "encoder_repetition_penalty",
    "bad_words_ids",
    "sequence_bias",
    "suppress_tokens",
    "begin_suppress_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "min_length",
    "min_new_tokens",
)
"""Fields of generation_config.json that transformers writes by, and this does not."""

LIKELIEST = 256
"""How many tokens are put in order to find a nucleus, before all are: it is seldom larger, and sorting is slow."""


def sampling_of(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of `SamplingConfig` that the fields of a generation_config.json ask for.

    What a file that speaks of sampling leaves out is off, not ours: its author tried the model without it.

    Raises
    ------
    InputError: one of them is no such setting.
    """
    names = {name: name for name in ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")}
    asked = {
        ours: fields[theirs] for theirs, ours in (names | {"max_new_tokens": "length"}).items() if theirs in fields
    }
    if fields.get("do_sample") or asked.keys() & {"temperature", "top_k", "top_p", "min_p"}:
        asked = {"temperature": 1.0, "min_p": 0.0, **asked}
    if fields.get("do_sample") is False:
        asked["temperature"] = 0.0
    found = SamplingConfig.parse(asked, where=GENERATION_CONFIG)
    return {name: getattr(found, name) for name in asked}


class Sampler:
    """Chooses the next token of each sequence, as its own settings say.

    Parameters
    ----------
    vocab_size: of the model.
    """

    def __init__(self, vocab_size: int, tokenizer: Tokenizer) -> None:
        self._vocab_size, self._tokenizer = vocab_size, tokenizer
        self._suppressed: dict[frozenset[int], Tensor] = {}

    def choose(self, rows: Sequence[SequenceState], logits: Tensor) -> list[int]:
        """Return the next token of each sequence, from `logits` (n, V) fp32, which may be overwritten.

        Sequences that want log-probabilities get the likelihood of their token.
        """
        watched = [place for place, row in enumerate(rows) if row.config.logprobs is not None]
        logprobs = logits[watched].log_softmax(-1) if watched else None
        held = [(place, row) for place, row in enumerate(rows) if row.processors]
        for place, row in held:
            row.process(logits[place])
        alike: dict[int, list[int]] = defaultdict(list)  # by identity: to hash every row's settings takes longer
        for place, row in enumerate(rows):
            alike[id(row.choice)].append(place)
        chosen = [0] * len(rows)
        for places in alike.values():
            config, ends = rows[places[0]].choice
            some = logits if len(places) == len(rows) else logits[places]
            tokens = self._choose([rows[place] for place in places], some, config, ends).tolist()
            for place, token in zip(places, tokens, strict=True):
                chosen[place] = token
        for place, row in held:
            chosen[place] = row.settle(chosen[place])
        if logprobs is not None:
            for place, found in zip(watched, logprobs, strict=True):
                rows[place].likelihoods.append(likelihood(found, chosen[place], rows[place].config.logprobs or 0))
        return chosen

    def _choose(
        self, rows: Sequence[SequenceState], logits: Tensor, config: SamplingConfig, ends: frozenset[int]
    ) -> Tensor:
        """Choose for sequences with the same settings, (n,) int64."""
        self._shift(logits, config, ends, [row.tokens for row in rows])
        noise = None
        if not config.greedy:
            drawn = torch.tensor([row.noise[len(row.tokens)] for row in rows], dtype=torch.float64)
            noise = to_device(drawn, logits.device)
        seen = None
        if config.repetition_penalty != 1:
            seen = _seen(logits, [row.prompt + row.tokens for row in rows])
        return choose(logits, config, seen=seen, noise=noise)

    def shift(self, row: SequenceState, texts: Sequence[list[int]], scores: Tensor) -> Tensor:
        """Return scores (n, V), which may be overwritten, of what may follow each of several texts that `row` may become,
        biased and penalised as its settings say. In beam search they are log-probabilities, as in transformers."""
        self._shift(scores, row.config, row.ends, texts)
        if row.config.repetition_penalty == 1:
            return scores
        return repetition_penalty(
            scores, _seen(scores, [row.prompt + text for text in texts]), row.config.repetition_penalty
        )

    def _shift(self, logits: Tensor, config: SamplingConfig, ends: frozenset[int], texts: Sequence[list[int]]) -> None:
        """Rule out in logits (n, V) what stands for nothing; bias and penalise the rest, given what was written."""
        if ends not in self._suppressed:
            self._suppressed[ends] = suppressed_tokens(self._vocab_size, self._tokenizer, ends).to(logits.device)
        logits.masked_fill_(self._suppressed[ends], -math.inf)
        if config.logit_bias:
            for token, bias in config.logit_bias:
                logits[:, token] += bias
        if config.presence_penalty or config.frequency_penalty:
            for place, text in enumerate(texts):
                penalize_written(logits[place], text, config.presence_penalty, config.frequency_penalty)


def _seen(logits: Tensor, texts: Sequence[list[int]]) -> Tensor:
    """Return which tokens stand in each text, as a mask of the shape of logits (n, V)."""
    seen = torch.zeros_like(logits, dtype=torch.bool)
    for place, text in enumerate(texts):
        seen[place, text] = True
    return seen


def likelihood(logprobs: Tensor, token: int, count: int) -> Likelihood:
    """Return how likely `token` is by log-probabilities (V,), and the `count` likeliest tokens."""
    values, tokens = logprobs.topk(min(count, len(logprobs)))
    return Likelihood(float(logprobs[token]), tuple(zip(tokens.tolist(), values.tolist(), strict=True)))


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


def choose(logits: Tensor, config: SamplingConfig, *, seen: Tensor | None, noise: Tensor | None) -> Tensor:
    """Return the next token of each row, (B,) int64.

    Parameters
    ----------
    logits: (B, V) fp32.
    seen: (B, V) bool, the tokens that stand in each row so far; None where no repetition penalty asks for them.
    noise: (B,) fp64, uniform in [0, 1), all the randomness of the choice; None for greedy choice.
    """
    if seen is not None:
        logits = repetition_penalty(logits, seen, config.repetition_penalty)
    if noise is None:
        return logits.argmax(-1)
    logits = divide(logits, config.temperature)
    if 0 < config.top_k < logits.shape[-1]:
        logits = top_k(logits, config.top_k)
    if config.top_p < 1:
        logits = top_p(logits, config.top_p)
    if config.min_p > 0:
        logits = min_p(logits, config.min_p)
    return draw(logits, noise)


def divide(logits: Tensor, temperature: float) -> Tensor:
    """Divide logits (B, V) by a temperature, the largest of them becoming 0, so that none becomes infinite or NaN."""
    limits = torch.finfo(logits.dtype)
    return (logits - logits.amax(-1, keepdim=True)) / min(max(temperature, limits.tiny), limits.max)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the `k` largest of logits (B, V) (Fan et al. 2018, arXiv:1805.04833)."""
    smallest_kept = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest_kept, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the nucleus: the fewest of logits (B, V) whose probability is `p` or more (Holtzman et al. 2019,
    arXiv:1904.09751)."""
    total = logits.logsumexp(-1, keepdim=True)
    for size in (min(LIKELIEST, logits.shape[-1]), logits.shape[-1]):
        values = logits.topk(size, dim=-1).values  # (B, size), descending
        probabilities = (values - total).exp()
        before = probabilities.cumsum(-1) - probabilities  # the probability of all that is likelier
        if (before[:, -1] >= p).all():
            break
    kept = (before < p).sum(-1, keepdim=True).clamp(min=1)
    return logits.masked_fill(logits < values.gather(-1, kept - 1), -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep those of logits (B, V) with at least the share `p` of the largest one's probability (Nguyen et al. 2024,
    arXiv:2407.01082)."""
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def repetition_penalty(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Make the `seen` (B, V) of logits (B, V) less likely: divide the positive ones by `penalty`, multiply the negative
    ones (Keskar et al. 2019, arXiv:1909.05858)."""
    return torch.where(seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def penalize_written(logits: Tensor, written: Sequence[int], presence: float, frequency: float) -> None:
    """Take from logits (V,), in place, `presence` once for each token that was `written`, `frequency` each time it was
    (OpenAI's API reference)."""
    tokens, counts = torch.tensor(written, dtype=torch.long, device=logits.device).unique(return_counts=True)
    logits[tokens] -= presence + frequency * counts


def draw(logits: Tensor, noise: Tensor) -> Tensor:
    """Draw from softmax of logits (B, V) by inverting the cumulative distribution at `noise` (B,); returns (B,) int64.

    One number a row decides, so that a row's draw depends on nothing but its own logits and noise. In fp64, where a
    token of probability 0 is never drawn.
    """
    if logits.device.type == "cuda":
        return _draw_in_one_sum(logits, noise)
    reached = logits.double().softmax(-1).cumsum(-1)  # (B, V)
    wanted = noise[:, None] * reached[:, -1:]
    return torch.searchsorted(reached, wanted, right=True).squeeze(-1)


def _draw_in_one_sum(logits: Tensor, noise: Tensor) -> Tensor:
    """Draw as `draw` does, for GPUs: they add up one long row much faster than several, and take softmax of few slowly."""
    weights = (logits - logits.amax(-1, keepdim=True)).double().exp_()
    reached = weights.flatten().cumsum(0).view_as(weights)  # (B, V), each row goes on from the one before
    before = functional.pad(reached[:-1, -1], (1, 0))
    wanted = before + noise * (reached[:, -1] - before)
    return torch.searchsorted(reached, wanted[:, None], right=True).squeeze(-1)
