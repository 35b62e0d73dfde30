"""The same scenarios driven by MLPerf's own load generator (`pip install mlcommons-loadgen`).

It draws queries, keeps the schedule and counts the percentiles; this module turns a callable into its system under
test and reads the summary it writes. Used only where it is asked for.
"""

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from export.bench import SAMPLES_NEEDED, Nanoseconds
from export.errors import ExportError
from export.scenarios import Answer, AnswerMany, Load

_OFFLINE_SLACK = 1.1  # by which it makes an Offline query larger than the expected rate asks
_SUMMARY = "mlperf_log_summary.txt"


class LoadgenGenerator:
    """Loads made by mlperf_loadgen in this process."""

    name = "loadgen"

    def __init__(self, seed: int = 0) -> None:
        """Draw everything from `seed`; raise ExportError when mlcommons-loadgen is not installed."""
        try:
            import mlperf_loadgen
        except ImportError as error:
            raise ExportError("mlperf_loadgen is not installed; pip install mlcommons-loadgen") from error
        self._library: Any = mlperf_loadgen
        self._seed = seed

    def single_stream(self, answer: Answer, texts: Sequence[str], queries: int) -> Load:
        """Answer one query after the other."""
        summary = self._run("SingleStream", self._one_by_one(answer, texts), len(texts), _exactly(queries))
        return _load(summary, queries, _number(summary, r"QPS w/ loadgen overhead\s*: (\S+)"))

    def offline(self, answer_many: AnswerMany, texts: Sequence[str], queries: int) -> Load:
        """Hand over all queries at once."""

        def issue(wanted: Sequence[Any]) -> None:
            answer_many([texts[query.index] for query in wanted])
            self._complete(wanted)

        changes = {"offline_expected_qps": queries / _OFFLINE_SLACK, "min_duration_ms": 1000, "min_query_count": 1}
        summary = self._run("Offline", issue, len(texts), changes)
        return Load(queries, _number(summary, r"Samples per second: (\S+)"))

    def server(self, answer: Answer, texts: Sequence[str], arrivals: Nanoseconds, target_ms: float) -> Load:
        """Answer queries at the mean rate of `arrivals`, whose times it draws itself; one at a time."""
        queries = len(arrivals)
        changes = _exactly(queries) | {
            "server_target_qps": queries / float(arrivals[-1]) * 1e9,
            "server_target_latency_ns": round(target_ms * 1e6),
            "schedule_rng_seed": self._seed,
        }
        summary = self._run("Server", self._one_by_one(answer, texts), len(texts), changes)
        load = _load(summary, queries, _number(summary, r"Completed samples per second\s*: (\S+)"))
        meets = "Early stopping satisfied: Yes" in summary
        return replace(load, meets_target=meets if queries >= SAMPLES_NEEDED[99.0] else None)

    def _one_by_one(self, answer: Answer, texts: Sequence[str]) -> Callable[[Sequence[Any]], None]:
        # Answered where it is issued: a late answer delays the next query, whose latency counts from its schedule.
        def issue(wanted: Sequence[Any]) -> None:
            for query in wanted:
                answer(texts[query.index])
                self._complete([query])

        return issue

    def _complete(self, wanted: Sequence[Any]) -> None:
        respond = self._library.QuerySampleResponse
        self._library.QuerySamplesComplete([respond(query.id, 0, 0) for query in wanted])

    def _run(self, scenario: str, issue: Callable[[Sequence[Any]], None], texts: int, changes: dict[str, float]) -> str:
        """Run one test and return the summary that loadgen wrote."""
        library = self._library
        settings, log = library.TestSettings(), library.LogSettings()
        settings.scenario = getattr(library.TestScenario, scenario)
        settings.mode = library.TestMode.PerformanceOnly
        settings.min_duration_ms = 0
        for name, value in {"sample_index_rng_seed": self._seed, "qsl_rng_seed": self._seed, **changes}.items():
            setattr(settings, name, value)
        system = library.ConstructSUT(issue, lambda: None)
        library_of_texts = library.ConstructQSL(texts, texts, lambda wanted: None, lambda wanted: None)
        try:
            with tempfile.TemporaryDirectory(prefix="loadgen-") as folder:
                log.enable_trace = False
                log.log_output.outdir = folder
                library.StartTestWithLogSettings(system, library_of_texts, settings, log)
                return (Path(folder) / _SUMMARY).read_text(encoding="utf-8")
        finally:
            library.DestroyQSL(library_of_texts)
            library.DestroySUT(system)


def _exactly(queries: int) -> dict[str, float]:
    return {"min_query_count": queries, "max_query_count": queries}


def _load(summary: str, queries: int, per_second: float) -> Load:
    percentiles = {
        f"p{percent:g}": _number(summary, rf"{percent:.2f} percentile latency \(ns\)\s*: (\S+)") / 1e6
        for percent, needed in SAMPLES_NEEDED.items()
        if queries >= needed
    }
    bounds = re.findall(r"Early stopping (\S+?)\.?0?th percentile estimate: (\d+)", summary)
    return Load(queries, per_second, percentiles, {f"p{float(name):g}": int(ns) / 1e6 for name, ns in bounds})


def _number(summary: str, pattern: str) -> float:
    found = re.search(pattern, summary)
    if found is None:
        raise ExportError(
            f"found nothing like {pattern!r} in loadgen's summary; install the version in constraints.txt"
        )
    return float(found[1])
