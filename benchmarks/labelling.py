"""How fast an API teacher labels: rows a second against a server that answers in 200 ms, and CPU time per call.

    python benchmarks/labelling.py [--rows N]

The server is a process of its own; every answer is committed before its worker asks again. Exit 1 on a missed line.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from fault_process import fault_process
from lines import Line

from export.machine import machine
from teacher.completion import Completion
from teacher.endpoint import Endpoint
from teacher.paid import PaidAnswers
from tests.labeller import mock_spec, requests

_LATENCY_SECONDS, _CONCURRENCY = 0.2, 16
_LEAST_SHARE, _MOST_CPU_MS = 0.92, 4.0
_WARM_ROWS = 32


def labelling(rows: int) -> Line:
    """Label `rows` rows once, after a few that load the libraries."""
    with tempfile.TemporaryDirectory(prefix="labelling-") as name, fault_process(latency=_LATENCY_SECONDS) as server:
        folder = Path(name)
        spec = mock_spec(server.url, folder, concurrency=_CONCURRENCY)
        with PaidAnswers(folder / "paid.sqlite") as paid:
            Endpoint(spec, paid).complete(requests(_WARM_ROWS, first=rows))
            wall, cpu = time.perf_counter(), time.process_time()
            outcomes = Endpoint(spec, paid).complete(requests(rows))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        answered = sum(isinstance(outcome, Completion) for outcome in outcomes)
    ideal = _CONCURRENCY / _LATENCY_SECONDS
    share, cpu_ms = rows / wall / ideal, 1000 * cpu / rows
    return Line(
        "labelling",
        f"{rows / wall:.1f} rows/s, {share:.1%} of {ideal:.0f}; {cpu_ms:.2f} ms of CPU a call ({answered:,} of "
        f"{rows:,} answered in {wall:.1f} s, concurrency {_CONCURRENCY}, server of {1000 * _LATENCY_SECONDS:.0f} ms)",
        f">= {_LEAST_SHARE:.0%} of the ideal and <= {_MOST_CPU_MS:.0f} ms",
        answered == rows and share >= _LEAST_SHARE and cpu_ms <= _MOST_CPU_MS,
    )


def main() -> int:
    """Measure, print the line and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure how fast an API teacher labels.")
    parser.add_argument("--rows", type=int, default=3000)
    about = machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    line = labelling(parser.parse_args().rows)
    print(line)
    return 0 if line.holds else 1


if __name__ == "__main__":
    sys.exit(main())
