from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.errors import ExportError
from export.graph import export_graph
from export.quantize import quantize_int8, quantize_static_int8
from export.runtime import OnnxClassifier

TEXTS = ["my parcel has not arrived", "the invoice is wrong", "these shoes run large"]


@pytest.fixture(scope="module")
def fp32(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("quantize") / "model.onnx"
    export_graph(tiny_classifier, target)
    return target


def _first_product(path: Path) -> str:
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    return next(node.name for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights)


def test_every_constant_weight_product_becomes_int8(fp32: Path, tmp_path: Path) -> None:
    coverage = quantize_int8(fp32, tmp_path / "int8.onnx")
    # Four products a layer with packed query, key and value, one more in the last; pooler and classifier.
    assert coverage.int8_matmuls == 4 * 4 + 1 + 2
    assert (coverage.fp32_matmuls, coverage.int8_macs_share) == (0, 1.0)


def test_no_matrix_and_no_table_but_that_of_positions_is_left_as_floats(fp32: Path, tmp_path: Path) -> None:
    quantize_int8(fp32, tmp_path / "int8.onnx")
    tensors = onnx.load(tmp_path / "int8.onnx").graph.initializer
    floats = [tensor.name for tensor in tensors if tensor.data_type == 1 and len(tensor.dims) > 1]
    assert floats == ["embeddings.positions"]


def test_attention_of_onnx_keeps_reading_floats(fp32: Path, tmp_path: Path) -> None:
    quantize_int8(fp32, tmp_path / "int8.onnx")
    kinds = [(node.domain, node.op_type) for node in onnx.load(tmp_path / "int8.onnx").graph.node]
    assert kinds.count(("", "Attention")) == 4
    assert {domain for domain, _ in kinds} == {""}


def test_int8_logits_stay_close_to_fp32_logits(tiny_classifier: Path, fp32: Path, tmp_path: Path) -> None:
    quantize_int8(fp32, tmp_path / "int8.onnx")
    logits = [
        OnnxClassifier(path, tiny_classifier / "tokenizer.json", 64).logits(TEXTS)
        for path in (fp32, tmp_path / "int8.onnx")
    ]
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.05


@pytest.mark.parametrize("is_static", [False, True])
def test_weights_of_every_product_are_near_their_floats_and_cannot_saturate(
    fp32: Path, tmp_path: Path, is_static: bool
) -> None:
    target = tmp_path / "int8.onnx"
    feed = {"input_ids": np.array([[2, 5, 9, 3]]), "attention_mask": np.ones((1, 4), np.int64)}
    _ = quantize_static_int8(fp32, target, [feed]) if is_static else quantize_int8(fp32, target)
    floats = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(fp32).graph.initializer}
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(target).graph.initializer}
    gemms = {node.input[1] for node in onnx.load(fp32).graph.node if node.op_type == "Gemm"}
    products = [name for name, array in found.items() if array.dtype == np.int8 and array.ndim == 2]
    assert len(products) == 4 * 4 + 1 + 2
    for name in products:
        origin = name.removesuffix("_quantized")
        weight = floats[origin].T if origin in gemms else floats[origin]  # (inputs, outputs)
        rounded = found[name].T if is_static and origin in gemms else found[name]
        steps, whole = found[f"{origin}_scale"], rounded.astype(int)
        assert np.abs(whole[0::2] + whole[1::2]).max() <= 128, name
        assert np.sqrt(np.square(whole * steps - weight).mean()) < 0.02 * weight.std(), name


def test_one_file_and_nothing_else_is_written(fp32: Path, tmp_path: Path) -> None:
    quantize_int8(fp32, tmp_path / "int8.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["int8.onnx"]
    assert [path.name for path in fp32.parent.iterdir()] == ["model.onnx"]


def test_an_allowed_product_stays_fp32_and_is_counted(fp32: Path, tmp_path: Path) -> None:
    coverage = quantize_int8(fp32, tmp_path / "int8.onnx", [_first_product(fp32)])
    assert coverage.fp32_matmuls == 1
    assert 0.5 < coverage.int8_macs_share < 1.0


def test_an_allowed_gemm_keeps_its_name(fp32: Path, tmp_path: Path) -> None:
    gemms = [node.name for node in onnx.load(fp32).graph.node if node.op_type == "Gemm"]
    assert quantize_int8(fp32, tmp_path / "int8.onnx", gemms).fp32_matmuls == len(gemms) == 2


def test_a_product_that_cannot_be_int8_is_named_and_no_file_is_left(fp32: Path, tmp_path: Path) -> None:
    model = onnx.load(fp32)
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    next(attribute for attribute in gemm.attribute if attribute.name == "alpha").f = 0.5
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="1 constant-weight products stayed fp32") as caught:
        quantize_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert gemm.name in str(caught.value)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_file_that_is_no_onnx_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(ExportError, match="cannot be read as ONNX") as caught:
        quantize_int8(tmp_path / "model.onnx", tmp_path / "int8.onnx")
    assert "model.onnx" in str(caught.value)
