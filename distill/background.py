"""Texts about something else than the labels, on which a student learns to be sure of nothing.

Outlier exposure (Hendrycks, Mazeika and Dietterich 2019, "Deep Anomaly Detection with Outlier Exposure"): the soft
label is the uniform distribution, for multi-label that of no label. Whatever stands in the corpus too is no background.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distill.data import Transfer
from teacher.corpus import read_part
from teacher.example import leak_key, normalise
from teacher.parts import PARTS
from teacher.quarantine import find_text_fault
from teacher.read import Columns, read_rows
from teacher.task import Task, TaskKind

_MOST = 0.25  # of the texts trained on otherwise: more would crowd out what the student is for


@dataclass(frozen=True, slots=True)
class Background:
    """Source files under `root`, the column of their texts, and how long one may be."""

    sources: tuple[str, ...]
    root: Path
    column: str
    max_characters: int


def read_background(background: Background, corpus: Path, task: Task, rows: int, seed: int) -> Transfer:
    """Return the distinct valid texts of `background` that no part of `corpus` holds, with soft labels that name none.

    At most a quarter as many as the `rows` trained on otherwise; of more, so many are drawn. Raises CorpusError when a
    source cannot be read.
    """
    known = {leak_key(example.text) for part in PARTS for example in read_part(corpus, part)}
    texts: dict[str, str] = {}
    for source in background.sources:
        for row in read_rows(source, background.root, Columns(background.column)):
            if isinstance(row.text, str) and find_text_fault(row.text, background.max_characters) is None:
                text = normalise(row.text)
                texts.setdefault(leak_key(text), text)
    found = [text for key, text in texts.items() if key not in known]
    if len(found) > (most := int(_MOST * rows)):
        chosen = np.random.default_rng(seed).choice(len(found), most, replace=False)
        found = [found[place] for place in sorted(chosen)]
    shape = (len(found), len(task.labels))
    soft = np.full(shape, 1 / shape[1] if task.kind is TaskKind.SINGLE_LABEL else 0.0, np.float32)
    return Transfer(found, soft, np.zeros(shape, np.float32), np.zeros(len(found), bool))
