"""What a server installs and how soon it answers: `pip install .[serve]` in an empty environment, then a cold start."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkout import ROOT
from lines import MeasureError
from runs import environment

RESTARTS = 5
_TRAINING_PACKAGES = ("torch", "transformers", "datasets")
_NOT_SOURCE = (".git", ".venv", "runs", "build", "dist", "*.egg-info", "__pycache__", ".*_cache")
_TEXT = "I still have not received my new card, I ordered over a week ago."
_FIND_PACKAGES = (
    "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))"
)
_COLD_START = """
import dataclasses, json, pathlib, sys
from export.bench import cold_start
print(json.dumps(dataclasses.asdict(cold_start(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))))
"""

_CALLS = """
import json, sys
from export.runtime import Predictor
texts, calls = json.load(sys.stdin), int(sys.argv[2])
predictor = Predictor.load(sys.argv[1])
def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1e3 for line in status if line.startswith("VmRSS"))
for call in range(calls):
    if call == 1000:
        first = resident()
    predictor.predict(texts[call % len(texts)])
print(json.dumps([first, resident()]))
"""


@dataclass(frozen=True, slots=True)
class ServeInstall:
    """Training packages found in the environment (none wanted), and the medians of the cold starts in seconds.

    `installed_megabytes` is what the installation added; pip, and what else an empty environment holds, was there.
    """

    training_packages: tuple[str, ...]
    total_s: float
    import_s: float
    load_s: float
    first_answer_s: float
    installed_megabytes: float
    environment_megabytes: float
    python: Path


def measure_serve_install(bundle: Path, folder: Path) -> ServeInstall:
    """Install the `serve` extra into a new environment under `folder` and answer from `bundle` in fresh processes."""
    source, python = folder / "source", folder / "venv" / "bin" / "python"
    # pip builds inside the folder it is given, so it gets a copy.
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*_NOT_SOURCE))
    _run([sys.executable, "-m", "venv", str(folder / "venv")], folder)
    empty = _megabytes(folder / "venv")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*install, "--constraint", str(ROOT / "constraints.txt"), f"{source}[serve]"], folder)
    shutil.rmtree(source)
    whole = _megabytes(folder / "venv")
    ask = [str(python), "-P", "-c"]
    found = _json([*ask, _FIND_PACKAGES, *_TRAINING_PACKAGES], folder)
    times = _json([*ask, _COLD_START, str(bundle.resolve()), _TEXT, str(RESTARTS)], folder)
    return ServeInstall(
        python=python,
        training_packages=tuple(found),
        total_s=times["total_s"],
        import_s=times["import_s"],
        load_s=times["load_s"],
        first_answer_s=times["first_answer_s"],
        installed_megabytes=whole - empty,
        environment_megabytes=whole,
    )


def resident_after(python: Path, bundle: Path, texts: Sequence[str], calls: int) -> tuple[float, float]:
    """Return resident megabytes of a serving process after its first 1,000 calls and after `calls` (more than that)."""
    command = [str(python), "-P", "-c", _CALLS, str(bundle.resolve()), str(calls)]
    done = subprocess.run(
        command, input=json.dumps(list(texts)), env=environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise MeasureError(f"a serving process ended with {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
    first, last = json.loads(done.stdout.splitlines()[-1])
    return first, last


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()) / 1e6


def _json(command: list[str], folder: Path) -> Any:
    return json.loads(_run(command, folder).splitlines()[-1])


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise MeasureError(f"{' '.join(command[:4])} ... ended with {done.returncode}: {''.join(last)}")
    return done.stdout
