"""The load scenarios of MLPerf Inference, made here: one query after another, all at once, and as Poisson says.

SingleStream sends a query when the one before is answered, Offline hands over everything at once, Server sends at
times drawn beforehand and counts from those, not from when it got round to sending (Reddi et al. 2020,
arXiv:1911.02549; rules: https://github.com/mlcommons/inference_policies). Times callables; what answers behind them it
does not know. The runs are shorter than the ten minutes of a submission.
"""

import math
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from export.bench import SAMPLES_NEEDED, Nanoseconds
from export.errors import ExportError

Answer = Callable[[str], object]
AnswerMany = Callable[[Sequence[str]], object]

TAILS = (90.0, 99.0, 99.9)
_CONFIDENCE = 0.99
_SPIN_NANOSECONDS = 200_000  # a sleep may last so much longer than asked


@dataclass(frozen=True, slots=True)
class Load:
    """What one scenario run measured; a percentile (such as "p99") is absent without the queries that carry it.

    `bounds_ms` are MLPerf's early-stopping estimates: with 99 % confidence the percentile is no higher.
    `meets_target` says so of Server's p99 and its target; None when there are too few queries to tell.
    """

    queries: int
    per_second: float
    percentiles_ms: dict[str, float] = field(default_factory=dict)
    bounds_ms: dict[str, float] = field(default_factory=dict)
    meets_target: bool | None = None


class LoadGenerator(Protocol):
    """Who sends the queries of the three scenarios and counts the time."""

    name: str

    def single_stream(self, answer: Answer, texts: Sequence[str], queries: int) -> Load:
        """Answer one query after the other."""
        ...

    def offline(self, answer_many: AnswerMany, texts: Sequence[str], queries: int) -> Load:
        """Hand over all queries at once."""
        ...

    def server(self, answer: Answer, texts: Sequence[str], arrivals: Nanoseconds, target_ms: float) -> Load:
        """Answer queries that arrive on their own schedule, one at a time."""
        ...


class OwnGenerator:
    """Loads made by this module; queries are drawn with replacement, as MLPerf draws them."""

    name = "own"

    def __init__(self, seed: int = 0) -> None:
        """Draw everything from `seed`."""
        self._seed = seed

    def single_stream(self, answer: Answer, texts: Sequence[str], queries: int) -> Load:
        """Answer one query after the other."""
        drawn = random.Random(self._seed).choices(texts, k=queries)
        samples = np.empty(queries, np.int64)
        started = time.perf_counter_ns()
        for index, text in enumerate(drawn):
            issued = time.perf_counter_ns()
            answer(text)
            samples[index] = time.perf_counter_ns() - issued
        return summarise_load(samples, queries / (time.perf_counter_ns() - started) * 1e9)

    def offline(self, answer_many: AnswerMany, texts: Sequence[str], queries: int) -> Load:
        """Hand over all queries at once."""
        drawn = random.Random(self._seed).choices(texts, k=queries)
        started = time.perf_counter_ns()
        answer_many(drawn)
        return Load(queries, queries / (time.perf_counter_ns() - started) * 1e9)

    def server(self, answer: Answer, texts: Sequence[str], arrivals: Nanoseconds, target_ms: float) -> Load:
        """Answer queries in the order of their scheduled `arrivals`, one at a time."""
        drawn = random.Random(self._seed).choices(texts, k=len(arrivals))
        samples = serve(answer, drawn, arrivals)
        load = summarise_load(samples, len(arrivals) / float((arrivals + samples).max()) * 1e9)
        bound = load.bounds_ms.get("p99")
        return replace(load, meets_target=None if bound is None else bound <= target_ms)


def poisson_arrivals(rate_per_second: float, queries: int, seed: int) -> Nanoseconds:
    """Return the scheduled times (queries,) of a Poisson process, in nanoseconds from the start."""
    if rate_per_second <= 0 or queries < 1:
        raise ExportError(f"found {queries} queries at {rate_per_second:g} a second; wanted at least 1 above 0")
    gaps = np.random.default_rng(seed).exponential(1e9 / rate_per_second, queries)
    return np.cumsum(gaps).astype(np.int64)


def serve(answer: Answer, texts: Sequence[str], arrivals: Nanoseconds, workers: int = 1) -> Nanoseconds:
    """Return nanoseconds (queries,) from each scheduled arrival to its answer: an open loop before `workers` threads.

    Queries are taken in order; one that finds every worker busy waits, and its waiting counts.
    """
    samples = np.zeros(len(arrivals), np.int64)
    scheduled, pending, lock = arrivals.tolist(), iter(range(len(arrivals))), threading.Lock()
    started = time.perf_counter_ns()

    def work() -> None:
        while True:
            with lock:
                index = next(pending, None)
            if index is None:
                return
            due = started + scheduled[index]
            _wait_until(due)
            answer(texts[index])
            samples[index] = time.perf_counter_ns() - due

    others = [threading.Thread(target=work) for _ in range(workers - 1)]
    for thread in others:
        thread.start()
    work()
    for thread in others:
        thread.join()
    return samples


def early_stopping_estimate(samples: Nanoseconds, percent: float) -> float | None:
    """Return, in milliseconds, what the percentile does not exceed with 99 % confidence; None with too few samples.

    The estimate of MLPerf's early stopping: of n sorted samples the t-th highest, with the greatest t for which t or
    fewer of n lying above the percentile would be a chance of less than 1 %.
    """
    discarded = tolerated_misses(samples.size, percent)
    return None if discarded < 1 else float(np.partition(samples.ravel(), -discarded)[-discarded]) / 1e6


def tolerated_misses(queries: int, percent: float) -> int:
    """Return the greatest t with P(Binomial(`queries`, 1 - p) <= t) < 1 %; -1 when there is none."""
    miss = 1 - percent / 100
    counts = np.arange(queries + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, queries + 1)))])  # of the factorials
    chances = logs[-1] - logs - logs[::-1] + counts * math.log(miss) + (queries - counts) * math.log1p(-miss)
    return int(np.searchsorted(np.cumsum(np.exp(chances)), 1 - _CONFIDENCE)) - 1


def summarise_load(samples: NDArray[np.int64], per_second: float) -> Load:
    """Return the percentiles and early-stopping estimates that the samples carry."""
    bounds = {f"p{percent:g}": early_stopping_estimate(samples, percent) for percent in TAILS}
    return Load(
        queries=samples.size,
        per_second=per_second,
        percentiles_ms={
            f"p{percent:g}": float(np.percentile(samples, percent)) / 1e6
            for percent, needed in SAMPLES_NEEDED.items()
            if samples.size >= needed
        },
        bounds_ms={name: bound for name, bound in bounds.items() if bound is not None},
    )


def _wait_until(due: int) -> None:
    while (left := due - time.perf_counter_ns()) > 0:
        if left > _SPIN_NANOSECONDS:
            time.sleep((left - _SPIN_NANOSECONDS) / 1e9)
