"""Induction heads (Olsson et al. 2022, arXiv:2209.11895): those that find what followed the last time, and copy it.

They are looked for where nothing else helps: random tokens that are repeated once. A head's prefix-matching score is the
weight that it puts, from each repeated token, on the one after its first occurrence.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.seeds import numpy_generator
from lucidlm.explain.inside.ablation import without_heads
from lucidlm.explain.inside.attention import head_grid
from lucidlm.explain.inside.trace import Edit, Site, trace
from lucidlm.explain.inside.view import View, mean, shown
from lucidlm.model.heads import LanguageModel

ROWS = 32
"""Random sequences that are read."""
LENGTH = 50
"""Random tokens of a sequence, each of which comes twice; fewer where the context is shorter."""
THRESHOLD = 0.3
"""The score from which on a head is taken for an induction head."""


def induction(loaded: LoadedModel, *, seed: int = 0, rows: int = ROWS, length: int = LENGTH) -> View:
    """Score all heads of a causal language model, and compare what copying loses without the best with others.

    Raises
    ------
    InputError: the model is no causal language model, or its context has no room for a repetition.
    """
    model = loaded.require_causal("Pass a causal language model: the others do not copy what stands before.")
    first = [] if loaded.tokenizer is None else list(loaded.tokenizer.prefix)
    length = min(length, (model.config.context_length - len(first)) // 2)
    if length < 4:
        raise InputError("has no room for a repetition in its context", where=loaded.source, fix="Pass another model.")
    tokens = repeated(loaded, first, rows, length, seed).to(model.head.device)
    scores = prefix_matching(model, tokens, length)  # (rows, layers, H)
    table = scores.mean(0)
    heads = table.shape[1]
    ranked = [divmod(int(index), heads) for index in np.argsort(-table.ravel(), kind="stable")]
    chosen = [place for place in ranked if table[place] >= THRESHOLD] or ranked[:1]
    rest = ranked[len(chosen) :]
    draw = numpy_generator(seed, "other heads")
    others = [rest[index] for index in draw.permutation(len(rest))[: len(chosen)]]
    losses = token_losses(model, tokens, [])
    whole, new = losses[:, -(length - 1) :].mean(1), losses[:, :-length].mean(1)
    grid = head_grid("prefix-matching score", table)
    score = mean(scores[:, chosen[0][0], chosen[0][1]])
    best = copying_loss(model, tokens, length, without_heads(chosen))
    cost = mean(best - whole)
    named = ", ".join(f"layer {layer}, head {head}" for layer, head in chosen)
    verdict = [
        f"Repeated tokens cost {whole.mean():.3f} nats, new ones {new.mean():.3f}. Prefix matching of {THRESHOLD} and more: "
        + (
            f"{named}; the best {shown(score)}."
            if table.max() >= THRESHOLD
            else f"no head; the best is {named}, {shown(score)}."
        )
    ]
    figures = {
        "copying_loss": float(whole.mean()),
        "new_loss": float(new.mean()),
        "induction_heads": [list(place) for place in chosen] if table.max() >= THRESHOLD else [],
        "best_score": score.model_dump(),
        "cost": cost.model_dump(),
    }
    if others and len(others) == len(chosen):
        control = copying_loss(model, tokens, length, without_heads(others))
        found = mean(best - control)
        words = "matter for copying" if found.low > 0 else "are NOT SHOWN to matter for copying more than others"
        verdict.append(
            f"They {words}: without them it costs {shown(cost)} nats more, without {len(others)} others drawn at random "
            f"{shown(mean(control - whole))} (95 % intervals over {rows} random sequences, seed {seed})."
        )
        figures["others"] = {"heads": [list(place) for place in others], "cost": mean(control - whole).model_dump()}
    return View("induction", f"Induction heads of {loaded.source or 'a model'}", (grid,), tuple(verdict), figures)


def repeated(loaded: LoadedModel, first: list[int], rows: int, length: int, seed: int) -> Tensor:
    """Return random tokens, each row twice over behind what begins texts: (rows, len(first) + 2 * length) int64."""
    size = loaded.model.config.vocab_size
    control = frozenset() if loaded.tokenizer is None else loaded.tokenizer.control
    if loaded.tokenizer is not None:
        size = min(size, loaded.tokenizer.vocab_size)
    words = np.array([index for index in range(size) if index not in control])
    drawn = torch.from_numpy(words[numpy_generator(seed, "repeated tokens").integers(0, len(words), (rows, length))])
    return torch.cat([torch.tensor([first] * rows, dtype=torch.int64).reshape(rows, -1), drawn, drawn], dim=1)


def prefix_matching(model: LanguageModel, tokens: Tensor, length: int) -> np.ndarray:
    """Return the scores (rows, layers, H) of repeated tokens, of which each half has `length`."""
    with trace(model, ["weights"]) as found:
        model.model(tokens)
    start = tokens.shape[1] - 2 * length
    second = torch.arange(start + length, start + 2 * length - 1)
    weights = found.stacked("weights")[..., second, second - length + 1]  # (layers, rows, H, length - 1)
    return weights.mean(-1).double().transpose(0, 1).cpu().numpy()


def copying_loss(
    model: LanguageModel, tokens: Tensor, length: int, edits: list[tuple[Site, Edit]] | None = None
) -> np.ndarray:
    """Return the loss on repeated tokens but the first (rows,), in nats a token."""
    return token_losses(model, tokens, edits or [])[:, -(length - 1) :].mean(1)


def token_losses(model: LanguageModel, tokens: Tensor, edits: list[tuple[Site, Edit]]) -> np.ndarray:
    """Return the loss on all tokens but the first of a row (rows, T - 1), in nats."""
    with trace(model, [], edits):
        hidden = model.model(tokens[:, :-1])
        nats = model.token_nll(hidden.flatten(0, 1), tokens[:, 1:].flatten())
    return nats.double().unflatten(0, hidden.shape[:2]).cpu().numpy()
