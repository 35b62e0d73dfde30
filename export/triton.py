"""A bundle laid out as a model repository for NVIDIA's Triton Inference Server (its onnxruntime backend, on a CPU).

Token ids in, logits out, each label named beside its logit; the tokenizer travels with the model for the client to
use. The server is not told to merge requests: an int8 answer shifts a little with its batch-mates.
Schema: model_config.proto in https://github.com/triton-inference-server/common.
"""

import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnxruntime

from export.bundle import MODEL_FILES, BundleManifest, read_listed, read_manifest, refuse_strangers
from export.errors import ExportError

LABELS = "labels.txt"
_MOST_TEXTS = 64  # in one request
_TYPES = {
    "tensor(int64)": "TYPE_INT64",
    "tensor(int32)": "TYPE_INT32",
    "tensor(float)": "TYPE_FP32",
}


def write_triton(bundle: Path, repository: Path) -> Path:
    """Add the model that `bundle` ships to the folder `repository` as its version 1; return the model's folder.

    A model of the same name there is replaced. Raises BundleError when the bundle was changed, ExportError when a
    label cannot stand in a file of lines.
    """
    manifest = read_manifest(bundle)
    refuse_strangers(bundle, manifest)
    model = read_listed(bundle, manifest, MODEL_FILES[manifest.precision])
    if strange := [label for label in manifest.labels if label.splitlines() != [label]]:
        raise ExportError(f"found the label {strange[0]!r}, wanted labels of one line: Triton reads them from lines")
    target = repository / re.sub(r"[^\w.-]", "_", manifest.name)
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "1").mkdir(parents=True)
    (partial / "1" / "model.onnx").write_bytes(model)
    (partial / "tokenizer.json").write_bytes(read_listed(bundle, manifest, "tokenizer.json"))
    (partial / LABELS).write_text("".join(f"{label}\n" for label in manifest.labels), encoding="utf-8")
    (partial / "config.pbtxt").write_text(_config(target.name, manifest, model), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target


def _config(name: str, manifest: BundleManifest, model: bytes) -> str:
    """Return the text form of the model's ModelConfig."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    parameters: dict[str, object] = {
        # One thread an answer: raise the count of the instance group, not this, to use more cores.
        "intra_op_thread_count": 1,
        "inter_op_thread_count": 1,
        # What a client needs to turn text into ids and logits into probabilities.
        "potstill_kind": manifest.kind,
        "potstill_max_tokens": manifest.max_tokens,
        "potstill_temperature": manifest.temperature,
    }
    if manifest.thresholds is not None:
        parameters["potstill_thresholds"] = json.dumps(manifest.thresholds)
    blocks = [
        f"name: {_quoted(name)}",
        'backend: "onnxruntime"',
        f"max_batch_size: {_MOST_TEXTS}",
        *(_tensor("input", one) for one in session.get_inputs()),
        *(_tensor("output", one) for one in session.get_outputs()),
        "instance_group [ { count: 1 kind: KIND_CPU } ]",
        *(_parameter(key, value) for key, value in parameters.items()),
    ]
    return "\n".join(blocks) + "\n"


def _tensor(role: str, tensor: Any) -> str:
    if tensor.type not in _TYPES:
        raise ExportError(f"the model's {role} {tensor.name} is a {tensor.type}; Triton's layout knows {[*_TYPES]}")
    dims = ", ".join(str(size if isinstance(size, int) else -1) for size in tensor.shape[1:])  # without the batch
    label_file = f" label_filename: {_quoted(LABELS)}" if role == "output" else ""
    return (
        f"{role} [ {{ name: {_quoted(tensor.name)} data_type: {_TYPES[tensor.type]} dims: [ {dims} ]{label_file} }} ]"
    )


def _parameter(key: str, value: object) -> str:
    return f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(str(value))} }} }}"


def _quoted(text: str) -> str:
    """Return a string literal of protobuf's text format."""
    return '"' + "".join(_escaped(text)) + '"'


def _escaped(text: str) -> Iterable[str]:
    for character in text:
        if character in '"\\':
            yield "\\" + character
        elif ord(character) < 32:
            yield f"\\{ord(character):03o}"
        else:
            yield character
