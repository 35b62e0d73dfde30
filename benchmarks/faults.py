"""Inject the faults that Potstill must survive, at full size, and print one row each; exit 1 when one is missed.

    python benchmarks/faults.py [--only ROW ...] [--share SHARE]

A row is a function of a scratch folder and the share of its full size to run, which returns a line or several; it
stands in the module named here.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from lines import Line, MeasureError

from export.machine import machine

ROWS: Mapping[str, tuple[str, str]] = {
    "R1": ("paid_faults", "kills"),
    "R2": ("paid_faults", "interruptions"),
    "R3": ("paid_faults", "provider_faults"),
    "R4": ("paid_faults", "budgets"),
    "R9": ("mismatch_faults", "mismatches"),
    "R12": ("gate_faults", "bad_models"),
    "R13": ("serve_faults", "hostile_requests"),
    "R14": ("serve_faults", "flood"),
    "R15": ("serve_faults", "stops"),
    "R17": ("injection", "injected"),
}


def main() -> int:
    """Run the wanted rows, print each as soon as it is known, and return the exit code."""
    parser = argparse.ArgumentParser(description="Inject faults and count what survives.")
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), metavar="ROW", help=str([*ROWS]))
    parser.add_argument("--share", type=float, default=1.0, help="of the full number of injections")
    wanted = parser.parse_args()
    about = machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    lines = [_measure(name, wanted.share) for name in wanted.only]
    return 0 if all(lines) else 1


def _measure(name: str, share: float) -> bool:
    module, function = ROWS[name]
    with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as scratch:
        try:
            measured = getattr(import_module(module), function)(Path(scratch), share)
            lines = [measured] if isinstance(measured, Line) else list(measured)
        except MeasureError as error:
            lines = [Line(name, str(error), "can be measured", False)]
    print(*lines, sep="\n", flush=True)
    return all(line.holds for line in lines)


if __name__ == "__main__":
    sys.exit(main())
