"""A causal Transformer as a graph of OpenVINO's operators, made of our weights.

The graph is first the one that OpenVINO's own pass expects, with one state a layer; the pass puts its attention over
blocks of cache in place of states and attention (`PagedAttention`). It then reads `input_ids` and `position_ids`, int64
(N,), the tokens of all sequences one after the other, and `rows`, int64, the ones whose logits are wanted. Where there
are directions to steer by, it reads `strengths` too, fp32 (N, directions).

Queries, keys and values are one product, so are the two halves of SwiGLU: on two Zen 4 cores SmolLM2 wrote 14 % faster
for that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import openvino
import openvino.opset15 as ops
import torch
from openvino import Model, Node, Output, PartialShape, Shape, Type
from openvino._offline_transformations import paged_attention_transformation
from openvino.op import util
from torch import Tensor

from lucidlm.checkpoint.quantize import GROUP, quantize_groups, quantize_rows
from lucidlm.inference.engine.backend import Direction
from lucidlm.model.heads import LanguageModel

Form = Literal["none", "int8", "int4"]
"""How weights are held: as fp32; in int8, a scale a row; in int4, a scale for 32 of a row, embedding and head in int8."""

Value = Node | Output

AT_A_TIME = 1 << 18
"""Weights that are rounded at a time."""


def build_graph(
    model: LanguageModel, form: Form, directions: Sequence[Direction] = (), *, release_weights: bool = False
) -> Model:
    """Return the graph of a causal `model`; inputs and outputs are named as said above, the output is `logits` (rows, V).

    Parameters
    ----------
    release_weights: let go of each of the model's weights as soon as the graph has its own.
    """
    return _Builder(model, form, directions, release_weights).build()


class _Builder:
    def __init__(
        self, model: LanguageModel, form: Form, directions: Sequence[Direction], release_weights: bool
    ) -> None:
        self.config, self.directions = model.config, directions
        self.form: Form = form
        # Matrices are taken out as they are used, so where the model has let go of them each lives no longer than that.
        self.weights: dict[str, Tensor] = {name: value.detach() for name, value in model.model.state_dict().items()}
        self.head = None if model.lm_head is None else model.lm_head.weight.detach()
        self.frequencies = None if model.model.rotary is None else model.model.rotary.frequencies
        self.states: list[Node] = []
        if release_weights:
            model.to("meta")

    def build(self) -> Model:
        config = self.config
        tokens, positions = _parameter("input_ids", [-1, -1]), _parameter("position_ids", [-1, -1])
        self.beams = _parameter("beam_idx", [-1], Type.i32)  # of the states; it leaves with them
        self.batch = ops.gather(ops.shape_of(tokens), _ints(0), _int(0))
        self.strengths = _parameter("strengths", [-1, len(self.directions)], Type.f32) if self.directions else None
        table = _matrix([self.weights.pop("embed_tokens.weight")], self._outer)
        x: Value = ops.gather(table, tokens, _int(0))  # (N, 1, D)
        angles = None
        if self.frequencies is None:
            x = ops.add(x, ops.gather(_floats(self.weights.pop("embed_positions.weight")), positions, _int(0)))
        else:
            angles = self._angles(positions, self.frequencies)
        if config.post_norm:
            x = self._norm(x, "embed_norm")
        for layer in range(config.num_layers):
            x = self._block(x, layer, angles)
        if not config.post_norm:
            x = self._norm(x, "norm")
        rows = _parameter("rows", [-1])
        states = ops.gather(x, rows, _int(0))
        head = table if self.head is None else _matrix([self.head], self._outer)
        logits = ops.result(ops.reshape(ops.matmul(states, head, False, True), _ints(-1, config.vocab_size), False))
        logits.output(0).get_tensor().set_names({"logits"})
        inputs = [tokens, positions, self.beams, rows, *([] if self.strengths is None else [self.strengths])]
        graph = Model([logits], self.states, inputs)  # pyright: ignore[reportGeneralTypeIssues]
        paged_attention_transformation(graph)
        return graph

    @property
    def _outer(self) -> Form:
        """How embedding and head are held: they are what loses most by int4."""
        return "none" if self.form == "none" else "int8"

    def _block(self, x: Value, layer: int, angles: tuple[Value, Value] | None) -> Value:
        name = f"layers.{layer}."
        attention, mlp = f"{name}self_attn.", f"{name}mlp."
        if self.config.post_norm:
            x = self._norm(ops.add(x, self._attention(x, attention, angles)), f"{name}post_attention_layernorm")
            return self._norm(ops.add(x, self._steered(self._mlp(x, mlp), layer)), f"{name}post_mlp_layernorm")
        x = ops.add(x, self._attention(self._norm(x, f"{name}input_layernorm"), attention, angles))
        return ops.add(x, self._steered(self._mlp(self._norm(x, f"{name}post_attention_layernorm"), mlp), layer))

    def _steered(self, x: Value, layer: int) -> Value:
        """Add to what a block's MLP puts out, (N, 1, D), the directions of this layer, as strongly as each token has it."""
        for place, one in enumerate(self.directions):
            if one.layer == layer:
                strength = ops.unsqueeze(ops.gather(self.strengths, _ints(place), _int(1)), _ints(1))  # (N, 1, 1)
                x = ops.add(x, ops.multiply(strength, _floats(one.vector[None, None])))
        return x

    def _attention(self, x: Value, name: str, angles: tuple[Value, Value] | None) -> Value:
        config = self.config
        heads, groups, width = config.num_heads, config.num_kv_heads, config.head_dim
        parts = self._linear(x, *(f"{name}{part}_proj" for part in "qkv"))
        q, k, v = (
            ops.transpose(ops.reshape(part, _ints(0, 0, count, width), True), _ints(0, 2, 1, 3))
            for part, count in zip(parts, (heads, groups, groups), strict=True)
        )
        if config.qk_norm:
            q, k = self._rms(q, f"{name}q_norm", 4), self._rms(k, f"{name}k_norm", 4)
        if angles is not None:
            q, k = _rotate(q, angles, width), _rotate(k, angles, width)
        keys, values = (self._with_past(part, f"{name}{kind}") for part, kind in ((k, "key"), (v, "value")))
        if heads > groups:
            keys, values = (self._repeated(part) for part in (keys, values))
        unmasked = _floats(torch.zeros(1, 1, 1, 1))  # what each token sees is known by its place in its sequence
        y = ops.scaled_dot_product_attention(q, keys, values, unmasked)
        y = ops.reshape(ops.transpose(y, _ints(0, 2, 1, 3)), _ints(0, 0, heads * width), True)
        return self._linear(y, f"{name}o_proj")[0]

    def _with_past(self, new: Value, name: str) -> Value:
        """Return `new` (N, G, 1, d) behind what a state holds: the place where the pass puts its cache."""
        info = util.VariableInfo()
        groups, width = self.config.num_kv_heads, self.config.head_dim
        info.data_shape, info.data_type, info.variable_id = PartialShape([-1, groups, -1, width]), Type.f32, name
        state = util.Variable(info)
        empty = ops.broadcast(_floats(torch.zeros(())), ops.concat([self.batch, _ints(groups, 0, width)], 0))
        whole = ops.concat([ops.gather(ops.read_value(empty, state), self.beams, _int(0)), new], 2)
        self.states.append(ops.assign(whole, state))
        return whole

    def _repeated(self, x: Value) -> Value:
        """Return keys or values (N, G, S, d) as often as heads share them, in the way that the pass knows."""
        times = self.config.num_heads // self.config.num_kv_heads
        wide = ops.broadcast(ops.unsqueeze(x, _ints(2)), _ints(1, 1, times, 1, 1), broadcast_spec="BIDIRECTIONAL")
        return ops.reshape(wide, _ints(0, self.config.num_heads, -1, self.config.head_dim), True)

    def _mlp(self, x: Value, name: str) -> Value:
        if self.config.activation == "swiglu":
            gate, up = self._linear(x, f"{name}gate_proj", f"{name}up_proj")
            return self._linear(ops.multiply(ops.swish(gate), up), f"{name}down_proj")[0]
        [up] = self._linear(x, f"{name}up_proj")
        if self.config.activation == "relu2":
            up = ops.relu(up)
            return self._linear(ops.multiply(up, up), f"{name}down_proj")[0]
        approximation = "tanh" if self.config.activation == "gelu_tanh" else "erf"
        return self._linear(ops.gelu(up, approximation), f"{name}down_proj")[0]

    def _linear(self, x: Value, *names: str) -> list[Value]:
        """Apply several linear layers to `x` (N, 1, D) as one product; return what each gives."""
        weights = [self.weights.pop(f"{name}.weight") for name in names]
        y = ops.matmul(x, _matrix(weights, self.form), False, True)
        if f"{names[0]}.bias" in self.weights:
            y = ops.add(y, _floats(torch.cat([self.weights[f"{name}.bias"] for name in names])[None, None]))
        if len(names) == 1:
            return [y]
        return list(ops.variadic_split(y, _int(2), _ints(*(len(weight) for weight in weights))).outputs())

    def _norm(self, x: Value, name: str) -> Value:
        """Normalise the residual stream `x` (N, 1, D)."""
        if self.config.norm == "rms":
            return self._rms(x, name, 3)
        y = ops.multiply(
            ops.mvn(x, _ints(-1), True, self.config.norm_eps, "INSIDE_SQRT"), _floats(self.weights[f"{name}.weight"])
        )
        bias = self.weights.get(f"{name}.bias")
        return y if bias is None else ops.add(y, _floats(bias))

    def _rms(self, x: Value, name: str, rank: int) -> Value:
        """Divide `x`, of so many dimensions, by the root mean square of its last, in the form that has a kernel."""

        def number(value: float) -> Node:
            return _floats(torch.full([1] * rank, value))

        mean = ops.reduce_mean(ops.power(x, number(2)), _ints(-1), True)
        scale = ops.divide(number(1), ops.sqrt(ops.add(mean, number(self.config.norm_eps))))
        weight = self.weights[f"{name}.weight"].reshape([1] * (rank - 1) + [-1])
        return ops.multiply(ops.multiply(x, scale), _floats(weight))

    def _angles(self, positions: Value, frequencies: Tensor) -> tuple[Value, Value]:
        """Return cosines and sines (N, 1, 1, d) of the positions (N, 1)."""
        column = ops.broadcast(
            _floats(frequencies[None, :, None]), ops.concat([self.batch, _ints(len(frequencies), 1)], 0)
        )
        angles = ops.matmul(column, ops.convert(ops.unsqueeze(positions, _ints(1)), "f32"), False, False)
        angles = ops.transpose(angles, _ints(0, 2, 1))
        both = ops.concat([angles, angles], -1)
        return ops.unsqueeze(ops.cos(both), _ints(1)), ops.unsqueeze(ops.sin(both), _ints(1))


def _rotate(x: Value, angles: tuple[Value, Value], width: int) -> Value:
    """Rotate `x` (N, H, 1, d): see `lucidlm.model.position.rotate`; in the form that OpenVINO has a kernel for."""
    cos, sin = angles
    left = ops.slice(x, _ints(0), _ints(width // 2), _ints(1), _ints(3))
    right = ops.slice(x, _ints(width // 2), _ints(2**63 - 1), _ints(1), _ints(3))
    turned = ops.concat([ops.multiply(right, _floats(-torch.ones(1, 1, 1, 1))), left], -1)
    return ops.add(ops.multiply(x, cos), ops.multiply(turned, sin))


def _parameter(name: str, shape: list[int], kind: Any = Type.i64) -> Any:
    made = ops.parameter(shape, kind)
    made.set_friendly_name(name)  # the pass looks for both names
    made.output(0).get_tensor().set_names({name})
    return made


def _int(value: int) -> Node:
    return ops.constant(np.int64(value))


def _ints(*values: int) -> Node:
    return ops.constant(np.array(values, dtype=np.int64))


def _floats(value: Tensor) -> Node:
    return ops.constant(value.float().cpu().numpy())


def _matrix(weights: Sequence[Tensor], form: Form) -> Value:
    """Return matrices (rows, columns), one below the other, as fp32, computed from their stored form where it is used.

    In int8 where int4's groups do not fit.
    """
    columns = weights[0].shape[1]
    if form == "none":
        return _floats(torch.cat(list(weights)))
    if form == "int8" or columns % GROUP:
        values, scales = _rounded(weights, quantize_rows)
        stored = ops.convert(ops.constant(values.numpy()), "f16")
        return ops.convert(ops.multiply(stored, ops.constant(scales.half().numpy())), "f32")
    values, scales = _rounded(weights, quantize_groups)
    low = (values.flatten().numpy() & 15).astype(np.uint8)
    packed = low[0::2] | (low[1::2] << 4)
    stored = openvino.Tensor(packed, Shape(list(values.shape)), Type.i4)
    parts = ops.multiply(
        ops.convert(ops.constant(stored, shared_memory=False), "f16"), ops.constant(scales.half().numpy())
    )
    return ops.convert(ops.reshape(parts, _ints(len(values), columns), False), "f32")


def _rounded(weights: Sequence[Tensor], quantize: Callable[[Tensor], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Round matrices, one below the other; return values and scales.

    Some rows at a time: rounding takes several times the memory of what comes of it, and the holes that it leaves between
    what stays add up to more than the whole graph.
    """
    parts = [
        quantize(rows.float().cpu())
        for weight in weights
        for rows in weight.split(max(1, AT_A_TIME // weight.shape[1]))
    ]
    values, scales = zip(*parts, strict=True)
    return torch.cat(values), torch.cat(scales)
