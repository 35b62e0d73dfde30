"""How the report writes values: one place for units, digits and the dash that stands for "not measured".

Knows nothing of Markdown or HTML. Every function takes None, NaN or something that is no number and returns
the dash: an absent figure is never shown as zero.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

DASH = "–"
CONTENDERS = {
    "teacher": "teacher",
    "student_fp32": "student fp32",
    "student_int8": "student int8",
    "gold_only": "gold only",
    "tfidf_gold": "TF-IDF on gold",
    "tfidf_soft": "TF-IDF on soft labels",
}
BASELINES = ("gold_only", "tfidf_gold", "tfidf_soft")
_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


def pick(tree: Any, *path: str) -> Any:
    """Return the value at `path` in nested mappings, or None where the path ends early."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def number(tree: Any, *path: str) -> float | None:
    """Return the finite number at `path`, or None."""
    value = pick(tree, *path)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def entries(tree: Any, *path: str) -> list[Any]:
    """Return the list at `path`, or an empty one."""
    value = pick(tree, *path)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def table_of(tree: Any, *path: str) -> dict[str, Any]:
    """Return the mapping at `path` with its keys as strings, or an empty one."""
    value = pick(tree, *path)
    return {str(key): inner for key, inner in value.items()} if isinstance(value, Mapping) else {}


def metric_name(metric: Any) -> str:
    """Return a metric's name as prose spells it."""
    return _METRICS.get(str(metric), str(metric))


def _dashed(write: Callable[[float], str]) -> Callable[[Any], str]:
    def written(value: Any) -> str:
        finite = number({"value": value}, "value")
        return DASH if finite is None else write(finite)

    written.__doc__ = write.__doc__
    return written


@_dashed
def percent(share: float) -> str:
    """Write a share (0 to 1) as 93.4 %."""
    return f"{100 * share:.1f} %"


@_dashed
def whole_percent(share: float) -> str:
    """Write a share as 93 %."""
    return f"{100 * share:.0f} %"


@_dashed
def hundredths(share: float) -> str:
    """Write a share as 93.4, for the ends of an interval."""
    return f"{100 * share:.1f}"


@_dashed
def small_percent(share: float) -> str:
    """Write a small share as 0.03 %, and 0 % only when it is none."""
    return f"{_three_digits(100 * share)} %" if share else "0 %"


@_dashed
def points(difference: float) -> str:
    """Write a difference of shares in percentage points, signed: −0.5."""
    return _minus(f"{round(100 * difference, 1) + 0.0:+.1f}").replace("+0.0", "0.0")


@_dashed
def count(amount: float) -> str:
    """Write a whole number as 3,080."""
    return f"{amount:,.0f}"


@_dashed
def shortest(value: float) -> str:
    """Write any number with three significant digits and no needless zeros."""
    return _minus(f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}")


@_dashed
def milliseconds(value: float) -> str:
    """Write milliseconds as 0.41 ms."""
    return f"{_three_digits(value)} ms"


@_dashed
def seconds(value: float) -> str:
    """Write a time as 0.35 s, 41 s, 3 min 20 s or 1 h 05 min."""
    if value < 60:
        return f"{value:.0f} s" if value >= 10 else f"{_three_digits(value)} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


@_dashed
def data_size(size_bytes: float) -> str:
    """Write bytes as 14.4 MB (decimal units)."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:.0f} bytes"


@_dashed
def parameters(amount: float) -> str:
    """Write a number of parameters as 22.7 M."""
    return f"{amount / 1e6:.1f} M" if amount >= 1e5 else count(amount)


@_dashed
def times(ratio: float) -> str:
    """Write a ratio as 14.2×."""
    return f"{_three_digits(ratio)}×"


@_dashed
def dollars(amount: float) -> str:
    """Write money as $1.20."""
    return f"${amount:,.2f}"


@_dashed
def small_dollars(amount: float) -> str:
    """Write a small price as $0.000081, with two significant digits."""
    if amount == 0 or abs(amount) >= 0.1:
        return f"${amount:,.2f}"
    return f"${amount:.{1 - math.floor(math.log10(abs(amount)))}f}"


def interval(low: Any, high: Any, write: Callable[[Any], str]) -> str:
    """Write an interval as [−1.1, +0.1], or the dash when an end is absent."""
    ends = (write(low), write(high))
    return DASH if DASH in ends else f"[{ends[0]}, {ends[1]}]"


def words(value: Any) -> str:
    """Write any value of a report as text: a label, a list of labels, a number, a yes or no."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return shortest(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(words, value)) or "none"
    return str(value)


def spaced(name: Any) -> str:
    """Write an identifier of ours as words: quality_drop becomes quality drop."""
    return words(name).replace("_", " ")


def moment(value: Any) -> str:
    """Write an ISO time as 2026-03-14 09:26 UTC; leave anything else as it is."""
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        return words(value)
    return f"{time:%Y-%m-%d %H:%M} {time.tzname() or ''}".rstrip()


def shortened(text: str, characters: int = 400) -> str:
    """Return `text` on one line, cut visibly after `characters`."""
    line = " ".join(text.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def _three_digits(value: float) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def _minus(text: str) -> str:
    return text.replace("-", "−")
