import asyncio
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from teacher.rate import AdaptiveRate, Stopped, duration_seconds, retry_after_seconds


class Clock:
    """A time that stands still until somebody moves it."""

    def __init__(self) -> None:
        """Begin at an arbitrary time."""
        self.now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_refusal_halves_the_limit_once_for_all_calls_that_were_under_way() -> None:
    clock = Clock()
    rate = AdaptiveRate(16, clock)
    clock.now = 101.0
    for _ in range(10):
        rate.refused({}, began=100.5)
    assert rate.limit == 8
    clock.now = 102.0
    rate.refused({}, began=101.5)
    assert rate.limit == 4


def test_the_limit_grows_by_one_a_round_of_answers_up_to_the_most() -> None:
    rate = AdaptiveRate(16, Clock())
    rate.limit = 4.0
    for _ in range(4):
        rate.answered({})
    assert rate.limit == pytest.approx(5, abs=0.2)
    for _ in range(1000):
        rate.answered({})
    assert rate.limit == 16


def test_the_limit_never_ends_below_one() -> None:
    clock = Clock()
    rate = AdaptiveRate(2, clock)
    for _ in range(9):
        clock.now += 1
        rate.refused({}, began=clock.now - 0.5)
    assert rate.limit == 1


def test_retry_after_holds_everybody_back_for_its_time() -> None:
    clock = Clock()
    rate = AdaptiveRate(4, clock)
    rate.refused({"retry-after": "7"}, began=100.0)
    assert rate.seconds_to_wait() == 7
    clock.now = 104.0
    assert rate.seconds_to_wait() == 3
    clock.now = 200.0
    assert rate.seconds_to_wait() == 0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "2s"}, 2.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1m0s"}, 60.0),
        ({"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": "2s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "2s"}, 0.0),
        ({"x-ratelimit-remaining-requests": "0"}, 0.0),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-limit-requests": "400",
                "x-ratelimit-reset-requests": "1m",
            },
            0.6,
        ),
    ],
)
def test_a_quota_that_is_used_up_is_waited_for(headers: dict[str, str], seconds: float) -> None:
    rate = AdaptiveRate(4, Clock())
    rate.answered(headers)
    assert rate.seconds_to_wait() == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after": "999999"}, 3600.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
)
def test_retry_after_is_read_in_each_of_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers) == seconds


def test_retry_after_may_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    found = retry_after_seconds({"retry-after": date})
    assert found is not None
    assert 80 < found <= 90


@pytest.mark.parametrize(
    ("text", "seconds"), [("6m0s", 360), ("120ms", 0.12), ("1h2m3.5s", 3723.5), ("7", 7), ("", 0), ("x", 0), ("-2", 0)]
)
def test_a_duration_is_read_as_providers_write_it(text: str, seconds: float) -> None:
    assert duration_seconds(text) == pytest.approx(seconds)


def test_no_more_calls_are_under_way_than_the_limit() -> None:
    async def measure() -> int:
        rate, most = AdaptiveRate(3), 0

        async def call() -> None:
            nonlocal most
            async with rate.turn():
                most = max(most, rate.under_way)
                await asyncio.sleep(0)

        await asyncio.gather(*(call() for _ in range(20)))
        assert rate.under_way == 0
        return most

    assert asyncio.run(measure()) == 3


def test_who_waits_for_a_turn_or_sleeps_is_told_when_the_rate_stops() -> None:
    async def stop() -> list[object]:
        rate = AdaptiveRate(1)

        async def call() -> None:
            async with rate.turn():
                raise AssertionError

        async with rate.turn():
            waiting = [asyncio.create_task(call()), asyncio.create_task(rate.pause(1e6))]
            await asyncio.sleep(0)
            rate.stop()
            return await asyncio.gather(*waiting, call(), return_exceptions=True)

    assert [type(each) for each in asyncio.run(stop())] == [Stopped] * 3
