"""Tiny students as the export stage makes them, sound or made bad in the ways that have happened to somebody.

They are trained to tell the texts of the suite's corpus apart, so that damage shows.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from distill.trial import Examined, Trial
from export.coverage import count_products, load_graph
from export.graph import export_graph
from export.quantize import quantize_int8
from export.spec import ExportSpec
from teacher.corpus import prepare_corpus
from teacher.spec import DataSpec, TaskSpec
from teacher.task import Task, TaskKind
from tests.conftest import LABELS, corpus_rows, write_classifier, write_csv, write_encoder

_WEIGHTS_GAIN = 5  # the small random start of BERT gives all texts nearly the same features
_STEPS, _LEARNING_RATE = 60, 5e-3
Values = NDArray[Any]


def write_faults_corpus(folder: Path) -> Path:
    """Write and prepare a corpus of three labels in `folder`, and return it."""
    rows = corpus_rows()
    for name, part in (("dev", rows[::3]), ("gold", rows[1::3]), ("test", rows[2::9])):
        write_csv(folder / f"{name}.csv", ["text", "label"], [*part])
    write_csv(folder / "pool.csv", ["text"], [(text,) for text, _ in rows[1::3]])
    data = DataSpec(unlabeled=["pool.csv"], gold="gold.csv", dev="dev.csv", test="test.csv")
    prepare_corpus(data, TaskSpec(), folder, folder / "corpus", seed=0)
    return folder / "corpus"


@dataclass(frozen=True, slots=True)
class Student:
    """A trained checkpoint, and its fp32 answers as every int8 file of it is compared with."""

    checkpoint: Path
    trial: Trial
    graph: Path
    fp32: Examined


def make_student(folder: Path, corpus: Path, seed: int) -> Student:
    """Train a tiny classifier on the dev part of `corpus`, so that damage shows, and export it to `folder`."""
    checkpoint = write_classifier(write_encoder(folder / "encoder", seed), folder / "checkpoint", seed)
    trial = Trial(checkpoint, corpus, Task(TaskKind.SINGLE_LABEL, LABELS), ExportSpec())
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    tokens = AutoTokenizer.from_pretrained(checkpoint)(trial.texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        for weight in model.bert.parameters():
            if weight.dim() == 2:
                weight.mul_(_WEIGHTS_GAIN)
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    for _ in range(_STEPS):
        optimizer.zero_grad()
        model(**tokens, labels=torch.from_numpy(trial.targets).argmax(dim=1)).loss.backward()
        optimizer.step()
    model.save_pretrained(checkpoint)
    graph, examined = folder / "graph.onnx", folder / "fp32.onnx"
    export_graph(checkpoint, graph, trial.texts[:32])
    return Student(checkpoint, trial, graph, trial.examine(Path(shutil.copyfile(graph, examined))))


def judge_int8_of(student: Student, target: Path, damage: str | None = None) -> dict[str, bool]:
    """Quantize a student to `target`, damage it as DAMAGES says, and return the verdict of each gate."""
    tensor_name, change, _ = DAMAGES[damage] if damage else ("", None, "")
    quantize_int8(student.graph, target, [] if tensor_name or not damage else _layer(student.graph))
    if tensor_name and change:
        _change(target, tensor_name, change)
    coverage, _ = count_products(load_graph(target))
    gates = student.trial.judge(student.fp32, student.trial.examine(target), coverage)
    return {gate.name: gate.passed for gate in gates}


def _layer(graph: Path) -> list[str]:
    return [node.name for node in load_graph(graph).graph.node if node.name.startswith("/layers.0/")]


def _change(path: Path, tensor_name: str, change: Callable[[Values], Values]) -> None:
    model = onnx.load(path)
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == tensor_name)
    values = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), tensor_name))
    onnx.save(model, path)


# What is made of which tensor (none: a layer stays fp32), and the gate that has to say so.
DAMAGES: Mapping[str, tuple[str, Callable[[Values], Values], str]] = {
    "a scale of the wrong sign": (
        "head.1.weight_scale", lambda values: values * np.array([-1, 1, 1]), "quality_drop"),
    "an embedding table of zeros": ("embeddings.words.weight_scale", lambda values: values * 0, "quality_drop"),
    "labels swapped": ("head.1.weight_quantized", lambda values: values[:, [1, 0, 2]], "quality_drop"),
    "a class never answered": ("head.1.bias", lambda values: values - np.array([0, 99, 0]), "worst_class_drop"),
    "a value that is no number": ("head.1.bias", lambda values: values * np.nan, "not_a_number"),
    "a bias off": ("layers.1.widen.bias", lambda values: values + 9, "kl_divergence"),
    "a layer left in fp32": ("", lambda values: values, "int8_coverage"),
    "a normalisation lost": ("layers.3.narrow_norm.weight", lambda values: values * 0, "quality_drop"),
}  # fmt: skip
