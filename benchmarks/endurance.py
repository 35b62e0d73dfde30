"""Resident memory over a million answers of one bundle, one text at a time and some in lists.

    python benchmarks/endurance.py BUNDLE [--calls CALLS]

The texts are synthetic words of mixed lengths, now and then one that is cut. Reads /proc, so it needs Linux.
"""

import argparse
import random
import sys
from pathlib import Path

from growth import WARMUP_SHARE, growth
from lines import Line, MeasureError

from export.runtime import Predictor

_CALLS = 1_000_000
_SAMPLES = 200
_MOST_GROWTH = 0.01
_MOST_RESIDENT_BYTES = 160e6
_LIST_EVERY, _LIST_TEXTS = 100, 16  # one call in so many asks for a list


def endurance_line(bundle: Path, calls: int = _CALLS) -> Line:
    """Answer `calls` texts and return the growth between the halves (see `growth`) and the memory at the end."""
    predictor, generator = Predictor.load(bundle), random.Random(0)
    words = [f"word{number}" for number in range(500)]
    sizes: list[float] = []
    answered = 0
    while answered < calls:
        count = _LIST_TEXTS if generator.randrange(_LIST_EVERY) == 0 else 1
        lengths = (min(int(generator.expovariate(0.1)) + 1, 400) for _ in range(count))
        texts = [" ".join(generator.choices(words, k=length)) for length in lengths]
        answered += len(predictor.predict(texts))
        if answered >= len(sizes) * calls / _SAMPLES:
            sizes.append(_resident_bytes())
    grown = growth(sizes)
    return Line(
        "endurance",
        f"{answered:,} answers: growth {grown:+.2%} after the first {WARMUP_SHARE:.0%}, "
        f"{sizes[-1] / 1e6:.0f} MB resident at the end",
        f"flat within {_MOST_GROWTH:.0%}, <= {_MOST_RESIDENT_BYTES / 1e6:.0f} MB",
        grown <= _MOST_GROWTH and sizes[-1] <= _MOST_RESIDENT_BYTES,
    )


def _resident_bytes() -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1]) * 1024
    raise MeasureError("/proc/self/status has no VmRSS; measure on Linux")


def main() -> int:
    """Print the line and return the exit code."""
    parser = argparse.ArgumentParser(description="Watch the memory of a bundle that answers a million texts.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--calls", type=int, default=_CALLS)
    wanted = parser.parse_args()
    line = endurance_line(wanted.bundle, wanted.calls)
    print(line)
    return 0 if line.holds else 1


if __name__ == "__main__":
    sys.exit(main())
