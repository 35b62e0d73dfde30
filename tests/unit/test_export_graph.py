import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    PreTrainedConfig,
    RobertaConfig,
)

from export.anatomy import ClassifierParts
from export.errors import ExportError
from export.graph import MAX_DIFFERENCE, export_graph, prove_parity
from export.surgery import REWRITES, CompactClassifier

TEXTS = ["my parcel has not arrived", "the invoice is wrong", "these shoes run large", "hello"]


@pytest.fixture(scope="module")
def exported(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("graph") / "model.onnx"
    export_graph(tiny_classifier, target, TEXTS)
    return target


def _checkpoint(tiny_classifier: Path, folder: Path, config: PreTrainedConfig) -> Path:
    shutil.copytree(tiny_classifier, folder)
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
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


_SIZES: dict[str, Any] = {"vocab_size": 220, "max_position_embeddings": 80, "num_labels": 3}
_BERT_SIZES: dict[str, Any] = {
    **_SIZES,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
_COMPACT = [
    DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **_SIZES),
    RobertaConfig(**_BERT_SIZES, pad_token_id=0),
    ElectraConfig(**_BERT_SIZES, embedding_size=8),
]
_AS_THEY_ARE = [
    DebertaV2Config(**_BERT_SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=16),
    ModernBertConfig(**_BERT_SIZES, pad_token_id=0, cls_token_id=2, sep_token_id=3, local_attention=8),
]


@pytest.mark.parametrize("config", _COMPACT, ids=lambda config: config.model_type)
def test_an_architecture_of_the_table_takes_every_rewrite(
    tiny_classifier: Path, tmp_path: Path, config: PreTrainedConfig
) -> None:
    checkpoint = _checkpoint(tiny_classifier, tmp_path / "checkpoint", config)
    rewrites = export_graph(checkpoint, tmp_path / "model.onnx", TEXTS)
    assert [(rewrite.name, rewrite.applied) for rewrite in rewrites] == [(name, True) for name in REWRITES]
    assert prove_parity(checkpoint, tmp_path / "model.onnx", TEXTS) <= MAX_DIFFERENCE / 10


@pytest.mark.parametrize("config", _AS_THEY_ARE, ids=lambda config: config.model_type)
def test_another_architecture_is_exported_as_it_is_with_the_reason(
    tiny_classifier: Path, tmp_path: Path, config: PreTrainedConfig
) -> None:
    checkpoint = _checkpoint(tiny_classifier, tmp_path / "checkpoint", config)
    rewrites = export_graph(checkpoint, tmp_path / "model.onnx", TEXTS)
    assert {(rewrite.applied, rewrite.change) for rewrite in rewrites} == {(False, None)}
    assert f"{type(config).__name__.removesuffix('Config')}ForSequenceClassification is none of" in rewrites[0].reason
    assert prove_parity(checkpoint, tmp_path / "model.onnx", TEXTS) <= MAX_DIFFERENCE


def test_a_decoder_keeps_its_causal_mask(tiny_classifier: Path, tmp_path: Path) -> None:
    checkpoint = _checkpoint(tiny_classifier, tmp_path / "checkpoint", BertConfig(**_BERT_SIZES, is_decoder=True))
    rewrites = export_graph(checkpoint, tmp_path / "model.onnx")
    assert "is_decoder" in rewrites[0].reason
    assert prove_parity(checkpoint, tmp_path / "model.onnx", TEXTS) <= MAX_DIFFERENCE


def test_a_padding_token_inside_a_roberta_text_keeps_its_position_an_input(
    tiny_classifier: Path, tmp_path: Path
) -> None:
    checkpoint = _checkpoint(tiny_classifier, tmp_path / "checkpoint", _COMPACT[1])
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    with torch.no_grad():
        model.roberta.embeddings.position_embeddings.weight.mul_(50)
    model.save_pretrained(checkpoint)
    rewrites = export_graph(checkpoint, tmp_path / "model.onnx", ["my [PAD] parcel"])
    assert [rewrite.applied for rewrite in rewrites] == [False, True, True, True]
    assert "changes a logit by" in rewrites[0].reason
    assert prove_parity(checkpoint, tmp_path / "model.onnx", ["my [PAD] parcel"]) <= MAX_DIFFERENCE


def test_the_graph_takes_ids_and_mask_and_gives_logits(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported)
    assert [(put.name, put.type) for put in session.get_inputs()] == [
        ("input_ids", "tensor(int64)"),
        ("attention_mask", "tensor(int64)"),
    ]
    assert [(put.name, put.shape) for put in session.get_outputs()] == [("logits", ["batch", 3])]


def test_the_last_layer_feeds_forward_for_the_first_position_only(exported: Path) -> None:
    model = onnx.load(exported)
    wide = [node.output[0] for node in model.graph.node if node.op_type == "Gelu"]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in wide)
    ids = np.ones((2, 6), np.int64)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(wide, {"input_ids": ids, "attention_mask": ids})
    assert [values.shape[1] for values in found] == [6, 6, 6, 1]


def test_no_attention_is_left_in_pieces(exported: Path) -> None:
    kinds = [node.op_type for node in onnx.load(exported).graph.node]
    assert (kinds.count("Attention"), kinds.count("Softmax")) == (4, 0)


def test_a_rewrite_that_shows_in_the_logits_is_left_out_alone(
    tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OtherLogits(CompactClassifier):
        def __init__(self, parts: ClassifierParts, rewrites: frozenset[str], longest: int | None) -> None:
            super().__init__(parts, rewrites, longest)
            self.error = 0.01 if "packed_projections" in rewrites else 0.0

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return super().forward(input_ids, attention_mask) + self.error

    monkeypatch.setattr("export.surgery.CompactClassifier", OtherLogits)
    rewrites = export_graph(tiny_classifier, tmp_path / "model.onnx", TEXTS)
    assert [(rewrite.applied, rewrite.reason) for rewrite in rewrites] == [
        (True, ""),
        (False, "changes a logit by 0.01"),
        (True, ""),
        (True, ""),
    ]
    assert prove_parity(tiny_classifier, tmp_path / "model.onnx", TEXTS) <= MAX_DIFFERENCE


def test_a_plain_graph_is_the_model_as_transformers_computes_it(tiny_classifier: Path, tmp_path: Path) -> None:
    assert export_graph(tiny_classifier, tmp_path / "model.onnx", TEXTS, plain=True) == []
    assert "Softmax" in {node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node}


def test_a_changed_weight_fails_the_parity_proof(tiny_classifier: Path, exported: Path, tmp_path: Path) -> None:
    damaged = _damage(exported, tmp_path / "damaged.onnx", "head.1.weight")
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


def test_positions_that_no_text_reaches_are_left_out_but_for_padding(
    tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.graph._PADDING", 8)
    checkpoint = shutil.copytree(tiny_classifier, tmp_path / "short")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    tokenizer.model_max_length = 16
    tokenizer.save_pretrained(checkpoint)
    export_graph(checkpoint, tmp_path / "model.onnx", TEXTS)
    tables = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    assert tables["embeddings.positions"] == (24, 16)
    assert prove_parity(checkpoint, tmp_path / "model.onnx", TEXTS) < 1e-5
