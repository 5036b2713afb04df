"""Our Transformer in ONNX operators: any architecture of `ModelConfig`, with or without a KV cache.

Between attention layers the residual stream is (B * T, D), so that each linear layer is one Gemm.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from lucidlm.interop.onnx.graph import Graph
from lucidlm.model.config import ModelConfig
from lucidlm.model.position import rotary_frequencies

LOWEST = float(np.finfo(np.float32).min)
"""The score of masked tokens: with minus infinity the softmax of a padding row, which is all masked, would be NaN."""


class Inputs(NamedTuple):
    """The Transformer's inputs, as names of values.

    Parameters
    ----------
    tokens, positions: (B, T) int64.
    token_type_ids: (B, T) int64, if the model has token types.
    mask: (B, 1, 1, T or 1, S) bool, true where a token may attend to one of the S tokens, cached ones included.
    """

    tokens: str
    positions: str
    token_type_ids: str | None
    mask: str


class Network:
    """The Transformer whose parameters are named `prefix`.….

    Parameters
    ----------
    cached: read `past_key_values.{i}.key` and `.value` (B, G, P, d), and extend them to `present.{i}.…`.
    """

    def __init__(self, graph: Graph, config: ModelConfig, prefix: str, inputs: Inputs, cached: bool) -> None:
        self.graph, self.config, self.prefix, self.inputs, self.cached = graph, config, prefix, inputs, cached
        self.shape = graph.add("Shape", inputs.tokens)  # B, T
        self._rotation = self._angles() if config.position == "rotary" else None

    def states(self) -> str:
        """Append all layers; return the final hidden states (B * T, D)."""
        g, config, inputs = self.graph, self.config, self.inputs
        x = g.rows(f"{self.prefix}.embed_tokens.weight", inputs.tokens)  # (B, T, D)
        if config.position == "learned":
            x = g.add("Add", x, g.rows(f"{self.prefix}.embed_positions.weight", inputs.positions))
        if inputs.token_type_ids is not None:
            x = g.add("Add", x, g.rows(f"{self.prefix}.embed_types.weight", inputs.token_type_ids))
        x = g.add("Reshape", x, g.ints(-1, config.embedding_dim))  # (B * T, D)
        if config.post_norm:
            x = self.norm(x, f"{self.prefix}.embed_norm")
        for index in range(config.num_layers):
            x = self._block(x, index)
        return x if config.post_norm else self.norm(x, f"{self.prefix}.norm")

    def norm(self, x: str, name: str) -> str:
        """Append the model's norm over the last dimension of `x`."""
        if self.config.norm == "rms":
            return self._rms_norm(x, name)
        g, bias = self.graph, f"{name}.bias"
        affine = [g.weight(f"{name}.weight"), *([g.weight(bias)] if bias in g.weights else [])]
        return g.add("LayerNormalization", x, *affine, axis=-1, epsilon=self.config.norm_eps)

    def unflatten(self, x: str, *inner: int, name: str | None = None) -> str:
        """Append a reshape of `x` (B * T, n) to (B, T, *inner)."""
        g = self.graph
        return g.add("Reshape", x, g.add("Concat", self.shape, g.ints(*inner), axis=0), name=name)

    def _rms_norm(self, x: str, name: str) -> str:
        g = self.graph
        mean = g.add("ReduceMean", g.add("Mul", x, x), g.ints(-1))
        root = g.add("Sqrt", g.add("Add", mean, g.number(self.config.norm_eps)))
        return g.add("Mul", g.add("Div", x, root), g.weight(f"{name}.weight"))

    def _block(self, x: str, index: int) -> str:
        g, name = self.graph, f"{self.prefix}.layers.{index}"
        if self.config.post_norm:
            x = self.norm(g.add("Add", x, self._attention(x, index)), f"{name}.post_attention_layernorm")
            return self.norm(g.add("Add", x, self._mlp(x, f"{name}.mlp")), f"{name}.post_mlp_layernorm")
        x = g.add("Add", x, self._attention(self.norm(x, f"{name}.input_layernorm"), index))
        return g.add("Add", x, self._mlp(self.norm(x, f"{name}.post_attention_layernorm"), f"{name}.mlp"))

    def _mlp(self, x: str, name: str) -> str:
        g, activation = self.graph, self.config.activation
        wide = self._linear(x, f"{name}.up_proj")
        if activation == "swiglu":
            gate = self._linear(x, f"{name}.gate_proj")
            wide = g.add("Mul", g.add("Mul", gate, g.add("Sigmoid", gate)), wide)
        elif activation == "relu2":
            positive = g.add("Relu", wide)
            wide = g.add("Mul", positive, positive)
        else:
            wide = g.add("Gelu", wide, approximate="tanh" if activation == "gelu_tanh" else "none")
        return self._linear(wide, f"{name}.down_proj")

    def _attention(self, x: str, index: int) -> str:
        """Append attention over `x` (B * T, D), giving (B * T, D); R query heads share a key head."""
        g, config, name = self.graph, self.config, f"{self.prefix}.layers.{index}.self_attn"
        groups, d = config.num_kv_heads, config.head_dim
        q = self._heads(x, f"{name}.q", config.num_heads)  # (B, T, H, d)
        q = g.add("Reshape", q, g.ints(0, 0, groups, config.num_heads // groups, d))
        q = g.add("Transpose", g.add("Mul", q, g.number(1 / math.sqrt(d))), perm=(0, 2, 3, 1, 4))  # (B, G, R, T, d)
        k = g.add("Transpose", self._heads(x, f"{name}.k", groups), perm=(0, 2, 1, 3))  # (B, G, T, d)
        v = self.unflatten(self._linear(x, f"{name}.v_proj"), groups, d)
        v = g.add("Transpose", v, perm=(0, 2, 1, 3))
        if self.cached:
            k = g.add("Concat", f"past_key_values.{index}.key", k, axis=2, name=f"present.{index}.key")  # (B, G, S, d)
            v = g.add("Concat", f"past_key_values.{index}.value", v, axis=2, name=f"present.{index}.value")
        k = g.add("Unsqueeze", g.add("Transpose", k, perm=(0, 1, 3, 2)), g.ints(2))  # (B, G, 1, d, S)
        scores = g.add("Where", self.inputs.mask, g.add("MatMul", q, k), g.number(LOWEST))  # (B, G, R, T, S)
        y = g.add("MatMul", g.add("Softmax", scores, axis=-1), g.add("Unsqueeze", v, g.ints(2)))  # (B, G, R, T, d)
        y = g.add("Transpose", y, perm=(0, 3, 1, 2, 4))  # (B, T, G, R, d)
        return self._linear(g.add("Reshape", y, g.ints(-1, config.num_heads * d)), f"{name}.o_proj")

    def _heads(self, x: str, name: str, heads: int) -> str:
        """Append queries or keys (B, T, heads, d) of `x` (B * T, D), with the model's QK-norm and rotary positions."""
        x = self.unflatten(self._linear(x, f"{name}_proj"), heads, self.config.head_dim)
        if self.config.qk_norm:
            x = self._rms_norm(x, f"{name}_norm")
        return x if self._rotation is None else self._rotate(x, *self._rotation)

    def _rotate(self, x: str, cos: str, sin: str) -> str:
        g = self.graph
        left, right = g.halves(x)
        new_left = g.add("Sub", g.add("Mul", left, cos), g.add("Mul", right, sin))
        new_right = g.add("Add", g.add("Mul", right, cos), g.add("Mul", left, sin))
        return g.add("Concat", new_left, new_right, axis=-1)

    def _angles(self) -> tuple[str, str]:
        """Append cosines and sines (B, T, 1, d / 2) of the positions."""
        g, config = self.graph, self.config
        frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling)
        positions = g.add("Cast", g.add("Unsqueeze", self.inputs.positions, g.ints(2, 3)), to=1)  # (B, T, 1, 1)
        angles = g.add("Mul", positions, g.vector("rotary_frequencies", frequencies))
        return g.add("Cos", angles), g.add("Sin", angles)

    def _linear(self, x: str, name: str) -> str:
        return self.graph.linear(x, f"{name}.weight", f"{name}.bias")
