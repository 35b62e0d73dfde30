"""How much of the work of an ONNX file is int8: the count that proves no matrix product was left behind.

Knows nothing of how the file was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto

from export.errors import ExportError
from export.gate import Gate, at_most

_PRODUCTS_OF_BYTES = {"MatMulInteger", "MatMulNBits", "QAttention"}
_PRODUCTS_OF_FLOATS = {"MatMul", "Gemm", "Attention"}
_BYTES = {TensorProto.INT8, TensorProto.UINT8}
_MOST_FP32 = 0.05  # of the multiply-accumulates; a head alone may be that much


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the constant-weight work runs in int8; one multiply-accumulate a weight and position."""

    int8_macs_share: float
    int8_matmuls: int
    fp32_matmuls: int


def load_graph(path: Path) -> ModelProto:
    """Return the model in a file; raise ExportError when it is none."""
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf has its own error tree
        raise ExportError(f"{path}: cannot be read as ONNX ({error}); export the student again") from error


def count_products(model: ModelProto) -> tuple[Coverage, list[str]]:
    """Return the coverage and the names of the constant-weight products that are not int8."""
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    bytes_only = {tensor.name for tensor in model.graph.initializer if tensor.data_type in _BYTES}
    int8: list[int] = []
    fp32: dict[str, int] = {}
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        if all(name in weights for name in inputs):  # a constant, or a weight that is turned at run time
            weights.update(dict.fromkeys(node.output, max((weights[name] for name in inputs), default=1)))
            if node.op_type == "DequantizeLinear" and inputs[0] in bytes_only:
                bytes_only.update(node.output)
        elif node.op_type in _PRODUCTS_OF_BYTES and inputs[1] in weights:
            int8.append(weights[inputs[1]])
        elif node.op_type in _PRODUCTS_OF_FLOATS and (weight := next(filter(weights.get, inputs[:2]), None)):
            if weight in bytes_only:
                int8.append(weights[weight])
            else:
                fp32[node.name or node.output[0]] = weights[weight]
    share = sum(int8) / max(sum(int8) + sum(fp32.values()), 1)
    return Coverage(share, len(int8), len(fp32)), list(fp32)


def judge_coverage(coverage: Coverage, kept: Sequence[str]) -> Gate:
    """Return a gate on the share of the work left in fp32 beyond the layers `kept` there on purpose."""
    detail = (
        f"{coverage.int8_matmuls} constant-weight products are int8 and {coverage.fp32_matmuls} are not, "
        f"{coverage.int8_macs_share:.1%} of the multiply-accumulates"
    )
    left = 0.0 if kept else 1 - coverage.int8_macs_share
    return at_most("int8_coverage", left, _MOST_FP32, detail + (f"; kept fp32: {', '.join(kept)}" if kept else ""))
