"""Activation patching: which activations of one text turn the answer to another into its own (Vig et al. 2020,
arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262; Zhang and Nanda 2024, arXiv:2309.16042).

A corrupted text is read with one activation of the clean one in the place of its own. The effect is the share of the
difference in logits, target less foil, that comes back: 0 is the corrupted text's, 1 the clean one's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.core.errors import InputError
from lucidlm.core.progress import track
from lucidlm.data.sources.read import read_rows
from lucidlm.explain.inside.attention import head_grid
from lucidlm.explain.inside.lens import layer_names
from lucidlm.explain.inside.reading import Reading, read
from lucidlm.explain.inside.trace import Edit, Site, Trace
from lucidlm.explain.inside.view import Grid, View, mean, shown

Edits = Callable[[Tensor], list[tuple[Site, Edit]]]
"""The edits of a batch, for the indices of its rows (B,)."""

SMALLEST = 0.01
"""The least difference in logits between the texts of which shares are taken."""


@dataclass(frozen=True)
class Pair:
    """Two texts, and two answers whose logits are compared; None: what the clean and what the corrupted one is answered
    with."""

    clean: Reading
    corrupted: Reading
    target: str | None = None
    foil: str | None = None


@dataclass(frozen=True)
class Patched:
    """The effects of patching a pair of texts.

    Parameters
    ----------
    target, foil: the answers whose logits are compared, by index.
    clean, corrupted: the differences of their logits, unpatched.
    residual: the restored share with the stream before the first layer or after one patched at one position
        (layers + 1, T).
    heads: with one head's outputs patched at all positions (layers, H).
    """

    target: int
    foil: int
    clean: float
    corrupted: float
    residual: np.ndarray
    heads: np.ndarray


def patch(pair: Pair) -> Patched:
    """Patch activations of the clean text into the corrupted one, one layer and position, and one head, at a time.

    Raises
    ------
    InputError: the texts differ in length, the two answers are one, or the texts do not differ in them.
    """
    clean, corrupted = pair.clean, pair.corrupted
    if len(clean.tokens) != len(corrupted.tokens):
        counts = " and ".join(f"{len(one.tokens):,} ({' | '.join(one.labels)})" for one in (clean, corrupted))
        raise InputError(
            f"have {counts} tokens, position by position they have to match",
            where=f"{clean.where} and {corrupted.where}",
            fix="Change words for others that are as many tokens.",
        )
    found, logits = clean.record(["input", "residual", "heads"])
    before = corrupted.record([])[1]
    wanted, other = clean.answer(pair.target, logits[0]), clean.answer(pair.foil, before[0], "--foil")
    if wanted == other:
        raise InputError(
            f"is {clean.name(wanted)!r} for both texts",
            where="the answer",
            fix="Pass --target and --foil, or texts that are answered differently.",
        )
    first, second = (float(one[0, wanted] - one[0, other]) for one in (logits, before))
    if abs(first - second) < SMALLEST:
        raise InputError(
            f"differ by {first - second:+.4f} in the logit of {clean.name(wanted)!r} less that of {clean.name(other)!r}",
            where=f"{clean.where} and {corrupted.where}",
            fix="Pass texts, or --target and --foil, that the change matters for.",
        )

    def shares(logits: Tensor) -> np.ndarray:
        return ((logits[:, wanted] - logits[:, other] - second) / (first - second)).cpu().numpy()

    length, layers, heads = len(clean.tokens), clean.model.config.num_layers, clean.model.config.num_heads
    sites = [Site("input", 0), *(Site("residual", layer) for layer in range(layers))]
    residual = [shares(corrupted.variants(length, _at_positions(found, site), corrupted.tokens)) for site in sites]
    by_head = [shares(corrupted.variants(heads, _of_heads(found, layer), corrupted.tokens)) for layer in range(layers)]
    return Patched(wanted, other, first, second, np.stack(residual), np.stack(by_head))


def patching(pairs: Sequence[Pair]) -> View:
    """Show what patching restores, by layer and position and by head: of one pair, or the means of several; see `patch`.

    Positions are shown where all pairs have as many tokens.

    Raises
    ------
    InputError: there is no pair, or one cannot be patched.
    """
    if not pairs:
        raise InputError("holds no pairs", where="--pairs", fix="Pass rows with the fields clean and corrupted.")
    found = [patch(pair) for pair in track(pairs, "patching", len(pairs), "pairs")]
    heads = np.stack([one.heads for one in found])  # (pairs, layers, H)
    grids = [_signed(head_grid("share restored by one head", heads.mean(0)))]
    if len({one.residual.shape for one in found}) == 1:
        residual = np.mean([one.residual for one in found], axis=0)
        title = "share restored by the residual stream at one position"
        grids.insert(0, Grid(title, layer_names(heads.shape[1]), _positions(pairs), residual, None, (-1, 1)))
    layer, head = divmod(int(heads.mean(0).argmax()), heads.shape[2])
    strongest, total = heads[:, layer, head], np.array([one.clean - one.corrupted for one in found])
    every = heads.sum((1, 2))
    figures: dict[str, Any] = {"pairs": len(pairs), "strongest_head": {"layer": layer, "head": head}}
    independent = "." if abs(every.mean() - 1) <= 0.25 else ", so they do not act independently."
    if len(pairs) == 1:
        (pair,), (one,) = pairs, found
        names = [pair.clean.name(index) for index in (one.target, one.foil)]
        verdict = [
            f"The texts differ by {total[0]:+.4f} in the logit of {names[0]!r} less that of {names[1]!r} ({one.clean:+.4f} "
            f"clean, {one.corrupted:+.4f} corrupted); 1.00 is all of it. This is one pair, and says nothing of others: "
            "--pairs takes a file of them, and gives intervals.",
            f"The strongest head, layer {layer}, head {head}, restores {strongest[0]:.2f}; all heads one by one sum to "
            f"{every[0]:.2f}{independent}",
        ]
        figures |= {"target": names[0], "foil": names[1], "clean": one.clean, "corrupted": one.corrupted}
        figures["strongest_head"]["restored"] = float(strongest[0])
        title = f"Patching: {pair.clean.text} → {pair.corrupted.text}"
    else:
        effects = mean(total), mean(strongest), mean(every)
        verdict = [
            f"The {len(pairs)} pairs differ by {shown(effects[0])} in the logit of the target less that of the foil, of "
            "which 1.00 is all.",
            f"The strongest head, layer {layer}, head {head}, restores {shown(effects[1])}; all heads one by one sum to "
            f"{shown(effects[2])}{independent} Intervals are of 95 % over pairs; the head was chosen on the same ones.",
        ]
        figures["strongest_head"]["restored"] = effects[1].model_dump()
        figures |= {"total_effect": effects[0].model_dump(), "all_heads": effects[2].model_dump()}
        title = f"Patching of {len(pairs)} pairs"
    return View("patch", title, tuple(grids), (*verdict, *pairs[0].clean.notes), figures)


def read_pairs(loaded: LoadedModel, source: str) -> list[Pair]:
    """Read pairs from rows with the fields `clean` and `corrupted`, and perhaps `target` and `foil`.

    Raises
    ------
    InputError: the source cannot be read, or a row lacks a field or holds a text that cannot be looked into.
    """
    pairs = []
    for row in read_rows(source):
        clean, corrupted = (
            read(loaded, row.text(name), where=f"{row.where}, {name}") for name in ("clean", "corrupted")
        )
        target, foil = (row.text(name) if row.has(name) else None for name in ("target", "foil"))
        pairs.append(Pair(clean, corrupted, target, foil))
    return pairs


def _positions(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Return what the positions are called: by their tokens, the corrupted one first where they differ."""
    if len(pairs) == 1:
        both = zip(pairs[0].clean.labels, pairs[0].corrupted.labels, strict=True)
        return tuple(one if one == two else f"{two} → {one}" for one, two in both)
    seen = zip(*(one.labels for pair in pairs for one in (pair.clean, pair.corrupted)), strict=True)
    return tuple(labels[0] if len(set(labels)) == 1 else f"({place})" for place, labels in enumerate(seen))


def _signed(grid: Grid) -> Grid:
    return replace(grid, limits=(-1, 1))


def _at_positions(found: Trace, site: Site) -> Edits:
    clean = found[site.part, site.layer][0]  # (T, D)

    def edits(rows: Tensor) -> list[tuple[Site, Edit]]:
        def edit(value: Tensor) -> Tensor:
            value = value.clone()
            value[torch.arange(len(rows)), rows] = clean[rows]
            return value

        return [(site, edit)]

    return edits


def _of_heads(found: Trace, layer: int) -> Edits:
    clean = found["heads", layer][0]  # (T, H, d)

    def edits(rows: Tensor) -> list[tuple[Site, Edit]]:
        def edit(value: Tensor) -> Tensor:
            value = value.clone()  # (B, T, H, d)
            value[torch.arange(len(rows)), :, rows] = clean[:, rows].transpose(0, 1)
            return value

        return [(Site("heads", layer), edit)]

    return edits
