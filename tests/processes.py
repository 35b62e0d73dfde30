"""Programs in processes of their own that do not each import torch for seconds: they fork from one that has.

That one has imported other people's libraries and done nothing else; our own modules each child imports by itself.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from pathlib import Path

_LIMIT_SECONDS = 300.0
_LIBRARIES = ["transformers.trainer", "transformers.models.bert", "datasets", "sklearn.linear_model", "accelerate"]
_FORKING = multiprocessing.get_context("forkserver")
_FORKING.set_forkserver_preload(_LIBRARIES)
DISTILL = "from distill.cli import main\nmain()"


@dataclass(frozen=True, slots=True)
class Program:
    """A running program; what it says on both streams goes to `log`."""

    process: "multiprocessing.process.BaseProcess"
    log: Path

    def said(self) -> str:
        """Return what it has said so far."""
        return self.log.read_text(encoding="utf-8")

    def end(self) -> int | None:
        """Wait for its end and return the exit code, below 0 for a signal."""
        self.process.join(_LIMIT_SECONDS)
        return self.process.exitcode

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Return as soon as `is_so`, while the program still runs."""
        give_up = time.monotonic() + _LIMIT_SECONDS
        while not is_so():
            assert self.process.is_alive(), self.said()
            assert time.monotonic() < give_up
            time.sleep(0.02)

    def send(self, sent: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, sent)


def start_libraries() -> None:
    """Begin to import what the programs need, meanwhile doing something else."""
    forkserver.ensure_running()


def start(code: str, words: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> Program:
    """Start the Python program `code` with the arguments `words`, as `python -c` would."""
    process = _FORKING.Process(target=_run, args=(code, [*words], log, {**os.environ, **(environment or {})}))
    process.start()
    return Program(process, log)


def _run(code: str, words: list[str], log: Path, environment: dict[str, str]) -> None:
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite started in the background ignores it
    os.environ.update(environment)
    sys.argv = ["-c", *words]
    exec(compile(code, "<program>", "exec"), {"__name__": "__main__"})
