"""One restart of a speed report: a fresh process that opens the contenders, times them and prints the figures as JSON.

Run by `distill.speed`; a process of its own, because where memory comes to lie changes how fast a model is.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.contenders import Contender, open_contender
from export.bench import measure_interleaved
from export.loadgen import LoadgenGenerator
from export.scenarios import LoadGenerator, OwnGenerator, poisson_arrivals

CONTROL = "control"
MOST_ANSWERS = 6_636  # what p99.9 takes
GENERATORS: dict[str, Callable[[int], LoadGenerator]] = {"own": OwnGenerator, "loadgen": LoadgenGenerator}
_WARMUP_TEXTS = 20
# MLPerf hands over at least 24,576 samples in an Offline query; slow contenders get fewer, by their seconds.
_OFFLINE_QUERIES = 24_576
_LEAST_OFFLINE_QUERIES = 256


@dataclass(frozen=True, slots=True)
class SpeedPlan:
    """How much is measured: fresh processes, answers of SingleStream, and the most seconds of another scenario.

    `rates` are the Server rates as shares of what one text after another gives; `target_ms` is the p99 that such a
    rate has to meet.
    """

    restarts: int = 5
    answers: int = MOST_ANSWERS
    seconds: float = 20.0
    rates: tuple[float, ...] = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9)
    target_ms: float = 10.0
    generator: str = "own"

    def repeats(self, texts: int) -> int:
        """Return how often each process answers each of so many texts."""
        return max(1, math.ceil(self.answers / (self.restarts * texts)))


def measure_restart(paths: dict[str, Path], texts: Sequence[str], plan: SpeedPlan, restart: int) -> dict[str, Any]:
    """Time the contenders at `paths`, of which "bundle" comes with a control and its stages, in this process.

    Every process does all of SingleStream and its share of the Server rates.
    """
    contenders = {name: open_contender(path, texts) for name, path in paths.items()}
    ours = contenders["bundle"]
    timed = {name: one.answer for name, one in contenders.items()} | {CONTROL: ours.answer, **ours.stages}
    samples = measure_interleaved(timed, texts, plan.repeats(len(texts)), _WARMUP_TEXTS, restart)
    order = list(contenders) if restart % 2 == 0 else list(contenders)[::-1]
    per_second = {name: 1e9 / float(samples[name].mean()) for name in order}
    return {
        "contenders": {
            name: {"kind": one.kind, "threads": one.threads, "bulk_threads": one.bulk_threads}
            for name, one in contenders.items()
        },
        "samples": {name: taken.tolist() for name, taken in samples.items()},
        "loads": {name: _loads(contenders[name], texts, plan, restart, per_second[name]) for name in order},
    }


def _loads(
    contender: Contender, texts: Sequence[str], plan: SpeedPlan, restart: int, per_second: float
) -> dict[str, Any]:
    generator = GENERATORS[plan.generator](restart + 1)
    at_once = int(min(max(per_second * plan.seconds / plan.restarts, _LEAST_OFFLINE_QUERIES), _OFFLINE_QUERIES))
    found: dict[str, Any] = {"offline": asdict(generator.offline(contender.answer_many, texts, at_once)), "server": []}
    if plan.generator != OwnGenerator.name and restart == 0:  # ours reads SingleStream from the interleaved samples
        found["single_stream"] = asdict(generator.single_stream(contender.answer, texts, plan.answers))
    for share in plan.rates[restart :: plan.restarts]:
        rate = share * per_second
        arrivals = poisson_arrivals(rate, int(min(max(rate * plan.seconds, 1), MOST_ANSWERS)), restart + 1)
        load = generator.server(contender.answer, texts, arrivals, plan.target_ms)
        found["server"].append({"rate": rate, "share": share, **asdict(load)})
    return found


def main() -> None:
    """Read what is wanted from standard input and print what was found as the last line."""
    wanted = json.load(sys.stdin)
    plan = SpeedPlan(**wanted["plan"] | {"rates": tuple(wanted["plan"]["rates"])})
    paths = {name: Path(path) for name, path in wanted["paths"].items()}
    print(json.dumps(measure_restart(paths, wanted["texts"], plan, wanted["restart"])))


if __name__ == "__main__":
    main()
