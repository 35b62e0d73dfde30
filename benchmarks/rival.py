"""The rival's environment and models: optimum-onnx and sentence-transformers with the versions that go together.

    python benchmarks/rival.py        # makes .cache/optimum, which the end-to-end test of Optimum uses too

Their exporters run in that environment, on the same checkpoint that our bundle was made from. What is large and the
same for both (torch, onnxruntime, numpy) is linked from our own environment, so it takes seconds to make.
"""

from pathlib import Path

from environments import Environment

OPTIMUM = Environment(
    "optimum",
    ("optimum==2.1.0", "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "sentence-transformers==5.1.2"),
    shared=("torch", "onnxruntime", "onnx", "numpy", "scipy", "scikit-learn"),
)
_EXPORT = """
import sys
from optimum.onnxruntime import ORTModelForSequenceClassification, ORTQuantizer
from optimum.onnxruntime.configuration import AutoQuantizationConfig
from transformers import AutoTokenizer
checkpoint, folder = sys.argv[1:]
ORTModelForSequenceClassification.from_pretrained(checkpoint, export=True).save_pretrained(folder)
AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
preset = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
ORTQuantizer.from_pretrained(folder, file_name="model.onnx").quantize(save_dir=folder, quantization_config=preset)
"""
_EXPORT_SENTENCES = """
import sys
from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model, models
checkpoint, folder = sys.argv[1:]
words = models.Transformer(checkpoint)
SentenceTransformer(modules=[words, models.Pooling(words.get_word_embedding_dimension())]).save(folder)
model = SentenceTransformer(folder, backend="onnx", model_kwargs={"export": True})
model.save_pretrained(folder)
export_dynamic_quantized_onnx_model(model, "avx512_vnni", folder)
"""


def rival_python() -> Path:
    """Return the interpreter of the rival's environment, made when it is not there."""
    return OPTIMUM.python()


def versions() -> str:
    """Return what is installed there, in words."""
    return OPTIMUM.versions("optimum-onnx", "transformers", "sentence-transformers", "onnxruntime")


def export_classifier(checkpoint: Path, folder: Path) -> Path:
    """Export `checkpoint` as Optimum does it, int8 with its avx512_vnni preset, per channel; return the folder."""
    OPTIMUM.run("-c", _EXPORT, str(checkpoint.resolve()), str(folder))
    return folder


def export_sentences(checkpoint: Path, folder: Path) -> Path:
    """Export the encoder of `checkpoint` as sentence-transformers does it, int8 for avx512_vnni; return the folder."""
    OPTIMUM.run("-c", _EXPORT_SENTENCES, str(checkpoint.resolve()), str(folder))
    return folder


if __name__ == "__main__":
    print(versions())
