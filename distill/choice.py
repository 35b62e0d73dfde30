"""The answer of a search: the smallest student that holds both lines, what of that is sure, and else what is missing.

Pure functions over measured intervals. A line is held by the estimate; it is held surely when the whole interval is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from export.metrics import Interval
from export.report_wording import data_size, interval, milliseconds, points, shortest

Verdict = Literal["sure", "within noise", "missed within noise", "missed"]


@dataclass(frozen=True, slots=True)
class Lines:
    """At most `p50_ms` from text in to label out, and at most `max_gap` (a fraction) below the teacher."""

    p50_ms: float
    max_gap: float


@dataclass(frozen=True, slots=True)
class Finalist:
    """A student that is trained to the end; `unfit` says why its int8 file must not ship, empty when it may."""

    name: str
    size_bytes: int
    p50_ms: Interval
    gap: Interval
    unfit: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """The student chosen, None when a line cannot be held; `closest` is then the one that misses least.

    `sentence` says it in one line, `remarks` what else can be said of the others within the noise.
    """

    chosen: str | None
    closest: str | None
    is_sure: bool
    sentence: str
    remarks: tuple[str, ...] = ()


def judge_p50(measured: Interval, lines: Lines) -> Verdict:
    """Say whether a time holds the line."""
    return _judge(lines.p50_ms - measured.estimate, lines.p50_ms - measured.high, lines.p50_ms - measured.low)


def judge_gap(measured: Interval, lines: Lines) -> Verdict:
    """Say whether a gap (student minus teacher) holds the line."""
    return _judge(measured.estimate + lines.max_gap, measured.low + lines.max_gap, measured.high + lines.max_gap)


def choose(finalists: Sequence[Finalist], lines: Lines, rows: int) -> Choice:
    """Return the smallest finalist that holds both lines, on `rows` dev rows; the faster one of equal size."""
    ordered = sorted(finalists, key=lambda each: (each.size_bytes, each.p50_ms.estimate))
    holding = [each for each in ordered if _holds(each, lines)]
    if not holding:
        return _missed(ordered, lines)
    chosen = holding[0]
    is_sure = _is_sure(chosen, lines)
    sentence = f"{chosen.name} is the smallest student that holds both lines: {_told(chosen, lines)}"
    return Choice(chosen.name, None, is_sure, sentence, tuple(_remarks(ordered, holding, lines, rows)))


def too_slow(fastest: str, p50_ms: Interval, lines: Lines) -> Choice:
    """Return that no student can hold the line on the time: even the fastest one, untrained, surely misses it."""
    over = p50_ms.estimate - lines.p50_ms
    return Choice(
        None,
        fastest,
        True,
        f"the line p50 <= {lines.p50_ms:g} ms cannot be held: {fastest}, the fastest student of the ladder, takes "
        f"{_time(p50_ms)} untrained, {milliseconds(over)} more; nothing was trained",
    )


def _judge(estimate: float, worst: float, best: float) -> Verdict:
    """Judge a margin, positive where the line is held, by its estimate and the ends of its interval."""
    if estimate >= 0:
        return "sure" if worst >= 0 else "within noise"
    return "missed within noise" if best >= 0 else "missed"


def _holds(each: Finalist, lines: Lines) -> bool:
    return not each.unfit and each.p50_ms.estimate <= lines.p50_ms and each.gap.estimate >= -lines.max_gap


def _is_sure(each: Finalist, lines: Lines) -> bool:
    return not each.unfit and judge_p50(each.p50_ms, lines) == judge_gap(each.gap, lines) == "sure"


def _missed(ordered: Sequence[Finalist], lines: Lines) -> Choice:
    """Say what the closest student misses: one whose file may ship before others, a time held before a gap."""
    closest = min(
        ordered,
        key=lambda each: (
            bool(each.unfit),
            max(each.p50_ms.estimate / lines.p50_ms - 1, 0),
            max(-lines.max_gap - each.gap.estimate, 0),
        ),
    )
    misses = list(_misses(closest, lines))
    sentence = (
        f"{' and '.join(what for what, _ in misses)} cannot be held; {closest.name} comes closest: "
        f"{', '.join(by for _, by in misses)}; {_told(closest, lines)}"
    )
    is_sure = all(
        each.unfit or "missed" in (judge_p50(each.p50_ms, lines), judge_gap(each.gap, lines)) for each in ordered
    )
    return Choice(None, closest.name, is_sure, sentence)


def _misses(each: Finalist, lines: Lines) -> Iterator[tuple[str, str]]:
    """Yield every line that a student misses and by how much."""
    if (over := each.p50_ms.estimate - lines.p50_ms) > 0:
        yield f"the line p50 <= {lines.p50_ms:g} ms", f"{milliseconds(over)} too slow ({judge_p50(each.p50_ms, lines)})"
    if (under := -lines.max_gap - each.gap.estimate) > 0:
        line = f"the line gap <= {100 * lines.max_gap:g} points"
        yield line, f"{100 * under:.2g} points too much ({judge_gap(each.gap, lines)})"
    if each.unfit:
        yield "the gates of the int8 file", each.unfit


def _told(each: Finalist, lines: Lines) -> str:
    gap = f"{points(each.gap.estimate)} points {interval(each.gap.low, each.gap.high, points)}"
    return (
        f"p50 {_time(each.p50_ms)} ({judge_p50(each.p50_ms, lines)}), {gap} from the teacher "
        f"({judge_gap(each.gap, lines)}), {data_size(each.size_bytes)}"
    )


def _time(measured: Interval) -> str:
    return f"{milliseconds(measured.estimate)} {interval(measured.low, measured.high, shortest)}"


def _remarks(ordered: Sequence[Finalist], holding: Sequence[Finalist], lines: Lines, rows: int) -> Iterator[str]:
    """Yield what the noise leaves open about a choice: smaller students that may do, and which one surely does."""
    chosen = holding[0]
    for each in ordered[: ordered.index(chosen)]:
        if not each.unfit and "missed" not in (judge_p50(each.p50_ms, lines), judge_gap(each.gap, lines)):
            yield f"{each.name} is smaller and misses by no more than the noise: {_told(each, lines)}"
    if _is_sure(chosen, lines):
        return
    sure = next((each for each in holding if _is_sure(each, lines)), None)
    found = f"the smallest that surely does is {sure.name}: {_told(sure, lines)}" if sure else "none surely does"
    yield f"{rows:,} dev rows cannot tell whether {chosen.name} holds both lines; {found}"
