"""An ONNX graph built node by node, with the weights in a separate file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper
from torch import Tensor

from lucidlm.checkpoint.quantize import FLOATS, Dtype

OPSET = 20
"""The operator set's version: the first with Gelu. ONNX Runtime supports it since 1.17 (January 2024)."""

IR_VERSION = 9
"""The file format's version of the same time; onnx's default is its newest, which older runtimes refuse."""

PAGE = 4096
"""Alignment of weights in bytes, so that runtimes can memory-map them."""


class Graph:
    """A graph under construction. Values are identified by name, as in the file.

    Parameters
    ----------
    weights: the tensors that nodes may read, by name; each is written once, one at a time.
    data: the open file for the weights, whose name beside the model is `location`.
    dtype: of stored weights, fp32 or fp16; computation is in fp32.
    """

    def __init__(self, weights: dict[str, Tensor], data: BinaryIO, location: str, dtype: Dtype) -> None:
        self.weights, self.dtype = weights, dtype
        self._data, self._location = data, location
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(self, name: str, dtype: int, shape: Sequence[str | int]) -> str:
        """Declare an input; named dimensions are dynamic."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, name: str, shape: Sequence[str | int]) -> None:
        """Declare the value `name`, fp32, to be an output."""
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """Append a node and return the name of its output, `name` if given."""
        name = name or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name

    def halves(self, x: str) -> tuple[str, str]:
        """Append a split of `x` (..., 2n) into two of (..., n)."""
        left, right = f"{x}_left", f"{x}_right"
        self._nodes.append(helper.make_node("Split", [x], [left, right], left, axis=-1, num_outputs=2))
        return left, right

    def ints(self, *values: int) -> str:
        """Return a constant int64 vector."""
        return self._constant(f"ints_{'_'.join(map(str, values))}", np.array(values, dtype=np.int64))

    def number(self, value: float, dtype: type = np.float32) -> str:
        """Return a constant scalar."""
        return self._constant(f"{dtype.__name__}_{value:g}", np.array(value, dtype=dtype))

    def vector(self, name: str, values: Tensor) -> str:
        """Return a constant fp32 vector, stored in the model file."""
        return self._constant(name, values.numpy())

    def weight(self, name: str) -> str:
        """Return a weight in fp32."""
        self._store(name)
        if self.dtype == "fp32":
            return name
        cast = f"{name}_fp32"
        if not any(node.name == cast for node in self._nodes):
            self.add("Cast", name, name=cast, to=TensorProto.FLOAT)
        return cast

    def rows(self, name: str, indices: str) -> str:
        """Append the lookup of rows of a weight (rows, n) by `indices` (...), giving (..., n) in fp32."""
        self._store(name)
        chosen = self.add("Gather", name, indices)
        return chosen if self.dtype == "fp32" else self.add("Cast", chosen, to=TensorProto.FLOAT)

    def linear(self, x: str, weight: str, bias: str | None = None, name: str | None = None) -> str:
        """Append x Wᵀ + b for `x` (N, in) and a weight (out, in), as `torch.nn.Linear` keeps it."""
        bias = bias if bias is not None and bias in self.weights else None
        # Gemm takes W as it is; MatMul would need it transposed, and a tied embedding stored twice.
        return self.add("Gemm", x, self.weight(weight), *([self.weight(bias)] if bias else []), name=name, transB=1)

    def model(self, name: str, producer_version: str) -> onnx.ModelProto:
        """Return the finished model."""
        graph = helper.make_graph(
            self._nodes, name, self._inputs, self._outputs, initializer=list(self._initializers.values())
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="lucidlm",
            producer_version=producer_version,
        )

    def _constant(self, name: str, value: np.ndarray) -> str:
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(value, name)
        return name

    def _store(self, name: str) -> None:
        """Append a weight to the data file, unless it is there already."""
        if name in self._initializers:
            return
        stored = self.weights[name].detach().cpu().to(FLOATS[self.dtype]).contiguous()
        self._data.write(bytes(-self._data.tell() % PAGE))
        offset = self._data.tell()
        self._data.write(stored.numpy().data)
        kind = TensorProto.FLOAT if self.dtype == "fp32" else TensorProto.FLOAT16
        tensor = TensorProto(name=name, data_type=kind, dims=stored.shape, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self._location), ("offset", offset), ("length", stored.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self._initializers[name] = tensor
