"""Inputs of products made even before they become bytes: an outlier channel would spend the 256 steps of them all.

Each channel is divided by a power of two before a product whose weights are multiplied by it, so that in fp32 not one
bit of an answer changes (SmoothQuant, Xiao et al. 2023). Knows nothing of labels, and nothing of what noise in one
product does to an answer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.coverage import load_graph
from export.quantize import Feed
from export.sessions import open_session

_WORTH = 0.4  # of a product's error that may be left: dividing takes about half a percent of an answer
_SHARES = (0.6, 0.7, 0.8)  # of the unevenness that goes into the weights; what is left stays in the input
_TAMED = (1, 16)  # or so many channels alone are brought down to the next one
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Product:
    name: str
    weight: Floats  # (channels, outputs)
    inputs: Sequence[Floats]  # a text each, (tokens, channels)


def smooth_inputs(source: Path, target: Path, feeds: Iterable[Feed]) -> dict[str, float]:
    """Write `source` with even inputs to `target`; return by product which part of its int8 error is left on `feeds`.

    Products that gain little stay as they are. `source` is fp32.
    """
    model = load_graph(source)
    left: dict[str, float] = {}
    factors: dict[str, Floats] = {}
    for product in _products(model, source, list(feeds)):
        before = _error(product, np.ones(len(product.weight), np.float32))
        candidates = list(_candidates(product))
        errors = [_error(product, candidate) for candidate in candidates]
        best = int(np.argmin(errors))
        if errors[best] < _WORTH * before:
            factors[product.name], left[product.name] = candidates[best], errors[best] / before
    _divide(model, factors)
    onnx.save(model, target)
    return left


def _products(model: ModelProto, source: Path, feeds: Sequence[Feed]) -> Iterator[_Product]:
    weights = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 2}
    found = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    if not found or not feeds:
        return
    watched = load_graph(source)
    names = sorted({node.input[0] for node in found} - {output.name for output in watched.graph.output})
    watched.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = open_session(watched.SerializeToString(), threads=1)
    runs = [dict(zip(names, session.run(names, dict(feed)), strict=True)) for feed in feeds]
    for node in found:
        inputs = [run[node.input[0]].reshape(-1, run[node.input[0]].shape[-1]) for run in runs]
        yield _Product(node.name, numpy_helper.to_array(weights[node.input[1]]), inputs)


def _candidates(product: _Product) -> Iterator[Floats]:
    """Yield factors (channels,), powers of two, by which weights are multiplied and inputs divided."""
    least = np.finfo(np.float32).tiny ** 0.25  # a channel that is always 0 divides nothing
    heights = np.maximum(np.max([np.abs(given).max(axis=0) for given in product.inputs], axis=0), least)
    weights = np.maximum(np.abs(product.weight).max(axis=1), least)
    for share in _SHARES:
        wanted = share * np.log2(heights) - (1 - share) * np.log2(weights)
        yield np.exp2(np.round(np.clip(wanted - wanted.mean(), -16, 16))).astype(np.float32)
    for count in _TAMED:
        if count < len(heights):
            yield np.exp2(np.ceil(np.log2(np.maximum(heights / np.sort(heights)[-count - 1], 1)))).astype(np.float32)


def _error(product: _Product, factors: Floats) -> float:
    """Return the mean square by which bytes change the output of a product that is smoothed by `factors`.

    An estimate, for comparison: weights go to the nearest step here, without the care of `saturation.py`.
    """
    weight = product.weight * factors[:, None]
    steps = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / 127
    rounded = np.concatenate([_rounded(given / factors) for given in product.inputs])
    change = rounded @ (np.round(weight / steps) * steps) - np.concatenate(product.inputs) @ product.weight
    return float(np.square(change).mean())


def _rounded(given: Floats) -> Floats:
    """Return what is left of an input in 256 even steps from its least value to its greatest, as at run time."""
    low, high = min(float(given.min()), 0.0), max(float(given.max()), 0.0)
    step = max((high - low) / 255, float(np.finfo(np.float32).tiny))
    zero = round(-low / step)
    return np.asarray((np.clip(np.round(given / step) + zero, 0, 255) - zero) * step, np.float32)


def _divide(model: ModelProto, factors: Mapping[str, Floats]) -> None:
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    nodes = []
    for node in graph.node:
        if node.name in factors:
            weight, even = tensors[node.input[1]], f"{node.name}_even"
            scaled = numpy_helper.to_array(weight) * factors[node.name][:, None]
            weight.CopyFrom(numpy_helper.from_array(scaled, weight.name))
            graph.initializer.append(numpy_helper.from_array(1 / factors[node.name], f"{even}_factors"))
            nodes.append(helper.make_node("Mul", [node.input[0], f"{even}_factors"], [even], name=f"{even}_Mul"))
            node.input[0] = even
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
