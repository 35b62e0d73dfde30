from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from export.classifier import OnnxClassifier
from export.graph import export_graph, prove_parity
from export.quantize import quantize_int8, quantize_static_int8
from student.coding import code_tokens, embed_by_codes, save_checkpoint

TEXTS = ["my parcel has not arrived", "my card was declined", "where is my parcel", "the card was stolen"]


@pytest.fixture
def coded(tiny_classifier: Path, tmp_path: Path) -> Path:
    """A checkpoint of which every fifth token has a row of its own and the others have codes."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
    words = model.get_input_embeddings().weight
    embed_by_codes(model, code_tokens(words, np.arange(0, len(words), 5)))
    save_checkpoint(model, tmp_path)
    AutoTokenizer.from_pretrained(tiny_classifier).save_pretrained(tmp_path)
    return tmp_path


def tables(path: Path) -> list[tuple[int, ...]]:
    """Return the shapes of the constants that a Gather of the file at `path` reads."""
    graph = onnx.load(path).graph
    constants = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return [constants[node.input[0]] for node in graph.node if node.op_type == "Gather" and node.input[0] in constants]


def test_codes_are_stored_in_place_of_rows(coded: Path, tmp_path: Path) -> None:
    rewrites = export_graph(coded, tmp_path / "model.onnx", TEXTS)
    vocabulary, width = AutoModelForSequenceClassification.from_pretrained(coded).get_input_embeddings().weight.shape
    owners = -(-vocabulary // 5)
    assert all(rewrite.applied for rewrite in rewrites)
    assert tables(tmp_path / "model.onnx") == [
        (vocabulary,),
        (owners + 1, width),
        (vocabulary, 16),
        (16 * 256, width // 16),
    ]
    assert prove_parity(coded, tmp_path / "model.onnx", TEXTS) < 1e-4


def test_a_checkpoint_without_codes_has_one_table(tiny_classifier: Path, tmp_path: Path) -> None:
    export_graph(tiny_classifier, tmp_path / "model.onnx", TEXTS)
    assert [len(shape) for shape in tables(tmp_path / "model.onnx")] == [2]


def test_a_table_that_was_trained_further_is_stored_as_it_is(coded: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(coded)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.01)
    model.save_pretrained(coded)
    export_graph(coded, tmp_path / "model.onnx", TEXTS)
    assert tables(tmp_path / "model.onnx") == [tuple(model.get_input_embeddings().weight.shape)]
    assert prove_parity(coded, tmp_path / "model.onnx", TEXTS) < 1e-4


def test_the_int8_file_has_codes_too(coded: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "int8.onnx"
    export_graph(coded, source, TEXTS)
    quantize_int8(source, target)
    tokenizer = tmp_path / "tokenizer.json"
    exact, rounded = (OnnxClassifier(path, tokenizer, 16, 1).logits(TEXTS) for path in (source, target))
    assert np.abs(exact - rounded).max() < 0.1 * np.abs(exact).max() + 0.05
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(target).graph.initializer}
    assert {kinds[name] for name in kinds if name.endswith((".rows_quantized", ".codebook_quantized"))} == {
        onnx.TensorProto.UINT8
    }


def test_a_product_that_texts_without_codes_leave_at_zero_gets_no_scale_from_them(coded: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "model.onnx", tmp_path / "static.onnx"
    export_graph(coded, source, TEXTS)
    owned = np.array([[5, 10, 15, 20, 25]])  # every fifth token has a row
    coverage = quantize_static_int8(source, target, [{"input_ids": owned, "attention_mask": np.ones_like(owned)}])
    assert coverage.fp32_matmuls == 1
    kinds = {tensor.name: tensor.data_type for tensor in onnx.load(target).graph.initializer}
    assert [kinds[name] for name in kinds if ".directions" in name] == [onnx.TensorProto.FLOAT]
