"""Measure the lines that students without layers have to hold and print one row each; exit 1 when one is missed.

    python benchmarks/static_tier.py DATASETS_FOLDER [--small] [--runs DIR]

DATASETS_FOLDER holds banking77/ and clinc150/. A finished run under --runs is reused. With --small only banking77
is looked at, and throughput for a tenth of the rounds.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from lines import Line, MeasureError
from runs import FinishedRun, Runs

from export.bundle import MODEL_FILES
from export.machine import machine
from export.runtime import OnnxClassifier
from teacher.corpus import read_part

_LEAST_ACCURACY = {"banking77_static": 0.930, "clinc150_static": 0.955}
_MOST_BYTES, _MOST_TRAIN_SECONDS, _LEAST_TEXTS_A_SECOND = 5_000_000, 240.0, 50_000.0
_THREADS, _ROUNDS, _ROUND_TEXTS = 2, 30, 20_000


def quality(run: FinishedRun) -> Line:
    """Look at the int8 student on test, the bytes of its model and tokenizer, and how long it trained."""
    found, name = run.report["quality"], run.directory.name
    student, teacher = found["student_int8"]["accuracy"], found["teacher"]["accuracy"]
    bundle = run.directory / "bundle"
    size = sum((bundle / file).stat().st_size for file in (MODEL_FILES["int8"], "tokenizer.json"))
    seconds = run.read("lineage/student.json")["seconds"]
    least = _LEAST_ACCURACY[name]
    return Line(
        name,
        f"int8 {student:.2%}, teacher {teacher:.2%}, {size / 1e6:.2f} MB with its tokenizer, "
        f"trained in {seconds:.0f} s ({run.origin})",
        f"int8 >= {least:.1%}, <= {_MOST_BYTES / 1e6:g} MB, trained in <= {_MOST_TRAIN_SECONDS:.0f} s",
        student >= least and size <= _MOST_BYTES and seconds <= _MOST_TRAIN_SECONDS,
    )


def throughput(run: FinishedRun, rounds: int) -> Line:
    """Answer pool texts in bulk, tokenization included; the median over rounds counts."""
    bundle = run.directory / "bundle"
    max_tokens = int(run.read("bundle/potstill.json")["max_tokens"])
    classifier = OnnxClassifier(bundle / MODEL_FILES["int8"], bundle / "tokenizer.json", max_tokens, _THREADS)
    pool = [example.text for example in read_part(run.directory / "corpus", "pool")]
    texts = (pool * (_ROUND_TEXTS // len(pool) + 1))[:_ROUND_TEXTS]
    classifier.logits(texts)
    rates = []
    for _ in range(rounds):
        started = time.perf_counter()
        classifier.logits(texts)
        rates.append(len(texts) / (time.perf_counter() - started))
    median = statistics.median(rates)
    return Line(
        f"{run.directory.name}_throughput",
        f"{median:,.0f} texts/s (rounds {min(rates):,.0f} to {max(rates):,.0f}) on {_THREADS} threads",
        f">= {_LEAST_TEXTS_A_SECOND:,.0f} texts/s, text in to logits out",
        median >= _LEAST_TEXTS_A_SECOND,
    )


def latency(run: FinishedRun) -> Line:
    """Say what the run's own interleaved benchmark says of one text at a time; there is no line for it."""
    found = run.read("bench/latency.json")["latency"]["student_int8"]
    return Line(f"{run.directory.name}_latency", f"p50 {1000 * found['p50_ms']:.0f} us, n {found['n']}", "none", True)


def main() -> int:
    """Measure every row, print each as soon as it is known, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the lines that static students have to hold.")
    parser.add_argument("datasets", type=Path, metavar="DATASETS_FOLDER", help="holds banking77/ and clinc150/")
    parser.add_argument("--small", action="store_true", help="banking77 alone, few rounds")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="finished runs are reused")
    wanted = parser.parse_args()
    about = machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    lines = []
    with tempfile.TemporaryDirectory(prefix="static-tier-") as scratch:
        runs = Runs(wanted.datasets, wanted.runs, Path(scratch))
        for name in list(_LEAST_ACCURACY)[: 1 if wanted.small else None]:
            try:
                run = runs.finished(name)
                found = [quality(run), throughput(run, _ROUNDS // 10 if wanted.small else _ROUNDS), latency(run)]
            except (MeasureError, KeyError) as error:
                found = [Line(name, f"{error!r}", "can be measured", False)]
            print(*found, sep="\n", flush=True)
            lines += found
    return 0 if all(line.holds for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
