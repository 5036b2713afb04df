"""One new token for each of several sequences, by our kernels: the model's weights, and the order kernels run in."""

# pyright: reportIndexIssue=false
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from lucidlm.inference.engine import decode_kernels as kernels
from lucidlm.inference.engine.launching import Launch, launch_for, next_power
from lucidlm.inference.engine.torch_backend import BLOCK
from lucidlm.model.attention import Attention
from lucidlm.model.heads import LanguageModel
from lucidlm.model.mlp import GatedMLP
from lucidlm.model.transformer import Block


class DecodeStep:
    """A model's step for sequences of a token each.

    Parameters
    ----------
    model: what `lucidlm.inference.engine.cuda_backend.why_not` has nothing against; its weights as they are now.
    caches: keys and values (G, slots, d) of each layer.
    """

    def __init__(self, model: LanguageModel, caches: Sequence[tuple[Tensor, Tensor]]) -> None:
        self.config, self.device = model.config, model.head.device
        rotary = model.model.rotary
        assert rotary is not None
        self._frequencies = rotary.frequencies
        self._embedding, self._head = model.model.embed_tokens.weight.detach(), model.head.detach()
        self._norm = _weight(model.model.norm)
        # What changes in the model later, as when it is moved, does not change these.
        self._layers = [_layer(layer, cache) for layer, cache in zip(model.model.layers, caches, strict=True)]

    def run(self, scalars: Tensor, table: Tensor) -> Tensor:
        """Return logits (rows, V) fp32.

        Parameters
        ----------
        scalars: (3, rows) int32: tokens, positions, and the slots that keys and values go to, -1: none.
        table: (rows, columns) int32, the blocks of each sequence.
        """
        shape, rows = self.config, scalars.shape[1]
        launch = launch_for(rows, self._embedding)
        x = self._embedding.index_select(0, scalars[0])  # (rows, D)
        states, hidden = torch.empty_like(x), x.new_empty(rows, shape.ff_dim)
        multiply, normalise = partial(_multiply, launch), partial(_normalise, launch, shape.norm_eps)
        for layer in self._layers:
            normalise(x, layer.input_norm, states)
            multiply(self._attend(layer, states, scalars, table, launch), layer.out, x, added=True)
            normalise(x, layer.mlp_norm, states)
            kernels.gate[-(-shape.ff_dim // launch.columns), launch.tiles](
                states, layer.gate, layer.up, hidden, rows, shape.embedding_dim, shape.ff_dim,
                TILE=launch.tile, COLUMNS=launch.columns, STEP=launch.step(shape.embedding_dim), **launch.options,
            )  # fmt: skip
            multiply(hidden, layer.down, x, added=True)
        normalise(x, self._norm, states)
        logits = x.new_empty(rows, shape.vocab_size, dtype=torch.float32)
        multiply(states, self._head, logits, added=False)
        return logits

    def _attend(self, layer: _Layer, states: Tensor, scalars: Tensor, table: Tensor, launch: Launch) -> Tensor:
        """Keep the keys and values of `states` (rows, D); return what attention makes of the cache (rows, H * d)."""
        shape, rows, wide = self.config, len(states), next_power(self.config.head_dim)
        slots, splits = layer.keys.shape[1], launch.splits
        queries = states.new_empty(rows, shape.num_heads * shape.head_dim)
        parts = states.new_empty(rows, shape.num_heads, splits, shape.head_dim, dtype=torch.float32)
        tops, totals = (states.new_empty(parts.shape[:3], dtype=torch.float32) for _ in range(2))
        mixed = torch.empty_like(queries)
        heads = {"HEADS": shape.num_heads, "KV_HEADS": shape.num_kv_heads, "HEAD_DIM": shape.head_dim}
        half = next_power(shape.head_dim // 2)
        kernels.project_heads[shape.num_heads + 2 * shape.num_kv_heads, -(-rows // 16)](
            states, *layer.qkv, *layer.biases, *layer.head_norms, self._frequencies, scalars[1], scalars[2],
            queries, layer.keys, layer.values, rows, shape.embedding_dim, slots, shape.norm_eps,
            **heads, HALF=half, BIASED=layer.biased, QK_NORM=shape.qk_norm,
            TILE=16, STEP=launch.step_of_heads(shape.embedding_dim, half), **launch.unstaged,
        )  # fmt: skip
        kernels.attend[rows, shape.num_kv_heads, splits](
            queries, layer.keys, layer.values, table, scalars[1], parts, tops, totals,
            slots, table.shape[1], shape.head_dim**-0.5,
            **heads, WIDE=wide, GROUP=next_power(shape.num_heads // shape.num_kv_heads),
            BLOCK=BLOCK, COLUMNS=64, SPLITS=splits, **launch.attending,
        )  # fmt: skip
        kernels.combine[(rows * shape.num_heads,)](
            parts, tops, totals, mixed,
            HEAD_DIM=shape.head_dim, WIDE=wide, SPLITS=splits, **launch.small,
        )  # fmt: skip
        return mixed


def _normalise(launch: Launch, eps: float, x: Tensor, norm: Tensor, states: Tensor) -> None:
    width = x.shape[1]
    kernels.normalise[(len(x),)](x, norm, states, width, eps, WIDE=next_power(width), **launch.small)


def _multiply(launch: Launch, states: Tensor, weight: Tensor, out: Tensor, *, added: bool) -> None:
    width, depth = weight.shape
    columns = launch.columns if added else launch.columns_of_logits
    kernels.multiply[-(-width // columns), launch.tiles](
        states, weight, out, len(states), depth, width,
        ADDED=added, TILE=launch.tile, COLUMNS=columns,
        STEP=launch.step(depth) if added else launch.step_of_logits(depth), **launch.options,
    )  # fmt: skip


@dataclass(frozen=True)
class _Layer:
    """The weights and the cache of one layer; biases and norms of heads that it has not are others' weights, not read."""

    input_norm: Tensor
    qkv: tuple[Tensor, Tensor, Tensor]
    biases: tuple[Tensor, Tensor, Tensor]
    biased: bool
    head_norms: tuple[Tensor, Tensor]
    out: Tensor
    mlp_norm: Tensor
    gate: Tensor
    up: Tensor
    down: Tensor
    keys: Tensor
    values: Tensor


def _layer(block: nn.Module, cache: tuple[Tensor, Tensor]) -> _Layer:
    assert isinstance(block, Block)
    attention, mlp = block.self_attn, block.mlp
    assert isinstance(attention, Attention)
    assert isinstance(mlp, GatedMLP)
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    biased, normed = attention.q_proj.bias is not None, not isinstance(attention.q_norm, nn.Identity)
    q, k, v = (one.weight.detach() for one in projections)
    q_bias, k_bias, v_bias = (one.bias.detach() if biased else one.weight.detach() for one in projections)
    return _Layer(
        _weight(block.input_layernorm),
        (q, k, v),
        (q_bias, k_bias, v_bias),
        biased,
        (_weight(attention.q_norm), _weight(attention.k_norm)) if normed else (q, k),
        _weight(attention.o_proj),
        _weight(block.post_attention_layernorm),
        _weight(mlp.gate_proj),
        _weight(mlp.up_proj),
        _weight(mlp.down_proj),
        *cache,
    )


def _weight(module: nn.Module) -> Tensor:
    assert isinstance(module.weight, Tensor)
    return module.weight.detach()
