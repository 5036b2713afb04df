"""One recorder of activations, for all that looks inside: hooks on a model's modules, put on from outside.

Nothing is copied and the forward pass knows of nothing. What is recorded can be replaced too: activation patching (Vig et
al. 2020, arXiv:2004.12265; Meng et al. 2022, arXiv:2202.05262) and ablation are a trace with edits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from lucidlm.core.errors import InputError
from lucidlm.model.attention import Attention
from lucidlm.model.attention_backends import AttentionContext, causal_mask
from lucidlm.model.config import ModelConfig
from lucidlm.model.heads import Model, SpanExtractor
from lucidlm.model.position import rotate
from lucidlm.model.transformer import Transformer

Part = Literal["input", "residual", "attention", "heads", "weights", "mlp", "neurons"]
"""What of a block is recorded, all but the weights with the batch and the positions in front, (B, T, …):

- input, residual: the residual stream before and after the block (D).
- attention, mlp: what either part puts out (D), biases included.
- heads: the heads' outputs before they are projected (H, d).
- weights: attention weights (B, H, T, S), computed from the queries and keys; they cannot be replaced.
- neurons: what the MLP's last matrix multiplies (F).
"""

Edit = Callable[[Tensor], Tensor]
"""From an activation to what is to stand in its place."""


@dataclass(frozen=True)
class Site:
    """Where an activation is: a part of a layer, at all positions or one, of all its heads or neurons or one `unit`."""

    part: Part
    layer: int
    position: int | None = None
    unit: int | None = None

    def check(self, config: ModelConfig) -> None:
        """Hold layer and unit against a model.

        Raises
        ------
        InputError: the model has no such layer, head or neuron, or the part cannot be replaced or has no units.
        """
        require_layer(config, self.layer)
        if self.part == "weights":
            raise InputError(
                "attention weights are recorded, not replaced", where="weights", fix="Replace the heads' outputs."
            )
        if self.unit is not None:
            if self.part not in ("heads", "neurons"):
                raise InputError(f"{self.part} has no heads or neurons", where="unit", fix="Leave it out.")
            if self.part == "heads":
                require_head(config, self.unit)
            else:
                _require(self.unit, config.ff_dim, "neuron", "neuron")

    def edited(self, value: Tensor, edit: Edit) -> Tensor:
        """Return `value` (B, T, …) with what is at the site replaced by `edit` of it.

        Raises
        ------
        InputError: there is no such position.
        """
        if self.position is not None:
            _require(self.position, value.shape[1], "position", "position")
        chosen: tuple[Any, ...] = (slice(None), slice(None) if self.position is None else self.position)
        chosen = chosen if self.unit is None else (*chosen, self.unit)
        value = value.clone()
        value[chosen] = edit(value[chosen])
        return value


@dataclass
class Trace:
    """What the last forward pass computed, by part and layer; see `Part` for the shapes."""

    values: dict[tuple[Part, int], Tensor] = field(default_factory=dict)

    def __getitem__(self, place: tuple[Part, int]) -> Tensor:
        return self.values[place]

    def stacked(self, part: Part) -> Tensor:
        """Return a part of all layers, in order: (layers, …)."""
        return torch.stack([value for (name, _), value in sorted(self.values.items()) if name == part])


@contextmanager
def trace(model: Model, parts: Collection[Part] = (), edits: Sequence[tuple[Site, Edit]] = ()) -> Iterator[Trace]:
    """Record `parts` of every block in each forward pass of `model`, a pass's values taking the place of the last one's.

    Within it the model is in evaluation mode and no gradients are kept; after it all is as it was.

    Parameters
    ----------
    edits: what is replaced, in their order; what is recorded is what the replacement has made of it.

    Raises
    ------
    InputError: a part is unknown, or a site is none of this model (a position is looked at in the pass).
    """
    backbone, found = backbone_of(model), Trace()
    for part in parts:
        if part not in get_args(Part):
            fix = f"Choose among: {', '.join(get_args(Part))}."
            raise InputError(f"there is no part {part!r}", where="parts", fix=fix)
    for site, _ in edits:
        site.check(backbone.config)
    was_training, handles = model.training, []
    try:
        for layer, block in enumerate(backbone.layers):
            here: dict[Part, list[tuple[Site, Edit]]] = {
                part: [pair for pair in edits if (pair[0].part, pair[0].layer) == (part, layer)] for part in PARTS
            }
            handles += _hooks(block, layer, here, found, recorded=parts)
            if "weights" in parts:
                handles += _weight_hooks(cast(Attention, block.self_attn), layer, found)
        model.eval()
        with torch.no_grad():
            yield found
    finally:
        for handle in handles:
            handle.remove()
        model.train(was_training)


PARTS: tuple[Part, ...] = ("input", "residual", "attention", "heads", "mlp", "neurons")
"""Those that one hook each is enough for."""


def backbone_of(model: Model) -> Transformer:
    """Return the Transformer of any model."""
    return model.transformer if isinstance(model, SpanExtractor) else model.model


def require_layer(config: ModelConfig, layer: int) -> int:
    """Return `layer`, counted from 0.

    Raises
    ------
    InputError: the model has no such layer.
    """
    return _require(layer, config.num_layers, "layer", "--layer")


def require_head(config: ModelConfig, head: int) -> int:
    """Return `head`, counted from 0.

    Raises
    ------
    InputError: the model's layers have no such head.
    """
    return _require(head, config.num_heads, "head", "--head")


def _require(index: int, count: int, what: str, where: str) -> int:
    if not 0 <= index < count:
        fix = f"Choose 0 to {count - 1}." if count > 1 else "The only one is 0."
        raise InputError(f"there is no {what} {index}", where=where, fix=fix)
    return index


def _hooks(
    block: Any, layer: int, wanted: dict[Part, list[tuple[Site, Edit]]], found: Trace, recorded: Collection[Part]
) -> Iterator[Any]:
    """Put a hook on each part of a block that is recorded or replaced; yield what takes it off again."""

    def passed(part: Part, value: Tensor) -> Tensor:
        seen = value.unflatten(-1, (-1, block.self_attn.head_dim)) if part == "heads" else value
        for site, edit in wanted[part]:
            seen = site.edited(seen, edit)
        if part in recorded:
            found.values[part, layer] = seen
        return seen.flatten(-2) if part == "heads" else seen

    def before(part: Part, _: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (passed(part, inputs[0]), *inputs[1:])

    def after(part: Part, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return passed(part, output)

    inputs = {"input": block, "heads": block.self_attn.o_proj, "neurons": block.mlp.down_proj}
    outputs = {"residual": block, "attention": block.self_attn, "mlp": block.mlp}
    for part, pairs in wanted.items():
        if not pairs and part not in recorded:
            continue
        if part in inputs:
            yield inputs[part].register_forward_pre_hook(partial(before, part))
        else:
            yield outputs[part].register_forward_hook(partial(after, part))


def _weight_hooks(attention: Attention, layer: int, found: Trace) -> Iterator[Any]:
    """Keep queries and keys as they come out of their norms, and make the weights of them once attention is done."""
    seen: dict[str, Tensor] = {}

    def keep(name: str, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> None:
        seen[name] = output

    def weigh(_: nn.Module, inputs: tuple[Any, ...], __: Tensor) -> None:
        found.values["weights", layer] = attention_weights(seen.pop("q"), seen.pop("k"), inputs[1])

    yield attention.q_norm.register_forward_hook(partial(keep, "q"))
    yield attention.k_norm.register_forward_hook(partial(keep, "k"))
    yield attention.register_forward_hook(weigh)


def attention_weights(q: Tensor, k: Tensor, context: AttentionContext) -> Tensor:
    """Return softmax(q kᵀ / √d), (B, H, T, T), of queries (B, H, T, d) and keys (B, G, T, d) before their rotation."""
    if context.rotary is not None:
        q, k = rotate(q, *context.rotary), rotate(k, *context.rotary)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = (q @ k.mT) * q.shape[-1] ** -0.5
    mask = causal_mask(q.shape[2], device=q.device) if context.causal else context.mask
    return (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(-1)
