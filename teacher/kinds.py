"""Which teachers there are: how each kind is fitted and how a fitted one is loaded."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from teacher.base import Teacher, read_card
from teacher.committee import CommitteeTeacher, fit_committee, member_directory
from teacher.encoder import EncoderTeacher, Gold, fit_encoder
from teacher.errors import TeacherError
from teacher.pooled import HEAD
from teacher.processes import is_first_process, wait_for_all
from teacher.prototypes import fit_prototypes
from teacher.spec import CommitteeSpec, EncoderSpec, PrototypesSpec, TeacherSpec


def fit_teacher(spec: TeacherSpec, gold: Gold, directory: Path) -> None:
    """Fit the teacher that `spec` describes on `gold` and fill `directory` with it.

    Raises TeacherError or LabelMismatchError when the model cannot be loaded or answers other labels.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if isinstance(spec, EncoderSpec):
        fit_encoder(spec, gold, directory)
    elif isinstance(spec, PrototypesSpec):
        fit_prototypes(spec, gold, directory)
    else:
        _fit_members(spec, gold, directory)


def load_teacher(directory: Path) -> Teacher:
    """Load the fitted teacher in `directory`; raise TeacherError when there is none or its kind is unknown."""
    kind = read_card(directory).kind
    if kind not in _LOADERS:
        raise TeacherError(f"{directory} holds a teacher of kind {kind!r}; known are {', '.join(_LOADERS)}")
    return _LOADERS[kind](directory)


def warm_start_source(directory: Path) -> Path | None:
    """Return the folder of the encoder whose layers a student may copy: the teacher itself or its first
    member that is one; None when no encoder is among them."""
    if read_card(directory).kind != "committee":
        return directory
    for member in _member_directories(directory):
        found = warm_start_source(member)
        if found is not None and read_card(found).kind == "encoder":
            return found
    return None


def linear_head(directory: Path) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return weight (C, hidden) and bias (C,) with which the encoder in `directory` answers from its mean-pooled
    state, over its temperature; None when it answers in another way."""
    if not (directory / HEAD).is_file() or (card := read_card(directory)).kind != "encoder":
        return None
    head = load_file(directory / HEAD)
    return head["weight"] / card.temperature, head["bias"] / card.temperature


def _fit_members(spec: CommitteeSpec, gold: Gold, directory: Path) -> None:
    members = []
    for position, member in enumerate(spec.members):
        place = member_directory(directory, position)
        fit_teacher(member, gold, place)
        members.append(load_teacher(place))
    if is_first_process():
        fit_committee(members, [example.text for example in gold.dev], gold.targets(gold.dev), directory)
    wait_for_all()


def _load_committee(directory: Path) -> Teacher:
    return CommitteeTeacher(directory, [load_teacher(member) for member in _member_directories(directory)])


def _member_directories(directory: Path) -> list[Path]:
    return sorted(directory.glob("member-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))


_LOADERS: dict[str, Callable[[Path], Teacher]] = {
    "encoder": EncoderTeacher,
    "prototypes": EncoderTeacher,
    "committee": _load_committee,
}
