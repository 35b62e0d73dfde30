"""Pieces of the end-to-end tests: a small project on disk, the real command line, and one finished run to look at."""

import contextlib
import io
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.cli import run as run_command
from tests.conftest import corpus_rows, write_csv
from tests.processes import start_libraries

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same sums in the same order, here and in every subprocess

# Both rates are far above any real recipe: 12,000 random parameters have to learn within a second.
_FAST = {"learning_rate": 0.01, "head_learning_rate": 0.01}
CONFIG: dict[str, Any] = {
    "name": "shop",
    "data": {"unlabeled": ["pool.csv"], "gold": "gold.csv", "dev": "dev.csv", "test": "test.csv"},
    "teacher": {"kind": "encoder", "model": "encoder", "epochs": 5, "soup": 2, "batch_size": 8, **_FAST},
    "label": {"weak_teacher": "warn"},  # a linear model is perfect on this corpus
    "student": {"layers": 2},
    "train": {"epochs": 5, "batch_size": 16, **_FAST},
    "tune": {"epochs": 1},
    # A model of 16 dimensions may lose a few of 60 dev rows to int8; a damaged file loses most.
    "export": {"max_drop": 0.2, "max_kl": 0.5, "max_class_drop": 0.6, "max_calibration_rise": 0.3},
    "bench": {"texts": 100, "repeats": 1},
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a command left behind: its exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        """The last line on stderr, where the reason of a failure stands."""
        return (self.err.splitlines() or [""])[-1]


class Project:
    """A folder with a corpus, a config and runs; every command goes through the real `distill`."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        """Write `config` into `folder`; the corpus is there already."""
        self.folder = folder
        self.runs = folder / "runs"
        self.config = folder / "shop.yaml"
        self.run = self.runs / str(config["name"])
        self.config.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")

    def distill(self, command: str, *arguments: str) -> Outcome:
        """Run one command on the config of this project, in this process."""
        return self.call(*self.words(command, *arguments))

    def words(self, command: str, *arguments: str) -> list[str]:
        """Return the arguments of a command on this config."""
        return [command, str(self.config), *arguments, "--runs", str(self.runs)]

    @staticmethod
    def call(*arguments: str) -> Outcome:
        """Run `distill` with `arguments` in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_command(list(arguments))
        return Outcome(code, out.getvalue(), err.getvalue())

    def copy(self, target: Path, *stages: str) -> "Project":
        """Return this project with a run of its own in `target` that starts with the finished `stages` of this one."""
        copied = Project.__new__(Project)
        copied.folder, copied.config, copied.runs = self.folder, self.config, target
        copied.run = target / self.run.name
        for stage in stages:
            shutil.copytree(self.run / stage, copied.run / stage)
            (copied.run / "lineage").mkdir(exist_ok=True)
            shutil.copy2(self.run / "lineage" / f"{stage}.json", copied.run / "lineage")
        return copied


MakeProject = Callable[..., Project]


def write_parts(folder: Path, rows: list[tuple[str, str]]) -> None:
    """Deal `rows` into gold (60), dev (60), test (90) and pool (the rest)."""
    rows = random.Random(0).sample(rows, len(rows))
    for part, first, last in (("gold", 0, 60), ("dev", 60, 120), ("test", 120, 210)):
        write_csv(folder / f"{part}.csv", ["text", "label"], [*rows[first:last]])
    write_csv(folder / "pool.csv", ["text"], [(text,) for text, _ in rows[210:]])


def two_wishes() -> list[tuple[str, str]]:
    """Return texts of one or two wishes with their labels, separated by a bar."""
    rows = corpus_rows()
    pairs = [random.Random(seed).sample(rows, 2) for seed in range(250)]
    both = [(f"{first} and {second}", "|".join(sorted({one, other}))) for (first, one), (second, other) in pairs]
    return [*rows[::2], *dict(both).items()]


@pytest.fixture(scope="session")
def make_project(tiny_encoder: Path) -> MakeProject:
    """Return a function that makes a project in a folder; keywords replace whole sections of the config."""

    def make(folder: Path, rows: list[tuple[str, str]] | None = None, **sections: Any) -> Project:
        shutil.copytree(tiny_encoder, folder / "encoder")
        write_parts(folder, rows or corpus_rows())
        return Project(folder, CONFIG | sections)

    return make


@pytest.fixture(scope="session")
def finished(make_project: MakeProject, tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, Outcome]:
    """Return a project whose run went through, and what `distill run` said; tests only read it."""
    start_libraries()  # some test forks from them after this run
    project = make_project(tmp_path_factory.mktemp("finished"))
    return project, project.distill("run")


@pytest.fixture
def quick_cold_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restart once instead of five times, where a run is about something other than speed."""
    from distill import measure

    once = measure.cold_start
    monkeypatch.setattr(measure, "cold_start", lambda bundle, text: once(bundle, text, restarts=1))
