"""How large the residual stream is, and what each part of a layer adds to it."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from lucidlm.explain.inside.lens import layer_names
from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.view import Grid, View


def norms(reading: Reading) -> View:
    """Show the Euclidean norms of the residual stream at each position, and of what attention and MLP add to it."""
    found, _ = reading.record(["input", "residual", "attention", "mlp"])
    stream = np.concatenate([_norm(found["input", 0]), _norm(found.stacked("residual")[:, 0])])
    added = {part: _norm(found.stacked(part)[:, 0]) for part in ("attention", "mlp")}  # each (layers, T)
    rows = layer_names(len(stream) - 1)
    grids = (
        Grid("norm of the residual stream", rows, reading.labels, stream),
        *(Grid(f"norm of what {part} adds", rows[1:], reading.labels, values) for part, values in added.items()),
    )
    place = np.unravel_index(int(stream.argmax()), stream.shape)
    ratio = float(stream[place] / np.median(stream[place[0]]))
    verdict = (
        f"The stream grows from {np.median(stream[0]):.2f} to {np.median(stream[-1]):.2f} (medians over positions); it "
        f"is largest at {reading.labels[place[1]]!r}, {rows[place[0]]}: {stream[place]:.2f}, {ratio:.1f} times that row's "
        "median.",
        "These are exact, and sizes only: the layers' norms divide by them, so a large state is not an important one.",
    )
    figures = {"largest": float(stream[place]), "times_median": ratio}
    return View("norms", f"Norms of the residual stream: {reading.text}", grids, verdict, figures)


def _norm(value: Tensor) -> np.ndarray:
    return value.double().norm(dim=-1).cpu().numpy()
