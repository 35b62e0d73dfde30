import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from export.errors import ExportError
from export.graph import MAX_DIFFERENCE, export_graph, prove_parity
from export.surgery import CompactBert

TEXTS = ["my parcel has not arrived", "the invoice is wrong", "these shoes run large", "hello"]


@pytest.fixture(scope="module")
def exported(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_graph(tiny_classifier, target)
    return target


def _as_distilbert(tiny_classifier: Path, folder: Path) -> Path:
    shutil.copytree(tiny_classifier, folder)
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=220, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64, num_labels=3
    )
    DistilBertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _damage(source: Path, target: Path, part: str) -> Path:
    model = onnx.load(source)
    tensor = next(tensor for tensor in model.graph.initializer if part in tensor.name)
    values = onnx.numpy_helper.to_array(tensor) + np.float32(0.01)
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, target)
    return target


def test_odd_shapes_of_real_texts_give_the_logits_of_torch(tiny_classifier: Path, exported: Path) -> None:
    assert prove_parity(tiny_classifier, exported, TEXTS) <= MAX_DIFFERENCE / 10


def test_an_architecture_without_a_compact_form_is_exported_as_it_is(tiny_classifier: Path, tmp_path: Path) -> None:
    checkpoint = _as_distilbert(tiny_classifier, tmp_path / "distilbert")
    export_graph(checkpoint, tmp_path / "model.onnx")
    assert prove_parity(checkpoint, tmp_path / "model.onnx", TEXTS) <= MAX_DIFFERENCE


def test_the_graph_takes_ids_and_mask_and_gives_logits(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    assert [(put.name, put.type) for put in session.get_inputs()] == [
        ("input_ids", "tensor(int64)"),
        ("attention_mask", "tensor(int64)"),
    ]
    assert [(put.name, put.shape) for put in session.get_outputs()] == [("logits", ["batch", 3])]


def test_the_last_layer_feeds_forward_for_the_first_position_only(exported: Path) -> None:
    model = onnx.load(exported)
    wide = [node.output[0] for node in model.graph.node if node.op_type == "Erf"]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in wide)
    ids = np.ones((2, 6), np.int64)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(wide, {"input_ids": ids, "attention_mask": ids})
    assert [values.shape[1] for values in found] == [6, 6, 6, 1]


def test_a_model_that_differs_from_its_compact_form_is_exported_as_it_is(
    tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OtherLogits(CompactBert):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return super().forward(input_ids, attention_mask) + 0.01

    monkeypatch.setattr("export.graph.CompactBert", OtherLogits)
    export_graph(tiny_classifier, tmp_path / "model.onnx")
    assert prove_parity(tiny_classifier, tmp_path / "model.onnx", TEXTS) <= MAX_DIFFERENCE


def test_a_changed_weight_fails_the_parity_proof(tiny_classifier: Path, exported: Path, tmp_path: Path) -> None:
    damaged = _damage(exported, tmp_path / "damaged.onnx", "classifier.weight")
    with pytest.raises(ExportError, match="logits differ from torch") as caught:
        prove_parity(tiny_classifier, damaged, TEXTS)
    assert "at most 0.0001" in str(caught.value)


def test_a_checkpoint_without_a_trained_head_is_refused(tiny_encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"lacks the weights classifier\.bias, classifier\.weight"):
        export_graph(tiny_encoder, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_folder_without_a_model_is_refused_with_what_was_wanted(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"wanted a folder with config\.json") as caught:
        export_graph(tmp_path, tmp_path / "model.onnx")
    assert str(tmp_path) in str(caught.value)


def test_parity_needs_a_text(tiny_classifier: Path, exported: Path) -> None:
    with pytest.raises(ExportError, match="pass at least one text") as caught:
        prove_parity(tiny_classifier, exported, [])
    assert isinstance(caught.value, ExportError)


def test_a_file_that_is_no_onnx_model_is_named(tiny_classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="does not open") as caught:
        prove_parity(tiny_classifier, tmp_path / "model.onnx", TEXTS)
    assert "model.onnx" in str(caught.value)


def test_exporting_leaves_the_checkpoint_as_it_was(tiny_classifier: Path, exported: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tiny_classifier)
    assert exported.is_file()
    assert sorted(path.name for path in exported.parent.iterdir()) == ["model.onnx"]
    assert model.config.num_labels == 3
