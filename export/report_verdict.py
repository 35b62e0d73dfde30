"""The verdict a report opens with: what the student is worth against its teacher, and what speaks against it.

Plain text only. It says first what a reader would hold against us if we hid it: a failed gate, a baseline
that wins, a control that does not hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from export.report_wording import (
    BASELINES,
    CONTENDERS,
    DASH,
    count,
    entries,
    interval,
    metric_name,
    milliseconds,
    number,
    percent,
    pick,
    points,
    shortest,
    spaced,
    table_of,
    times,
    words,
)

Status = Literal["passed", "caution", "failed"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One sentence or two for a reader in a hurry, and the remarks that qualify them, gravest first."""

    status: Status
    sentence: str
    remarks: tuple[str, ...]


def verdict(report: Mapping[str, Any]) -> Verdict:
    """Return the verdict: `failed` by a gate, `caution` by anything else that speaks against it."""
    failed = [gate for gate in entries(report, "gates") if not pick(gate, "passed")]
    warnings = map(words, entries(report, "warnings"))
    doubts = [*_winning_baselines(report), *_missing(report), *_unsound_control(report), *warnings]
    remarks = [*map(_gate_remark, failed), *doubts]
    status: Status = "failed" if failed else "caution" if doubts else "passed"
    return Verdict(status, f"{_comparison(report)} {_gates(report, len(failed))}", tuple(remarks))


def student_name(report: Mapping[str, Any]) -> str:
    """Return the key of the student that ships: int8 where it was measured, else fp32."""
    measured = table_of(report, "quality")
    return "student_int8" if "student_int8" in measured or "student_fp32" not in measured else "student_fp32"


def best_baseline(report: Mapping[str, Any]) -> str | None:
    """Return the key of the baseline with the best headline quality, or None when none was measured."""
    metric = headline_metric(report)
    scores = {name: number(report, "quality", name, metric) for name in BASELINES}
    measured = {name: score for name, score in scores.items() if score is not None}
    return max(measured, key=lambda name: measured[name], default=None)


def headline_metric(report: Mapping[str, Any]) -> str:
    """Return the quality measure that the report is headed by."""
    return str(pick(report, "headline") or "accuracy")


def _comparison(report: Mapping[str, Any]) -> str:
    name = student_name(report)
    clauses = [_quality(report, name)]
    speedup, ratio = number(report, "latency", "speedup_p50"), number(report, "size", "ratio")
    merits = []
    if speedup is not None:
        p50 = milliseconds(number(report, "latency", name, "p50_ms"))
        merits.append(_more_or_less(speedup, "faster", "slower") + (f" ({p50} a text)" if p50 != DASH else ""))
    if ratio is not None:
        merits.append(_more_or_less(ratio, "smaller", "larger"))
    if merits:
        clauses.append(f"it is {' and '.join(merits)}")
    return f"The {CONTENDERS[name].removeprefix('student ')} student {'; '.join(clauses)}."


def _quality(report: Mapping[str, Any], name: str) -> str:
    metric = headline_metric(report)
    ours, theirs = (number(report, "quality", key, metric) for key in (name, "teacher"))
    gap = number(report, "gap", "estimate")
    if gap is None and ours is not None and theirs is not None:
        gap = ours - theirs
    if gap is None:
        return "was not measured" if ours is None else f"reaches {percent(ours)} {metric_name(metric)} on test"
    measure = metric_name(pick(report, "gap", "metric") or metric)
    if points(gap) == points(0.0):
        distance = "is level with"
    else:
        distance = f"is {points(abs(gap))[1:]} points {'ahead of' if gap > 0 else 'behind'}"
    return f"{distance} its teacher in {measure}{_certainty(report, name)}"


def _certainty(report: Mapping[str, Any], name: str) -> str:
    low, high = (number(report, "gap", end) for end in ("low", "high"))
    if low is None or high is None:
        return ""
    rows = count(number(report, "quality", name, "n"))
    noise = f", within the noise of {rows} test rows" if low <= 0 <= high and rows != DASH else ""
    return f" {interval(low, high, points)}{noise}"


def _more_or_less(ratio: float, more: str, less: str) -> str:
    return f"{times(ratio)} {more}" if ratio >= 1 else f"{times(1 / ratio)} {less}"


def _gates(report: Mapping[str, Any], failed: int) -> str:
    gates = len(entries(report, "gates"))
    if not gates:
        return "No gate was run."
    one = "1 gate" if gates == 1 else f"{gates} gates"
    if failed:
        return f"{failed} of {one} failed: do not ship this file."
    return "The gate passed." if gates == 1 else f"All {one} passed."


def _gate_remark(gate: Any) -> str:
    value, limit = shortest(pick(gate, "value")), shortest(pick(gate, "limit"))
    reason = f" ({detail})" if (detail := pick(gate, "detail")) else ""
    return f"Gate “{spaced(pick(gate, 'name'))}” failed: {value}, limit {limit}{reason}."


def _winning_baselines(report: Mapping[str, Any]) -> list[str]:
    metric = headline_metric(report)
    ours = number(report, "quality", student_name(report), metric)
    remarks = []
    for name in BASELINES:
        theirs = number(report, "quality", name, metric)
        if ours is not None and theirs is not None and theirs >= ours:
            how = "beats" if theirs > ours else "is as good as"
            remarks.append(
                f"The baseline “{CONTENDERS[name]}” {how} the student: "
                f"{percent(theirs)} against {percent(ours)} {metric_name(metric)}."
            )
    return remarks


def _missing(report: Mapping[str, Any]) -> list[str]:
    metric = headline_metric(report)
    wanted = ("teacher", student_name(report), *BASELINES)
    missing = [CONTENDERS[name] for name in wanted if number(report, "quality", name, metric) is None]
    return [f"Not measured: {', '.join(missing)}."] if missing else []


def _unsound_control(report: Mapping[str, Any]) -> list[str]:
    low, high = (number(report, "latency", f"control_{end}") for end in ("low", "high"))
    if low is None or high is None or low <= 1 <= high:
        return []
    return [
        "The A/A control of the latency run does not hold 1 "
        f"({interval(low, high, shortest)}): something disturbed the machine, measure again."
    ]
