"""What a search builds: the stages of a run for every student and share of its training, and two more around them.

draft (untrained, exported) -> train -> tune -> export, as in `pipeline.py`, -> score on dev. Every student has run
directories of its own; corpus, teacher and labels are those of the run that is searched.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from distill.conductor import SEARCH, Conductor, Stage, Update
from distill.config import Config
from distill.ladder import Candidate
from distill.pipeline import STAGES
from distill.spec import Part
from distill.stages import building, stage_status
from export.metrics import Interval
from student.spec import StudentSpec

_LATENCY = "latency.json"
_WARMUP = 20
_NO_GATES = {"plan": "preset", "max_drop": 1.0, "max_kl": 1e9, "max_class_drop": 1.0, "max_calibration_rise": 1.0}


def open_part(main: Conductor, candidate: Candidate, share: float, earlier: float | None = None) -> Conductor:
    """Return the run of a candidate up to a `share` of its training, on from the share `earlier` if that was run."""
    folder = main.run / SEARCH / candidate.folder
    before = folder / f"{earlier:g}" / main.run.name / main.stages["train"].directory if earlier else None
    part = Part(share, before, main.run / SEARCH / f"labels-{main.key('label')[:16]}")
    return main.sibling(
        _config(main.config, candidate.spec, share), part, folder / f"{share:g}" / main.run.name, _stages(main, folder)
    )


def measure_p50(main: Conductor, name: str, bundles: Mapping[str, tuple[str, Path]]) -> dict[str, Interval]:
    """Return the p50 of every bundle in milliseconds, text in to label out on one thread, all in turns on dev texts.

    `bundles` are (key, folder) by the student's name; what was measured stands in the folder `name` of the search.
    """
    target = main.run / SEARCH / name
    section = {"bench": main.config.bench.model_dump(mode="json"), "seed": main.config.seed}
    inputs = {student: key for student, (key, _) in bundles.items()}
    if stage_status(name, target, section, inputs).state != "done":
        with building(name, target, section, inputs) as partial, main.reporter.track(name, None):
            found = _measure(main, {student: bundle for student, (_, bundle) in bundles.items()})
            (partial / _LATENCY).write_text(json.dumps(found, indent=2), encoding="utf-8")
    return {
        student: Interval(**found)
        for student, found in json.loads((target / _LATENCY).read_text(encoding="utf-8")).items()
    }


def _measure(main: Conductor, bundles: Mapping[str, Path]) -> dict[str, dict[str, float]]:
    from distill.measure import draw_texts
    from export.bench import measure_interleaved, paired_ratio
    from export.runtime import Predictor

    students = {name: Predictor.load(bundle) for name, bundle in bundles.items()}
    spec, seed = main.config.bench, main.config.seed
    texts = draw_texts(main.path("corpus"), "dev", next(iter(students.values())), spec.texts, seed)
    answers = {name: student.predict for name, student in students.items()}
    samples = measure_interleaved(answers, texts, spec.repeats, _WARMUP, seed)
    # The ratio to a constant millisecond is the time in milliseconds, with the interval of a block bootstrap.
    return {name: asdict(paired_ratio(taken, np.full_like(taken, 1_000_000))) for name, taken in samples.items()}


def _config(config: Config, student: StudentSpec, share: float) -> Config:
    config = config.with_student(student)
    if share == 1:
        return config
    # Halfway a student is compared and never shipped: it is not tuned, and its int8 file is taken as it comes.
    export = config.export.model_copy(update=_NO_GATES)
    return config.model_copy(update={"tune": None, "export": export})


def _stages(main: Conductor, folder: Path) -> tuple[Stage, ...]:
    own = [stage for stage in STAGES if stage.name in ("train", "tune", "export")]
    search = (main.run / SEARCH).absolute()
    return (
        *own,
        Stage("draft", str(folder.absolute() / "draft"), ("corpus",), ("student", "task", "seed"), _build_draft),
        Stage("asked", str(search / "teacher"), ("teacher",), (), _build_asked),
        Stage("score", "score", ("export", "asked"), ("seed",), _build_score),
    )


def _build_draft(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.draft import export_draft

    export_draft(conductor.train_inputs(update), conductor.untuned_source(), conductor.config.student, directory)


def _build_asked(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.dev_gap import ask_on_dev

    ask_on_dev(conductor.path("teacher"), conductor.path("corpus"), conductor.paid, directory)


def _build_score(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.dev_gap import score_on_dev

    bundle, asked, corpus = (conductor.path(name) for name in ("export", "asked", "corpus"))
    score_on_dev(bundle, asked, corpus, conductor.task, conductor.config.seed, directory)


def read_standing(conductor: Conductor) -> dict[str, Any]:
    """Return what is known of a part that was run: its score on dev, the bytes of its file, and why it is unfit."""
    from distill.dev_gap import read_score
    from export.bundle import MODEL_FILES, read_manifest

    manifest = read_manifest(conductor.path("export"))
    failed = [gate.name for gate in manifest.gates if not gate.passed]
    return {
        **read_score(conductor.path("score")),
        "size_bytes": manifest.files[MODEL_FILES[manifest.precision]].bytes,
        "unfit": f"int8 failed {', '.join(failed)}" if failed or manifest.precision != "int8" else "",
    }
