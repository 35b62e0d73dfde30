"""Measure the lines that the main path has to hold and print one row each; exit 1 when one is missed.

    python benchmarks/main_path.py DATASETS_FOLDER [--only ROW ...] [--runs DIR]

DATASETS_FOLDER holds banking77/ and goemotions/. A finished run under --runs is reused where quality is asked;
where time is asked, a run is made from an empty directory, and the row says so.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from lines import Line, MeasureError, show
from runs import FinishedRun, Runs

from export.machine import machine

_MOST_GAP = 0.010
_MOST_DEMO_SECONDS, _MOST_BANKING_SECONDS, _MOST_SECOND_SECONDS = 6 * 60, 40 * 60, 2.0
_LEAST_TEACHER, _LEAST_STUDENT, _MOST_LAYERS, _MOST_BYTES = 0.938, 0.933, 3, 9_000_000
_LEAST_SPEEDUP, _LEAST_THROUGHPUT = 12.0, 2.0
_MOST_RESIDENT_BYTES, _MOST_GROWTH = 1.5e9, 0.10
_MOST_F1_GAP = 0.02
_MOST_COLD_START_SECONDS = 0.6
_STUDENT = "student_int8"


def demo(runs: Runs) -> Line:
    """Compare the demo's int8 student with its teacher and with what needs no teacher."""
    run = runs.finished("demo")
    quality, gap = run.report["quality"], run.report["gap"]
    accuracy = _int8(run)["accuracy"]
    rivals = {name: quality[name]["accuracy"] for name in ("gold_only", "tfidf_gold")}
    return Line(
        "demo",
        f"int8 {accuracy:.2%}, teacher {quality['teacher']['accuracy']:.2%}, gap {_points(gap)} points, "
        + ", ".join(f"{name} {value:.2%}" for name, value in rivals.items())
        + f" ({run.origin})",
        "within 1.0 point of the teacher, above gold_only and tfidf_gold",
        accuracy - quality["teacher"]["accuracy"] >= -_MOST_GAP and accuracy > max(rivals.values()),
    )


def demo_time(runs: Runs) -> Line:
    """Time the demo's run from an empty directory."""
    run = runs.cold("demo")
    seconds = _cold_seconds(run)
    return Line("demo_time", f"{seconds / 60:.1f} min ({run.origin})", "<= 6 min cold", seconds <= _MOST_DEMO_SECONDS)


def banking77(runs: Runs) -> Line:
    """Look at the quality, depth and size of the banking77 student."""
    run = runs.finished("banking77")
    teacher, student = run.report["quality"]["teacher"]["accuracy"], _int8(run)["accuracy"]
    layers = int(run.read("tuned/config.json")["num_hidden_layers"])
    size = run.shipped_bytes
    return Line(
        "banking77",
        f"teacher {teacher:.2%}, int8 {student:.2%}, {layers} layers, {size / 1e6:.2f} MB ({run.origin})",
        "teacher >= 93.8 %, int8 >= 93.3 %, <= 3 layers, <= 9 MB of int8 + tokenizer + config",
        teacher >= _LEAST_TEACHER and student >= _LEAST_STUDENT and layers <= _MOST_LAYERS and size <= _MOST_BYTES,
    )


def banking77_time(runs: Runs) -> Line:
    """Time banking77 from an empty directory, and once more with nothing changed."""
    run = runs.cold("banking77")
    cold, second = _cold_seconds(run), runs.second_run_seconds("banking77", run)
    return Line(
        "banking77_time",
        f"cold {cold / 60:.1f} min ({run.origin}), second run {second:.2f} s (fresh process, median of 3)",
        "cold <= 40 min, second run <= 2 s",
        cold <= _MOST_BANKING_SECONDS and second <= _MOST_SECOND_SECONDS,
    )


def speedup(runs: Runs) -> Line:
    """Compare the medians of the int8 student and the PyTorch teacher, from the run's own interleaved benchmark."""
    run = runs.finished("banking77")
    _int8(run)
    latency = run.read("bench/latency.json")["latency"]
    student, teacher = latency[_STUDENT], latency["teacher"]
    return Line(
        "speedup",
        f"{latency['speedup_p50']:.1f}x [{latency['speedup_low']:.1f}, {latency['speedup_high']:.1f}]: int8 p50 "
        f"{student['p50_ms']:.3f} ms on {student['threads']} thread, teacher {teacher['p50_ms']:.2f} ms on "
        f"{teacher['threads']}, n {student['n']}, A/A control [{latency['control_low']:.2f}, "
        f"{latency['control_high']:.2f}] ({run.origin})",
        ">= 12x at p50",
        latency["speedup_p50"] >= _LEAST_SPEEDUP,
    )


def throughput(runs: Runs) -> Line:
    """Label the banking77 pool with the teacher and with transformers.pipeline."""
    from throughput import ROUNDS, measure_throughput

    from teacher.corpus import read_part

    directory = runs.labelled("banking77")
    texts = [example.text for example in read_part(directory / "corpus", "pool")]
    found = measure_throughput(directory / "teacher", texts)
    return Line(
        "throughput",
        f"{found.ratio:.2f}x (rounds {found.lowest:.2f} to {found.highest:.2f}): teacher {found.ours:.0f} texts/s on "
        f"{found.our_threads} threads, pipeline {found.pipeline:.0f} on {found.pipeline_threads} (each at its best; "
        f"{len(texts):,} pool texts in {ROUNDS} interleaved rounds, same encoder, the pipeline's head untrained)",
        ">= 2x",
        found.ratio >= _LEAST_THROUGHPUT,
    )


def memory(runs: Runs) -> Line:
    """Watch the corpus and label stages on a million synthetic rows."""
    from memory import WARMUP_SHARE, measure_memory

    found = measure_memory(runs.scratch / "memory")
    growth = ", ".join(f"{stage} {share:+.1%}" for stage, share in found.growth.items())
    return Line(
        "memory",
        f"peak {found.peak_bytes / 1e9:.2f} GB, growth {growth} over {found.rows:,} rows in {found.seconds:.0f} s "
        f"(model of {found.parameters:,} parameters)",
        f"peak <= 1.5 GB; flat: in each stage, after its first {WARMUP_SHARE:.0%}, the median of the last half is at "
        "most 10 % above that of the first",
        found.peak_bytes <= _MOST_RESIDENT_BYTES and max(found.growth.values()) <= _MOST_GROWTH,
    )


def goemotions(runs: Runs) -> Line:
    """Compare the multi-label student with its teacher and look for the thresholds in its bundle."""
    run = runs.finished("goemotions")
    teacher, student = run.report["quality"]["teacher"]["macro_f1"], _int8(run)["macro_f1"]
    manifest = run.read("bundle/potstill.json")
    thresholds = manifest["thresholds"] or {}
    return Line(
        "goemotions",
        f"macro-F1 teacher {teacher:.4f}, int8 {student:.4f}, difference {student - teacher:+.4f}; thresholds for "
        f"{len(thresholds)} of {len(manifest['labels'])} labels ({run.origin})",
        "int8 within 0.02 of its teacher, thresholds in the bundle",
        student - teacher >= -_MOST_F1_GAP and set(thresholds) == set(manifest["labels"]),
    )


def serve(runs: Runs) -> Line:
    """Install the serve extra alone and time the first answer."""
    from serve_install import RESTARTS, measure_serve_install

    name = next((name for name in ("banking77", "goemotions") if runs.is_done(name)), "demo")
    bundle = runs.finished(name).directory / "bundle"
    found = measure_serve_install(bundle, Path(tempfile.mkdtemp(prefix="serve-", dir=runs.scratch)))
    return Line(
        "serve",
        f"{found.total_s:.3f} s (import {found.import_s:.3f}, load {found.load_s:.3f}, first answer "
        f"{found.first_answer_s:.4f}; median of {RESTARTS} processes, bundle of {name}); "
        f"{' and '.join(found.training_packages) or 'no torch, transformers or datasets'} installed, "
        f"{found.installed_megabytes:.0f} MB",
        "no torch, cold start <= 0.6 s",
        not found.training_packages and found.total_s <= _MOST_COLD_START_SECONDS,
    )


ROWS: Mapping[str, Callable[[Runs], Line]] = {
    row.__name__: row
    for row in (demo, demo_time, banking77, banking77_time, speedup, throughput, memory, goemotions, serve)
}


def main() -> int:
    """Measure the wanted rows, print each as soon as it is known, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the lines that the main path has to hold.")
    parser.add_argument("datasets", type=Path, metavar="DATASETS_FOLDER", help="holds banking77/ and goemotions/")
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), metavar="ROW", help=str([*ROWS]))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="finished runs are reused for quality rows")
    wanted = parser.parse_args()
    about = machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    with tempfile.TemporaryDirectory(prefix="main-path-") as scratch:
        runs = Runs(wanted.datasets, wanted.runs, Path(scratch))
        lines = [show(name, partial(ROWS[name], runs)) for name in wanted.only]
    return 0 if all(lines) else 1


def _int8(run: FinishedRun) -> dict[str, Any]:
    """Return the test quality of the int8 student that the bundle ships."""
    shipped = run.read("bundle/potstill.json")["precision"]
    if shipped != "int8":
        raise MeasureError(f"{run.directory} ships {shipped}: int8 failed its gates")
    quality: dict[str, Any] = run.report["quality"][_STUDENT]
    return quality


def _cold_seconds(run: FinishedRun) -> float:
    if run.cold_seconds is None:
        raise MeasureError(f"{run.directory} was not made from an empty directory, so its time says nothing")
    return run.cold_seconds


def _points(gap: Mapping[str, float]) -> str:
    return f"{100 * gap['estimate']:+.2f} [{100 * gap['low']:+.2f}, {100 * gap['high']:+.2f}]"


if __name__ == "__main__":
    sys.exit(main())
