"""How much load a server holds: `distill serve` under real texts, one line a row; exit 1 when one is missed.

    python benchmarks/load.py BUNDLE TEXTS.csv --checkpoint STUDENT [--only ROW ...] [--share SHARE] [--workers N]

Server and generator share the machine's cores over loopback. `--share` shortens every row for a first look.
"""

import argparse
import csv
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lines import Line
from memory import synthetic_texts
from open_loop import Connection, build_request
from serving import RunningLoad, percentile, random_bundle, resident_megabytes, run_load

from export.machine import machine, usable_cores
from export.runtime import Predictor
from tests.server_process import running_server

_LOAD_SECONDS, _WARMUP_SECONDS, _CONNECTIONS = 180, 3, 32
_SLOWEST_P99_MS, _OVERHEAD_MS = 20.0, 1.0
_PACE_SECONDS, _PACED_REQUESTS = 0.025, 2_000
_MEMORY_REQUESTS, _MEMORY_RATE, _MEMORY_GROWTH = 1_000_000, 1_000, 0.1
_MEMORY_ANSWERED = 0.95  # of the requests: those refused show nothing of the model's memory


@dataclass(frozen=True, slots=True)
class Setting:
    """What the rows measure: a bundle, texts, the checkpoint whose tokenizer the small student takes."""

    bundle: Path
    texts: Sequence[str]
    checkpoint: Path
    scratch: Path
    share: float
    workers: int

    def written(self, texts: Sequence[str]) -> Path:
        """Return a file with `texts` as the generator reads them."""
        path = self.scratch / f"texts-{len(texts)}.json"
        path.write_text(json.dumps(list(texts)), encoding="utf-8")
        return path


def three_layers(setting: Setting) -> Line:
    """Hold 1,400 requests a second with the bundle that was given."""
    return _hold("three_layers", setting, setting.bundle, 1_400, p99_counts=True)


def two_layers(setting: Setting) -> Line:
    """Hold 2,400 requests a second with a student of two layers, 128 wide."""
    labels = Predictor.load(setting.bundle).manifest.labels
    small = random_bundle(setting.scratch / "small", setting.checkpoint, labels, layers=2, width=128)
    return _hold("two_layers", setting, small, 2_400, p99_counts=False)


def overhead(setting: Setting) -> Line:
    """Take turns between HTTP and the runtime in this process, 20 requests a second each."""
    predictor = Predictor.load(setting.bundle)
    served: list[float] = []
    direct: list[float] = []
    with running_server(setting.bundle, workers=1, watch_seconds=0) as server:
        connection = Connection(server.port)

        def over_http(text: str) -> None:
            connection.send(build_request(text), 0.0)
            while connection.read() is None:
                pass

        turns: list[tuple[list[float], Callable[[str], object]]] = [(served, over_http), (direct, predictor.predict)]
        started = time.perf_counter()
        for number in range(round(_PACED_REQUESTS * setting.share)):
            samples, answer = turns[number % 2]
            time.sleep(max(0.0, started + number * _PACE_SECONDS - time.perf_counter()))
            begin = time.perf_counter()
            answer(setting.texts[number // 2 % len(setting.texts)])
            samples.append(1000 * (time.perf_counter() - begin))
    over = statistics.median(served) - statistics.median(direct)
    return Line(
        "overhead",
        f"p50 {statistics.median(served):.2f} ms over HTTP, {statistics.median(direct):.2f} ms in the runtime: "
        f"+{over:.2f} ms, {len(served)} requests each",
        f"<= +{_OVERHEAD_MS} ms",
        over <= _OVERHEAD_MS,
    )


def memory(setting: Setting) -> Line:
    """Send a million requests of mixed length and watch the workers' resident memory."""
    texts = [*synthetic_texts(5_000, 0), *(" ".join(setting.texts[start : start + 20]) for start in range(0, 400, 4))]
    seconds = _MEMORY_REQUESTS * setting.share / _MEMORY_RATE
    with running_server(setting.bundle, workers=setting.workers, watch_seconds=0, max_wait_ms=1000) as server:
        workers = server.workers()
        generator = RunningLoad(server.port, _MEMORY_RATE, seconds, _CONNECTIONS, setting.written(texts))
        sizes: list[float] = []
        while generator.is_running:
            sizes.append(resident_megabytes(workers))
            time.sleep(max(0.05, seconds / 1000))
        answered = generator.finish().outcomes
    warm = sizes[len(sizes) // 20 :]  # the first 50,000 of 1,000,000
    rise = max(warm) / warm[0] - 1
    return Line(
        "memory",
        f"{sum(answered.values()):,} requests of 1 to 400 words, {setting.workers} workers, {answered}: "
        f"{warm[0]:.0f} MB after the first twentieth, at most {max(warm):.0f} ({rise:+.1%})",
        f"flat within {_MEMORY_GROWTH:.0%}, {_MEMORY_ANSWERED:.0%} answered",
        rise <= _MEMORY_GROWTH and answered.get("200", 0) >= _MEMORY_ANSWERED * sum(answered.values()),
    )


_FUNCTIONS = (three_layers, two_layers, overhead, memory)
ROWS: dict[str, Callable[[Setting], Line]] = {each.__name__: each for each in _FUNCTIONS}


def _hold(row: str, setting: Setting, bundle: Path, rate: float, p99_counts: bool) -> Line:
    ideal = setting.workers / _model_seconds(bundle, setting.texts)
    texts = setting.written(setting.texts)
    with running_server(bundle, workers=setting.workers, watch_seconds=0, max_wait_ms=100) as server:
        run_load(server.port, rate / 2, _WARMUP_SECONDS, _CONNECTIONS, texts)
        held = run_load(server.port, rate, _LOAD_SECONDS * setting.share, _CONNECTIONS, texts)
    p50, p99 = (percentile(held.latencies, percent) for percent in (50, 99))
    kept_up = held.failed == 0 and held.rate >= 0.98 * rate  # arrivals are random
    return Line(
        row,
        f"{held.rate:,.0f} req/s for {held.seconds:.0f} s, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"{held.failed} errors; {held.rate / ideal:.0%} of an ideal {ideal:,.0f} ({setting.workers} cores, model time "
        f"alone); the generator took {held.cpu_seconds / held.seconds:.0%} of a core",
        f">= {rate:,.0f} req/s, 0 errors" + (f", p99 < {_SLOWEST_P99_MS:.0f} ms" if p99_counts else ""),
        kept_up and (p99 < _SLOWEST_P99_MS or not p99_counts),
    )


def _model_seconds(bundle: Path, texts: Sequence[str]) -> float:
    """Return the mean seconds the model alone takes for one of the texts, on one thread."""
    predictor = Predictor.load(bundle)
    encoded = [predictor.encode([text]) for text in texts[:1000]]
    for encodings in encoded[:50]:
        predictor.run(encodings)
    started = time.perf_counter()
    for encodings in encoded:
        predictor.run(encodings)
    return (time.perf_counter() - started) / len(encoded)


def main() -> int:
    """Run the wanted rows, print each as soon as it is known, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure how much load a server holds.")
    parser.add_argument("bundle", type=Path, help="the 3-layer student")
    parser.add_argument("texts", type=Path, help="a csv with a column text")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint whose tokenizer two_layers takes")
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), metavar="ROW", help=str([*ROWS]))
    parser.add_argument("--share", type=float, default=1.0, help="of the full duration")
    parser.add_argument("--workers", type=int, default=usable_cores())
    wanted = parser.parse_args()
    about = machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    with (
        wanted.texts.open(newline="", encoding="utf-8") as file,
        tempfile.TemporaryDirectory(prefix="load-") as scratch,
    ):
        texts = [row["text"] for row in csv.DictReader(file)]
        setting = Setting(wanted.bundle, texts, wanted.checkpoint, Path(scratch), wanted.share, wanted.workers)
        lines = [_print(ROWS[row](setting)) for row in wanted.only]
    return 0 if all(line.holds for line in lines) else 1


def _print(line: Line) -> Line:
    print(line, flush=True)
    return line


if __name__ == "__main__":
    sys.exit(main())
