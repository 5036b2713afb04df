"""Layer-wise relevance for Transformers: AttnLRP (Achtibat et al. 2024, arXiv:2402.05602).

Relevance is gradient times input where the gradients follow other rules, so it is put on the model from outside, by hooks:

- a norm passes relevance on as if its divisor were constant (the identity rule);
- an activation gives what it gets to what goes in, and factors of a product share it equally (the uniform rule), which
  in an MLP are the gate and what it gates, in attention the weights and the values, and in the weights queries and keys;
- linear layers and the softmax have their own gradients.

It starts from a logit, not from its log-probability, which has next to no gradient where a model is sure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lucidlm.explain.attribution.attribution import Attribution, Completeness
from lucidlm.explain.attribution.gradients import TOLERANCE, gradients
from lucidlm.explain.prediction import Prediction
from lucidlm.model.attention import Attention
from lucidlm.model.norm import RMSNorm


def relevance(prediction: Prediction) -> Attribution:
    """Return each piece's relevance for the target's logit, less the mean one or that of what it is compared with.

    With those of the tokens around the text they sum to it, but for what biases and the softmax give to no token.
    """
    vectors = prediction.embedding(prediction.ids)[None].detach()
    with relevance_rules(prediction.model):
        found = gradients(prediction, prediction.margin, vectors)
    with torch.inference_mode():
        explained = float(prediction.margin(prediction.ids[None])[0])
    values = (found * vectors)[0].sum(-1)
    check = Completeness(explained, float(values.sum()), TOLERANCE * abs(explained))
    return Attribution(prediction.by_piece(values), check)


@contextmanager
def relevance_rules(model: nn.Module) -> Iterator[None]:
    """Let gradients through `model` follow the rules of AttnLRP, while entered; what it computes stays the same."""
    hooks: list[Any] = []
    for module in model.modules():
        if isinstance(module, RMSNorm | nn.LayerNorm):
            hooks.append(module.register_forward_hook(_norm))
        elif isinstance(module, Attention):
            # The product with the values halves what goes to the weights, that of queries and keys halves it again.
            for part, share in (module.q_proj, 0.25), (module.k_proj, 0.25), (module.v_proj, 0.5):
                hooks.append(part.register_forward_hook(_share(share)))
        for sources, sink in (("gate_proj", "up_proj"), "down_proj"), (("dense",), "classifier"):
            parts = [part for name in sources if isinstance(part := getattr(module, name, None), nn.Module)]
            if parts and isinstance(end := getattr(module, sink, None), nn.Module):
                hooks += _passed_on(parts, end)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _norm(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    x = inputs[0]
    if isinstance(module, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    scale = (x.detach().square().mean(-1, keepdim=True) + module.eps).rsqrt()
    scaled = x * scale * module.weight
    return scaled if getattr(module, "bias", None) is None else scaled + module.bias


def _share(share: float) -> Callable[..., Tensor]:
    return lambda module, inputs, output: share * output + ((1 - share) * output).detach()


def _passed_on(parts: list[nn.Module], end: nn.Module) -> list[Any]:
    """Give what goes into `end` as if it were each of the outputs of `parts` times a constant, in equal shares."""
    held: dict[int, Tensor] = {}

    def keep(index: int) -> Any:
        return lambda module, inputs, output: held.update({index: output})

    def replace(module: Any, inputs: tuple[Tensor]) -> tuple[Tensor]:
        value = inputs[0].detach()
        made = [part * torch.where(part == 0, 0, value / part).detach() for part in held.values()]
        return (torch.stack(made).mean(0),)

    hooks: list[Any] = [part.register_forward_hook(keep(index)) for index, part in enumerate(parts)]
    return [*hooks, end.register_forward_pre_hook(replace)]
