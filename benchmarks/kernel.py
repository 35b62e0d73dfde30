"""Distance to the machine: int8 multiply-accumulates a second of a whole answer over those of one large product.

    python benchmarks/kernel.py BUNDLE [--rounds ROUNDS]

Both take turns in one process on one thread. The work of an answer is counted from the shapes that its products
really have, so that what surgery left out does not count.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from lines import Line, MeasureError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from export.bundle import MODEL_FILES
from export.classifier import LOGITS
from export.sessions import open_session

LENGTHS: Mapping[int, float | None] = {13: 0.4, 32: None, 128: 0.5}  # tokens: the least share, None: no line
_ROUNDS = 60
_CALLS = 5  # of each contender before it is the other's turn
_LARGE = (256, 768, 768)  # rows, depth, columns: of the best shapes, and about as long as an answer
_PRODUCT = "MatMulInteger"
Feed = dict[str, NDArray[np.int64]]


def kernel_lines(bundle: Path, rounds: int = _ROUNDS) -> list[Line]:
    """Return a line for each length: the int8 file of `bundle` against a large MatMulInteger."""
    path = bundle / MODEL_FILES["int8"]
    if not path.is_file():
        raise MeasureError(f"{bundle} holds no int8 file, so there is no int8 work to count")
    answer, large = open_session(path, threads=1), open_session(_large_product(), threads=1)
    left = np.random.default_rng(0).integers(0, 255, _LARGE[:2], np.uint8)
    large_work = float(np.prod(_LARGE))
    lines = []
    for tokens, least in LENGTHS.items():
        feed = _feed(answer, tokens)
        work = _multiply_accumulates(path, feed)
        taken = _race([(answer, [LOGITS], feed), (large, ["product"], {"left": left})], rounds)
        speed, most = work / taken[0], large_work / taken[1]
        lines.append(
            Line(
                f"kernel_{tokens}",
                f"{speed / most:.2f} of the machine at {tokens} tokens: {speed / 1e9:.0f} of {most / 1e9:.0f} billion "
                f"int8 multiply-accumulates a second, {work / 1e6:.1f} million in {taken[0] * 1e3:.3f} ms (p50)",
                "printed" if least is None else f">= {least:g}",
                least is None or speed / most >= least,
            )
        )
    return lines


def _feed(session: InferenceSession, tokens: int) -> Feed:
    # Low ids: every vocabulary has them.
    ids = np.random.default_rng(tokens).integers(5, 100, (1, tokens))
    return {put.name: ids if put.name == "input_ids" else np.ones_like(ids) for put in session.get_inputs()}


def _multiply_accumulates(path: Path, feed: Feed) -> float:
    """Run the file with its products as outputs and count: each element of a product is a row times a column."""
    model = onnx.load(path)
    depths = {tensor.name: tensor.dims[-2] for tensor in model.graph.initializer if len(tensor.dims) > 1}
    products = {node.output[0]: depths[node.input[1]] for node in model.graph.node if node.op_type == _PRODUCT}
    if not products:
        raise MeasureError(f"{path} holds no {_PRODUCT}; this row knows dynamically quantized files only")
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT32, None) for name in products)
    found = InferenceSession(model.SerializeToString()).run([*products], feed)
    return float(sum(values.size * depth for values, depth in zip(found, products.values(), strict=True)))


def _large_product() -> bytes:
    rows, depth, columns = _LARGE
    right = np.random.default_rng(1).integers(-127, 128, (depth, columns), np.int8)
    graph = helper.make_graph(
        [helper.make_node(_PRODUCT, ["left", "right"], ["product"])],
        "large",
        [helper.make_tensor_value_info("left", TensorProto.UINT8, [rows, depth])],
        [helper.make_tensor_value_info("product", TensorProto.INT32, [rows, columns])],
        [numpy_helper.from_array(right, "right")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def _race(contenders: Sequence[tuple[InferenceSession, list[str], Feed]], rounds: int) -> list[float]:
    """Return the median seconds of a call of each contender; each turn opens with an untimed call."""
    seconds: list[list[float]] = [[] for _ in contenders]
    for _ in range(rounds):
        for taken, (session, outputs, feed) in zip(seconds, contenders, strict=True):
            session.run(outputs, feed)
            for _ in range(_CALLS):
                started = time.perf_counter()
                session.run(outputs, feed)
                taken.append(time.perf_counter() - started)
    return [statistics.median(taken) for taken in seconds]


def main() -> int:
    """Print the lines and return the exit code."""
    parser = argparse.ArgumentParser(description="Compare the int8 speed of answers with that of one large product.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    wanted = parser.parse_args()
    lines = kernel_lines(wanted.bundle, wanted.rounds)
    print(*lines, sep="\n")
    return 0 if all(line.holds for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
