"""Export a tuned student: an fp32 graph after surgery, the int8 file that passed its gates, and the bundle."""

import shutil
from dataclasses import asdict
from pathlib import Path

import student.static  # noqa: F401  (transformers opens a static student from here on)
from distill.shortlist import Choice, Shortlist
from distill.trial import Examined, Trial
from export.bundle import BundleManifest, Precision, write_bundle
from export.examples import EXAMPLES
from export.graph import export_graph, prove_parity
from export.variants import plain_material

_PROOF_TEXTS = 256  # on which each rewrite of the graph has to hold


def package(trial: Trial, directory: Path, *, lineage: dict[str, str]) -> None:
    """Fill `directory` with the bundle of the student of `trial`.

    The fastest int8 file whose gates pass ships; otherwise fp32 ships and the manifest keeps the gates that
    failed. Raises ExportError when the graph does not answer as torch does.
    """
    for leftover in (".onnx", ".bundle", "onnx"):  # of an interrupted run
        shutil.rmtree(directory / leftover, ignore_errors=True)
    work, student, task, spec = directory / ".onnx", trial.student, trial.task, trial.spec
    graph = work / "graph.onnx"
    rewrites = export_graph(student, graph, trial.texts[:_PROOF_TEXTS])
    prove_parity(student, graph, trial.texts)
    tokenizer_gate = trial.judge_tokenizer()
    shortlist = Shortlist(trial, plain_material(student, graph, trial.pool or trial.texts), work, task.kind)
    choice = shortlist.choose(spec)
    rewrites.append(shortlist.evened)
    about = {"plan": spec.plan, "rewrites": [asdict(rewrite) for rewrite in rewrites], **_about(choice)}
    files: dict[Precision, Examined] = {"fp32": shortlist.fp32, choice.precision: choice.shipped}
    manifest = BundleManifest(
        name=directory.parent.name,
        kind=task.kind.value,
        labels=task.labels,
        max_tokens=trial.max_tokens,
        precision=choice.precision,
        thresholds=None
        if choice.shipped.thresholds is None
        else dict(zip(task.labels, choice.shipped.thresholds.tolist(), strict=True)),
        too_long=spec.too_long,
        gates=(*choice.gates, tokenizer_gate),
        abstain=trial.promise(choice.shipped),
        scope=trial.scope(choice.shipped),
        lineage=dict(lineage),
        export=about,
        answers={precision: trial.remember(examined) for precision, examined in files.items()},
    )
    models = {precision: examined.path for precision, examined in files.items()}
    bundle = directory / ".bundle"
    more = {} if spec.examples is None else {EXAMPLES: trial.examples(choice.shipped, spec.examples)}
    write_bundle(student, models, bundle, manifest, trial.test_quality(choice.shipped), more)
    shutil.rmtree(work)
    for path in bundle.iterdir():
        path.rename(directory / path.name)
    bundle.rmdir()


def _about(choice: Choice) -> dict[str, object]:
    return {
        **choice.about,
        "kept_fp32": list(choice.kept_fp32),
        "temperature": choice.shipped.temperature,
        "temperature_folded": not choice.shipped.unfolded,
        "temperature_reason": choice.shipped.unfolded,
    }
