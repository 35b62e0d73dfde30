"""An fp32 ONNX graph as int8, in each of the ways that onnxruntime knows; no matrix product is left behind.

U8 activations, S8 weights with one scale a channel that no x86 processor saturates on, embedding tables as bytes.
Knows nothing of what the model is for: `gate.py` judges the answers.
"""

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from export.coded_rows import coded_products
from export.coverage import Coverage, count_products, load_graph
from export.errors import ExportError
from export.saturation import round_without_saturation

Feed = Mapping[str, NDArray[np.int64]]
_PRODUCTS, _TABLES = ("MatMul", "Attention"), ("Gather", "EmbedLayerNormalization")
_PRODUCTS_OF_BYTES, _PRODUCTS_OF_FLOATS = {"MatMulInteger", "QAttention"}, {"MatMul", "Gemm"}
_TURNED = ("transB", 1)
_FROM_GEMM = "_MatMul"  # what onnxruntime appends to the name of a Gemm that it rewrites


def quantize_int8(
    source: Path, target: Path, allowed_fp32: Collection[str] = (), *, embeddings: bool = True
) -> Coverage:
    """Write the fp32 graph `source` to `target` as int8, all weights inside the one file.

    `allowed_fp32` names nodes that stay as they are; without `embeddings` so do the tables. Raises ExportError
    when `source` does not parse, cannot be quantized, or a constant-weight product that is not allowed to stayed
    fp32; then no file is left.
    """

    def write(model: ModelProto) -> None:
        # The quantizer takes ONNX's own attention for onnxruntime's older one, which carries weights.
        weightless = [node.name for node in model.graph.node if (node.op_type, node.domain) == ("Attention", "")]
        quantize_dynamic(
            model,  # given a path, it would write its scratch file beside it
            target,
            op_types_to_quantize=[*_PRODUCTS, *(_TABLES if embeddings else ())],
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*weightless, *allowed_fp32, *(name + _FROM_GEMM for name in allowed_fp32)],
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": TensorProto.FLOAT},
        )

    return _quantize(source, target, write, allowed_fp32)


def quantize_static_int8(source: Path, target: Path, feeds: Iterable[Feed]) -> Coverage:
    """Write `source` to `target` with one scale for each activation, found by running it on `feeds`.

    Otherwise as `quantize_int8`. A product that reads nothing but zeros in `feeds` has no scale and stays fp32: that of
    the codes of tokens which none of them has.
    """
    allowed_fp32 = coded_products(load_graph(source).graph)

    def write(model: ModelProto) -> None:
        quantize_static(
            model,
            target,
            _Reader(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["MatMul", "Gemm", "Gather"],
            per_channel=True,
            nodes_to_exclude=allowed_fp32,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                "DefaultTensorType": TensorProto.FLOAT,
                # Sums, normalisations and attention read floats: quantized products would be turned back at once.
                "OpTypesToExcludeOutputQuantization": ["MatMul", "Gemm", "Gather"],
            },
        )

    return _quantize(source, target, write, allowed_fp32)


def quantize_weights(source: Path, target: Path) -> Coverage:
    """Write `source` to `target` with 8-bit weights in blocks, activations made int8 inside each product.

    Otherwise as `quantize_int8`, but that weights are rounded as onnxruntime does it; products written as Gemm (those
    of the head) stay fp32.
    """

    def write(model: ModelProto) -> None:
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # it sets up logging

        quantizer = MatMulNBitsQuantizer(model, bits=8, block_size=128, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(target))

    gemms = [node.name for node in load_graph(source).graph.node if node.op_type == "Gemm"]
    return _quantize(source, target, write, gemms)


def _quantize(
    source: Path, target: Path, write: Callable[[ModelProto], None], allowed_fp32: Collection[str] = ()
) -> Coverage:
    model = load_graph(source)
    # Says that the graph was looked at already; without it onnxruntime logs advice to every user.
    model.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            write(model)
        quantized = load_graph(target)
        _round_again(quantized, load_graph(source))
        _read_once(quantized.graph)
        onnx.save(quantized, target)
        coverage, left = count_products(quantized)
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


def _round_again(model: ModelProto, source: ModelProto) -> None:
    """Give int8 weights of products in `model` bytes and steps that do not saturate, from the floats of `source`."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.graph.initializer}
    turned = {node.input[1] for node in source.graph.node for item in node.attribute if (item.name, item.i) == _TURNED}
    for name, axis in _outputs_axes(model).items():
        origin = name.removesuffix("_quantized")
        weight = floats[origin]
        # The dynamic quantizer writes a Gemm as a product of turned weights; the static one leaves both as they are.
        is_turned = axis == 0 or origin in turned
        rounded, steps = round_without_saturation(weight.T if is_turned else weight)
        tensors[name].CopyFrom(numpy_helper.from_array(rounded.T.copy() if axis == 0 else rounded, name))
        tensors[f"{origin}_scale"].CopyFrom(numpy_helper.from_array(steps, f"{origin}_scale"))


def _read_once(graph: GraphProto) -> None:
    """Put a change of shape there and back, which copies nothing, behind floats of bytes that several nodes read.

    onnxruntime gives each reader of a DequantizeLinear one of its own, and so turns the bytes into floats once more.
    """
    constants = {tensor.name for tensor in graph.initializer}
    reads = Counter(name for node in graph.node for name in node.input)
    for at, node in reversed(list(enumerate(graph.node))):
        floats = node.output[0]
        if node.op_type != "DequantizeLinear" or node.input[0] in constants or reads[floats] < 2:
            continue
        rows, flat, shape = (f"{floats}_{part}" for part in ("rows", "flat", "shape"))
        node.output[0] = rows
        # onnxruntime moves a DequantizeLinear behind a Reshape, to its readers again, but not behind a Flatten.
        graph.node.insert(at + 1, helper.make_node("Flatten", [rows], [flat], flat))
        graph.node.insert(at + 2, helper.make_node("Shape", [node.input[0]], [shape], shape))
        graph.node.insert(at + 3, helper.make_node("Reshape", [flat, shape], [floats], floats))


def _outputs_axes(model: ModelProto) -> dict[str, int]:
    """Return by name the int8 weights of products, and which of their two axes is that of the outputs."""
    axes = {node.input[1]: 1 for node in model.graph.node if node.op_type in _PRODUCTS_OF_BYTES}
    weights = {node.input[1] for node in model.graph.node if node.op_type in _PRODUCTS_OF_FLOATS}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in weights:
            axes[node.input[0]] = next((item.i for item in node.attribute if item.name == "axis"), 1)
    stored = {tensor.name for tensor in model.graph.initializer}
    return {name: axis for name, axis in axes.items() if name in stored}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' progress reports to themselves, and the root logger as it was: they set it up anew."""
    root = logging.getLogger()
    before = root.manager.disable, root.level, list(root.handlers)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before[0])
        root.setLevel(before[1])
        root.handlers[:] = before[2]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterable[Feed]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        return next(self._feeds, None)
