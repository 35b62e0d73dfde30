"""How many calls may be under way at once, and when: an adaptive limit that learns from what an endpoint answers.

The limit grows by one a round of answers and is halved by a refusal (additive increase, multiplicative decrease:
Chiu and Jain 1989). Retry-After and x-ratelimit headers hold every caller back. All of it runs in one event loop.
"""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_LONGEST_PAUSE_SECONDS = 3600.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KINDS = ("requests", "tokens")


class Stopped(Exception):  # noqa: N818 - it is no error that somebody stops
    """Whoever waited for a turn is not to go on."""


class AdaptiveRate:
    """Turns for calls: `most` at once at the start and never more."""

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with the full number of turns: an endpoint that has a limit says so."""
        self.most = most
        self.limit = float(most)
        self.under_way = 0
        self._clock = clock
        self._pause_until = 0.0
        self._halved_at = float("-inf")
        self._changed = asyncio.Event()
        self._is_stopped = False

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a turn and hold it; gives the time at which it began. Raises Stopped."""
        while True:
            self.check()
            seconds = self.seconds_to_wait()
            if seconds <= 0 and self.under_way < int(self.limit):
                break
            await self.change(seconds if seconds > 0 else None)
        self.under_way += 1
        try:
            yield self._clock()
        finally:
            self.under_way -= 1
            self._tell()

    async def change(self, seconds: float | None = None) -> None:
        """Wait until a turn has ended or the rate has stopped, but at most `seconds`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    async def pause(self, seconds: float) -> None:
        """Sleep, unless the rate stops meanwhile: then raise Stopped at once."""
        until = self._clock() + seconds
        while not self._is_stopped and (left := until - self._clock()) > 0:
            await self.change(left)
        self.check()

    def stop(self) -> None:
        """Let nobody begin: who waits, now or later, gets Stopped; who holds a turn keeps it."""
        self._is_stopped = True
        self._tell()

    def check(self) -> None:
        """Raise Stopped when the rate has stopped."""
        if self._is_stopped:
            raise Stopped

    def seconds_to_wait(self) -> float:
        """Return for how long the endpoint has asked everybody to wait."""
        return max(self._pause_until - self._clock(), 0.0)

    def answered(self, headers: Mapping[str, str]) -> None:
        """Note an answer: the limit grows, and what its headers say of the quota that is left counts."""
        self.limit = min(self.limit + 1 / self.limit, float(self.most))
        self._hold(max(_quota_seconds(headers, kind, self.most) for kind in _KINDS))

    def refused(self, headers: Mapping[str, str], began: float) -> None:
        """Note a refusal of the call that began at `began`: halve the limit, once for all calls that were under way."""
        if began > self._halved_at:
            self.limit = max(self.limit / 2, 1.0)
            self._halved_at = self._clock()
        self._hold(retry_after_seconds(headers) or 0.0)

    def _hold(self, seconds: float) -> None:
        self._pause_until = max(self._pause_until, self._clock() + seconds)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that Retry-After (RFC 9110, seconds or a date) or retry-after-ms asks for, at most an hour."""
    milliseconds, text = headers.get("retry-after-ms"), headers.get("retry-after")
    seconds = _number(milliseconds)
    seconds = _number(text) if seconds is None else seconds / 1000
    if seconds is None and text:
        with suppress(ValueError):
            date = parsedate_to_datetime(text)
            seconds = (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return None if seconds is None else min(max(seconds, 0.0), _LONGEST_PAUSE_SECONDS)


def duration_seconds(text: str) -> float:
    """Return the seconds of a duration such as `6m0s`, `120ms` or `1.5`; 0 for anything else."""
    number = _number(text)
    if number is not None:
        return max(number, 0.0)
    return sum(float(value) * _UNIT_SECONDS[unit] for value, unit in _DURATION.findall(text))


def _quota_seconds(headers: Mapping[str, str], kind: str, calls: int) -> float:
    """Return for how long to wait when the quota of `kind` is used up; a negative one means that there is none.

    The reset is when all of the quota is back; where its size is known, that of `calls` calls is waited for.
    """
    remaining, size = (_number(headers.get(f"x-ratelimit-{name}-{kind}")) for name in ("remaining", "limit"))
    if remaining != 0:
        return 0.0
    seconds = min(duration_seconds(headers.get(f"x-ratelimit-reset-{kind}", "")), _LONGEST_PAUSE_SECONDS)
    is_shared = kind == "requests" and size is not None and size > calls
    return seconds * calls / size if is_shared and size else seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
