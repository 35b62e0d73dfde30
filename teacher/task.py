"""The task: what kind of answer is wanted and which labels there are, in which order.

Labels are names. Positions exist only inside one array, and `align_labels` is the one way across.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from teacher.errors import LabelMismatchError


class TaskKind(StrEnum):
    """How many labels a text carries: exactly one, or any number."""

    SINGLE_LABEL = "single_label"
    MULTI_LABEL = "multi_label"


# What Hugging Face calls the same thing in a checkpoint's config.json.
PROBLEM_TYPES = {
    TaskKind.SINGLE_LABEL: "single_label_classification",
    TaskKind.MULTI_LABEL: "multi_label_classification",
}


@dataclass(frozen=True, slots=True)
class Task:
    """A kind and its labels in order; `descriptions` are for teachers that read prompts."""

    kind: TaskKind
    labels: tuple[str, ...]
    descriptions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a task that no model can learn."""
        if len(set(self.labels)) != len(self.labels):
            twice = sorted({name for name in self.labels if self.labels.count(name) > 1})
            raise LabelMismatchError(f"labels named twice: {', '.join(twice)}; name each label once")
        least = 2 if self.kind is TaskKind.SINGLE_LABEL else 1
        if len(self.labels) < least:
            raise LabelMismatchError(
                f"found {len(self.labels)} label ({', '.join(self.labels) or 'none'}), a {self.kind} task "
                f"wants at least {least}; check the label column of the gold file"
            )

    def targets(self, labels: Sequence[tuple[str, ...]]) -> NDArray[np.float32]:
        """Return the 0/1 targets (N, C) of N tuples of label names; raise LabelMismatchError on a stranger."""
        index = {name: column for column, name in enumerate(self.labels)}
        targets = np.zeros((len(labels), len(self.labels)), np.float32)
        for row, names in enumerate(labels):
            for name in names:
                if name not in index:
                    raise LabelMismatchError(f"label {name!r} is not among the {len(self.labels)} labels of the task")
                targets[row, index[name]] = 1.0
        return targets


def align_labels(probs: NDArray[np.float32], found: Sequence[str], wanted: Sequence[str]) -> NDArray[np.float32]:
    """Reorder the columns of `probs` (N, C) from the label names `found` to the order `wanted`.

    Raises LabelMismatchError, naming both sides, unless the two hold the same names.
    """
    if set(found) != set(wanted) or len(found) != len(wanted) or len(set(found)) != len(found):
        only_found = sorted(set(found) - set(wanted))
        only_wanted = sorted(set(wanted) - set(found))
        raise LabelMismatchError(
            f"the labels differ: found {len(found)}, wanted {len(wanted)}; "
            f"only in what was found: {_names(only_found)}; only in what is wanted: {_names(only_wanted)}; "
            "rename the labels on one side or list the wanted ones under task.labels"
        )
    position = {name: column for column, name in enumerate(found)}
    return np.ascontiguousarray(probs[:, [position[name] for name in wanted]])


def _names(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return (shown + (f" and {len(names) - most} more" if len(names) > most else "")) or "none"
