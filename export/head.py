"""The end of an exported graph: the temperature in the weights of the head, probabilities as a second output.

`logits` stay the first output, already divided by the temperature, so that a client that knows nothing of
calibration prints calibrated probabilities. Knows ONNX; knows nothing of how the temperature was found.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from export.classifier import LOGITS, PROBABILITIES
from export.errors import ExportError
from export.metrics import Kind

_UNSCALED = "logits_unscaled"
# Which inputs carry a factor of the output: all of them, or any one.
_ALL: Mapping[str, tuple[int, ...]] = {
    "Add": (0, 1), "Gemm": (1, 2), "Identity": (0,), "Reshape": (0,), "Squeeze": (0,), "DequantizeLinear": (1,),
    "DynamicQuantizeMatMul": (2, 4), "MatMulIntegerToFloat": (3, 6), "MatMulNBits": (2, 5),
}  # fmt: skip
_ANY: Mapping[str, tuple[int, ...]] = {"MatMul": (1,), "Mul": (1, 0)}
_ACTIVATIONS: Mapping[Kind, Callable[[], NodeProto]] = {
    "single_label": lambda: helper.make_node("Softmax", [LOGITS], [PROBABILITIES], axis=-1),
    "multi_label": lambda: helper.make_node("Sigmoid", [LOGITS], [PROBABILITIES]),
}


def finish_head(path: Path, kind: Kind, temperature: float) -> str:
    """Divide the logits of the file by `temperature`, add `probabilities` (batch, labels), and say how.

    Returns "" when the division went into weights that were there, else the reason for a node of its own.
    """
    model = onnx.load(path)
    reason = _fold(model, np.float32(1.0 / temperature))
    graph = model.graph
    graph.node.append(_ACTIVATIONS[kind]())
    shape = [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim]
    graph.output.append(helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, shape))
    onnx.save(model, path)
    return reason


def _fold(model: ModelProto, factor: np.float32) -> str:
    graph = model.graph
    try:
        found = _Factors(graph).of(LOGITS)
    except ExportError as error:
        last = next(node for node in graph.node if LOGITS in node.output)
        last.output[list(last.output).index(LOGITS)] = _UNSCALED
        graph.initializer.append(numpy_helper.from_array(factor, "inverse_temperature"))
        graph.node.append(helper.make_node("Mul", [_UNSCALED, "inverse_temperature"], [LOGITS]))
        return str(error)
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name in found:
        scaled = (numpy_helper.to_array(tensors[name]) * factor).astype(np.float32)
        tensors[name].CopyFrom(numpy_helper.from_array(scaled, name))
    return ""


class _Factors:
    """Finds the weights whose product with a number multiplies an output by that number."""

    def __init__(self, graph: GraphProto) -> None:
        self._makers = {name: node for node in graph.node for name in node.output}
        self._floats = {tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT}
        self._readers: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self._readers[name] = self._readers.get(name, 0) + 1

    def of(self, output: str) -> set[str]:
        """Return initializers to multiply; raise ExportError when there are none, or others read them too."""
        if self._readers.get(output, 0) > 1:
            raise ExportError(f"{output} has other readers")
        if output in self._floats:
            return {output}
        node = self._makers.get(output)
        if node is None:
            raise ExportError(f"{output} is no weight")
        if node.op_type in _ALL:
            inputs = (node.input[index] for index in _ALL[node.op_type] if index < len(node.input))
            return set().union(*(self.of(name) for name in inputs if name))
        for index in _ANY.get(node.op_type, ()):
            try:
                return self.of(node.input[index])
            except ExportError:
                continue
        raise ExportError(f"{node.op_type} {node.name} does not pass a factor on")
