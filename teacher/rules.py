"""The rules teacher: labelling functions in a Python file of yours, combined by a generative label model.

    from teacher.rules import keywords, pattern, rule

    keywords("refund", ["refund", "money back"])
    pattern("order_status", r"where.*(order|parcel)")

    @rule
    def shouted(text):
        return "complaint" if text.isupper() else None

A rule votes for a label, for several (in a list, where the task allows several), or abstains with None. Loading runs
the file, on purpose: it is code of yours, like the config. The file must stand alone; what is loaded later is the copy
in the teacher's directory, and its digest is part of the teacher's fingerprint.
"""

import shutil
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
from teacher.label_model import LabelModel, Votes, fit_label_model, smoothed_prior
from teacher.partial import fit_partial_temperature, temper
from teacher.rule_file import Rule, collect_votes, keywords, load_rules, pattern, rule
from teacher.soft_labels import Rejected, SoftLabels
from teacher.spec import RulesSpec
from teacher.task import TaskKind

if TYPE_CHECKING:
    from teacher.encoder import Gold

__all__ = ["RulesTeacher", "fit_rules", "keywords", "pattern", "rule"]

RULES, MODEL = "rules.py", "label_model.safetensors"


def fit_rules(spec: RulesSpec, gold: "Gold", directory: Path) -> None:
    """Copy `spec.file` to `directory` and fit the label model on the votes of its rules on gold.

    Accuracies come from agreement on the gold.train texts, whose labels are soft anchors; the card's details put them
    beside what each rule does on gold.dev, which the model has not seen. Dev also sets the temperature.
    """
    rules = load_rules(Path(spec.file), gold.task)  # where it stands, so that an error names it
    shutil.copyfile(spec.file, directory / RULES)
    train, dev = (collect_votes(rules, [one.text for one in part], gold.task) for part in (gold.train, gold.dev))
    targets, dev_targets = gold.targets(gold.train), gold.targets(gold.dev)
    if not len(train.rows):
        raise TeacherError(
            f"no rule of {spec.file} votes on any of the {len(gold.train)} gold texts; widen the rules or add gold"
        )
    model = fit_label_model(gold.task.kind, train, smoothed_prior(gold.task.kind, targets), targets)
    arrays = {"prior": model.prior, "hit": model.hit, "miss": model.miss, "speaks": model.speaks}
    save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, directory / MODEL)
    gold.progress(len(gold.train))
    answered = dev.counts() >= spec.least_votes
    probs = model.posterior(dev)[answered].astype(np.float32)
    temperature = fit_partial_temperature(gold.task.kind, probs, dev_targets[answered])
    digests = [file_digest(directory / name) for name in (RULES, MODEL)]
    TeacherCard.of(
        gold.task,
        "rules",
        [digests, spec.least_votes],
        temperature=temperature,
        details={
            "least_votes": spec.least_votes,
            "answered": {"train": int((train.counts() >= spec.least_votes).sum()), "dev": int(answered.sum())},
            "rows": {"train": len(gold.train), "dev": len(gold.dev)},
            "rules": _describe(rules, model, (train, dev), (targets, dev_targets)),
        },
    ).write(directory)


class RulesTeacher:
    """Loaded rules under a fitted label model."""

    parameters = 0

    def __init__(self, directory: Path) -> None:
        """Load a directory that `fit_rules` filled, and run the copy of the rules in it."""
        card = read_card(directory)
        self.task = card.task()
        self.fingerprint = card.fingerprint
        self._rules = load_rules(directory / RULES, self.task)
        arrays = load_file(directory / MODEL)
        self._model = LabelModel(self.task.kind, **arrays)
        self._least_votes = int(card.details["least_votes"])
        self._temperature = card.temperature

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return the probabilities given the votes; a text with too few votes is rejected."""
        ids = [content_id(text) for text in texts]
        votes = collect_votes(self._rules, texts, self.task)
        counts = votes.counts()
        answered = counts >= self._least_votes
        probs = self._model.posterior(votes)[answered].astype(np.float32)
        rejected = [
            Rejected(ids[row], "no rule voted" if counts[row] == 0 else f"fewer than {self._least_votes} rules voted")
            for row in np.flatnonzero(~answered)
        ]
        kept = tuple(ids[row] for row in np.flatnonzero(answered))
        tempered = temper(self.task.kind, probs, self._temperature)
        return SoftLabels(kept, tempered, np.zeros(len(kept), np.float32), "rules", rejected=tuple(rejected))


def _describe(
    rules: Sequence[Rule], model: LabelModel, votes: tuple[Votes, Votes], targets: tuple[NDArray[np.float32], ...]
) -> list[dict[str, Any]]:
    """Return for each rule its estimated accuracy and coverage, and the same counted on dev; None for no vote."""
    train, dev = votes
    is_single = model.kind is TaskKind.SINGLE_LABEL
    columns = {
        "estimated_accuracy": model.hit[:, 0] if is_single else train.accuracy(model.posterior(train, targets[0])),
        "estimated_coverage": train.coverage(),
        "dev_accuracy": dev.accuracy(targets[1]),
        "dev_coverage": dev.coverage(),
    }
    numbers = {
        name: [None if np.isnan(value) else round(float(value), 4) for value in column]
        for name, column in columns.items()
    }
    return [
        {"name": each.name} | {name: column[place] for name, column in numbers.items()}
        for place, each in enumerate(rules)
    ]
