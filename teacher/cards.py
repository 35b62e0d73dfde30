"""The cards of a fitted teacher and of those inside it; loads no model, and nothing that could."""

from collections.abc import Iterator
from pathlib import Path

from teacher.base import TeacherCard, read_card


def member_directory(directory: Path, position: int) -> Path:
    """Return where the member at `position` of a committee lives."""
    return directory / f"member-{position}"


def member_directories(directory: Path) -> list[Path]:
    """Return where the members of the committee in `directory` live, in their order."""
    return sorted(directory.glob("member-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))


def answering(directory: Path) -> Iterator[tuple[Path, TeacherCard]]:
    """Yield folder and card of the teacher, or in the place of a committee of its members."""
    card = read_card(directory)
    if card.kind == "committee":
        for member in member_directories(directory):
            yield from answering(member)
    else:
        yield directory, card


def fit_warnings(directory: Path) -> Iterator[str]:
    """Yield what fitting the teacher in `directory`, or a member of it, warned of."""
    for _, card in answering(directory):
        yield from card.warnings
