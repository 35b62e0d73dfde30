from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export.classifier import OnnxClassifier
from export.graph import export_graph, prove_parity
from export.quantize import quantize_int8

TEXTS = ["my parcel has not arrived", "my card was declined", "where is my parcel", "the card was stolen"]


@pytest.fixture
def sharing(tiny_classifier: Path, tmp_path: Path) -> Path:
    """A checkpoint in which four tokens in five read the row of another one."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
    words = model.get_input_embeddings().weight
    with torch.no_grad():
        words.copy_(words[torch.arange(len(words)) // 5 * 5])
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_classifier).save_pretrained(tmp_path)
    return tmp_path


def tables(path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the constants that a Gather of the file at `path` reads."""
    graph = onnx.load(path).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return [constants[node.input[0]] for node in graph.node if node.op_type == "Gather" and node.input[0] in constants]


def test_a_row_that_many_tokens_read_is_stored_once(sharing: Path, tmp_path: Path) -> None:
    rewrites = export_graph(sharing, tmp_path / "model.onnx", TEXTS)
    vocabulary, width = AutoModelForSequenceClassification.from_pretrained(sharing).get_input_embeddings().weight.shape
    assert all(rewrite.applied for rewrite in rewrites)
    assert tables(tmp_path / "model.onnx") == [(vocabulary,), (-(-vocabulary // 5), width)]
    assert prove_parity(sharing, tmp_path / "model.onnx", TEXTS) < 1e-4


def test_a_table_without_repeated_rows_stays(tiny_classifier: Path, tmp_path: Path) -> None:
    export_graph(tiny_classifier, tmp_path / "model.onnx", TEXTS)
    assert [len(shape) for shape in tables(tmp_path / "model.onnx")] == [2]


def test_the_int8_file_shares_rows_too(sharing: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    export_graph(sharing, source, TEXTS)
    quantize_int8(source, target)
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(target).graph.initializer}
    rows = [kinds[name] for name in kinds if ".rows" in name and name.endswith("_quantized")]
    assert rows == [onnx.TensorProto.UINT8]
    tokenizer = tmp_path / "tokenizer.json"
    exact, rounded = (OnnxClassifier(path, tokenizer, 16, 1).logits(TEXTS) for path in (source, target))
    assert np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max() + 0.05
    assert onnxruntime.InferenceSession(target).get_inputs()[0].name == "input_ids"
