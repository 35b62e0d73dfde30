"""Ask an endpoint call by call, many at once: rate, retries, budget, and every answer on disk before the next call.

One event loop in a thread of its own, one pool of connections. Whoever waits for the answers may be interrupted:
calls under way are then awaited and committed, and no other begins.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import httpx2
import openai
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from teacher.completion import (
    Completion,
    CompletionRequest,
    Failure,
    Outcome,
    completion_key,
    joined,
    known_parts,
    to_content,
)
from teacher.errors import BudgetError, EndpointError
from teacher.paid import PaidAnswers
from teacher.prices import Price
from teacher.rate import AdaptiveRate, Stopped, retry_after_seconds
from teacher.spec import LlmApiSpec
from teacher.wire import (
    Dialect,
    Fault,
    TokenEstimate,
    Transient,
    Unanswerable,
    endpoint_name,
    judge,
    read_reply,
    shown_address,
)

_GRACE_SECONDS = 8.0  # for calls under way when somebody interrupts
_LEAST_OUTAGE_ROWS = 16
_LONGEST_WAIT_SECONDS = 30.0
Done = Callable[[str, Outcome], None]


@dataclass(slots=True)
class Line:
    """A way to an endpoint: its spec, key and price, and what was learned of it so far."""

    spec: LlmApiSpec
    key: str | None = field(repr=False)
    price: Price
    paid: PaidAnswers
    patience_seconds: float
    dialect: Dialect = field(default_factory=Dialect)
    estimate: TokenEstimate = field(default_factory=TokenEstimate)
    answers: int = 0

    @property
    def endpoint(self) -> str:
        """Return whose answers these are in the cache."""
        return endpoint_name(self.spec)

    def worst_usd(self, request: CompletionRequest, samples: int) -> float:
        """Return what a call may cost at most, as far as the prompt's tokens can be known before."""
        return self.price.cost_usd(self.estimate.most(request), request.max_tokens * samples)

    def priced(self, completion: Completion, request: CompletionRequest) -> Completion:
        """Return `completion` with its price, and learn how long the prompt was."""
        self.answers += 1
        self.estimate.learn(request, completion.prompt_tokens)
        cost = self.price.cost_usd(completion.prompt_tokens, completion.completion_tokens)
        return replace(completion, cost_usd=cost)

    def arguments(self) -> dict[str, Any]:
        """Return what a client of the SDK is made with; retries are ours."""
        spec = self.spec
        return {
            "api_key": self.key or "none",
            "base_url": spec.base_url,
            "timeout": spec.timeout_seconds,
            "max_retries": 0,
        }

    def hidden(self, text: str) -> str:
        """Return `text` without the key."""
        return text.replace(self.key, "***") if self.key else text


def ask_directly(line: Line, lacking: Mapping[str, CompletionRequest], done: Done) -> None:
    """Ask each request of `lacking` and hand its outcome to `done`, in this thread, as it comes.

    Raises BudgetError or EndpointError once the calls under way have ended; KeyboardInterrupt ends it within seconds.
    """
    asking = _Asking(line, lacking)
    try:
        asking.thread.start()
        while (outcome := asking.outcomes.get()) is not None:
            done(*outcome)
    except BaseException:
        asking.stop()
        raise
    if asking.error is not None:
        raise asking.error


class _Asking:
    """The calls of one list of requests."""

    def __init__(self, line: Line, lacking: Mapping[str, CompletionRequest]) -> None:
        self.line = line
        self.outcomes: queue.SimpleQueue[tuple[str, Outcome] | None] = queue.SimpleQueue()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="calls", daemon=True)
        self._lacking = lacking
        self._rate = AdaptiveRate(line.spec.concurrency)
        self._holding = 0  # calls with money reserved
        self._is_stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._given_up: deque[Transient] = deque(maxlen=max(line.spec.concurrency, _LEAST_OUTAGE_ROWS))

    def stop(self) -> None:
        """Begin no call, wait for those under way, and give up those that take too long."""
        self._is_stopping = True
        for act, seconds in ((self._rate.stop, _GRACE_SECONDS), (self._cancel, 1.0)):
            if self._loop is not None and self.thread.is_alive():
                self._loop.call_soon_threadsafe(act)
                self.thread.join(seconds)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            asyncio.run(self._ask_all())
        except BaseException as error:
            self.error = self.error or error
        finally:
            self.outcomes.put(None)

    async def _ask_all(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._is_stopping:
            self._rate.stop()
        jobs = iter(self._lacking.items())
        transport = openai.DefaultAioHttpClient()  # a third less CPU time for a call than the SDK's own
        async with openai.AsyncOpenAI(**self.line.arguments(), http_client=transport) as client:
            workers = min(self.line.spec.concurrency, len(self._lacking))
            await asyncio.gather(*(self._work(client, jobs) for _ in range(workers)))
        if self.error is None and self._given_up and not self.line.answers:
            self.error = self._outage(self._given_up[-1])

    async def _work(self, client: openai.AsyncOpenAI, jobs: Iterator[tuple[str, CompletionRequest]]) -> None:
        try:
            for key, request in jobs:
                self.outcomes.put((key, await self._answer(client, request)))
        except Stopped:
            pass
        except Exception as error:
            self.error = self.error or error
            self._rate.stop()

    async def _answer(self, client: openai.AsyncOpenAI, request: CompletionRequest) -> Outcome:
        parts, have = known_parts(self.line.paid, self.line.spec.model, request, self.line.endpoint)
        try:
            while have < request.samples:
                parts.append(await self._samples(client, request, have))
                have += len(parts[-1].texts)
        except Unanswerable as fault:
            return Failure(fault.reason, self.line.hidden(fault.raw))
        except Transient as fault:
            self._note_given_up(fault)
            return Failure(fault.reason, self.line.hidden(fault.raw))
        return joined(parts)

    async def _samples(self, client: openai.AsyncOpenAI, request: CompletionRequest, first: int) -> Completion:
        """Return the samples of `request` from `first` on, as many as one call gives."""
        line = self.line
        key = completion_key(line.spec.model, request, first, line.endpoint)
        retrying = AsyncRetrying(
            sleep=self._rate.pause,
            stop=stop_after_attempt(line.spec.attempts),
            wait=self._seconds_between,
            retry=retry_if_exception_type(Transient),
            reraise=True,
        )
        return await retrying(self._call, client, request, key, request.samples - first)

    async def _call(self, client: openai.AsyncOpenAI, request: CompletionRequest, key: str, samples: int) -> Completion:
        line, model = self.line, self.line.spec.model
        async with self._rate.turn() as began:
            reserved = await self._reserved(line.worst_usd(request, samples))
            owed = reserved
            try:
                completion = line.priced(await self._send(client, request, samples, began), request)
            except Fault as fault:
                owed = reserved if fault.bill is None else line.price.cost_usd(*fault.bill)
                raise
            except EndpointError:
                owed = 0.0
                raise
            else:
                content, cost = to_content(completion), completion.cost_usd
                stored = line.paid.record_soon(key, content, cost, model=model, reserved_usd=reserved)
                reserved = owed = 0.0
                await asyncio.wrap_future(stored)
                self._given_up.clear()
                return completion
            finally:
                self._holding -= 1
                settled = line.paid.settle_soon(reserved, owed, model=model)
                if not settled.done():
                    await asyncio.shield(asyncio.wrap_future(settled))

    async def _reserved(self, cost_usd: float) -> float:
        """Reserve money, waiting for calls under way to free theirs; raise BudgetError when there are none."""
        while True:
            try:
                self.line.paid.reserve(cost_usd)
            except BudgetError:
                if not self._holding:
                    raise
            else:
                self._holding += 1
                return cost_usd
            await self._rate.change()
            self._rate.check()

    async def _send(
        self, client: openai.AsyncOpenAI, request: CompletionRequest, samples: int, began: float
    ) -> Completion:
        line = self.line
        body = line.dialect.body(request, line.spec.model, samples)
        try:
            # Not chat.completions.create: its walk through the types of its parameters is a third of a call's CPU time.
            response = await client.post("/chat/completions", cast_to=httpx2.Response, body=body)
            completion = read_reply(response.content, request)
        except (openai.APIError, aiohttp.ClientError) as error:
            raise self._judged(judge(error, line.dialect), began) from None
        except Fault as fault:
            raise self._judged(fault, began) from None
        self._rate.answered(response.headers)
        return completion

    def _judged(self, error: Exception, began: float) -> Exception:
        if isinstance(error, Transient) and error.is_refusal:
            self._rate.refused(error.headers, began)
        if isinstance(error, EndpointError):
            return EndpointError(self.line.hidden(f"{shown_address(self.line.spec.base_url)}: {error}"))
        if isinstance(error, Transient) and error.is_web_page and not self.line.answers:
            return web_page(self.line.spec.base_url)
        return error

    def _seconds_between(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = retry_after_seconds(error.headers) if isinstance(error, Transient) else None
        backoff = wait_random_exponential(multiplier=self.line.patience_seconds, max=_LONGEST_WAIT_SECONDS)
        return max(asked or 0.0, backoff(state))

    def _note_given_up(self, fault: Transient) -> None:
        """Raise EndpointError when row after row was given up and none was answered: the endpoint is gone."""
        if not fault.is_outage:
            return
        self._given_up.append(fault)
        if len(self._given_up) == self._given_up.maxlen:
            raise self._outage(fault)

    def _outage(self, fault: Transient) -> EndpointError:
        raw = " ".join(self.line.hidden(fault.raw).split())
        address, tries = shown_address(self.line.spec.base_url), self.line.spec.attempts
        return EndpointError(
            f"{address}: row after row got no answer in {tries} tries ({fault.reason}: {raw}); what is paid is kept: "
            "look at the endpoint and run the same command again"
        )


def web_page(base_url: str) -> EndpointError:
    """Return the error for an address that answers people, not programs."""
    return EndpointError(
        f"{shown_address(base_url)}: found a web page (HTML), wanted the JSON of an OpenAI-compatible API; set "
        "teacher.base_url to its address, which mostly ends in /v1"
    )
