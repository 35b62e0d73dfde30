"""The `distill` program: runs one command and turns every error into one line on stderr and an exit code.

0 done; 1 a gate or a check failed; 2 wrong use; 130 interrupted, with the command that resumes.
"""

import errno
import os
import shlex
import shutil
import signal
import sys
import traceback
from types import FrameType

import click

from distill.commands import app
from distill.doctor import extra_for
from distill.errors import DistillError
from export.errors import ExportError
from student.errors import StudentError
from teacher.errors import CorpusError, LabelMismatchError, TeacherError
from teacher.processes import is_first_process

_INTERRUPTED = 130
_WRONG_USE = (CorpusError, LabelMismatchError)
_OUR_ERRORS = (DistillError, TeacherError, StudentError, ExportError)


def main() -> None:
    """Run `distill` with the arguments of this process and exit."""
    signal.signal(signal.SIGTERM, _interrupt)
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; with --debug, show the traceback of an error."""
    end_of_options = arguments.index("--") if "--" in arguments else len(arguments)
    debug = "--debug" in arguments[:end_of_options]
    rest = [each for index, each in enumerate(arguments) if each != "--debug" or index > end_of_options]
    try:
        code = app(rest, prog_name="distill", standalone_mode=False) or 0
    except (KeyboardInterrupt, click.Abort):
        code = _INTERRUPTED
    except Exception as error:
        if debug:
            traceback.print_exc()
        code, reason = judge(error)
        print(reason, file=sys.stderr)
    if code == _INTERRUPTED and is_first_process():
        command = shlex.join(["distill", *arguments])
        print(f"interrupted; finished work is kept, resume with: {command}", file=sys.stderr)
    return int(code)


def judge(error: Exception) -> tuple[int, str]:
    """Return the exit code of `error` and what to tell a person, the reason in the last line."""
    if isinstance(error, _OUR_ERRORS):
        code = 2 if isinstance(error, _WRONG_USE) else getattr(error, "exit_code", 1)
        return code, f"error: {error}"
    if isinstance(error, OSError):
        return 1, f"error: {_explain_os_error(error)}"
    if isinstance(error, ModuleNotFoundError) and (extra := extra_for(error.name or "")):
        return 1, f"error: {error.name} is not installed; pip install 'potstill[{extra}]'"
    if hasattr(error, "format_message"):  # what click raises for wrong arguments
        return 2, f"error: {error.format_message()} (see: distill --help)"
    kind, text = type(error).__name__, " ".join(str(error).split())
    return (
        1,
        f"error: unexpected {kind}: {text}; please report it with the output of the same command and --debug",
    )


def _explain_os_error(error: OSError) -> str:
    path = error.filename or os.getcwd()
    if error.errno == errno.ENOSPC:
        folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
        free = shutil.disk_usage(folder if os.path.isdir(folder) else os.getcwd()).free
        return f"{path}: the disk is full, {free:,} bytes free; make room and run the same command again"
    return f"{path}: {error.strerror or error}"


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
