"""A search for a student: it ends with a usable run, survives a kill, asks nothing twice, and says what cannot be."""

import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from teacher.files import file_digest
from tests.e2e.conftest import Outcome, Project
from tests.processes import DISTILL, start

LADDER = "search.ladder=[{layers: 2}, {layers: 3}, {layers: 4}, {layers: 9}]"
EASY = (LADDER, "--p50-ms", "1000", "--max-gap", "100")
RUN = ("corpus", "teacher", "labels", "student", "tuned", "bundle", "baselines", "bench", "report")
Finished = tuple[Project, Outcome]
Searched = tuple[Project, Outcome, int | None]
# Dies with the last student of the last rung trained and not yet saved; each saves twice, and the run had one already.
KILLED_AT_THE_LAST_RUNG = """
import os, signal
import distill.train
save, calls = distill.train.save_student, []
def save_or_die(*given, **options):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    save(*given, **options)
distill.train.save_student = save_or_die
"""


def written(run: Path) -> dict[str, int]:
    """Return when every stage directory of a run and its search was finished."""
    return {path.relative_to(run).as_posix(): path.stat().st_mtime_ns for path in run.rglob("lineage/*.json")}


def found(project: Project) -> dict[str, Any]:
    """Return what the search said to machines."""
    result: dict[str, Any] = json.loads((project.run / "search.json").read_text(encoding="utf-8"))
    return result


def runner_up(project: Project) -> tuple[int, Path]:
    """Return the layers of the student that was trained to the end beside the one chosen, and the run of its training.

    It paused after a quarter, and the search died when it had been trained to the end.
    """
    layers = next(int(row["name"].split()[0]) for row in found(project)["students"] if row["state"] == "trained")
    return layers, project.run / "search" / f"{layers}-layers" / "1" / project.run.name


@pytest.fixture(scope="module")
def searched(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """Return a finished project after a search that was killed once, what it said then, and how it had been killed."""
    folder = tmp_path_factory.mktemp("searched")
    project = finished[0].copy(folder, *RUN)
    killed = start(KILLED_AT_THE_LAST_RUNG + DISTILL, project.words("search", *EASY), folder / "log").end()
    kept = {name: when for name, when in written(project.run).items() if name.startswith("search/")}
    outcome = project.distill("search", *EASY)
    assert kept
    assert {name: when for name, when in written(project.run).items() if name in kept} == kept
    return project, outcome, killed


def test_a_killed_search_keeps_what_it_had_and_ends_with_the_smallest_student(searched: Searched) -> None:
    project, outcome, killed = searched
    assert killed == -signal.SIGKILL
    assert outcome.code == 0, outcome.err
    assert found(project)["chosen"] == "2 layers"
    assert "2 layers is the smallest student that holds both lines" in outcome.out


def test_everyone_on_the_ladder_is_accounted_for(searched: Searched) -> None:
    rows = {row["name"]: row for row in found(searched[0])["students"]}
    ends = {name: (row["state"].partition(":")[0], row["share"]) for name, row in rows.items()}
    assert list(ends) == ["2 layers", "3 layers", "4 layers", "9 layers"]
    assert (ends["2 layers"], ends["9 layers"]) == (("chosen", 1.0), ("not possible", 0.0))
    # Who of the other two stands better after a quarter is for chance to say.
    assert sorted((ends["3 layers"], ends["4 layers"])) == [("dropped", 0.25), ("trained", 1.0)]
    sizes = [rows[name]["size_bytes"] for name in ("2 layers", "3 layers", "4 layers")]
    assert sizes == sorted(set(sizes))


def test_the_run_is_that_of_the_student_found_and_its_bundle_verifies(searched: Searched) -> None:
    project, outcome, _ = searched
    command = next(line for line in outcome.out.splitlines() if "distill run" in line)
    # Two layers is what the config says already.
    assert command == f"to make it again: distill run {project.config} --runs {project.runs}"
    assert set(project.distill("status").out.split()[1::2]) == {"done"}
    assert project.call("verify", str(project.run / "bundle")).code == 0


def test_the_report_of_the_run_shows_the_frontier(searched: Searched) -> None:
    project = searched[0]
    report = json.loads((project.run / "report.json").read_text(encoding="utf-8"))
    assert report["search"]["chosen"] == "2 layers"
    assert "Quality against answer time of the students tried" in (project.run / "report.html").read_text("utf-8")
    assert "3 layers" in (project.run / "report.md").read_text(encoding="utf-8")


def test_a_second_search_builds_nothing(searched: Searched) -> None:
    project, first, _ = searched
    before = written(project.run)
    again = project.distill("search", *EASY)
    assert (again.code, again.out) == (0, first.out)
    assert written(project.run) == before


def test_a_student_that_paused_and_was_killed_is_the_one_that_trains_undisturbed(
    searched: Searched, finished: Finished, tmp_path: Path
) -> None:
    alone = finished[0].copy(tmp_path, "corpus", "teacher", "labels")
    layers, halved = runner_up(searched[0])
    assert alone.distill("train", f"student.layers={layers}").code == 0
    weights = "model.safetensors"
    assert file_digest(halved / "student" / weights) == file_digest(alone.run / "student" / weights)


def test_a_run_takes_a_student_that_the_search_trained_to_the_end(searched: Searched) -> None:
    project = searched[0].copy(searched[0].runs.parent / "taken", "corpus", "teacher", "labels")
    shutil.copytree(searched[0].run / "search", project.run / "search")
    layers, halved = runner_up(searched[0])
    outcome = project.distill("export", f"student.layers={layers}")
    assert outcome.code == 0, outcome.err
    assert "train: " not in outcome.err
    assert file_digest(halved / "bundle" / "potstill.json") == file_digest(project.run / "bundle" / "potstill.json")


def test_a_time_that_nobody_holds_ends_the_search_before_any_training(finished: Finished, tmp_path: Path) -> None:
    project = finished[0].copy(tmp_path, "corpus")
    outcome = project.distill("search", "search.ladder=[{layers: 1}]", "--p50-ms", "0.0001", "--max-gap", "1")
    assert outcome.code == 1
    assert "the line p50 <= 0.0001 ms cannot be held: 1 layer" in outcome.last_line
    assert found(project)["students"][0]["state"] == "too slow"
    assert not (project.run / "teacher").exists()


def test_a_gap_that_nobody_holds_is_the_last_line_and_leaves_the_run_as_it_was(
    finished: Finished, tmp_path: Path
) -> None:
    project = finished[0].copy(tmp_path, "corpus", "teacher", "labels", "student", "tuned", "bundle")
    before = file_digest(project.run / "bundle" / "potstill.json")
    hurried = ("search.ladder=[{layers: 1}]", "train.epochs=0.1", "tune=null", "student.init=config")
    outcome = project.distill("search", *hurried, "--p50-ms", "1000", "--max-gap", "1")
    assert outcome.code == 1
    assert "the line gap <= 1 points cannot be held; 1 layer comes closest" in outcome.last_line
    wanted = "student.init=config student.layers=1"
    assert f"to make 1 layer again: distill run {project.config} train.epochs=0.1 tune=null {wanted}" in outcome.out
    assert file_digest(project.run / "bundle" / "potstill.json") == before


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--p50-ms", "0", "--max-gap", "1"), "--p50-ms 0"),
        (("--p50-ms", "1", "--max-gap", "nan"), "--max-gap nan"),
        (("--p50-ms", "1", "--max-gap", "-1"), "--max-gap -1"),
        (("--p50-ms", "1", "--max-gap", "1", "export.precision=fp32"), "export.precision fp32"),
        (("--p50-ms", "1", "--max-gap", "1", "search.rung=[1.0]"), "did you mean 'rungs'"),
        (("--p50-ms", "1", "--max-gap", "1", "search.rungs=[0.5]"), "rising shares that end with 1.0"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_read(
    finished: Finished, tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    project = finished[0].copy(tmp_path)
    outcome = project.distill("search", *arguments)
    assert outcome.code == 2
    assert reason in outcome.last_line
    assert not project.run.exists()
