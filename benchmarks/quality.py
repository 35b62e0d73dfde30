"""Measure the lines of quality that students have to hold, over several seeds, and print them; exit 1 on a miss.

    python benchmarks/quality.py DATASETS_FOLDER [--seeds 5] [--only ROW ...] [--runs DIR] [--share S]

DATASETS_FOLDER holds banking77/, clinc150/ and goemotions/. Each row trains its config once a seed, unless the run is
finished under --runs: only the student's seed changes, teacher and soft labels are shared, so the t interval says how
much a student depends on its seed and nothing of other teachers. What is scored is the int8 file, one text at a time.
--share trains on a part of the data with short schedules, to see that everything works; its figures mean nothing.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import static_tier
import yaml
from lines import Line, MeasureError
from out_of_scope import out_of_scope
from rival_material import read_material
from rivals import measure, trial_or_real
from runs import FinishedRun, Runs
from seeds import Seeded, in_points, over_seeds, seeded

from export.errors import ExportError
from export.machine import machine
from teacher.corpus import read_meta

_MOST_GAP, _MOST_LAYERS, _MOST_BYTES, _MOST_GOLD = 0.003, 3, 9_000_000, 0.01
_LEAST_ACCURACY = {"banking77": 0.939, "clinc150": 0.965}
_MOST_F1_GAP = 0.01
_LEAST_CLOSED = 0.95
_MOST_TRAIN_SECONDS, _NEAR = 12 * 60, 0.002
_SETFIT = ("setfit_teacher", "setfit_distilled", "setfit_gold_only")


@dataclass(frozen=True, slots=True)
class Bench:
    """The runs, how many seeds, and whether this is a trial."""

    runs: Runs
    seeds: int
    share: float


def compression(name: str, bench: Bench) -> Iterator[Line]:
    """Set the int8 student beside its teacher, which is fully supervised, and beside the absolute line."""
    found = seeded(bench.runs, name, bench.seeds)
    gap, run = found.gap(), found.runs[0]
    layers = int(run.read("tuned/config.json")["num_hidden_layers"])
    gold = max(map(_gold_share, found.runs))
    yield Line(
        f"{name}_gap",
        f"{_beside(found)}; {layers} layers, {run.shipped_bytes / 1e6:.2f} MB, bundle "
        f"{_bundle_bytes(run) / 1e6:.2f} MB, {gold:.1%} of the gold in its training, {_train_seconds(found)}",
        f"gap <= {100 * _MOST_GAP:g} point, interval touching 0, <= {_MOST_LAYERS} layers, <= "
        f"{_MOST_BYTES / 1e6:g} MB, <= {_MOST_GOLD:.0%} gold",
        gap.estimate >= -_MOST_GAP
        and gap.high >= 0
        and layers <= _MOST_LAYERS
        and run.shipped_bytes <= _MOST_BYTES
        and gold <= _MOST_GOLD,
    )
    least = _LEAST_ACCURACY[name]
    yield Line(f"{name}_absolute", over_seeds(found.scores), f">= {least:.1%}", float(np.mean(found.scores)) >= least)


def goemotions(bench: Bench) -> Iterator[Line]:
    """Set the multi-label student beside its teacher, with the thresholds in its bundle."""
    found = seeded(bench.runs, "goemotions", bench.seeds)
    yield Line(
        "goemotions",
        f"macro-F1 {_beside(found)}",
        f"gap <= {_MOST_F1_GAP:g}",
        found.gap().estimate >= -_MOST_F1_GAP,
    )


def static(name: str, bench: Bench) -> Iterator[Line]:
    """Look at a student without layers: quality, bytes, time of training, texts a second."""
    found = seeded(bench.runs, f"{name}_static", bench.seeds)
    yield static_tier.quality(found)
    yield static_tier.throughput(found.runs[0], max(round(static_tier.ROUNDS * bench.share), 1))


def share_closed(name: str, bench: Bench) -> Iterator[Line]:
    """Say how much of the gap between gold alone and the teacher the student closes, and SetFit's of its own."""
    found = seeded(bench.runs, f"{name}_10shot", bench.seeds, until="report")
    alone = [run.report["quality"]["gold_only"]["accuracy"] for run in found.runs]
    ours = _closed(found.teacher_score, float(np.mean(found.scores)), float(np.mean(alone)))
    material = read_material(found.runs[0])
    teacher, distilled, theirs_alone = (measure(rival, material)[0] for rival in _SETFIT)
    theirs = _closed(teacher, distilled, theirs_alone)
    yield Line(
        f"{name}_10shot",
        f"{ours:.1%} of the gap closed: teacher {found.teacher_score:.2%}, int8 {over_seeds(found.scores)}, gold alone "
        f"{over_seeds(alone)}; SetFit closes {theirs:.1%}: teacher {teacher:.2%}, distilled {distilled:.2%}, gold "
        f"alone {theirs_alone:.2%} ({_rows_of_gold(found.runs[0])} gold rows)",
        f">= {_LEAST_CLOSED:.0%} closed, SetFit's distillation behind",
        ours >= _LEAST_CLOSED and distilled < float(np.mean(found.scores)),
    )


def scope(bench: Bench) -> Iterator[Line]:
    """Ask the clinc150 student about texts that are about none of its labels."""
    found = seeded(bench.runs, "clinc150", bench.seeds)
    yield from out_of_scope(found, bench.runs.datasets / "clinc150")


def train_time(bench: Bench) -> Iterator[Line]:
    """Say when the banking77 student came within 0.2 point of where it ended, on dev."""
    run = bench.runs.seeded("banking77", 0, "train")
    seconds, whole = seconds_until_near(run)
    yield Line(
        "train_time",
        f"{seconds / 60:.1f} min until every look at dev is within {100 * _NEAR:g} point of the last, "
        f"{whole / 60:.1f} min in all, on {machine()['usable_cores']} cores ({run.origin})",
        f"<= {_MOST_TRAIN_SECONDS / 60:g} min",
        seconds <= _MOST_TRAIN_SECONDS,
    )


def seconds_until_near(run: FinishedRun) -> tuple[float, float]:
    """Return the seconds of training until all later looks at dev are near the last one, and of the whole stage.

    The log tells epochs, not times: the time of training is taken as even over epochs, and all that precedes it counts.
    """
    log, whole = run.read("student/metrics.json")["log"], run.read("lineage/student.json")["seconds"]
    looks = [(entry["epoch"], entry["eval_score"]) for entry in log if "eval_score" in entry]
    training = next(entry["train_runtime"] for entry in log if "train_runtime" in entry)
    last_epoch, last = looks[-1]
    far = [place for place, (_, score) in enumerate(looks) if abs(score - last) > _NEAR + 1e-9]
    near = looks[far[-1] + 1 if far else 0][0]
    training = min(training, whole)  # of a run that was resumed the log counts more than the stage
    return whole - training * (1 - near / last_epoch), whole


def _beside(found: Seeded) -> str:
    pairings = found.pairings()
    alone = [f"{one['student_alone']}:{one['teacher_alone']} (p {one['p_value']:.2g})" for one in pairings]
    expected = [one["expected_gap"] for one in pairings if one["expected_gap"] is not None]
    return (
        f"int8 {over_seeds(found.scores)}, teacher {found.teacher_score:.2%}, gap {in_points(found.gap())}, right "
        f"alone {', '.join(alone)}" + (f", gap that the teacher expects {over_seeds(expected)}" if expected else "")
    )


def _closed(teacher: float, student: float, alone: float) -> float:
    return (student - alone) / (teacher - alone) if teacher > alone else 1.0


def _gold_share(run: FinishedRun) -> float:
    """Return the share of the gold rows whose labels the student was trained on: all of them, or none."""
    config = yaml.safe_load((run.directory / "config.yaml").read_text(encoding="utf-8"))
    is_tuned = run.read("tuned/metrics.json")["kept"] == "tuned"
    return float(is_tuned or config["train"]["gold_weight"] > 0)


def _rows_of_gold(run: FinishedRun) -> int:
    rows = read_meta(run.directory / "corpus").rows
    return rows["gold"] + rows["dev"]


def _bundle_bytes(run: FinishedRun) -> int:
    return sum(path.stat().st_size for path in (run.directory / "bundle").rglob("*") if path.is_file())


def _train_seconds(found: Seeded) -> str:
    seconds = [run.read("lineage/student.json")["seconds"] for run in found.runs]
    return f"trained in {min(seconds):.0f} to {max(seconds):.0f} s"


ROWS: Mapping[str, Callable[[Bench], Iterator[Line]]] = {
    "banking77": partial(compression, "banking77"),
    "clinc150": partial(compression, "clinc150"),
    "goemotions": goemotions,
    "banking77_static": partial(static, "banking77"),
    "clinc150_static": partial(static, "clinc150"),
    "banking77_10shot": partial(share_closed, "banking77"),
    "clinc150_10shot": partial(share_closed, "clinc150"),
    "out_of_scope": scope,
    "train_time": train_time,
}


def main() -> int:
    """Measure the wanted rows, print each line as soon as it is known, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the lines of quality over several seeds.")
    parser.add_argument("datasets", type=Path, metavar="DATASETS_FOLDER", help="banking77/, clinc150/, goemotions/")
    parser.add_argument("--seeds", type=int, default=5, help="students of each config")
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), help=str([*ROWS]))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="finished runs are reused, new ones kept")
    parser.add_argument("--share", type=float, default=1.0, help="of the data, for a trial with runs made elsewhere")
    wanted, about = parser.parse_args(), machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    print(f"# {wanted.seeds} seeds of the student; corpus, teacher and soft labels are those of seed 0", flush=True)
    with tempfile.TemporaryDirectory(prefix="quality-") as scratch:
        runs = trial_or_real(wanted.datasets, wanted.runs, Path(scratch), wanted.share)
        bench = Bench(runs, wanted.seeds, wanted.share)
        lines = [line for name in wanted.only for line in _printed(name, bench)]
    return 0 if all(line.holds for line in lines) else 1


def _printed(name: str, bench: Bench) -> Iterator[Line]:
    try:
        for line in ROWS[name](bench):
            print(line, flush=True)
            yield line
    except (MeasureError, ExportError, OSError, KeyError) as error:
        line = Line(name, f"{error!r}", "can be measured", False)
        print(line, flush=True)
        yield line


if __name__ == "__main__":
    sys.exit(main())
