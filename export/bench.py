"""Latency statistics that hold up: interleaved calls, paired ratios, no percentile without its samples.

Times callables that take one text; what answers behind them (onnxruntime, torch, a linear model) it does not
know. Cold start runs in fresh interpreters.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.machine import machine
from export.metrics import Interval

__all__ = [
    "ColdStart",
    "LatencySummary",
    "cold_start",
    "latency_by_tokens",
    "machine",
    "measure_interleaved",
    "paired_ratio",
    "percentile_curve",
    "run_fresh",
    "summarise",
]

Nanoseconds = NDArray[np.int64]  # (repeats, texts)

# The fewest samples of which, with 99 % confidence, two or more lie above the percentile.
SAMPLES_NEEDED = {50.0: 1, 90.0: 64, 99.0: 662, 99.9: 6636}
_BLOCK_TEXTS = 20
_CURVE_PERCENTS = (1, 5, 10, 25, 50, 75, 90, 95, 98, 99, 99.5, 99.9)
_COLD_START_TIMEOUT_SECONDS = 120

# Resident memory is read from /proc where there is one: ru_maxrss of a child also counts its parent's pages.
_COLD_START_PROGRAM = """
import sys
text = sys.stdin.read()
import time
started = time.perf_counter()
from export.runtime import Predictor
imported = time.perf_counter()
predictor = Predictor.load(sys.argv[1])
loaded = time.perf_counter()
predictor.predict(text)
answered = time.perf_counter()
import json, resource
try:
    with open("/proc/self/status") as status:
        resident = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))
except OSError:
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
moments = [imported - started, loaded - imported, answered - loaded, answered - started]
print(json.dumps([*moments, resident / 1e6]))
"""


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Percentiles of one contender; None where there are too few samples to state one."""

    p50_ms: float
    p90_ms: float | None
    p99_ms: float | None
    n: int
    threads: int


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Medians over fresh processes: importing, loading, the first answer, their sum, and resident memory."""

    import_s: float
    load_s: float
    first_answer_s: float
    total_s: float
    resident_mb: float
    restarts: int


def measure_interleaved(
    contenders: Mapping[str, Callable[[str], object]],
    texts: Sequence[str],
    repeats: int,
    warmup: int,
    seed: int,
) -> dict[str, Nanoseconds]:
    """Time every contender on every text and return nanoseconds (repeats, texts) by name.

    The contenders take turns, a block of texts at a time and in an order drawn anew for each block, so that a change
    of clock speed or load hits all alike. A turn opens with one untimed answer: in service a model has the cache to
    itself, and does not find what another one left there. Naming one callable twice gives the A/A control for
    `paired_ratio`.
    The first `warmup` texts are answered untimed. Raises ExportError when there is nothing to measure.
    """
    if not contenders or not texts or repeats < 1:
        raise ExportError(
            f"found {len(contenders)} contenders, {len(texts)} texts and {repeats} repeats to measure; "
            "at least one of each is needed"
        )
    samples = {name: np.zeros((repeats, len(texts)), np.int64) for name in contenders}
    for text in texts[:warmup]:
        for answer in contenders.values():
            answer(text)
    shuffler = random.Random(seed)
    order = list(contenders)
    for repeat in range(repeats):
        for start in range(0, len(texts), _BLOCK_TEXTS):
            shuffler.shuffle(order)
            for name in order:
                answer = contenders[name]
                answer(texts[start])
                for index, text in enumerate(texts[start : start + _BLOCK_TEXTS], start):
                    started = time.perf_counter_ns()
                    answer(text)
                    samples[name][repeat, index] = time.perf_counter_ns() - started
    return samples


def paired_ratio(ours: Nanoseconds, theirs: Nanoseconds, *, resamples: int = 1000, seed: int = 0) -> Interval:
    """Return median(ours) / median(theirs) with its 95 % bootstrap interval over blocks of texts.

    Both (repeats, texts) from one `measure_interleaved`. Whole blocks are drawn, with all their repeats and for both
    sides at once: repeats of one text are no independent samples, and what disturbs one turn disturbs all texts of it
    (a block bootstrap, Künsch 1989). The speed-up of a student is `paired_ratio(teacher, student)`; a control is
    sound when `low <= 1 <= high`.
    """
    if ours.shape != theirs.shape or ours.ndim != 2 or ours.size == 0:
        raise ExportError(
            f"found samples of shape {ours.shape} and {theirs.shape}; wanted two of one shape "
            "(repeats, texts), as one measure_interleaved call returns them"
        )
    generator = np.random.default_rng(seed)
    blocks = np.array_split(np.arange(ours.shape[1]), range(_BLOCK_TEXTS, ours.shape[1], _BLOCK_TEXTS))
    drawn = np.empty(resamples)
    for index in range(resamples):
        columns = np.concatenate([blocks[block] for block in generator.integers(0, len(blocks), len(blocks))])
        drawn[index] = np.median(ours[:, columns]) / np.median(theirs[:, columns])
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(np.median(ours) / np.median(theirs)), float(low), float(high))


def summarise(samples: Nanoseconds, threads: int = 1) -> LatencySummary:
    """Return the percentiles that the number of samples carries, in milliseconds."""
    if samples.size == 0:
        raise ExportError("found no latency samples; measure at least one text")
    p50 = float(np.median(samples)) / 1e6
    return LatencySummary(p50, _percentile_ms(samples, 90), _percentile_ms(samples, 99), samples.size, threads)


def percentile_curve(samples: Nanoseconds) -> list[tuple[float, float]]:
    """Return (percent, milliseconds) points up to the last percentile that the samples carry."""
    points = ((float(percent), _percentile_ms(samples, percent)) for percent in _CURVE_PERCENTS)
    return [(percent, milliseconds) for percent, milliseconds in points if milliseconds is not None]


def latency_by_tokens(samples: Nanoseconds, tokens: Sequence[int], *, buckets: int = 12) -> list[tuple[int, float]]:
    """Return (tokens, median milliseconds) for groups of similar length, shortest first.

    `tokens` counts each text's tokens. Groups are quantiles of the length, so that each median rests on
    about as many texts as the others.
    """
    if samples.shape[1:] != (len(tokens),):
        raise ExportError(f"found {len(tokens)} token counts for samples of shape {samples.shape}")
    lengths = np.asarray(tokens)
    longest = np.unique(np.quantile(lengths, np.linspace(0, 1, buckets + 1)[1:], method="nearest"))
    group = np.searchsorted(longest, lengths)
    return [
        (round(float(np.median(lengths[group == key]))), float(np.median(samples[:, group == key])) / 1e6)
        for key in np.unique(group)
    ]


def cold_start(bundle: Path, text: str, restarts: int = 5) -> ColdStart:
    """Load `bundle` and answer `text` in `restarts` fresh interpreters; return the medians.

    The interpreter's own start is not counted; the files are in the page cache after the first restart.
    Raises ExportError with the child's last line when it fails.
    """
    if restarts < 1:
        raise ExportError(f"found {restarts} restarts; a cold start needs at least 1 (5 for a fair median)")
    rows = np.array([_cold_start_once(bundle, text) for _ in range(restarts)])
    import_s, load_s, first_answer_s, total_s, resident_mb = (float(value) for value in np.median(rows, axis=0))
    return ColdStart(import_s, load_s, first_answer_s, total_s, resident_mb, restarts)


def run_fresh(arguments: Sequence[str], given: str, subject: object, timeout_seconds: float) -> str:
    """Run a fresh interpreter of this installation with `arguments` on the text `given`; return what it wrote last.

    Raises ExportError that names `subject` with the child's last line when it fails or takes too long.
    """
    # -P keeps a file of the working directory from standing in for a package.
    command = [sys.executable, "-P", "-X", "utf8", *arguments]
    packages = str(Path(__file__).resolve().parent.parent)
    paths = [packages, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    try:
        child = subprocess.run(
            command,
            input=given,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ExportError(f"{subject}: no answer within {error.timeout:g} s") from error
    if child.returncode != 0:
        reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise ExportError(f"{subject}: a fresh process could not answer: {reason}; try `distill verify {subject}`")
    return child.stdout.strip().splitlines()[-1]


def _cold_start_once(bundle: Path, text: str) -> list[float]:
    written = run_fresh(["-c", _COLD_START_PROGRAM, str(bundle)], text, bundle, _COLD_START_TIMEOUT_SECONDS)
    numbers: list[float] = json.loads(written)
    return numbers


def _percentile_ms(samples: Nanoseconds, percent: float) -> float | None:
    needed = min(count for known, count in SAMPLES_NEEDED.items() if known >= percent)
    return float(np.percentile(samples, percent)) / 1e6 if samples.size >= needed else None
