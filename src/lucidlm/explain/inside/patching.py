"""Activation patching: which activations of one text turn the answer to another into its own (Vig et al. 2020,
arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262; Zhang and Nanda 2024, arXiv:2309.16042).

A corrupted text is read with one activation of the clean one in the place of its own. The effect is the share of the
difference in logits, target less foil, that comes back: 0 is the corrupted text's, 1 the clean one's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.explain.inside.attention import head_grid
from lucidlm.explain.inside.lens import layer_names
from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.trace import Edit, Site, Trace
from lucidlm.explain.inside.view import Grid, View

SMALLEST = 0.01
"""The least difference in logits between the texts of which shares are taken."""


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


def patch(clean: Reading, corrupted: Reading, target: str | None = None, foil: str | None = None) -> Patched:
    """Patch activations of the clean text into the corrupted one, one layer and position, and one head, at a time.

    Parameters
    ----------
    target, foil: two answers; None: what the clean text, and what the corrupted one, is answered with.

    Raises
    ------
    InputError: the texts differ in length, the two answers are one, or the texts do not differ in them.
    """
    if len(clean.tokens) != len(corrupted.tokens):
        counts = " and ".join(f"{len(one.tokens):,} ({' | '.join(one.labels)})" for one in (clean, corrupted))
        raise InputError(
            f"have {counts} tokens, position by position they have to match",
            where="CLEAN and CORRUPTED",
            fix="Change words for others that are as many tokens.",
        )
    found, logits = clean.record(["input", "residual", "heads"])
    before = corrupted.record([])[1]
    wanted, other = clean.answer(target, logits[0]), clean.answer(foil, before[0], "--foil")
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
            where="CLEAN and CORRUPTED",
            fix="Pass texts, or --target and --foil, that the change matters for.",
        )

    def shares(logits: Tensor) -> np.ndarray:
        return ((logits[:, wanted] - logits[:, other] - second) / (first - second)).cpu().numpy()

    length, layers, heads = len(clean.tokens), clean.model.config.num_layers, clean.model.config.num_heads
    sites = [Site("input", 0), *(Site("residual", layer) for layer in range(layers))]
    residual = [shares(corrupted.variants(length, _at_positions(found, site), corrupted.tokens)) for site in sites]
    by_head = [shares(corrupted.variants(heads, _of_heads(found, layer), corrupted.tokens)) for layer in range(layers)]
    return Patched(wanted, other, first, second, np.stack(residual), np.stack(by_head))


def patching(clean: Reading, corrupted: Reading, target: str | None = None, foil: str | None = None) -> View:
    """Show what patching restores, by layer and position and by head; see `patch`."""
    found = patch(clean, corrupted, target, foil)
    names = [clean.name(index) for index in (found.target, found.foil)]
    labels = tuple(
        one if one == two else f"{two} → {one}" for one, two in zip(clean.labels, corrupted.labels, strict=True)
    )
    rows = layer_names(len(found.heads))
    changed = np.array(clean.tokens.cpu() != corrupted.tokens.cpu())
    best = np.unravel_index(int(found.heads.argmax()), found.heads.shape)
    alone, strongest = float(found.residual[0, changed].sum()), float(found.heads[best])
    verdict = (
        f"The texts differ by {found.clean - found.corrupted:+.4f} in the logit of {names[0]!r} less that of {names[1]!r} "
        f"({found.clean:+.4f} clean, {found.corrupted:+.4f} corrupted); 1.00 is all of it. This is one pair, and so without "
        "an interval: try others.",
        f"The strongest head is layer {best[0]}, head {best[1]}: it restores {strongest:.2f}; all heads one by one sum to "
        f"{found.heads.sum():.2f}"
        + (", so they do not act independently." if abs(found.heads.sum() - 1) > 0.25 else "."),
    )
    figures = {
        "target": names[0],
        "foil": names[1],
        "clean": found.clean,
        "corrupted": found.corrupted,
        "total_effect": found.clean - found.corrupted,
        "changed_tokens_alone": alone,
        "strongest_head": {"layer": int(best[0]), "head": int(best[1]), "restored": strongest},
    }
    grids = (
        Grid("share restored by the residual stream at one position", rows, labels, found.residual, None, (-1, 1)),
        _signed(head_grid("share restored by one head", found.heads)),
    )
    return View("patch", f"Patching: {clean.text} → {corrupted.text}", grids, verdict, figures)


def _signed(grid: Grid) -> Grid:
    return Grid(grid.title, grid.rows, grid.columns, grid.values, None, (-1, 1))


def _at_positions(found: Trace, site: Site):
    clean = found[site.part, site.layer][0]  # (T, D)

    def edits(rows: Tensor) -> list[tuple[Site, Edit]]:
        def edit(value: Tensor) -> Tensor:
            value = value.clone()
            value[torch.arange(len(rows)), rows] = clean[rows]
            return value

        return [(site, edit)]

    return edits


def _of_heads(found: Trace, layer: int):
    clean = found["heads", layer][0]  # (T, H, d)

    def edits(rows: Tensor) -> list[tuple[Site, Edit]]:
        def edit(value: Tensor) -> Tensor:
            value = value.clone()  # (B, T, H, d)
            value[torch.arange(len(rows)), :, rows] = clean[:, rows].transpose(0, 1)
            return value

        return [(Site("heads", layer), edit)]

    return edits
