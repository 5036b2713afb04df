"""Direct logit attribution: what each head, MLP and neuron writes towards an answer (Elhage et al. 2021, "A Mathematical
Framework for Transformer Circuits").

The residual stream is a sum of what the embeddings, heads and MLPs put out, and the final norm, its scale held as it was,
and the head are linear: so the answer's logit is a sum over them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lucidlm.core.errors import InputError
from lucidlm.explain.inside.ablation import without_each_head
from lucidlm.explain.inside.attention import head_grid
from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.view import Grid, View
from lucidlm.metrics.statistics import Estimate, estimate
from lucidlm.model.heads import LanguageModel

NEURONS = 20
"""How many neurons are shown, those that write most."""


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
    parts = ["input", "residual", "attention", "heads", "mlp", "neurons"]
    found, outputs = reading.record(parts)  # type: ignore[arg-type]
    wanted = reading.answer(target, outputs[0])
    name, value = reading.name(wanted), float(outputs[0, wanted])
    towards = _rows(reading)[wanted].double()
    if foil is not None:
        other = reading.answer(foil, outputs[0], "--foil")
        name, value = f"{name} − {reading.name(other)}", value - float(outputs[0, other])
        towards = towards - _rows(reading)[other].double()
    share = _weights(reading)
    reader = _Reader(reading.model.model.norm, found["residual", reading.model.config.num_layers - 1][0].double(), towards)

    def written(states: Tensor) -> Tensor:
        """Return what states (…, T, D) add to the logit (…)."""
        return (reader(states.double()) * share).sum(-1)

    heads, biases, mlps, neurons = [], [], [], []
    for layer, block in enumerate(reading.model.model.layers):
        attention, mlp = block.self_attn, block.mlp
        table = attention.o_proj.weight.unflatten(1, (-1, attention.head_dim))  # (D, H, d)
        each = torch.einsum("thk,dhk->htd", found["heads", layer][0].double(), table.double())
        heads.append(written(each))
        biases.append(written(found["attention", layer][0]) - heads[-1].sum())
        mlps.append(written(found["mlp", layer][0]))
        # A neuron's column read by the frozen norm, at every position, times its activation there.
        columns = reader.directions(mlp.down_proj.weight.detach().double())  # (T, F)
        neurons.append((columns * found["neurons", layer][0].double() * share[:, None]).sum(0))
    start, rest = float(written(found["input", 0][0])), float(reader.bias(towards))
    by_head = torch.stack(heads).detach().cpu().numpy()  # (layers, H)
    both = [torch.stack(found).detach().cpu().numpy() for found in (biases, mlps)]
    with_bias = bool(np.abs(both[0]).max() > 1e-9)
    table = np.column_stack([by_head, *(both if with_bias else both[1:])])
    total = start + float(table.sum()) + rest
    columns = (*(f"head {index}" for index in range(by_head.shape[1])), *(("biases",) if with_bias else ()), "MLP")
    rows = tuple(f"layer {index}" for index in range(len(table)))
    grids = [Grid(f"added to the logit of {name}", rows, columns, table), _neurons(torch.stack(neurons))]
    removed = value - _answer_value(reading, wanted, foil)
    grids.append(head_grid("what the logit loses without the head", removed))
    agreement = _rank_correlation(by_head.ravel(), removed.ravel())
    words = (
        "too few heads to compare"
        if agreement is None
        else f"rank correlation {agreement.value:.2f} [{agreement.low:.2f}, {agreement.high:.2f}] over {by_head.size} heads"
    )
    verdict = (
        f"The parts sum to {total:.4f}, the logit is {value:.4f} (embeddings {start:+.4f}"
        + (f", the final norm's bias {rest:+.4f}" if rest else "")
        + f"; heads {by_head.sum():+.4f}, MLPs {both[1].sum():+.4f}).",
        "Only what is written straight to the logit counts, not what later layers make of it: against what the logit loses "
        f"when each head is taken out, {words} (95 % interval).",
    )
    figures = {
        "answer": name,
        "logit": value,
        "sum": total,
        "embeddings": start,
        "norm_bias": rest,
        "agreement_with_ablation": None if agreement is None else agreement.model_dump(),
    }
    return View("logits", f"What writes the logit of {name}: {reading.text}", tuple(grids), verdict, figures)


@dataclass
class _Reader:
    """The final norm with its scale held at that of `states` (T, D), and a direction (D,) behind it."""

    norm: Any
    states: Tensor
    towards: Tensor

    def __post_init__(self) -> None:
        self.centred = isinstance(self.norm, nn.LayerNorm)
        spread = self.states - self.states.mean(-1, keepdim=True) if self.centred else self.states
        self.scale = (spread.square().mean(-1) + self.norm.eps).rsqrt()  # (T,)
        weighted = self.norm.weight.detach().double() * self.towards
        self.direction = weighted - weighted.mean() if self.centred else weighted  # taking out a state's mean, turned around

    def __call__(self, states: Tensor) -> Tensor:
        """Return what states (…, T, D) add at their positions (…, T)."""
        return states @ self.direction * self.scale

    def directions(self, matrix: Tensor) -> Tensor:
        """Return what the columns of a matrix (D, F) would add at each position, (T, F)."""
        return self.scale[:, None] * (self.direction @ matrix)[None]

    def bias(self, towards: Tensor) -> float:
        """Return what the norm's own bias adds."""
        bias = getattr(self.norm, "bias", None)
        return 0.0 if bias is None else float(bias.detach().double() @ towards)


def _require_linear(reading: Reading) -> None:
    config = reading.model.config
    head = config.head_transform or (reading.kind == "classifier" and not config.causal)
    if config.post_norm or head:
        what = "normalises after each sum" if config.post_norm else "reads its answer through a non-linear layer"
        raise InputError(
            f"{what}: its logits are no sum of what its parts write",
            where="MODEL",
            fix="Look at `lucidlm inspect patch`, which holds for every model.",
        )


def _rows(reading: Reading) -> Tensor:
    """Return the matrix that makes logits of normalised states (V or labels, D)."""
    model = reading.model
    return (model.head if isinstance(model, LanguageModel) else model.score.weight).detach()


def _weights(reading: Reading) -> Tensor:
    """Return how much each position's state counts for the answer, float64 (T,)."""
    length = len(reading.tokens)
    if reading.kind == "classifier" and reading.place is None:
        return torch.full((length,), 1 / length, dtype=torch.float64, device=reading.tokens.device)
    share = torch.zeros(length, dtype=torch.float64, device=reading.tokens.device)
    share[reading.asked()] = 1.0
    return share


def _answer_value(reading: Reading, wanted: int, foil: str | None) -> np.ndarray:
    """Return the logit, or the difference of two, without each head (layers, H)."""
    logits = without_each_head(reading)
    values = logits[..., wanted]
    if foil is not None:
        values = values - logits[..., reading.answer(foil, logits[0, 0], "--foil")]
    return values.cpu().numpy()


def _neurons(values: Tensor) -> Grid:
    """Return those of the neurons (layers, F) that add most, or take most off."""
    order = values.abs().flatten().argsort(descending=True)[:NEURONS].tolist()
    places = [divmod(index, values.shape[1]) for index in order]
    rows = tuple(f"layer {layer}, neuron {neuron}" for layer, neuron in places)
    found = np.array([[float(values[place])] for place in places])
    return Grid(f"the {len(rows)} neurons that add or take off most", rows, ("added",), found)


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> Estimate | None:
    """Return Spearman's rank correlation with its bootstrap interval; None of fewer than five pairs, or of none that differ."""
    if len(first) < 5 or not np.ptp(first) or not np.ptp(second):
        return None
    ranks = np.stack([values.argsort().argsort().astype(float) for values in (first, second)])
    x, y = ranks
    statistics = np.stack([x * y, x, y, x * x, y * y, np.ones_like(x)], axis=1)
    return estimate(_correlation, statistics)


def _correlation(sums: np.ndarray) -> np.ndarray:
    xy, x, y, xx, yy, n = np.moveaxis(sums, -1, 0)
    spread = np.sqrt(np.maximum((xx - x * x / n) * (yy - y * y / n), 1e-12))
    return (xy - x * y / n) / spread
