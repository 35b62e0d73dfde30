"""One measured row beside the line it has to hold."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Line:
    """What was measured for `row`, the line in words, and whether it holds."""

    row: str
    measured: str
    wanted: str
    holds: bool

    def __str__(self) -> str:
        """Return the row as one line of text."""
        return f"{self.row}: {self.measured} | line: {self.wanted} | {'ok' if self.holds else 'MISSED'}"


class MeasureError(Exception):
    """A row could not be measured; the message says which command failed and how."""


def show(row: str, measure: Callable[[], Line]) -> bool:
    """Print the line that `measure` returns as soon as it is known, and return whether it holds."""
    try:
        line = measure()
    except MeasureError as error:
        line = Line(row, str(error), "can be measured", False)
    print(line, flush=True)
    return line.holds
