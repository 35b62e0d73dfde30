from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from export.graph import export_graph
from export.quantize import Feed, quantize_int8
from export.smoothing import smooth_inputs

NARROW = "/layers.0/narrow/MatMul"
FEEDS = [
    {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
    for ids in ([2, 7, 9, 3], [2, 5, 6, 8, 3], [2, 3])
]


@pytest.fixture(scope="module")
def plain(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("smoothing") / "plain.onnx"
    export_graph(tiny_classifier, target)
    return target


@pytest.fixture(scope="module")
def uneven(plain: Path) -> Path:
    """Return a graph in which one channel between the products of a feed-forward part is far above the others."""
    model = onnx.load(plain)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weight = tensors[next(node.input[1] for node in model.graph.node if node.name == NARROW)]
    bias = tensors["layers.0.widen.bias"]
    for tensor, value in ((bias, 60.0), (weight, 0.0001)):
        changed = numpy_helper.to_array(tensor).copy()
        changed[3] = value
        tensor.CopyFrom(numpy_helper.from_array(changed, tensor.name))
    target = plain.with_name("uneven.onnx")
    onnx.save(model, target)
    return target


def answers(path: Path, feeds: list[Feed] = FEEDS) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["logits"], dict(feed))[0] for feed in feeds])


def test_an_outlier_channel_is_found_and_not_one_bit_of_an_fp32_answer_changes(uneven: Path, tmp_path: Path) -> None:
    left = smooth_inputs(uneven, tmp_path / "even.onnx", FEEDS)
    assert 0 < left[NARROW] < 0.1
    np.testing.assert_array_equal(answers(tmp_path / "even.onnx"), answers(uneven))


def test_int8_answers_through_an_evened_product_are_nearer_to_fp32(uneven: Path, tmp_path: Path) -> None:
    smooth_inputs(uneven, tmp_path / "even.onnx", FEEDS)
    products = [node.name for node in onnx.load(uneven).graph.node if node.op_type in ("MatMul", "Gemm", "Gather")]
    others = [name for name in products if name != NARROW]
    errors = []
    for source in (uneven, tmp_path / "even.onnx"):
        quantize_int8(source, tmp_path / "int8.onnx", others)
        errors.append(np.abs(answers(tmp_path / "int8.onnx") - answers(uneven)).max())
    assert errors[1] < errors[0] / 2


def test_the_layers_keep_the_names_by_which_they_fall_back_to_fp32(uneven: Path, tmp_path: Path) -> None:
    smooth_inputs(uneven, tmp_path / "even.onnx", FEEDS)
    coverage = quantize_int8(tmp_path / "even.onnx", tmp_path / "int8.onnx", [NARROW])
    assert coverage.fp32_matmuls == 1


def test_a_graph_without_outliers_stays_as_it_is(plain: Path, tmp_path: Path) -> None:
    assert smooth_inputs(plain, tmp_path / "even.onnx", FEEDS) == {}
    assert onnx.load(tmp_path / "even.onnx") == onnx.load(plain)


def test_without_a_text_nothing_is_smoothed(uneven: Path, tmp_path: Path) -> None:
    assert smooth_inputs(uneven, tmp_path / "even.onnx", []) == {}
