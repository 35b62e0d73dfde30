"""The choice of a search: the smallest student that holds both lines, and what the noise leaves open."""

import pytest

from distill.choice import Choice, Finalist, Lines, choose, judge_gap, judge_p50, too_slow
from export.metrics import Interval

LINES = Lines(p50_ms=1.0, max_gap=0.005)
ROWS = 800


def finalist(
    name: str, megabytes: float, p50_ms: float = 0.5, points: float = 0.0, noise: float = 0.1, unfit: str = ""
) -> Finalist:
    gap = Interval(points / 100, (points - noise) / 100, (points + noise) / 100)
    return Finalist(name, int(megabytes * 1e6), Interval(p50_ms, 0.98 * p50_ms, 1.02 * p50_ms), gap, unfit)


def chosen(*finalists: Finalist) -> Choice:
    return choose(finalists, LINES, ROWS)


@pytest.mark.parametrize(
    ("low", "estimate", "high", "verdict"),
    [
        (-0.4, -0.2, 0.1, "sure"),
        (-1.1, -0.2, 0.7, "within noise"),
        (-1.4, -0.6, 0.2, "missed within noise"),
        (-2.0, -1.2, -0.6, "missed"),
    ],
)
def test_a_gap_is_judged_by_its_whole_interval(low: float, estimate: float, high: float, verdict: str) -> None:
    assert judge_gap(Interval(estimate / 100, low / 100, high / 100), LINES) == verdict


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        (Interval(0.8, 0.7, 0.9), "sure"),
        (Interval(0.9, 0.8, 1.1), "within noise"),
        (Interval(1.1, 0.9, 1.2), "missed within noise"),
        (Interval(1.2, 1.1, 1.3), "missed"),
    ],
)
def test_a_time_is_judged_by_its_whole_interval(interval: Interval, verdict: str) -> None:
    assert judge_p50(interval, LINES) == verdict


def test_the_smallest_file_that_holds_both_lines_is_chosen_not_the_best_or_fastest() -> None:
    choice = chosen(finalist("best", 9, points=0.5), finalist("small", 4, 0.9, -0.2), finalist("fast", 6, 0.1))
    assert (choice.chosen, choice.is_sure, choice.remarks) == ("small", True, ())
    assert "sure" in choice.sentence


def test_the_faster_of_two_files_of_one_size_is_chosen() -> None:
    assert chosen(finalist("slow", 4, 0.8), finalist("fast", 4, 0.2)).chosen == "fast"


def test_a_choice_within_the_noise_says_so_and_names_the_one_that_surely_holds() -> None:
    choice = chosen(finalist("small", 4, points=-0.3, noise=0.9), finalist("large", 9, points=0.4))
    assert (choice.chosen, choice.is_sure) == ("small", False)
    assert "800 dev rows cannot tell" in choice.remarks[-1]
    assert "the smallest that surely does is large" in choice.remarks[-1]


def test_a_smaller_student_that_misses_within_the_noise_is_mentioned() -> None:
    choice = chosen(finalist("tiny", 1, points=-0.7, noise=0.9), finalist("small", 4))
    assert choice.chosen == "small"
    assert choice.remarks[0].startswith("tiny is smaller and misses by no more than the noise")


def test_a_smaller_student_that_surely_misses_is_not_mentioned() -> None:
    assert chosen(finalist("tiny", 1, points=-5), finalist("small", 4)).remarks == ()


def test_a_student_whose_int8_file_failed_its_gates_is_never_chosen() -> None:
    broken = finalist("broken", 1, unfit="int8 failed quality_drop")
    assert chosen(broken, finalist("sound", 4)).chosen == "sound"
    alone = chosen(broken)
    assert (alone.chosen, alone.closest) == (None, "broken")
    assert "int8 failed quality_drop" in alone.sentence


def test_a_gap_that_nobody_holds_is_named_with_what_is_missing() -> None:
    choice = chosen(finalist("near", 6, points=-1.5), finalist("far", 4, points=-4))
    assert (choice.chosen, choice.closest, choice.is_sure) == (None, "near", True)
    assert choice.sentence.startswith(
        "the line gap <= 0.5 points cannot be held; near comes closest: 1 points too much"
    )


def test_a_time_that_nobody_holds_is_named_with_what_is_missing() -> None:
    choice = chosen(finalist("slow", 6, 1.5), finalist("slower", 4, 2.5))
    assert choice.closest == "slow"
    assert "the line p50 <= 1 ms cannot be held; slow comes closest: 0.50 ms too slow (missed)" in choice.sentence


def test_both_lines_are_named_when_the_closest_student_misses_both() -> None:
    sentence = chosen(finalist("only", 6, 1.5, -3)).sentence
    assert "the line p50 <= 1 ms and the line gap <= 0.5 points cannot be held" in sentence


def test_a_miss_within_the_noise_is_no_sure_miss() -> None:
    assert not chosen(finalist("near", 6, points=-0.6, noise=0.9)).is_sure


def test_a_ladder_that_is_too_slow_before_training_names_its_fastest() -> None:
    choice = too_slow("static", Interval(1.3, 1.2, 1.4), LINES)
    assert (choice.chosen, choice.closest) == (None, "static")
    assert "1.30 ms [1.2, 1.4] untrained, 0.30 ms more; nothing was trained" in choice.sentence
