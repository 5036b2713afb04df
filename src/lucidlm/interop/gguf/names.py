"""The tensors of a GGUF file for each architecture: names, shapes, and the parameters of ours they correspond to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from gguf import MODEL_TENSOR, TENSOR_NAMES

from lucidlm.core.errors import InputError
from lucidlm.interop.gguf.architectures import ROPE_FACTORS
from lucidlm.interop.gguf.header import Header
from lucidlm.model.config import ModelConfig

QUERY_KEY_VALUE = (MODEL_TENSOR.ATTN_Q, MODEL_TENSOR.ATTN_K, MODEL_TENSOR.ATTN_V)


@dataclass(frozen=True)
class TensorLayout:
    """One tensor of a file, made of one or more of our parameters, concatenated along the rows.

    Parameters
    ----------
    parts: our parameters' names, and the number of rows (for a vector: elements) of each.
    width: of a row; None: it is a vector.
    heads: if not 0, rows are permuted within each of this many heads, for llama.cpp's interleaved rotary positions.
    """

    parts: dict[str, int]
    width: int | None
    heads: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        rows = sum(self.parts.values())
        return (rows,) if self.width is None else (rows, self.width)


def layout(architecture: str, config: ModelConfig) -> dict[str, TensorLayout]:
    """Return the tensors of a file by their names there, in the order in which they are written."""
    width, hidden = config.embedding_dim, config.ff_dim
    queries, keys = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    tensors: dict[str, TensorLayout] = {}

    def matrix(tensor: MODEL_TENSOR, parts: dict[str, int], columns: int, bias: bool, heads: int = 0) -> None:
        name = TENSOR_NAMES[tensor].format(bid=index)
        tensors[f"{name}.weight"] = TensorLayout(
            {f"{part}.weight": rows for part, rows in parts.items()}, columns, heads
        )
        if bias:
            tensors[f"{name}.bias"] = TensorLayout({f"{part}.bias": rows for part, rows in parts.items()}, None, heads)

    def norm(tensor: MODEL_TENSOR, part: str, size: int = width) -> None:
        name = TENSOR_NAMES[tensor].format(bid=index)
        tensors[f"{name}.weight"] = TensorLayout({f"{part}.weight": size}, None)
        if config.norm == "layer" and config.bias:
            tensors[f"{name}.bias"] = TensorLayout({f"{part}.bias": size}, None)

    index = 0  # of the current layer; names outside the layers do not use it
    matrix(MODEL_TENSOR.TOKEN_EMBD, {"model.embed_tokens": config.vocab_size}, width, bias=False)
    if config.position == "learned":
        matrix(MODEL_TENSOR.POS_EMBD, {"model.embed_positions": config.context_length}, width, bias=False)
    for index in range(config.num_layers):
        ours = f"model.layers.{index}"
        attention = {f"{ours}.self_attn.{part}_proj": queries if part == "q" else keys for part in "qkv"}
        with_bias = config.bias or config.qkv_bias
        norm(MODEL_TENSOR.ATTN_NORM, f"{ours}.input_layernorm")
        if architecture == "gpt2":
            matrix(MODEL_TENSOR.ATTN_QKV, attention, width, with_bias)
        else:
            for tensor, (parameter, rows) in zip(QUERY_KEY_VALUE, attention.items(), strict=True):
                # Only llama.cpp's "llama" rotates neighbouring dimensions of a head; the others rotate halves, as we do.
                turned = architecture == "llama" and tensor != MODEL_TENSOR.ATTN_V
                matrix(tensor, {parameter: rows}, width, with_bias, turned * rows // config.head_dim)
        if config.qk_norm:
            norm(MODEL_TENSOR.ATTN_Q_NORM, f"{ours}.self_attn.q_norm", config.head_dim)
            norm(MODEL_TENSOR.ATTN_K_NORM, f"{ours}.self_attn.k_norm", config.head_dim)
        matrix(MODEL_TENSOR.ATTN_OUT, {f"{ours}.self_attn.o_proj": width}, queries, config.bias)
        norm(MODEL_TENSOR.FFN_NORM, f"{ours}.post_attention_layernorm")
        if config.activation == "swiglu":
            matrix(MODEL_TENSOR.FFN_GATE, {f"{ours}.mlp.gate_proj": hidden}, width, config.bias)
        matrix(MODEL_TENSOR.FFN_UP, {f"{ours}.mlp.up_proj": hidden}, width, config.bias)
        matrix(MODEL_TENSOR.FFN_DOWN, {f"{ours}.mlp.down_proj": width}, hidden, config.bias)
    norm(MODEL_TENSOR.OUTPUT_NORM, "model.norm")
    if not config.tied_embeddings:
        matrix(MODEL_TENSOR.OUTPUT, {"lm_head": config.vocab_size}, width, bias=False)
    return tensors


def check_tensors(header: Header, architecture: str, config: ModelConfig) -> dict[str, TensorLayout]:
    """Check a file's tensors against its metadata, and return the layout.

    Raises
    ------
    InputError: tensors are missing or unexpected, or their shapes or types do not follow from the metadata.
    """
    if config.num_layers > len(header.tensors):
        raise _mismatch(header, f"says {config.num_layers:,} layers and has {len(header.tensors):,} tensors in all")
    expected = layout(architecture, config)
    optional = {ROPE_FACTORS} if architecture == "llama" else set()
    found = header.tensors.keys() - optional
    for what, names in (("missing", expected.keys() - found), ("unknown", found - expected.keys())):
        if names:
            raise _mismatch(header, f"{len(names)} tensors are {what}: {', '.join(sorted(names)[:3])} …")
    for name, stored in expected.items():
        info = header.tensors[name]
        if info.shape != stored.shape:
            raise _mismatch(header, f"{name} has the shape {info.shape}, by the metadata it is {stored.shape}")
        if stored.width is None and info.kind.name not in ("F32", "F16", "BF16"):
            raise _mismatch(header, f"{name} is a vector stored as {info.kind.name}, which only matrices are")
    return expected


def _mismatch(header: Header, what: str) -> InputError:
    return InputError(what, where=header.path, fix="Metadata and tensors are not of one model; get the file again.")


def our_order(rows: int, heads: int) -> np.ndarray:
    """Return, for each of our rows of a query or key projection, which row of the file it is.

    Within a head of d rows, llama.cpp rotates rows 2i and 2i + 1 together; we rotate i and i + d / 2.
    """
    return np.arange(rows).reshape(heads, -1, 2).swapaxes(1, 2).ravel()


def their_order(rows: int, heads: int) -> np.ndarray:
    """Return, for each row of the file, which of our rows it is: the inverse of `our_order`."""
    return np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).ravel()
