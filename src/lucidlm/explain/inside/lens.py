"""What each layer would answer: the logit lens (nostalgebraist 2020, "interpreting GPT: the logit lens").

The model's own head reads the residual stream of every layer as if it were the last one's. A tuned lens (see
`tuned_lens`) translates it first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from lucidlm.core.errors import InputError
from lucidlm.explain.inside.reading import Reading
from lucidlm.explain.inside.trace import Site
from lucidlm.explain.inside.view import Grid, View
from lucidlm.model.heads import LanguageModel, SequenceClassifier

EMBEDDINGS = "embeddings"
"""What the row before the first layer is called."""

Translate = Callable[[Tensor, int], Tensor]
"""From the residual stream (…, D) after so many layers to what the last layer's would be."""


@torch.no_grad()
def lens(reading: Reading, translate: Translate | None = None) -> View:
    """Show the likeliest answer of every layer: of language models at every position, of classifiers for each label.

    Parameters
    ----------
    translate: a tuned lens of a language model; None: the logit lens.

    Raises
    ------
    InputError: a tuned lens is passed for a classifier, or a language model has no head that was trained.
    """
    name = "lens" if translate is None else "tuned lens"
    if isinstance(reading.model, SequenceClassifier):
        if translate is not None:
            raise InputError(
                "is for language models: a classifier's layers are read by its own head",
                where="--tuned",
                fix="Leave it out.",
            )
        return _of_classifier(reading)
    found, _ = reading.record(["input", "residual"])
    stream = [found["input", 0][0], *found.stacked("residual")[:, 0]]  # layers + 1, each (T, D)
    last = len(stream) - 1
    logits = _logits(reading.model, stream[last])  # (T, V)
    if not torch.any(logits != logits[:1, :1]):
        what = "gives every token the same chance: it has no head that was trained"
        raise InputError(what, where="the model", fix="Train one, or pass a model that has one.")
    final = logits.log_softmax(-1)
    likeliest, divergences = [], []
    for index, states in enumerate(stream):  # one after the other: the logits of all of them would take gigabytes
        translated = states if translate is None or index == last else translate(states, index)
        logprobs = _logits(reading.model, translated).log_softmax(-1)
        likeliest.append(logprobs.exp().max(-1))
        divergences.append((final.exp() * (final - logprobs)).sum(-1))
    chances, tokens = (torch.stack(parts) for parts in zip(*likeliest, strict=True))  # each (layers + 1, T)
    texts = tuple(tuple(reading.name(int(token)) for token in row) for row in tokens)
    rows = layer_names(last)
    agree = (tokens == tokens[-1]).double().cpu().numpy()  # (layers + 1, T)
    lost = torch.stack(divergences).cpu().numpy()  # (layers + 1, T)
    shares, spread = agree[:-1].mean(1), lost[:-1].mean(1)
    early = [index for index in range(len(rows)) if agree[index:].mean(1).min() >= 0.5]
    figures = {"agreement_by_layer": shares.tolist(), "divergence_by_layer": spread.tolist()}
    verdict = (
        f"Before the last layer {100 * shares.mean():.0f} % of the tokens shown are the final ones, from "
        f"{100 * shares[0]:.0f} % ({rows[0]}) to {100 * shares[-1]:.0f} % ({rows[-2]}); half of them and more from "
        f"{rows[early[0]]} on. Divergence from the final distribution: {spread[0]:.2f} to {spread[-1]:.2f} nats.",
        "A layer's row is what the head would read there, not what the model has decided: where few tokens agree, early "
        "rows say little."
        + ("" if translate is not None else " A tuned lens (lucidlm inspect train-lens) translates them first."),
    )
    title = f"{'Logit lens' if translate is None else 'Tuned lens'}: {reading.text}"
    grids = (
        Grid(
            "the likeliest token at each position, by layer", rows, reading.labels, chances.cpu().numpy(), texts, (0, 1)
        ),
        Grid("divergence from the final distribution (nats)", rows, reading.labels, lost),
    )
    return View(name.replace(" ", "-"), title, grids, verdict, figures)


def _logits(model: LanguageModel, states: Tensor) -> Tensor:
    """Return what the model's head reads in states (T, D) of the residual stream, float64 (T, V)."""
    return model.logits(model.model.norm(states)).double()


def layer_names(layers: int) -> tuple[str, ...]:
    """Return what the residual streams before the first layer and after each are called."""
    return (EMBEDDINGS, *(f"layer {index}" for index in range(layers)))


def _of_classifier(reading: Reading) -> View:
    """Show the probability of each label, were the model to end after each layer."""
    layers = reading.model.config.num_layers
    found, final = reading.record(["input", "residual"])
    stream = [found["input", 0], *found.stacked("residual")]
    last = Site("residual", layers - 1)
    logits = torch.cat(
        [reading.record([], [(last, lambda _, one=one: one)])[1] for one in stream]
    )  # (layers + 1, labels)
    chances = logits.softmax(-1).cpu().numpy()
    rows, top = layer_names(layers), chances.argmax(1)
    agree = top == int(final.argmax())
    since = 1 + max(np.flatnonzero(~agree).tolist(), default=-1)
    share = float(agree[:-1].mean())
    verdict = (
        f"{100 * share:.0f} % of the {layers} rows before the last give the final label, {reading.name(int(top[-1]))!r}; "
        f"all from {rows[since]} on.",
        "A row is what the classifier's head would read there, a head that was trained on the last row alone.",
        *reading.notes,
    )
    columns = tuple(reading.name(index) for index in range(chances.shape[1]))
    grid = Grid("the probability of each label, by layer", rows, columns, chances, None, (0, 1))
    return View(
        "lens", f"Logit lens: {reading.text}", (grid,), verdict, {"agreement": share, "agrees_from": rows[since]}
    )
