"""Comparisons that several rows of speed.py make, and how their figures are written."""

import os
import statistics
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import rival
from lines import Line
from material import Bench
from numpy.typing import NDArray
from turns import Answerer, take_turns

from export.bench import paired_ratio
from export.metrics import Interval

_REPEATS, _ROUNDS, _THREADS = 5, 5, (1, 2)
Samples = dict[str, NDArray[np.int64]]


def against_optimum(bench: Bench, kind: str) -> tuple[Samples, str, Interval]:
    """Return samples of our bundle and of Optimum's int8 model as `kind` calls it ("pipeline" or "bare"), each on 1 and
    2 threads, the name of the rival's best, and the A/A control of ours on 1 thread."""
    bundle, folder = bench.run("banking77") / "bundle", bench.classifier()
    with ExitStack() as stack:
        answerers = {
            f"{name} {threads}": stack.enter_context(closing(Answerer(name, path, threads, python)))
            for name, path, python in (("ours", bundle, None), (kind, folder, rival.rival_python()))
            for threads in _THREADS
        }
        answerers["control"] = answerers["ours 1"]
        samples = take_turns(answerers, bench.texts(), bench.count(_REPEATS))
    control = paired_ratio(samples.pop("control"), samples["ours 1"])
    best = min((f"{kind} {threads}" for threads in _THREADS), key=lambda name: np.median(samples[name]))
    return samples, best, control


def against_teacher(bench: Bench, row: str, bundle: Path, least: float) -> Line:
    """Compare a bundle on 1 thread with the banking77 PyTorch teacher at its best thread count."""
    folder, texts = bench.run("banking77") / "teacher", bench.texts()
    threads = sorted({1, os.cpu_count() or 1})
    with ExitStack() as stack:
        answerers = {"ours": stack.enter_context(closing(Answerer("ours", bundle, 1)))}
        for count in threads:
            answerers[f"teacher {count}"] = stack.enter_context(closing(Answerer("teacher", folder, count)))
        answerers["control"] = answerers["ours"]
        samples = take_turns(answerers, texts, bench.count(_REPEATS))
    control = paired_ratio(samples.pop("control"), samples["ours"])
    best = min((f"teacher {count}" for count in threads), key=lambda name: np.median(samples[name]))
    ratio = paired_ratio(samples[best], samples["ours"])
    return Line(
        row,
        f"{ratio_words(ratio)} against {best} thread(s); {p50_words(samples, control)}",
        f">= {least:g}x at p50",
        ratio.estimate >= least,
    )


def rounds(rate_of: Mapping[str, Callable[[], float]], count: int = _ROUNDS) -> dict[str, list[float]]:
    """Return the rates of each arrangement, measured in turn, the order reversed from round to round."""
    rates: dict[str, list[float]] = {name: [] for name in rate_of}
    for number in range(count + 1):
        for name in list(rate_of)[:: 1 if number % 2 else -1]:
            rate = rate_of[name]()
            if number:  # the first round is a warm-up
                rates[name].append(rate)
    return rates


def rates_line(row: str, rates: Mapping[str, list[float]], least: float) -> Line:
    """Compare the best arrangement of ours (its name starts so) with the best of the others, round by round."""
    medians = {name: statistics.median(found) for name, found in rates.items()}
    ours, best = (
        max((name for name in rates if name.startswith("ours") is is_ours), key=lambda name: medians[name])
        for is_ours in (True, False)
    )
    ratios = [one / other for one, other in zip(rates[ours], rates[best], strict=True)]
    ratio = statistics.median(ratios)
    return Line(
        row,
        f"{ratio:.2f}x (rounds {min(ratios):.2f} to {max(ratios):.2f}) {ours} against {best}; texts/s "
        + ", ".join(f"{name} {value:,.0f}" for name, value in medians.items()),
        f">= {least:g}x",
        ratio >= least,
    )


def ratio_words(ratio: Interval) -> str:
    """Write a ratio with its interval."""
    return f"{ratio.estimate:.2f}x [{ratio.low:.2f}, {ratio.high:.2f}]"


def p50_words(samples: Samples, control: Interval | None = None) -> str:
    """Write the medians in milliseconds, and the A/A control where there is one."""
    medians = ", ".join(f"{name} {np.median(taken) / 1e6:.3f} ms" for name, taken in samples.items())
    return f"p50 {medians}" + (f"; A/A control {ratio_words(control)}" if control else "")
