"""A model as a directory that ONNX Runtime opens, its inputs and outputs named as Hugging Face's exporter names them.

- Every model reads `input_ids` and `attention_mask`, and `token_type_ids` if it has token types, all int64 (B, T).
- A causal language model reads `position_ids` (B, T) and `past_key_values.{i}.key` and `.value` (B, G, P, d) too, P
  being 0 at first; its mask is (B, P + T), 0 where a batch is padded. It returns `logits` (B, T, V) and
  `present.{i}.…` (B, G, P + T, d).
- A masked language model returns `logits` (B, T, V), a classifier `logits` (B, labels), a token classifier `logits`
  (B, T, labels), a span extractor `start_logits` and `end_logits` (B, T), minus infinity at padding. Texts may be padded
  on either side.

The weights are in `model.onnx_data`; the tokenizer's files, config.json (class names included) and generation_config.json
are those of a model directory. `model.onnx` is written last: a directory without it is not complete.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from lucidlm.checkpoint.families import family_of
from lucidlm.checkpoint.loaded import LoadedModel
from lucidlm.checkpoint.quantize import Dtype, check_storable
from lucidlm.checkpoint.save import save_settings
from lucidlm.core.errors import InputError
from lucidlm.core.io import atomic_path, require_free_space, require_vacant
from lucidlm.interop.onnx.graph import Graph
from lucidlm.interop.onnx.network import Inputs, Network
from lucidlm.model.heads import LanguageModel, Model, SequenceClassifier, SpanExtractor, TokenClassifier
from lucidlm.version import __version__

BATCH, LENGTH, PAST, TOTAL = (
    "batch_size",
    "sequence_length",
    "past_sequence_length",
    "past_sequence_length + sequence_length",
)
"""The dynamic dimensions, under the names of Hugging Face's exporter."""


def export(loaded: LoadedModel, out: Path, dtype: str | None) -> None:
    """Write the directory; see `lucidlm.interop.onnx.export_onnx`."""
    if dtype not in (None, "fp32", "fp16"):
        raise InputError(f"{dtype!r} is not offered for ONNX", where="--dtype", fix="Choose fp32 or fp16.")
    require_vacant(out)
    stored: Dtype = "fp16" if dtype == "fp16" else "fp32"
    state = loaded.model.state_dict()
    check_storable(state, stored, out)
    require_free_space(out, sum(value.nbytes for value in state.values()) + 2**24)
    with atomic_path(out / "model.onnx_data") as weights, weights.open("wb") as file:
        graph = Graph(state, file, "model.onnx_data", stored)
        _build(graph, loaded.model)
    save_settings(loaded.model, out, loaded.tokenizer, family_of(loaded.model.config))
    with atomic_path(out / "model.onnx") as path:
        path.write_bytes(graph.model(type(loaded.model).__name__, __version__).SerializeToString())
        onnx.checker.check_model(str(path), full_check=True)


def _build(graph: Graph, model: Model) -> None:
    """Build the model's graph, including inputs and outputs."""
    config, dimensions = model.config, [BATCH, LENGTH]
    cached = isinstance(model, LanguageModel) and config.causal
    tokens = graph.input("input_ids", TensorProto.INT64, dimensions)
    mask = graph.input("attention_mask", TensorProto.INT64, [BATCH, TOTAL if cached else LENGTH])
    token_type_ids = graph.input("token_type_ids", TensorProto.INT64, dimensions) if config.token_types else None
    # The number of real tokens up to each: with padding on either side, the first real token has position 0.
    counts = graph.add("CumSum", mask, graph.number(1, np.int64))  # (B, S)
    if cached:
        positions = graph.input("position_ids", TensorProto.INT64, dimensions)
        _declare_cache(graph, model)
    else:
        # -1 in padding on the left: not a valid position, but nothing attends to it.
        positions = graph.add("Sub", counts, graph.ints(1))
    visible = _attention_mask(graph, tokens, mask, config.causal)
    prefix = "transformer" if isinstance(model, SpanExtractor) else "model"
    network = Network(graph, config, prefix, Inputs(tokens, positions, token_type_ids, visible), cached)
    states = network.states()  # (B * T, D)
    if isinstance(model, LanguageModel):
        _language_head(network, model, states)
    elif isinstance(model, SequenceClassifier):
        _classifier_head(network, model, states, mask, counts, tokens)
    elif isinstance(model, TokenClassifier):
        _token_head(network, model, states)
    else:
        _span_head(network, states, mask)


def _declare_cache(graph: Graph, model: Model) -> None:
    for index in range(model.config.num_layers):
        for part in ("key", "value"):
            shape = [BATCH, model.config.num_kv_heads, PAST, model.config.head_dim]
            graph.input(f"past_key_values.{index}.{part}", TensorProto.FLOAT, shape)


def _attention_mask(graph: Graph, tokens: str, mask: str, causal: bool) -> str:
    """Append (B, 1, 1, T or 1, S) bool, true where a token may be attended to."""
    real = graph.add("Unsqueeze", graph.add("Cast", mask, to=TensorProto.BOOL), graph.ints(1, 2, 3))
    if not causal:
        return real
    length = graph.add("Shape", tokens, start=1, end=2)  # T
    total = graph.add("Shape", mask, start=1, end=2)  # S
    zero, one, axis = graph.number(0, np.int64), graph.number(1, np.int64), graph.ints(0)
    end = graph.add("Squeeze", total, axis)
    columns = graph.add("Range", zero, end, one)
    rows = graph.add("Range", graph.add("Squeeze", graph.add("Sub", total, length), axis), end, one)
    before = graph.add("LessOrEqual", columns, graph.add("Unsqueeze", rows, graph.ints(1)))  # (T, S)
    return graph.add("And", real, before)


def _language_head(network: Network, model: LanguageModel, states: str) -> None:
    graph, config, bias = network.graph, model.config, None
    if config.head_transform:
        states = graph.linear(states, "transform.dense.weight", "transform.dense.bias")
        states = graph.add("Gelu", states, approximate="tanh" if config.activation == "gelu_tanh" else "none")
        states, bias = network.norm(states, "transform.norm"), "transform.output_bias"
    table = "model.embed_tokens.weight" if config.tied_embeddings else "lm_head.weight"
    network.unflatten(graph.linear(states, table, bias), config.vocab_size, name="logits")
    graph.output("logits", [BATCH, LENGTH, config.vocab_size])
    if network.cached:
        for index in range(config.num_layers):
            for part in ("key", "value"):
                graph.output(f"present.{index}.{part}", [BATCH, config.num_kv_heads, TOTAL, config.head_dim])


def _classifier_head(
    network: Network, model: SequenceClassifier, states: str, mask: str, counts: str, tokens: str
) -> None:
    graph = network.graph
    states = network.unflatten(states, model.config.embedding_dim)  # (B, T, D)
    if model.pooling == "mean":
        shares = graph.add("Unsqueeze", graph.add("Cast", mask, to=TensorProto.FLOAT), graph.ints(2))
        total = graph.add("ReduceSum", graph.add("Mul", states, shares), graph.ints(1), keepdims=0)
        pooled = graph.add("Div", total, graph.add("ReduceSum", shares, graph.ints(1), keepdims=0))  # (B, D)
    else:
        if model.pooling == "last" and model.pad_id is not None:
            padding = graph.add("Equal", tokens, graph.number(model.pad_id, np.int64))
            counts = graph.add("Where", padding, graph.number(0, np.int64), counts)
        # ArgMax returns the first maximum: the first real token, or the last one, after which the counts stay constant.
        place = graph.add("ArgMax", mask if model.pooling == "first" else counts, axis=1, keepdims=1)  # (B, 1)
        pooled = graph.add("GatherND", states, place, batch_dims=1)  # (B, D)
    if model.config.causal:
        graph.linear(pooled, "score.weight", name="logits")
    else:
        inner = graph.linear(pooled, "dense.weight", "dense.bias")
        inner = graph.add("Tanh" if model.pooling == "first" else "Gelu", inner)
        graph.linear(inner, "classifier.weight", "classifier.bias", name="logits")
    graph.output("logits", [BATCH, len(model.labels)])


def _token_head(network: Network, model: TokenClassifier, states: str) -> None:
    graph, head = network.graph, "score" if model.config.causal else "classifier"
    network.unflatten(graph.linear(states, f"{head}.weight", f"{head}.bias"), len(model.labels), name="logits")
    graph.output("logits", [BATCH, LENGTH, len(model.labels)])


def _span_head(network: Network, states: str, mask: str) -> None:
    graph = network.graph
    both = network.unflatten(graph.linear(states, "qa_outputs.weight", "qa_outputs.bias"), 2)  # (B, T, 2)
    real = graph.add("Cast", mask, to=TensorProto.BOOL)
    for index, name in enumerate(("start_logits", "end_logits")):
        one = graph.add("Gather", both, graph.number(index, np.int64), axis=2)  # (B, T)
        graph.add("Where", real, one, graph.number(float("-inf")), name=name)
        graph.output(name, [BATCH, LENGTH])
