"""The recorded teacher: answers that somebody kept in a file, trusted as far as gold says.

A text without a recorded answer, or with one outside the label set, is rejected with what was answered; nothing is
guessed. Knows nothing of who answered beyond the name in the model column.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from teacher.base import TeacherCard, read_card
from teacher.errors import TeacherError
from teacher.example import content_id
from teacher.files import file_digest
from teacher.partial import fit_partial_temperature, temper
from teacher.recorded_import import import_answers
from teacher.recorded_table import ANSWERS, SPELLINGS, TEXTS, RecordedTable
from teacher.soft_labels import SoftLabels
from teacher.spec import RecordedSpec
from teacher.trust import learn_trust, soften

if TYPE_CHECKING:
    from teacher.encoder import Gold

TRUST = "trust.safetensors"
Floats = NDArray[np.float32]


def fit_recorded(spec: RecordedSpec, gold: "Gold", directory: Path) -> None:
    """Import the file `spec.answers` and learn on gold how far its answers are to be trusted.

    The card's details account for every row: how many texts and models, which names were matched to which labels,
    which were not and how often, and how often the answers are right on gold. Raises CorpusError when the file cannot
    be read, LabelMismatchError when it answers other labels, TeacherError when there is nothing to learn trust from.
    """
    account = import_answers(spec, gold.task, directory)
    table, hard = RecordedTable(directory, len(gold.task.labels)), spec.distribution is None
    measured = {part: _measure(table, gold, part) for part in ("train", "dev")}
    if hard:
        trust = _learn_trust(spec, table, gold)
        save_file({"trust": trust}, directory / TRUST)
    votes = table.votes([example.text for example in gold.dev])
    targets = gold.targets(gold.dev)[votes.answered]
    # The trust in hard answers is learned on gold already.
    temperature = 1.0 if hard else fit_partial_temperature(gold.task.kind, votes.shares, targets)
    gold.progress(len(gold.train))
    digests = [file_digest(directory / name) for name in (ANSWERS, TEXTS, SPELLINGS, *([TRUST] if hard else []))]
    TeacherCard.of(
        gold.task,
        "recorded",
        digests,
        temperature=temperature,
        details={"hard": hard, "texts": table.texts, **account, "gold": measured},
    ).write(directory)


class RecordedTeacher:
    """Recorded answers as a teacher; it has no parameters and asks nobody."""

    parameters = 0

    def __init__(self, directory: Path) -> None:
        """Load a directory that `fit_recorded` filled."""
        card = read_card(directory)
        self.task = card.task()
        self.fingerprint = card.fingerprint
        self._table = RecordedTable(directory, len(self.task.labels))
        self._trust = load_file(directory / TRUST)["trust"] if card.details["hard"] else None
        self._temperature = card.temperature

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return the recorded answers as calibrated probabilities; what stands outside the labels is `outside`."""
        votes = self._table.votes(texts)
        probs = votes.shares if self._trust is None else soften(self.task.kind, votes.shares, self._trust)
        tempered = temper(self.task.kind, probs, self._temperature)
        ids = tuple(content_id(text) for text, answered in zip(texts, votes.answered, strict=True) if answered)
        return SoftLabels(ids, tempered, votes.outside, "recorded", rejected=votes.rejected)


def _measure(table: RecordedTable, gold: "Gold", part: str) -> dict[str, Any]:
    """Return how many gold rows of a part have an answer and how good the bare answers are; None for none."""
    examples = gold.train if part == "train" else gold.dev
    votes = table.votes([example.text for example in examples])
    answered = int(votes.answered.sum())
    score = float(gold.score(votes.shares, gold.targets(examples)[votes.answered])) if answered else None
    return {"rows": len(examples), "answered": answered, "score": score}


def _learn_trust(spec: RecordedSpec, table: RecordedTable, gold: "Gold") -> Floats:
    votes = table.votes([example.text for example in gold.train])
    if spec.trust is None and not votes.answered.any():
        raise TeacherError(
            f"none of the {len(gold.train)} gold texts has a recorded answer in {spec.answers}, so how far its answers "
            "can be trusted is unknown; set teacher.trust, or teacher.match: normalised if the texts differ by case"
        )
    return learn_trust(gold.task.kind, votes.shares, gold.targets(gold.train)[votes.answered], spec.trust)
