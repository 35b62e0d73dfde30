"""Look for wrong labels: out-of-sample probabilities for gold and dev, and the list of suspects that a report shows.

The teacher has learned the gold, so it cannot testify about it: a linear head on frozen embeddings does, each row
judged by a head that was fitted without it. The encoder must not have learned the gold either; whoever starts a
student from a checkpoint that was fine-tuned on it makes this list too short.
"""

import csv
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier

from distill.label_errors import Suspect, find_suspects
from distill.quality import Answers, Floats
from teacher.corpus import read_part
from teacher.encoder import load_embedder
from teacher.example import Example
from teacher.quarantine import safe_cell
from teacher.task import Task, TaskKind

PROBABILITIES = "gold_probabilities.npz"
LABEL_ERRORS = "label_errors.csv"
_COLUMNS = ("part", "id", "text", "given", "suggested", "given_probability", "suggested_probability")
_FOLDS = 5
_MOST_ROWS = 10_000  # of larger gold so many are drawn
_MAX_TOKENS = 128
_SHOWN = 20
_BY_HEAD = f"a linear head on frozen embeddings, {_FOLDS} folds: each row judged by a head that did not see it"
_BY_TEACHER = "the teacher, which saw no test row"


def cross_validate_gold(
    corpus: Path, task: Task, encoder: str, directory: Path, seed: int, progress: Callable[[int], None]
) -> None:
    """Write out-of-fold probabilities of gold and dev rows under the frozen `encoder` to `directory`, by content id.

    Nothing is written about rows when no two labels have two rows each: there is nothing to cross-validate.
    """
    examples = _labelled(corpus)
    if len(examples) > _MOST_ROWS:
        drawn = np.random.default_rng(seed).choice(len(examples), _MOST_ROWS, replace=False)
        examples = [examples[row] for row in sorted(drawn)]
    targets = task.targets([example.labels or () for example in examples])
    probs = np.zeros((0, len(task.labels)), np.float32)
    if int((targets.sum(axis=0) >= 2).sum()) >= 2:
        embeddings = load_embedder(encoder, _MAX_TOKENS).logits([example.text for example in examples])
        probs = out_of_fold(task.kind, embeddings, targets, seed)
    progress(len(examples))
    ids = np.array([example.id for example in examples[: len(probs)]], "U16")
    np.savez_compressed(directory / PROBABILITIES, allow_pickle=False, ids=ids, probs=probs)


def out_of_fold(kind: TaskKind, embeddings: Floats, targets: Floats, seed: int) -> NDArray[np.float32]:
    """Return the probabilities (N, C) of a linear head for each row, from a fit on the other folds.

    A label that the other folds do not hold has probability 0.
    """
    head = LogisticRegression(C=10, max_iter=100, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a label with fewer rows than folds is no surprise here
        if kind is TaskKind.MULTI_LABEL:
            folds = KFold(_FOLDS, shuffle=True, random_state=seed)
            found = cross_val_predict(OneVsRestClassifier(head), embeddings, targets, cv=folds, method="predict_proba")
            return np.asarray(found, np.float32)
        given = targets.argmax(axis=1)
        present, amounts = np.unique(given, return_counts=True)
        stratified = StratifiedKFold(min(_FOLDS, int(amounts.max())), shuffle=True, random_state=seed)
        probs = np.zeros(targets.shape, np.float32)
        probs[:, present] = cross_val_predict(head, embeddings, given, cv=stratified, method="predict_proba")
    return probs


def audit_labels(corpus: Path, audit: Path, task: Task, teacher: Answers, directory: Path) -> dict[str, Any]:
    """Write every suspect of gold, dev and test to a csv file in `directory`; return what the report shows.

    `teacher` are its answers on test. `parts` counts rows and suspects and says whose probabilities they rest on,
    `rows` has the surest suspects of each part.
    """
    test = read_part(corpus, "test")
    kept = np.flatnonzero(teacher.rows)
    judged = {"test": ([test[row] for row in kept], teacher.probs[kept], _BY_TEACHER)}
    with np.load(audit / PROBABILITIES, allow_pickle=False) as arrays:
        known = dict(zip(arrays["ids"].tolist(), arrays["probs"], strict=True))
    for part in ("gold", "dev"):
        examples = [example for example in read_part(corpus, part) if example.id in known]
        judged[part] = (examples, np.array([known[example.id] for example in examples]), _BY_HEAD)
    parts, rows, shown = [], [], []
    for part, (examples, probs, origin) in judged.items():
        suspects = _suspects(task, examples, probs)
        listed = [_described(task, part, examples[suspect.row], suspect) for suspect in suspects]
        parts.append({"part": part, "rows": len(examples), "suspects": len(suspects), "probabilities": origin})
        rows += listed
        shown += listed[:_SHOWN]
    _write(rows, directory / LABEL_ERRORS)
    return {"parts": parts, "rows": shown}


def _suspects(task: Task, examples: Sequence[Example], probs: Floats) -> list[Suspect]:
    if not examples:
        return []
    return find_suspects(task.kind, probs, task.targets([example.labels or () for example in examples]))


def _labelled(corpus: Path) -> list[Example]:
    return [*read_part(corpus, "gold"), *read_part(corpus, "dev")]


def _described(task: Task, part: str, example: Example, suspect: Suspect) -> dict[str, Any]:
    given, suggested = (
        ", ".join(task.labels[column] for column in columns) or "(none)"
        for columns in (suspect.given, suspect.suggested)
    )
    values = (part, example.id, example.text, given, suggested)
    return dict(zip(_COLUMNS, (*values, suspect.given_probability, suspect.suggested_probability), strict=True))


def _write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for row in rows:
            texts = (safe_cell(row[name]) for name in _COLUMNS[:5])
            writer.writerow((*texts, *(f"{row[name]:.4f}" for name in _COLUMNS[5:])))
