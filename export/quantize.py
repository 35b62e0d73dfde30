"""An fp32 ONNX graph as int8, and the count that proves no matrix product was left behind.

Dynamic quantization: U8 activations, S8 weights with one scale a channel, embedding tables as bytes.
Knows nothing of what the model is for: `gate.py` judges the answers.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto
from onnxruntime.quantization import QuantType, quantize_dynamic

from export.errors import ExportError

_FROM_GEMM = "_MatMul"  # what onnxruntime appends to the name of a Gemm that it rewrites


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of the constant-weight work runs in int8; one multiply-accumulate a weight and position."""

    int8_macs_share: float
    int8_matmuls: int
    fp32_matmuls: int


def quantize_int8(source: Path, target: Path, allowed_fp32: Collection[str] = ()) -> Coverage:
    """Write the fp32 graph `source` to `target` as int8, all weights inside the one file.

    `allowed_fp32` names nodes that stay as they are. Raises ExportError when `source` does not parse, cannot
    be quantized, or a constant-weight product that is not allowed to stayed fp32; then no file is left.
    """
    model = _load(source)
    # Says that the graph was looked at already; without it onnxruntime logs advice to every user.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        quantize_dynamic(
            model,  # given a path, it would write its scratch file beside it
            target,
            op_types_to_quantize=["MatMul", "Gather"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*allowed_fp32, *(name + _FROM_GEMM for name in allowed_fp32)],
            extra_options={"MatMulConstBOnly": True},
        )
        coverage, left = _count(_load(target))
    except Exception as error:  # the quantizer raises what numpy, onnx or an assertion raises
        target.unlink(missing_ok=True)
        raise ExportError(f"{source}: cannot be quantized to int8 ({error}); set export.precision to fp32") from error
    forgotten = sorted(name for name in left if name.removesuffix(_FROM_GEMM) not in allowed_fp32)
    if forgotten:
        target.unlink()
        raise ExportError(
            f"{source}: {len(forgotten)} constant-weight products stayed fp32: {', '.join(forgotten)}; "
            "allow them by name or set export.precision to fp32"
        )
    return coverage


def _load(path: Path) -> ModelProto:
    try:
        return onnx.load(path)
    except Exception as error:  # protobuf has its own error tree
        raise ExportError(f"{path}: cannot be read as ONNX ({error}); export the student again") from error


def _count(model: ModelProto) -> tuple[Coverage, list[str]]:
    """Return the coverage and the names of the constant-weight products that are not int8."""
    weights = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    int8: list[int] = []
    fp32: dict[str, int] = {}
    for node in model.graph.node:
        inputs = [name for name in node.input if name]
        if all(name in weights for name in inputs):  # a constant, or a weight that is turned at run time
            weights.update(dict.fromkeys(node.output, max((weights[name] for name in inputs), default=1)))
        elif node.op_type == "MatMulInteger" and inputs[1] in weights:
            int8.append(weights[inputs[1]])
        elif node.op_type in {"MatMul", "Gemm"} and (weight := next(filter(weights.get, inputs[:2]), None)):
            fp32[node.name or node.output[0]] = weights[weight]
    share = sum(int8) / max(sum(int8) + sum(fp32.values()), 1)
    return Coverage(share, len(int8), len(fp32)), list(fp32)
