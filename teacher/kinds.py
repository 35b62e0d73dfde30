"""Which teachers there are: how each kind is fitted and how a fitted one is loaded."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from teacher.base import Teacher, read_card
from teacher.cards import answering, fit_warnings, member_directories, member_directory
from teacher.committee import CommitteeTeacher, fit_committee
from teacher.encoder import Gold
from teacher.errors import TeacherError
from teacher.paid import PaidAnswers
from teacher.pooled import HEAD
from teacher.processes import from_first, is_first_process, wait_for_all
from teacher.self_training import fit_self_training
from teacher.soft_labels import SoftLabels
from teacher.spec import CommitteeSpec, SelfTrainingSpec, TeacherSpec

_ENCODERS = ("encoder", "prototypes")  # kinds whose layers a student can copy


def fit_teacher(spec: TeacherSpec, gold: Gold, directory: Path, paid: PaidAnswers | None = None) -> None:
    """Fit the teacher that `spec` describes on `gold` and fill `directory` with it.

    What has to be bought is bought through `paid`, and what takes long is kept there. Raises TeacherError or
    LabelMismatchError when the model cannot be loaded or answers other labels.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(spec, CommitteeSpec):
        _fit_members(spec, gold, directory, paid)
    elif isinstance(spec, SelfTrainingSpec):
        _fit_self_training(spec, gold, directory, paid)
    else:
        _KINDS[spec.kind].fit(spec, gold, directory, paid)


def load_teacher(directory: Path, paid: PaidAnswers | None = None) -> Teacher:
    """Load the fitted teacher in `directory`; raise TeacherError when there is none or its kind is unknown."""
    kind = read_card(directory).kind
    if kind == "committee":
        return CommitteeTeacher(directory, [load_teacher(member, paid) for member in member_directories(directory)])
    if kind not in _KINDS:
        known = ", ".join([*_KINDS, "committee"])
        raise TeacherError(f"{directory} holds a teacher of kind {kind!r}; known are {known}")
    return _KINDS[kind].load(directory, paid)


def warm_start_source(directory: Path) -> Path | None:
    """Return the folder of the encoder whose layers a student may copy: the teacher itself or its first member that
    is one, a fine-tuned one before a frozen one; None when no encoder is among them."""
    return next((place for kind in _ENCODERS for place, card in answering(directory) if card.kind == kind), None)


def encoder_of(directory: Path) -> Path | None:
    """Return the encoder that `warm_start_source` finds, if all that answers in `directory` are encoders."""
    return warm_start_source(directory) if all(card.kind in _ENCODERS for _, card in answering(directory)) else None


def is_bought(directory: Path) -> bool:
    """Say whether the teacher in `directory`, or a member of it, answers for money."""
    return any(_KINDS[card.kind].buys for _, card in answering(directory))


def linear_head(directory: Path) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return weight (C, hidden) and bias (C,) with which the encoder in `directory` answers from its mean-pooled
    state, over its temperature; None when it answers in another way."""
    if not (directory / HEAD).is_file() or (card := read_card(directory)).kind != "encoder":
        return None
    head = load_file(directory / HEAD)
    return head["weight"] / card.temperature, head["bias"] / card.temperature


def _fit_self_training(spec: SelfTrainingSpec, gold: Gold, directory: Path, paid: PaidAnswers | None) -> None:
    first = directory / "first"

    def fit_first(known: Gold) -> Teacher:
        fit_teacher(spec.teacher, known, first, paid)
        return _FirstAsks(load_teacher(first, paid))

    score = fit_self_training(spec, gold, fit_first, directory)
    if is_first_process():
        notes = {"warnings": [*fit_warnings(first), *_spent(score)], "dev_score": score}
        read_card(directory).model_copy(update=notes).write(directory)
        shutil.rmtree(first)  # what it said has been learned
    wait_for_all()


def _spent(dev_score: float | None) -> Iterator[str]:
    if dev_score is not None:
        yield (
            f"the teacher has learned the dev rows too (refit) and scored {dev_score:.4f} before: what anything "
            "scores on them now is too good, and no threshold or temperature of the student is fitted there"
        )


def _fit_members(spec: CommitteeSpec, gold: Gold, directory: Path, paid: PaidAnswers | None) -> None:
    places = [member_directory(directory, position) for position in range(len(spec.members))]
    # A member that buys is fitted last: what is wrong with the others shows before money is spent.
    for member, place in sorted(zip(spec.members, places, strict=True), key=lambda pair: _buys(pair[0])):
        fit_teacher(member, gold, place, paid)
    if is_first_process():
        fit_committee([load_teacher(place, paid) for place in places], gold, directory)
    wait_for_all()


def _buys(spec: TeacherSpec) -> bool:
    if isinstance(spec, SelfTrainingSpec):
        return _buys(spec.teacher)
    return any(map(_buys, spec.members)) if isinstance(spec, CommitteeSpec) else _KINDS[spec.kind].buys


class _FirstAsks:
    """A teacher that the first process asks for all: what is paid is paid once, and every process learns the same."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher = teacher
        self.task, self.fingerprint, self.parameters = teacher.task, teacher.fingerprint, teacher.parameters

    def label(self, texts: Sequence[str]) -> SoftLabels:
        return from_first(lambda: self._teacher.label(texts))


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of teacher is fitted and loaded, as `module:name`; a module is imported when it is needed."""

    fitter: str
    teacher: str
    buys: bool = False  # its answers cost money
    keeps: bool = False  # its answers take so long that a run keeps them
    trains: bool = False  # every process of a distributed run takes part; else the first fits and the others wait

    def fit(self, spec: Any, gold: Gold, directory: Path, paid: PaidAnswers | None) -> None:
        if self.trains:
            self._fit(spec, gold, directory, paid)
            return
        if is_first_process():
            self._fit(spec, gold, directory, paid)
        wait_for_all()

    def _fit(self, spec: Any, gold: Gold, directory: Path, paid: PaidAnswers | None) -> None:
        _imported(self.fitter)(spec, gold, directory, *self._answers(paid))

    def load(self, directory: Path, paid: PaidAnswers | None) -> Teacher:
        teacher: Teacher = _imported(self.teacher)(directory, *self._answers(paid))
        return teacher

    def _answers(self, paid: PaidAnswers | None) -> tuple[PaidAnswers | None, ...]:
        if self.buys:
            return (_required(paid),)
        return (paid,) if self.keeps else ()


def _imported(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _required(paid: PaidAnswers | None) -> PaidAnswers:
    if paid is None:
        raise TeacherError("this teacher's answers cost money; wanted the run's paid answers to keep them in")
    return paid


_KINDS: dict[str, _Kind] = {
    "encoder": _Kind("teacher.encoder:fit_encoder", "teacher.encoder:EncoderTeacher", trains=True),
    "prototypes": _Kind("teacher.prototypes:fit_prototypes", "teacher.encoder:EncoderTeacher", trains=True),
    "llm_api": _Kind("teacher.llm_api:fit_llm_api", "teacher.llm_api:LlmApiTeacher", buys=True),
    "llm_local": _Kind("teacher.llm_local:fit_llm_local", "teacher.llm_local:LlmLocalTeacher", keeps=True),
    "nli": _Kind("teacher.nli:fit_nli", "teacher.nli:NliTeacher", keeps=True),
    "recorded": _Kind("teacher.recorded:fit_recorded", "teacher.recorded:RecordedTeacher"),
    "rules": _Kind("teacher.rules:fit_rules", "teacher.rules:RulesTeacher"),
}
