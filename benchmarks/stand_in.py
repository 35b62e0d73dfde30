"""A student of 2 layers and 128 dimensions with random weights: what its size costs, not what it knows."""

import shutil
from pathlib import Path

from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from export.bundle import BundleManifest, write_bundle
from export.graph import export_graph
from export.quantize import quantize_int8


def make_small_bundle(like: Path, folder: Path) -> Path:
    """Write an int8 bundle with the tokenizer and labels of the checkpoint `like` under `folder`; return it."""
    known, tokenizer = BertConfig.from_pretrained(like), AutoTokenizer.from_pretrained(like)
    config = BertConfig(
        vocab_size=known.vocab_size,
        hidden_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=512,
        max_position_embeddings=known.max_position_embeddings,
        id2label=known.id2label,
        label2id=known.label2id,
        problem_type="single_label_classification",
    )
    checkpoint, bundle = folder / "checkpoint", folder / "bundle"
    BertForSequenceClassification(config).eval().save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    models = {"fp32": folder / "model.onnx", "int8": folder / "model_quantized.onnx"}
    export_graph(checkpoint, models["fp32"])
    quantize_int8(models["fp32"], models["int8"])
    labels = tuple(known.id2label[index] for index in range(len(known.id2label)))
    limit = int(tokenizer.model_max_length)
    manifest = BundleManifest(name="small", kind="single_label", labels=labels, max_tokens=limit, precision="int8")
    shutil.rmtree(bundle, ignore_errors=True)
    write_bundle(checkpoint, models, bundle, manifest, {})
    return bundle
