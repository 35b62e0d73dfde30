"""The queue of one worker: which text runs next on its one session, and which request is refused at once.

Everything happens on the event loop's thread: one text runs, then the loop looks at its sockets, and so on. A hop
to another thread and back costs more than tokenizing, and a core that runs the model cannot do anything else.

A request is placed by the moment it came plus PATIENCE times its predicted cost: short ones pass long ones, but
nothing waits for ever, because whatever comes later stands further back.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, inf

import numpy as np

from export.errors import ExportError
from export.models import ServedModel
from export.runtime import Outputs
from export.serve_errors import RequestError
from export.tokens import Encoded

PATIENCE = 4.0
_MOST_TOGETHER = 16
_REMEMBERED = 20  # about so many requests say what a typical one costs


@dataclass(slots=True, order=True)
class Job:
    """The texts of one request on their way through the model; `deadline` and `arrived` on the monotonic clock."""

    place: float
    number: int
    model: ServedModel = field(compare=False)
    encodings: Sequence[Encoded] = field(compare=False)
    deadline: float | None = field(compare=False)
    arrived: float = field(compare=False)
    left_seconds: float = field(compare=False)
    done: "asyncio.Future[Outputs]" = field(compare=False)
    finished: int = field(compare=False, default=0)
    pieces: list[Outputs] = field(compare=False, default_factory=list)
    started: float = field(compare=False, default=0.0)
    ended: float = field(compare=False, default=0.0)

    @property
    def rest(self) -> Sequence[Encoded]:
        """The texts that have not run."""
        return self.encodings[self.finished :]


class Scheduler:
    """Runs jobs one text at a time, cheapest and oldest first."""

    def __init__(self, max_queue: int, max_wait_seconds: float, batching: bool) -> None:
        """Start with an empty queue; call from the event loop's thread only."""
        self._max_queue = max_queue
        self._max_wait = max_wait_seconds
        self._batching = batching
        self._heap: list[Job] = []
        self._count = 0
        self._waiting_texts = 0
        self._is_running = False
        self._last_turn = 0.0
        self._typical_cost = 0.0
        self.arriving = 0  # requests that were read and have yet to be submitted

    @property
    def waiting_texts(self) -> int:
        """How many texts have not run."""
        return self._waiting_texts

    def is_full(self) -> bool:
        """Say whether a typical request would be refused now; takes a microsecond or two."""
        if self._waiting_texts + self.arriving > self._max_queue:
            return True
        place = time.perf_counter() + PATIENCE * self._typical_cost
        return self._wait(place) + self.arriving * self._typical_cost > self._max_wait

    def refuse_when_full(self, texts: int) -> None:
        """Raise RequestError when so many more texts do not fit; costs nothing, so it comes before tokenizing."""
        if self._waiting_texts and self._waiting_texts + texts > self._max_queue:
            self._refuse(self._wait(inf))

    def submit(self, model: ServedModel, encodings: Sequence[Encoded], deadline: float | None) -> Job:
        """Queue the texts of one request; the job's `done` will hold their outputs or a RequestError.

        Raises RequestError when the queue is full or the wait is predicted to be too long.
        """
        now = time.perf_counter()
        cost = sum(model.cost.alone(len(encoding)) for encoding in encodings)
        place = now + PATIENCE * cost
        wait = self._wait(place)
        if wait > self._max_wait:
            self._refuse(wait)
        if deadline is not None and now + wait + cost > deadline:
            raise RequestError("timeout", f"the answer is {1000 * (wait + cost):.0f} ms away, later than x-timeout-ms")
        self._count += 1
        self._typical_cost += (cost - self._typical_cost) / min(self._count, _REMEMBERED)
        done: asyncio.Future[Outputs] = asyncio.get_running_loop().create_future()
        job = Job(place, self._count, model, encodings, deadline, now, cost, done)
        heappush(self._heap, job)
        self._waiting_texts += len(encodings)
        if not self._is_running:
            self._is_running = True
            self._last_turn = now
            asyncio.get_running_loop().call_soon(self._turn)
        return job

    def _wait(self, place: float) -> float:
        return sum(job.left_seconds for job in self._heap if job.place <= place)

    def _refuse(self, wait: float) -> None:
        seconds = max(1, ceil(wait))
        raise RequestError("overloaded", f"{self._waiting_texts} texts are waiting; come back in {seconds} s", seconds)

    def _turn(self) -> None:
        """Run at least one text, and for as long as the loop spent on its sockets since the last turn.

        The second half keeps a flood of requests that are only refused from starving those that were accepted.
        """
        now = time.perf_counter()
        until = now + (now - self._last_turn)
        while self._heap:
            self._run_next()
            self._last_turn = time.perf_counter()
            if self._last_turn >= until:
                break
        self._is_running = bool(self._heap)
        if self._is_running:
            asyncio.get_running_loop().call_soon(self._turn)

    def _run_next(self) -> None:
        job = heappop(self._heap)
        rest = job.rest
        if job.done.done():  # the client went away
            self._waiting_texts -= len(rest)
            return
        try:
            job.started = job.started or time.perf_counter()
            self._refuse_late(job)
            together = self._choose(job.model, rest)
            job.pieces.append(job.model.predictor.run(together))
        except ExportError as error:
            self._waiting_texts -= len(rest)
            is_told = isinstance(error, RequestError)
            job.done.set_exception(error if is_told else RequestError("backend", str(error)))
            return
        job.finished += len(together)
        self._waiting_texts -= len(together)
        job.left_seconds *= 1 - len(together) / len(rest)
        if len(together) < len(rest):
            heappush(self._heap, job)
        else:
            job.ended = time.perf_counter()
            job.done.set_result(_joined(job.pieces))

    def _choose(self, model: ServedModel, rest: Sequence[Encoded]) -> Sequence[Encoded]:
        """Return the texts to run now: one, or the next few together where that is predicted to be sooner."""
        if self._batching and len(rest) > 1:
            together = rest[:_MOST_TOGETHER]
            if model.cost.together_is_sooner([len(encoding) for encoding in together]):
                return together
        return rest[:1]

    def _refuse_late(self, job: Job) -> None:
        if job.deadline is not None and time.perf_counter() + job.left_seconds > job.deadline:
            raise RequestError("timeout", f"{len(job.rest)} of {len(job.encodings)} texts would be late: x-timeout-ms")


def _joined(pieces: Sequence[Outputs]) -> Outputs:
    return pieces[0] if len(pieces) == 1 else Outputs(*map(np.concatenate, zip(*pieces, strict=True)))
