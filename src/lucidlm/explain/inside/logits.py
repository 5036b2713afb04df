"""Direct logit attribution: what each head, MLP and neuron writes towards an answer (Elhage et al. 2021, "A Mathematical
Framework for Transformer Circuits").

The residual stream is a sum of what the embeddings, heads and MLPs put out, and the final norm, its scale held as it was,
and the head are linear: so the answer's logit is a sum over them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.core.errors import InputError
from lucidlm.explain.inside.ablation import without_each_head
from lucidlm.explain.inside.attention import head_grid
from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.trace import Trace
from lucidlm.explain.inside.view import Grid, View, shown
from lucidlm.metrics.statistics import Estimate, estimate
from lucidlm.model.heads import LanguageModel
from lucidlm.model.transformer import Block

NEURONS = 20
"""How many neurons are shown, those that write most."""


@dataclass(frozen=True)
class LogitParts:
    """A logit, or a difference of two, as a sum: of `embeddings`, the norm's `bias`, `heads` (layers, H), their layers'
    output `biases` (layers,) and `mlps` (layers,), in which `neurons` (layers, F) are. All float64."""

    embeddings: float
    bias: float
    heads: np.ndarray
    biases: np.ndarray
    mlps: np.ndarray
    neurons: np.ndarray

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return self.embeddings + self.bias + float(self.heads.sum() + self.biases.sum() + self.mlps.sum())


def logit_attribution(reading: Reading, target: str | None = None, foil: str | None = None) -> View:
    """Show what heads, MLPs and neurons add to a logit, or to the difference of two.

    Parameters
    ----------
    target: the answer; None: the likeliest.
    foil: the answer whose logit is taken off; None: the logit by itself.

    Raises
    ------
    InputError: target or foil is no answer of the model, or between its last layer and its logits stands more than a norm
        and a matrix.
    """
    _require_linear(reading)
    found, outputs = reading.record(["input", "residual", "attention", "heads", "mlp", "neurons"])
    index = reading.answer(target, outputs[0])
    other = None if foil is None else reading.answer(foil, outputs[0], "--foil")
    name = reading.name(index) + ("" if other is None else f" − {reading.name(other)}")

    def difference(logits: Tensor) -> Tensor:
        return logits[..., index] - (0.0 if other is None else logits[..., other])

    value = float(difference(outputs[0]))
    parts = decompose(reading, found, difference(_table(reading).double().mT))
    removed = value - without_each_head(reading, difference).cpu().numpy()
    agreement = rank_correlation(parts.heads.ravel(), removed.ravel())
    words = "there are too few heads to compare"
    if agreement is not None:
        words = f"the rank correlation of the {removed.size} heads is {shown(agreement, 2)} (95 % interval over heads)"
    verdict = (
        f"The parts sum to {parts.total:.4f}, the logit is {value:.4f} (embeddings {parts.embeddings:+.4f}"
        + (f", the final norm's bias {parts.bias:+.4f}" if parts.bias else "")
        + f"; heads {parts.heads.sum():+.4f}, MLPs {parts.mlps.sum():+.4f}).",
        "Only what is written straight to the logit counts, not what later layers make of it: beside what the logit loses "
        f"when each head is taken out, {words}.",
        *reading.notes,
    )
    figures = {
        "answer": name,
        "logit": value,
        "sum": parts.total,
        "embeddings": parts.embeddings,
        "norm_bias": parts.bias,
        "agreement_with_ablation": None if agreement is None else agreement.model_dump(),
    }
    grids = (
        _by_layer(name, parts),
        _strongest(parts.neurons),
        head_grid("what the logit loses without the head", removed),
    )
    return View("logits", f"What writes the logit of {name}: {reading.text}", grids, verdict, figures)


def decompose(reading: Reading, found: Trace, towards: Tensor) -> LogitParts:
    """Return what all parts of a model write in the direction `towards` (D,) float64 behind its final norm.

    Parameters
    ----------
    found: a trace of the text with all parts but the weights.
    """
    model = reading.model.model
    reader = _Reader(model.norm, found["residual", model.config.num_layers - 1][0].double(), towards, _shares(reading))
    heads, outputs, mlps, neurons = [], [], [], []
    for layer, block in enumerate(model.layers):
        attention, mlp = cast(Block, block).self_attn, cast(Any, block).mlp
        table = attention.o_proj.weight.detach().double().unflatten(1, (-1, attention.head_dim))  # (D, H, d)
        heads.append(reader(torch.einsum("thk,dhk->htd", found["heads", layer][0].double(), table)))
        outputs.append(reader(found["attention", layer][0].double()))
        mlps.append(reader(found["mlp", layer][0].double()))
        neurons.append(reader.of_columns(mlp.down_proj.weight.detach().double(), found["neurons", layer][0].double()))
    by_head, outputs, mlps, neurons = (torch.stack(rows).cpu().numpy() for rows in (heads, outputs, mlps, neurons))
    start = float(reader(found["input", 0][0].double()))
    return LogitParts(start, reader.bias, by_head, outputs - by_head.sum(1), mlps, neurons)


class _Reader:
    """What states add to a direction behind the final norm, whose scale is held as it is for the last layer's `states`.

    Parameters
    ----------
    states: (T, D), the last layer's.
    towards: (D,), the direction behind the norm.
    shares: (T,), how much each position counts.
    """

    def __init__(self, norm: nn.Module, states: Tensor, towards: Tensor, shares: Tensor) -> None:
        of: Any = norm
        centred = isinstance(norm, nn.LayerNorm)
        spread = states - states.mean(-1, keepdim=True) if centred else states
        self.scale = shares * (spread.square().mean(-1) + of.eps).rsqrt()  # (T,)
        weighted = of.weight.detach().double() * towards
        # A layer norm takes out each state's mean; taking out the direction's instead comes to the same.
        self.direction = weighted - weighted.mean() if centred else weighted
        bias = getattr(norm, "bias", None)
        self.bias = 0.0 if bias is None else float(bias.detach().double() @ towards)

    def __call__(self, states: Tensor) -> Tensor:
        """Return what states (…, T, D) add (…)."""
        return (states @ self.direction * self.scale).sum(-1)

    def of_columns(self, matrix: Tensor, activations: Tensor) -> Tensor:
        """Return what each column of a matrix (D, F) adds (F,), multiplied by its activations (T, F)."""
        return (self.scale @ activations) * (self.direction @ matrix)


def _require_linear(reading: Reading) -> None:
    config = reading.model.config
    if config.post_norm or config.head_transform or (reading.kind == "classifier" and not config.causal):
        what = (
            "normalises after each sum" if config.post_norm else "reads its answer through a layer that is not linear"
        )
        raise InputError(
            f"{what}: its logits are no sum of what its parts write",
            where="the model",
            fix="Use `lucidlm inspect patch`, which holds for every model.",
        )


def _table(reading: Reading) -> Tensor:
    """Return the matrix that makes logits of normalised states (V or labels, D)."""
    model = reading.model
    return (model.head if isinstance(model, LanguageModel) else model.score.weight).detach()


def _shares(reading: Reading) -> Tensor:
    """Return how much each position's state counts for the answer, float64 (T,)."""
    shares = torch.zeros(len(reading.tokens), dtype=torch.float64, device=reading.tokens.device)
    if reading.kind == "classifier" and reading.place is None:
        return shares + 1 / len(shares)
    shares[reading.asked()] = 1.0
    return shares


def _by_layer(name: str, parts: LogitParts) -> Grid:
    layers, heads = parts.heads.shape
    biased = bool(np.abs(parts.biases).max() > 1e-9)
    columns = (*(f"head {index}" for index in range(heads)), *(("biases",) if biased else ()), "MLP")
    table = np.column_stack([parts.heads, *([parts.biases] if biased else []), parts.mlps])
    return Grid(f"added to the logit of {name}", tuple(f"layer {index}" for index in range(layers)), columns, table)


def _strongest(neurons: np.ndarray) -> Grid:
    """Return those of the neurons (layers, F) that add most, or take most off."""
    order = np.argsort(-np.abs(neurons), axis=None, kind="stable")[:NEURONS].tolist()
    rows = tuple("layer {}, neuron {}".format(*divmod(index, neurons.shape[1])) for index in order)
    return Grid(f"the {len(rows)} neurons that add or take off most", rows, ("added",), neurons.ravel()[order][:, None])


def rank_correlation(first: np.ndarray, second: np.ndarray) -> Estimate | None:
    """Return Spearman's rank correlation with its bootstrap interval; None of fewer than five pairs, or of a constant."""
    if len(first) < 5 or not np.ptp(first) or not np.ptp(second):
        return None
    x, y = (values.argsort().argsort().astype(float) for values in (first, second))
    return estimate(_correlation, np.stack([x * y, x, y, x * x, y * y, np.ones_like(x)], axis=1))


def _correlation(sums: np.ndarray) -> np.ndarray:
    xy, x, y, xx, yy, n = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum((xx - x * x / n) * (yy - y * y / n), 1e-12))
    return (xy - x * y / n) / spread
