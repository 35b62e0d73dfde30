"""The rival's environment and models: optimum-onnx and sentence-transformers with the versions that go together.

    python benchmarks/rival.py        # makes .cache/optimum, which the end-to-end test of Optimum uses too

Their exporters run in that environment, on the same checkpoint that our bundle was made from. What is large and the
same for both (torch, onnxruntime, numpy) is linked from our own environment, so it takes seconds to make.
"""

import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from lines import MeasureError
from runs import ROOT

FOLDER = ROOT / ".cache" / "optimum"
_PINS = ("optimum==2.1.0", "optimum-onnx[onnxruntime]==0.1.0", "transformers==4.57.6", "sentence-transformers==5.1.2")
# As constraints.txt has them: only the rival's own code differs.
_SHARED = ("torch", "onnxruntime", "onnx", "numpy", "scipy", "scikit-learn")
_FIND_PACKAGES = "import sysconfig; print(sysconfig.get_path('purelib'))"
_VERSIONS = """
from importlib.metadata import version
print(", ".join(f"{n} {version(n)}" for n in ("optimum-onnx", "transformers", "sentence-transformers", "onnxruntime")))
"""
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
    python = FOLDER / "bin" / "python"
    finished = FOLDER / "pins.txt"
    wanted = [*_PINS, *(line for line in _constraints() if line.partition("==")[0] in _SHARED)]
    made_of = "\n".join([*wanted, str(distribution("torch").locate_file(""))])
    if not (finished.is_file() and finished.read_text(encoding="utf-8") == made_of):
        _run([sys.executable, "-m", "venv", "--clear", str(FOLDER)])
        _link_shared(Path(_run([str(python), "-c", _FIND_PACKAGES]).strip()))
        install = ["install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        _run([str(python), "-m", "pip", *install, *wanted])
        finished.write_text(made_of, encoding="utf-8")
    return python


def _link_shared(packages: Path) -> None:
    for name in _SHARED:
        ours = distribution(name)
        for top in {file.parts[0] for file in ours.files or ()} - {"..", "__pycache__"}:  # scripts lie outside
            (packages / top).symlink_to(str(ours.locate_file(top)))


def versions() -> str:
    """Return what is installed there, in words."""
    return _run([str(rival_python()), "-c", _VERSIONS]).strip()


def export_classifier(checkpoint: Path, folder: Path) -> Path:
    """Export `checkpoint` as Optimum does it, int8 with its avx512_vnni preset, per channel; return the folder."""
    _run([str(rival_python()), "-c", _EXPORT, str(checkpoint.resolve()), str(folder)])
    return folder


def export_sentences(checkpoint: Path, folder: Path) -> Path:
    """Export the encoder of `checkpoint` as sentence-transformers does it, int8 for avx512_vnni; return the folder."""
    _run([str(rival_python()), "-c", _EXPORT_SENTENCES, str(checkpoint.resolve()), str(folder)])
    return folder


def _constraints() -> list[str]:
    return (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        words = " ".join(command[:3]).partition("\n")[0]  # of a program only that there is one
        raise MeasureError(f"{words} ... ended with {done.returncode}: {''.join(last)}")
    return done.stdout


if __name__ == "__main__":
    print(versions())
