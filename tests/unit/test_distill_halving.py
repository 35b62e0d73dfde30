"""Successive halving: how many train how far, who goes on, and who gets a second chance."""

import pytest

from distill.halving import Standing, by_promise, passed_over, schedule
from export.metrics import Interval


def standing(name: str, megabytes: float, points: float, noise: float = 1.2) -> Standing:
    """Return a student whose gap in points lies in the middle of an interval of twice the `noise`."""
    gap = Interval(points / 100, (points - noise) / 100, (points + noise) / 100)
    return Standing(name, int(megabytes * 1e6), gap)


@pytest.mark.parametrize(
    ("students", "shares", "eta", "plan"),
    [
        (8, [0.25, 0.5, 1.0], 2, [(0.25, 8), (0.5, 4), (1.0, 2)]),
        (9, [0.11, 0.33, 1.0], 3, [(0.11, 9), (0.33, 3), (1.0, 2)]),
        (7, [0.25, 0.5, 1.0], 2, [(0.25, 7), (0.5, 4), (1.0, 2)]),
        (3, [0.25, 0.5, 1.0], 2, [(0.25, 3), (1.0, 2)]),
        (2, [0.25, 0.5, 1.0], 2, [(1.0, 2)]),
        (1, [0.5, 1.0], 16, [(1.0, 1)]),
        (6, [1.0], 2, [(1.0, 6)]),
    ],
)
def test_one_student_in_eta_goes_on_and_two_to_the_end(
    students: int, shares: list[float], eta: int, plan: list[tuple[float, int]]
) -> None:
    assert schedule(students, shares, eta) == plan


def test_a_share_after_which_nobody_drops_out_is_skipped() -> None:
    assert [share for share, _ in schedule(4, [0.1, 0.2, 0.4, 1.0], 2)] == [0.1, 1.0]


def test_the_smallest_of_those_that_hold_the_line_is_the_most_promising() -> None:
    holding = [standing("large", 9, 0.0, 0.1), standing("small", 3, -0.1, 0.1), standing("middle", 6, 0.1, 0.1)]
    assert by_promise(holding, max_gap=0.005)[0] == "small"


def test_a_student_that_surely_misses_comes_last_however_small_it_is() -> None:
    tried = [standing("tiny", 1, -9), standing("small", 3, -0.2), standing("large", 9, 0.0)]
    assert by_promise(tried, max_gap=0.005)[-1] == "tiny"


def test_while_nobody_holds_the_line_the_best_ones_go_on() -> None:
    early = [standing("static", 4, -8), standing("1", 5, -6), standing("2", 6, -4.4), standing("3", 7, -4)]
    assert set(by_promise(early, max_gap=0.005)[:2]) == {"2", "3"}


def test_the_larger_of_two_that_are_alike_goes_on_later() -> None:
    alike = [standing("large", 9, 0.0), standing("small", 3, 0.0)]
    assert by_promise(alike, max_gap=0.005) == ["small", "large"]


def test_without_any_noise_the_line_alone_decides() -> None:
    exact = [standing("misses", 1, -1, 0), standing("holds", 2, -0.2, 0), standing("larger", 3, 0.3, 0)]
    assert by_promise(exact, max_gap=0.005) == ["holds", "larger", "misses"]


def test_only_students_better_than_every_finalist_are_trained_after_all() -> None:
    finalists = [standing("a", 3, -2), standing("b", 4, -1)]
    dropped = [standing("worse", 2, -3), standing("large", 9, -0.2), standing("larger", 12, -0.1)]
    assert passed_over(finalists, dropped) == ["large", "larger"]
