"""The layers of our Transformer in Keras; the sources of each are cited in `lucidlm.model`.

Only `keras.ops` is used, so they run on any Keras backend. Attributes have the same names as the modules there.
"""

# pyright: reportMissingImports=false, reportMissingModuleSource=false
# Keras and TensorFlow are an extra: types are checked where they are not installed too.

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from lucidlm.core.seeds import derive
from lucidlm.model.config import ModelConfig
from lucidlm.model.position import rotary_frequencies

ops: Any = keras.ops  # many of them are annotated as returning None

Rotation = tuple[Any, Any]
"""Cosines and sines, each (T, d / 2)."""

KeyValues = tuple[Any, Any]
"""Keys and values of one layer, each (B, G, 1, S, d); positions of S that are not filled yet are masked."""


class Initialisers:
    """Weight initialisation: normal, standard deviation 0.02, scaled by 1 / sqrt(2 * num_layers) for layers that write to
    the residual stream (Radford et al. 2019)."""

    def __init__(self, config: ModelConfig, seed: int | None) -> None:
        draws = keras.random.SeedGenerator(None if seed is None else derive(seed, "weights") % 2**32)
        self.normal: Any = keras.initializers.RandomNormal(0.0, 0.02, seed=draws)
        self.residual: Any = keras.initializers.RandomNormal(0.0, 0.02 / math.sqrt(2 * config.num_layers), seed=draws)


class RMSNorm(keras.layers.Layer):
    """Divide by the root mean square and scale; statistics in fp32."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weight, as wide as the input."""
        self.weight = self.add_weight(shape=input_shape[-1:], initializer="ones", name="weight")

    def call(self, x: Any) -> Any:
        """Normalise `x` (..., width)."""
        wide = ops.cast(x, "float32")
        scale = ops.rsqrt(ops.mean(ops.square(wide), axis=-1, keepdims=True) + self.eps)
        return ops.cast(wide * scale, x.dtype) * self.weight


def make_norm(config: ModelConfig) -> keras.layers.Layer:
    """Return the norm over the residual stream that `config` asks for."""
    if config.norm == "rms":
        return RMSNorm(config.norm_eps)
    return keras.layers.LayerNormalization(epsilon=config.norm_eps, center=config.bias)


class Attention(keras.layers.Layer):
    """Multi-head attention with grouped key heads; R query heads share each of the G key heads."""

    def __init__(self, config: ModelConfig, weights: Initialisers) -> None:
        super().__init__()
        self.groups, self.head_dim = config.num_kv_heads, config.head_dim
        self.width = config.num_heads * config.head_dim
        keys, biased = config.num_kv_heads * config.head_dim, config.bias or config.qkv_bias
        self.q_proj = _dense(self.width, biased, weights.normal)
        self.k_proj = _dense(keys, biased, weights.normal)
        self.v_proj = _dense(keys, biased, weights.normal)
        self.o_proj = _dense(config.embedding_dim, config.bias, weights.residual)
        self.q_norm = RMSNorm(config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.norm_eps) if config.qk_norm else None

    def call(
        self, x: Any, rotation: Rotation | None, mask: Any, cache: KeyValues | None = None, start: Any = 0
    ) -> tuple[Any, KeyValues]:
        """Attend over `x` (B, T, D) and over the cached tokens before `start`.

        `mask` (T, S) is true where a token may be attended to. Returns (B, T, D) and all keys and values.
        """
        q, k, v = (self._heads(project(x)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = (x if norm is None else norm(x) for norm, x in ((self.q_norm, q), (self.k_norm, k)))
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)  # (B, G, R, T, d), (B, G, 1, T, d)
        if cache is not None:
            k, v = (ops.slice_update(held, (0, 0, 0, start, 0), new) for held, new in zip(cache, (k, v), strict=True))
        scores = ops.matmul(q * self.head_dim**-0.5, ops.swapaxes(k, -1, -2))  # (B, G, R, T, S)
        weights = _softmax(ops.where(mask, ops.cast(scores, "float32"), -math.inf))
        y = ops.transpose(ops.matmul(ops.cast(weights, v.dtype), v), (0, 3, 1, 2, 4))  # (B, T, G, R, d)
        return self.o_proj(ops.reshape(y, (*ops.shape(x)[:2], self.width))), (k, v)

    def _heads(self, x: Any) -> Any:
        shape = (*ops.shape(x)[:2], self.groups, -1, self.head_dim)
        return ops.transpose(ops.reshape(x, shape), (0, 2, 3, 1, 4))  # (B, T, G * R * d) -> (B, G, R, T, d)


class MLP(keras.layers.Layer):
    """The feed-forward part of a block: SwiGLU, or two layers with GELU or squared ReLU between."""

    def __init__(self, config: ModelConfig, weights: Initialisers) -> None:
        super().__init__()
        gated = config.activation == "swiglu"
        self.gate_proj = _dense(config.ff_dim, config.bias, weights.normal) if gated else None
        self.up_proj = _dense(config.ff_dim, config.bias, weights.normal)
        self.down_proj = _dense(config.embedding_dim, config.bias, weights.residual)
        self.activation = ACTIVATIONS[config.activation]

    def call(self, x: Any) -> Any:
        """Map `x` (B, T, D) to (B, T, D)."""
        if self.gate_proj is None:
            return self.down_proj(self.activation(self.up_proj(x)))
        return self.down_proj(self.activation(self.gate_proj(x)) * self.up_proj(x))


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "swiglu": ops.silu,
    "gelu": partial(ops.gelu, approximate=False),
    "gelu_tanh": partial(ops.gelu, approximate=True),
    "relu2": lambda x: ops.square(ops.relu(x)),
}


class Block(keras.layers.Layer):
    """Attention, then MLP, each on normalised input and added to the residual stream."""

    def __init__(self, config: ModelConfig, weights: Initialisers) -> None:
        super().__init__()
        self.input_layernorm = make_norm(config)
        self.self_attn = Attention(config, weights)
        self.post_attention_layernorm = make_norm(config)
        self.mlp = MLP(config, weights)
        self.dropout = keras.layers.Dropout(config.dropout)

    def call(
        self, x: Any, rotation: Rotation | None, mask: Any, cache: KeyValues | None = None, start: Any = 0
    ) -> tuple[Any, KeyValues]:
        """Map the residual stream `x` (B, T, D) to (B, T, D); see `Attention.call` for the rest."""
        y, extended = self.self_attn(self.input_layernorm(x), rotation, mask, cache=cache, start=start)
        x = x + self.dropout(y)
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x))), extended


def rotation_at(positions: Any, config: ModelConfig) -> Rotation:
    """Return cosines and sines of the angles of `positions` (T,), each (T, d / 2) fp32."""
    frequencies = rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling).numpy()
    angles = ops.cast(positions, "float32")[:, None] * frequencies
    return ops.cos(angles), ops.sin(angles)


def rotate(x: Any, rotation: Rotation) -> Any:
    """Rotate `x` (..., T, d) by its positions' angles, pairing dimensions i and i + d / 2."""
    cos, sin = rotation
    left, right = ops.split(x, 2, axis=-1)
    return ops.concatenate((left * cos - right * sin, right * cos + left * sin), axis=-1)


def _softmax(scores: Any) -> Any:
    # For a single score it is 1; Keras would warn.
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores)


def _dense(width: int, bias: bool, initialiser: Any) -> keras.layers.Dense:
    return keras.layers.Dense(width, use_bias=bias, kernel_initializer=initialiser)
