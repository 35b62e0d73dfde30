from pathlib import Path

import numpy as np
import onnx
import pytest

from export.classifier import PROBABILITIES, OnnxClassifier
from export.graph import export_graph
from export.head import finish_head
from export.metrics import ACTIVATIONS
from export.quantize import quantize_int8, quantize_static_int8, quantize_weights

TEXTS = ["my parcel has not arrived", "the invoice is wrong", "these shoes run large"]
TEMPERATURE = 2.5


@pytest.fixture(scope="module")
def graph(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("head") / "model.onnx"
    export_graph(tiny_classifier, target)
    return target


def _answers(checkpoint: Path, path: Path, output: str = "logits") -> np.ndarray:
    classifier = OnnxClassifier(path, checkpoint / "tokenizer.json", 64)
    return classifier.run_each(classifier.encode_many(TEXTS), output)


def _build(graph: Path, way: str, target: Path) -> Path:
    ids = np.array([[2, 7, 9, 3]])
    if way == "fp32":
        target.write_bytes(graph.read_bytes())
    elif way == "dynamic":
        quantize_int8(graph, target)
    elif way == "static":
        quantize_static_int8(graph, target, [{"input_ids": ids, "attention_mask": np.ones_like(ids)}])
    else:
        quantize_weights(graph, target)
    return target


@pytest.mark.parametrize("kind", ["single_label", "multi_label"])
@pytest.mark.parametrize("way", ["fp32", "dynamic", "static", "blocks"])
def test_the_temperature_divides_the_logits_without_a_node_of_its_own(
    tiny_classifier: Path, graph: Path, tmp_path: Path, kind: str, way: str
) -> None:
    path = _build(graph, way, tmp_path / "model.onnx")
    before, nodes = _answers(tiny_classifier, path), len(onnx.load(path).graph.node)
    assert finish_head(path, kind, TEMPERATURE) == ""
    assert len(onnx.load(path).graph.node) == nodes + 1
    np.testing.assert_allclose(_answers(tiny_classifier, path), before / TEMPERATURE, rtol=1e-4, atol=1e-6)
    wanted = ACTIVATIONS[kind](before / TEMPERATURE)
    np.testing.assert_allclose(_answers(tiny_classifier, path, PROBABILITIES), wanted, atol=1e-6)


def test_the_logits_stay_the_first_output(graph: Path, tmp_path: Path) -> None:
    path = _build(graph, "fp32", tmp_path / "model.onnx")
    finish_head(path, "single_label", TEMPERATURE)
    assert [output.name for output in onnx.load(path).graph.output] == ["logits", "probabilities"]


def test_weights_that_something_else_reads_are_left_alone_and_a_node_divides(
    tiny_classifier: Path, graph: Path, tmp_path: Path
) -> None:
    path = _build(graph, "fp32", tmp_path / "model.onnx")
    before, model = _answers(tiny_classifier, path), onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Identity", ["head.1.weight"], ["another_reader"]))
    onnx.save(model, path)
    assert finish_head(path, "single_label", TEMPERATURE) == "head.1.weight has other readers"
    np.testing.assert_allclose(_answers(tiny_classifier, path), before / TEMPERATURE, rtol=1e-5, atol=1e-7)
