"""Successive halving for a question with two lines: who goes on when the smallest student that holds them is wanted.

Jamieson & Talwalkar 2016; Li et al. 2018, "Hyperband". Pure functions over measured intervals: knows no files.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from export.metrics import Interval

_FINALISTS = 2  # one alone would leave nothing to compare it with
_NORMAL_95 = 1.959964


@dataclass(frozen=True, slots=True)
class Standing:
    """A student after a share of its training: how many bytes it has, and its gap to the teacher, a fraction."""

    name: str
    size_bytes: int
    gap: Interval


def schedule(students: int, shares: Sequence[float], eta: int) -> list[tuple[float, int]]:
    """Return (share of the training, students that train so far), the last with share 1.

    One in `eta` goes on, rounded up, two at least. A share after which nobody would drop out is left out.
    """
    plan = []
    for share in shares[:-1]:
        left = max(math.ceil(students / eta), min(students, _FINALISTS))
        if left < students:
            plan.append((share, students))
            students = left
    return [*plan, (shares[-1], students)]


def by_promise(standings: Sequence[Standing], max_gap: float) -> list[str]:
    """Return the names, the most likely first to be the smallest student that holds the line on the gap in the end.

    Halfway nobody is as good as in the end, so the line is where the best one stands, if that is below it. A student
    is the answer when it holds the line and no smaller one does; its chance is taken from the normal distribution
    that its interval describes.
    """
    line = min(-max_gap, max(standing.gap.estimate for standing in standings))
    chances: dict[str, tuple[float, float]] = {}
    nobody_yet = 1.0
    for standing in sorted(standings, key=lambda each: each.size_bytes):
        holds = _chance_above(line, standing.gap)
        chances[standing.name] = (nobody_yet * holds, standing.gap.estimate)
        nobody_yet *= 1 - holds
    return sorted(chances, key=lambda name: chances[name], reverse=True)


def passed_over(finalists: Sequence[Standing], dropped: Sequence[Standing]) -> list[str]:
    """Return who was dropped after the same share although better than every finalist there, the smallest first.

    They were dropped because a smaller student looked good enough; when it was not, they are next.
    """
    best = max(standing.gap.estimate for standing in finalists)
    better = [standing for standing in dropped if standing.gap.estimate > best]
    return [standing.name for standing in sorted(better, key=lambda each: each.size_bytes)]


def _chance_above(line: float, gap: Interval) -> float:
    spread = (gap.high - gap.low) / (2 * _NORMAL_95)
    if spread == 0:
        return float(gap.estimate >= line)
    return 0.5 * (1 + math.erf((gap.estimate - line) / (spread * math.sqrt(2))))
