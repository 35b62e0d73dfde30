"""What every teacher offers, and the file in which it remembers how it was calibrated."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from teacher.errors import TeacherError
from teacher.soft_labels import SoftLabels
from teacher.task import Task, TaskKind

Progress = Callable[[int], None]  # called with the number of rows just done
CARD = "teacher.json"


class Teacher(Protocol):
    """Answer texts with probabilities over `task.labels`; `fingerprint` changes whenever an answer may."""

    task: Task
    fingerprint: str
    parameters: int

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return the soft labels of `texts` in their order, at temperature 1; those it rejects stand in `rejected`."""
        ...


class TeacherCard(BaseModel):
    """teacher.json: how a fitted teacher answers. `details` belongs to the kind."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    task_kind: TaskKind
    labels: list[str]
    descriptions: dict[str, str] = {}
    fingerprint: str
    temperature: float
    max_tokens: int = 0
    warnings: list[str] = []  # of fitting, for whoever reads the report
    dev_score: float | None = None  # that of a teacher which then learned dev as gold; None: it can still be judged
    details: dict[str, Any] = {}

    @classmethod
    def of(cls, task: Task, kind: str, identity: object, *, temperature: float, **rest: Any) -> "TeacherCard":
        """Return the card of a teacher for `task`; the fingerprint covers labels, temperature and `identity`, which is
        all else that shapes an answer, as JSON."""
        told = [task.labels, sorted(task.descriptions.items())]
        whole = json.dumps([kind, task.kind, told, identity, temperature, rest.get("max_tokens")], sort_keys=True)
        return cls(
            kind=kind,
            task_kind=task.kind,
            labels=list(task.labels),
            descriptions=dict(task.descriptions),
            fingerprint=hashlib.sha256(whole.encode()).hexdigest(),
            temperature=temperature,
            **rest,
        )

    def task(self) -> Task:
        """Return the task this teacher answers."""
        return Task(self.task_kind, tuple(self.labels), self.descriptions)

    def write(self, directory: Path) -> None:
        """Write the card into a teacher's directory."""
        (directory / CARD).write_text(self.model_dump_json(indent=2), encoding="utf-8")


def read_card(directory: Path) -> TeacherCard:
    """Read teacher.json; raise TeacherError when the directory holds no finished teacher."""
    try:
        return TeacherCard.model_validate_json((directory / CARD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValidationError) as error:
        raise TeacherError(f"{directory} holds no fitted teacher ({CARD}); run distill label again") from error
