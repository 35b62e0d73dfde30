"""A student before its training, exported as int8: how fast it will be does not depend on what it will have learned.

The file is the preset variant; `export.plan: measured` may find a faster one later, which is then measured itself.
"""

import shutil
from pathlib import Path

from distill.train import TrainInputs, draft_student
from export.bundle import BundleManifest, write_bundle
from export.errors import ExportError
from export.graph import export_graph
from export.head import finish_head
from export.variants import PRESET, build_variants, plain_material
from student.spec import StudentSpec
from teacher.corpus import read_part

BUNDLE = "bundle"
_PROOF_TEXTS = 256


def export_draft(inputs: TrainInputs, source: str, spec: StudentSpec, directory: Path) -> None:
    """Fill `directory` with the bundle of a student that starts from the checkpoint `source` and learns nothing.

    Raises StudentError when there can be no such student, ExportError when it cannot be quantized.
    """
    work, task = directory / ".work", inputs.task
    for leftover in (".work", BUNDLE):  # of an interrupted run
        shutil.rmtree(directory / leftover, ignore_errors=True)
    texts = [example.text for example in read_part(inputs.corpus, "pool")]
    draft = draft_student(inputs, source, spec, texts)
    draft.save(work)
    graph = work / "graph.onnx"
    export_graph(work, graph, texts[:_PROOF_TEXTS])
    variants, failed = build_variants(plain_material(work, graph, texts), work, (PRESET,))
    if failed:
        raise ExportError(failed[PRESET])
    finish_head(variants[0].path, task.kind.value, 1.0)
    manifest = BundleManifest(
        name="untrained", kind=task.kind.value, labels=task.labels, max_tokens=draft.max_tokens, precision="int8"
    )
    write_bundle(work, {"int8": variants[0].path}, directory / BUNDLE, manifest, {})
    shutil.rmtree(work)
