"""Tell a person, or a machine, how far a run is: a live bar, plain lines or JSON lines on stderr.

Knows nothing of stages beyond their names; results of commands go to stdout and never through here.
"""

import json
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING, TextIO

from teacher.processes import is_first_process

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Update = Callable[[int], None]
"""Called with the number of rows finished since the last call."""

Clock = Callable[[], float]
_INTERVAL_SECONDS = 5.0


class Reporter(ABC):
    """Where messages and progress go."""

    @abstractmethod
    def say(self, message: str, **fields: object) -> None:
        """Show `message`, a whole sentence; `fields` are the same facts for machines."""

    @abstractmethod
    def track(self, stage: str, total: int | None) -> AbstractContextManager[Update]:
        """Show the progress of `stage` over `total` rows (None: unknown) while the context is open."""


class SilentReporter(Reporter):
    """Says nothing: for every process of a distributed run but the first."""

    def say(self, message: str, **fields: object) -> None:
        """Drop the message."""

    @contextmanager
    def track(self, stage: str, total: int | None) -> Iterator[Update]:
        """Count nothing."""
        yield lambda rows: None


@dataclass(slots=True)
class Pace:
    """How many rows of how many are done, and how fast."""

    total: int | None
    clock: Clock
    started: float
    rows: int = 0

    @property
    def seconds(self) -> float:
        """Return the seconds since the start."""
        return self.clock() - self.started

    @property
    def rows_per_second(self) -> float | None:
        """Return the mean speed so far; None before any time has passed."""
        seconds = self.seconds
        return self.rows / seconds if seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Return the time that the missing rows need at this speed; None when that is unknown."""
        speed = self.rows_per_second
        return max(self.total - self.rows, 0) / speed if self.total is not None and speed else None


class _LineReporter(Reporter):
    """Writes a line at most every few seconds, and one at the end of each tracked stage that succeeds."""

    def __init__(self, stream: TextIO | None = None, clock: Clock = time.monotonic) -> None:
        self._stream = stream or sys.stderr
        self._clock = clock

    @contextmanager
    def track(self, stage: str, total: int | None) -> Iterator[Update]:
        """Write progress lines while rows come in."""
        pace = Pace(total, self._clock, self._clock())
        spoken = pace.started

        def update(rows: int) -> None:
            nonlocal spoken
            pace.rows += rows
            if self._clock() - spoken >= _INTERVAL_SECONDS:
                spoken = self._clock()
                self._write_pace(stage, pace, finished=False)

        yield update
        self._write_pace(stage, pace, finished=True)

    @abstractmethod
    def _write_pace(self, stage: str, pace: Pace, *, finished: bool) -> None: ...

    def _write(self, line: str) -> None:
        print(line, file=self._stream, flush=True)


class PlainReporter(_LineReporter):
    """One plain line every few seconds: for logs and pipes."""

    def say(self, message: str, **fields: object) -> None:
        """Write the message as it is."""
        self._write(message)

    def _write_pace(self, stage: str, pace: Pace, *, finished: bool) -> None:
        if finished:
            self._write(f"{stage}: {pace.rows:,} rows in {_duration(pace.seconds)}")
            return
        parts = [f"{pace.rows:,}{'' if pace.total is None else f' of {pace.total:,}'} rows"]
        if pace.rows_per_second is not None:
            parts.append(f"{pace.rows_per_second:,.0f} rows/s")
        if pace.seconds_left is not None:
            parts.append(f"{_duration(pace.seconds_left)} left")
        self._write(f"{stage}: {', '.join(parts)}")


class JsonReporter(_LineReporter):
    """One JSON object a line, each with `time`; progress has `stage`, messages have `message`."""

    def say(self, message: str, **fields: object) -> None:
        """Write the message and its fields."""
        self._write_json({"message": message, **fields})

    def _write_pace(self, stage: str, pace: Pace, *, finished: bool) -> None:
        self._write_json(
            {
                "stage": stage,
                "rows": pace.rows,
                "total": pace.total,
                "seconds": round(pace.seconds, 3),
                "rows_per_second": pace.rows_per_second,
                "seconds_left": pace.seconds_left,
                "finished": finished,
            }
        )

    def _write_json(self, fields: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._write(json.dumps({"time": now, **fields}, ensure_ascii=False, default=str))


class BarReporter(Reporter):
    """A live bar with rows/s and the time left: for a person at a terminal who trains or labels.

    A server has no use for one, so rich comes with the extras of those two.
    """

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bars: Progress | None = None

    def say(self, message: str, **fields: object) -> None:
        """Print the message above the bars."""
        self._console.print(message, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def track(self, stage: str, total: int | None) -> Iterator[Update]:
        """Draw a bar; a stage tracked inside another gets a second bar of the same display."""
        if self._bars is not None:
            yield self._add_bar(self._bars, stage, total)
            return
        self._bars = _make_bars(self._console)
        try:
            with self._bars as bars:
                yield self._add_bar(bars, stage, total)
        finally:
            self._bars = None

    @staticmethod
    def _add_bar(bars: "Progress", stage: str, total: int | None) -> Update:
        task = bars.add_task(stage, total=total, speed="")
        pace = Pace(total, time.monotonic, time.monotonic())

        def update(rows: int) -> None:
            pace.rows += rows
            bars.update(task, advance=rows, speed=f"{pace.rows_per_second or 0:,.0f} rows/s")

        return update


def make_reporter(log_format: str | None = None) -> Reporter:
    """Return the reporter for `log_format`: "json", "plain", or None for a bar on a terminal that has rich, else plain.

    Every process of a distributed run but the first is silent.
    """
    if not is_first_process():
        return SilentReporter()
    if log_format == "json":
        return JsonReporter()
    has_bars = sys.stderr.isatty() and find_spec("rich") is not None
    return BarReporter() if log_format is None and has_bars else PlainReporter()


def _make_bars(console: "Console") -> "Progress":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description:<10}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("eta"),
        TimeRemainingColumn(),
        console=console,
    )


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
