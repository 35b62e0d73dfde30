"""Read gold, dev and test: parse their labels, decide which labels the task has, settle what repeats.

Holds these parts in memory. Knows nothing of the pool and of leaks between parts.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from teacher.errors import CorpusError
from teacher.example import Example, content_id
from teacher.quarantine import Fault, LabelBook, Origin, Reason, common_spellings, parse_labels
from teacher.read import Columns, check_source
from teacher.sift import DUPLICATE, Ledger, Sifter
from teacher.spec import TaskSpec
from teacher.task import TaskKind


@dataclass(frozen=True, slots=True)
class LabelledRow:
    """An example with the label names as its source spells them, and where it stands."""

    origin: Origin
    example: Example
    names: tuple[str, ...]


def read_labelled(sifter: Sifter, part: str, source: str, kind: TaskKind) -> list[LabelledRow]:
    """Return the rows of `source` whose text and label cell are fit; raise CorpusError if it is unusable."""
    label = sifter.data.label
    check_source(source, sifter.root, Columns(sifter.data.text, label))
    rows = []
    for origin, text, cell in sifter.sift(part, source, label):
        names = parse_labels(cell, kind, sifter.data.separator)
        if isinstance(names, Fault):
            sifter.ledger.quarantine.add(origin, names, text, content_id(text))
        else:
            rows.append(LabelledRow(origin, Example(content_id(text), text), names))
    return rows


def choose_labels(task: TaskSpec, gold: Sequence[LabelledRow]) -> list[str]:
    """Return the labels of `task` in order: the ones it lists, or the ones found in `gold`, sorted."""
    if task.labels is not None:
        return list(task.labels)
    return common_spellings(Counter(name for row in gold for name in row.names))


def settle(rows: Sequence[LabelledRow], book: LabelBook, ledger: Ledger) -> list[Example]:
    """Return the distinct examples of one part with labels that `book` knows.

    Rows with other labels go to quarantine, and so do all rows of a text that has different labels;
    of rows that say the same the first is kept.
    """
    by_id: dict[str, list[LabelledRow]] = defaultdict(list)
    for row in rows:
        if fault := book.find_fault(row.names):
            ledger.quarantine.add(row.origin, fault, row.example.text, row.example.id)
        else:
            by_id[row.example.id].append(row)
    examples = []
    for same in by_id.values():
        answers = {book.sort(row.names) for row in same}
        if len(answers) == 1:
            examples.append(Example(same[0].example.id, same[0].example.text, answers.pop()))
            ledger.dropped[same[0].origin.part][DUPLICATE] += len(same) - 1
            continue
        detail = "; ".join(sorted("|".join(answer) or "no label" for answer in answers))
        for row in same:
            fault = Fault(Reason.CONFLICTING, detail)
            ledger.quarantine.add(row.origin, fault, row.example.text, row.example.id)
    return examples


def check_gold(gold: Sequence[Example], labels: Sequence[str], kind: TaskKind, ledger: Ledger) -> None:
    """Raise CorpusError unless `gold` holds every label, and at least two in a single-label task."""
    found = {name for example in gold for name in example.labels or ()}
    left_out = describe_left_out(ledger, "gold")
    if not found:
        raise CorpusError(f"gold has no usable labelled row{left_out}; check data.label and the quarantine reasons")
    if kind is TaskKind.SINGLE_LABEL and len(found | set(labels)) < 2:
        raise CorpusError(f"gold has one class only ({found.pop()!r}); wanted at least two: check data.label")
    missing = [repr(name) for name in labels if name not in found]
    if missing:
        shown = ", ".join(missing[:12]) + (f" and {len(missing) - 12} more" if len(missing) > 12 else "")
        raise CorpusError(
            f"{len(missing)} of {len(labels)} labels have no gold row: {shown}{left_out}; "
            "add gold rows for them or take them out of task.labels"
        )


def describe_left_out(ledger: Ledger, part: str) -> str:
    """Return, for an error message, how many rows of `part` were left out and why; empty when none were."""
    reasons = Counter(ledger.quarantine.by_part[part])
    reasons.update(ledger.dropped[part])
    reasons = +reasons
    if not reasons:
        return ""
    return " (left out: " + ", ".join(f"{rows:,} x {reason}" for reason, rows in reasons.most_common()) + ")"
