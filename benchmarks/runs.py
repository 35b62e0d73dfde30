"""Runs of the repository's configs: reused where one is finished and quality is asked, made cold where time is.

Every run is a `distill` process of its own, as a person starts it. Knows nothing of the lines to hold.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkout import ROOT
from lines import MeasureError

from distill.config import LoadedConfig, load_config
from distill.pipeline import STAGES, pipeline_status
from export.bundle import MODEL_FILES

_WARM_RUNS = 3
_SHIPPED = (MODEL_FILES["int8"], "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "config.json")
_SHARED = ("corpus", "teacher", "labels", "audit")  # by students that differ in their seed


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run directory and where it is from: `origin` in words, `cold_seconds` when it was made here from nothing."""

    directory: Path
    origin: str
    cold_seconds: float | None = None

    @property
    def report(self) -> dict[str, Any]:
        """The run's report.json."""
        return self.read("report/report.json")

    @property
    def shipped_bytes(self) -> int:
        """Bytes of the int8 model, its tokenizer and config."""
        return sum(path.stat().st_size for name in _SHIPPED if (path := self.directory / "bundle" / name).is_file())

    def read(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the run."""
        content: dict[str, Any] = json.loads((self.directory / name).read_text(encoding="utf-8"))
        return content


class Runs:
    """The runs under `directory`, made on demand; what must be cold goes to `scratch`, which nobody keeps."""

    def __init__(self, datasets: Path, directory: Path, scratch: Path, overrides: Sequence[str] = ()) -> None:
        """Start without any run; `overrides` go into the config of each."""
        self.datasets = datasets.resolve()
        self.directory = directory.resolve()
        self.scratch = scratch
        self._always = list(overrides)
        self._finished: dict[str, FinishedRun] = {}
        self._cold: dict[str, FinishedRun] = {}

    def finished(self, name: str) -> FinishedRun:
        """Return the run of configs/`name`.yaml, reusing a finished one or finishing one that is begun."""
        if name not in self._finished:
            self._finished[name] = self._find_or_make(name)
        return self._finished[name]

    def cold(self, name: str) -> FinishedRun:
        """Return a run made here from an empty directory, with the seconds it took."""
        known = self._finished.get(name)
        if known is not None and known.cold_seconds is not None:
            return known
        if name not in self._cold:
            folder = Path(tempfile.mkdtemp(prefix=f"cold-{name}-", dir=self.scratch))
            self._cold[name] = self._make(name, folder, "fresh run directory")
        return self._cold[name]

    def seeded(self, name: str, seed: int, until: str = "report") -> FinishedRun:
        """Return the run of configs/`name`.yaml whose student has `seed`, built up to the stage `until`.

        Seed 0 is the run itself; the others share its corpus, teacher and soft labels, as links, and train anew.
        """
        named = f"{name}_seed{seed}" if seed else name
        differing = [f"name={named}", f"train.seed={seed}"] if seed else []
        states = {stage.name: stage.state for stage in pipeline_status(self._load(name, differing), self.directory)}
        order = [stage.name for stage in STAGES]
        wanted = order[: order.index(until) + 1]
        directory = self.directory / named
        if all(states[stage] == "done" for stage in wanted):
            return FinishedRun(directory, "reused run")
        if seed:
            self._link(self.directory / name, directory)
        seconds = self._distill(name, self.directory, until, differing)
        return FinishedRun(directory, f"made here in {seconds:.0f} s")

    @staticmethod
    def _link(source: Path, target: Path) -> None:
        for folder in _SHARED:
            if (source / folder).is_dir() and not (target / folder).exists():
                shutil.copytree(source / folder, target / folder, copy_function=os.link)
                (target / "lineage").mkdir(exist_ok=True)
                shutil.copy2(source / "lineage" / f"{folder}.json", target / "lineage")

    def second_run_seconds(self, name: str, run: FinishedRun) -> float:
        """Return the median seconds of `distill run` in fresh processes when nothing changed."""
        return statistics.median(self._distill(name, run.directory.parent) for _ in range(_WARM_RUNS))

    def is_done(self, name: str, stages: tuple[str, ...] = (), folder: Path | None = None) -> bool:
        """Say whether every stage (or each of `stages`) of the run is done under `folder` (None: the runs folder)."""
        states = {stage.name: stage.state for stage in pipeline_status(self._load(name), folder or self.directory)}
        return all(states[stage] == "done" for stage in stages or states)

    def labelled(self, name: str) -> Path:
        """Return a run directory that holds at least the corpus and the fitted teacher."""
        if self.is_done(name, ("corpus", "teacher")):
            return self.directory / name
        return self.finished(name).directory

    def _find_or_make(self, name: str) -> FinishedRun:
        directory = self.directory / name
        if self.is_done(name):
            return FinishedRun(directory, "reused run")
        if directory.exists():
            self._distill(name, self.directory)
            return FinishedRun(directory, "run finished here")
        return self._make(name, self.directory, "fresh run directory")

    def _make(self, name: str, folder: Path, origin: str) -> FinishedRun:
        seconds = self._distill(name, folder)
        return FinishedRun(folder / name, origin, seconds)

    def _load(self, name: str, more: Sequence[str] = ()) -> LoadedConfig:
        return load_config(_config(name), [*self._overrides(name), *more])

    def _overrides(self, name: str) -> list[str]:
        # A config is named after its data set and, behind an underscore, what is special about it.
        root = [] if name == "demo" else [f"data.root={self.datasets / name.partition('_')[0]}"]
        return [*root, *self._always]

    def _distill(self, name: str, folder: Path, command: str = "run", more: Sequence[str] = ()) -> float:
        """Run the config and return the seconds; a run whose gate failed (exit 1) is finished all the same."""
        words = [sys.executable, "-m", "distill", command, str(_config(name)), "--runs", str(folder)]
        started = time.perf_counter()
        code = subprocess.run(
            [*words, *self._overrides(name), *more], cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, check=False
        ).returncode
        seconds = time.perf_counter() - started
        if code not in (0, 1) or (code == 1 and command == "run" and not self.is_done(name, folder=folder)):
            raise MeasureError(f"`distill run configs/{name}.yaml` ended with {code}; its reason stands above")
        return seconds


def environment() -> dict[str, str]:
    """Return this process's environment without a PYTHONPATH that could put another package in the way."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def _config(name: str) -> Path:
    return ROOT / "configs" / f"{name}.yaml"
