"""Attention rollout (Abnar & Zuidema 2020, arXiv:2005.00928): what flows along attention, layer upon layer.

The weights are the means of the heads', and half of what a token holds is its own (the residual). No prediction has a
part in it: the result is the same for every target.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lucidlm.explain.attribution.attribution import Attribution
from lucidlm.explain.prediction import Prediction
from lucidlm.model.attention import Attention
from lucidlm.model.attention_backends import attend
from lucidlm.model.position import rotate


def rollout(prediction: Prediction) -> Attribution:
    """Return the share of each piece in what the target is read from."""
    found: list[Tensor] = []
    with _recorded(prediction, found), torch.inference_mode():
        prediction.score(prediction.ids[None])
    flow = torch.eye(found[0].shape[-1], dtype=found[0].dtype, device=found[0].device)
    for weights in found[: len(prediction.backbone.layers)]:  # a comparison may have read twice
        flow = (weights + torch.eye(len(flow), dtype=flow.dtype, device=flow.device)) / 2 @ flow
    return Attribution(prediction.by_piece(flow[prediction.read_at].mean(0)[: len(prediction.ids)]))


@contextmanager
def _recorded(prediction: Prediction, found: list[Tensor]) -> Iterator[None]:
    """Append each layer's attention weights (T, T) to `found`, while entered."""
    parts: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda module, inputs, output: parts.update({name: output})

    def record(module: Any, inputs: Any, output: Tensor) -> None:
        q, k, context = parts["q"], parts["k"], inputs[1]
        if context.rotary is not None:
            q, k = rotate(q, *context.rotary), rotate(k, *context.rotary)
        # Values that tell the tokens apart make the output the weights themselves.
        values = torch.eye(k.shape[2], dtype=k.dtype, device=k.device).expand(*k.shape[:2], -1, -1)
        found.append(attend(q, k, values, context)[0].mean(0))

    hooks = []
    for module in prediction.model.modules():
        if isinstance(module, Attention):
            hooks += [module.q_norm.register_forward_hook(keep("q")), module.k_norm.register_forward_hook(keep("k"))]
            hooks.append(module.register_forward_hook(record))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
