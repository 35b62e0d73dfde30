"""Ask an endpoint through its batch API: files of requests that are answered within a day, mostly at half the price.

A process that comes after a killed one harvests what that submitted (see `batch_book`). A line's `custom_id` is its
cache key; what is missing in the output, also that of an expired batch, is submitted again.
"""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import openai
from openai.types import Batch
from pydantic import BaseModel, ValidationError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from teacher.batch_book import BatchBook, Submitted
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
from teacher.direct import Line
from teacher.errors import BudgetError, EndpointError
from teacher.paid import spend, store
from teacher.wire import (
    Fault,
    Transient,
    Unanswerable,
    judge,
    judge_refusal,
    read_refusal,
    read_reply,
    shown_address,
)

_PATH: Literal["/v1/chat/completions"] = "/v1/chat/completions"
_MOST_ROWS, _MOST_BYTES = 20_000, 90_000_000  # of a batch; providers take 50,000 and 200 MB
_POLLS = 15.0  # times the patience
_LONGEST_WAIT_SECONDS = 30.0
_FINAL = ("completed", "failed", "expired", "cancelled")
Done = Callable[[str, Outcome], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Part:
    """The samples of a row that one line asks for: the row's key and the first of them."""

    row: str
    request: CompletionRequest
    first: int


class _Response(BaseModel):
    status_code: int
    body: Any = None


class _OutputLine(BaseModel):
    """What is read of a line in the output or error file of a batch."""

    custom_id: str
    response: _Response | None = None
    error: Any = None


Result = Completion | Exception


def ask_in_batches(line: Line, lacking: Mapping[str, CompletionRequest], done: Done) -> None:
    """Submit what no open batch asks already, wait, and hand every outcome to `done`.

    Raises BudgetError when the budget does not reach for the rest, EndpointError when the provider takes no batch.
    """
    with openai.OpenAI(**line.arguments()) as client:
        _Desk(line, client, lacking, done).work()


class _Desk:
    """Submits, polls and harvests until every row has its outcome."""

    def __init__(self, line: Line, client: openai.OpenAI, lacking: Mapping[str, CompletionRequest], done: Done) -> None:
        self.line = line
        self.client = client
        self.done = done
        self.rows = dict(lacking)  # without an outcome yet
        self.tries: Counter[str] = Counter()  # submissions of a row
        self.told: set[str] = set()  # files that the provider may have begun to work on
        self.most_rows = _MOST_ROWS
        self.address = shown_address(line.spec.base_url)
        self.book = BatchBook(line.paid, self.address, line.spec.model)
        self.open: list[Submitted] = []

    def work(self) -> None:
        """Do everything there is to do."""
        self.open = [each for each in self.book.open_batches() if self._is_begun(each)]
        while self.rows:
            self._submit_missing()
            seen = [(each, self._call(lambda each=each: self._batch(each))) for each in self.open]  # type: ignore[misc]
            final = [(each, batch) for each, batch in seen if batch.status in _FINAL]
            for each, batch in final:
                self._harvest(each, batch)
            if not final and self.rows:
                time.sleep(self.line.patience_seconds * _POLLS)

    def _is_begun(self, submitted: Submitted) -> bool:
        """Say whether the provider has the batch; forget one that it was never told to begin."""
        name = submitted.id or self._call(lambda: self._find(submitted.file))
        if name is None:
            self.book.close(submitted)
            return False
        self.book.begun(submitted, name)
        return True

    def _find(self, file: str) -> str | None:
        return next((batch.id for batch in self.client.batches.list(limit=100) if batch.input_file_id == file), None)

    def _batch(self, submitted: Submitted) -> Batch:
        return self.client.batches.retrieve(str(submitted.id))

    def _submit_missing(self) -> None:
        asked = {key for each in self.open for key in self.book.keys(each)}
        parts = {key: part for key, part in self._parts() if not asked & {key, self._older_key(part)}}
        while parts:
            chunk, reserved = self._affordable(parts)
            if not chunk:
                return
            self._submit({key: parts.pop(key) for key in chunk}, reserved)

    def _parts(self) -> Iterator[tuple[str, _Part]]:
        """Yield what each row lacks next, under its cache key; rows that lack nothing get their outcome."""
        model, endpoint = self.line.spec.model, self.line.endpoint
        for row, request in list(self.rows.items()):
            parts, have = known_parts(self.line.paid, model, request, endpoint)
            if have >= request.samples:
                self._finish(row, joined(parts))
            else:
                yield completion_key(model, request, have, endpoint), _Part(row, request, have)

    def _older_key(self, part: _Part) -> str:
        return completion_key(self.line.spec.model, part.request, part.first)

    def _affordable(self, parts: Mapping[str, _Part]) -> tuple[list[str], float]:
        """Reserve money for as many parts as fit into a batch and the budget; none means to wait for open batches."""
        chunk: list[str] = []
        reserved = size = 0.0
        for key, part in parts.items():
            size += part.request.bytes
            if len(chunk) == self.most_rows or (chunk and size > _MOST_BYTES):
                break
            cost = self.line.worst_usd(part.request, part.request.samples - part.first)
            try:
                self.line.paid.reserve(cost)
            except BudgetError:
                if chunk or self.open:
                    break
                raise
            chunk.append(key)
            reserved += cost
        return chunk, reserved

    def _submit(self, parts: Mapping[str, _Part], reserved_usd: float) -> None:
        lines = [json.dumps(self._line(key, part)) for key, part in parts.items()]
        upload = ("requests.jsonl", "\n".join(lines).encode())
        file = self._call(lambda: self.client.files.create(file=upload, purpose="batch")).id
        submitted = self.book.add(file, parts, reserved_usd)
        self.book.begun(submitted, self._call(lambda: self._begin(file)))
        self.open.append(submitted)
        self.tries.update(part.row for part in parts.values())

    def _begin(self, file: str) -> str:
        # A lost answer may hide a batch that has begun, so it is looked for before another one is made.
        found = self._find(file) if file in self.told else None
        self.told.add(file)
        create = self.client.batches.create
        return found or create(input_file_id=file, endpoint=_PATH, completion_window="24h").id

    def _line(self, key: str, part: _Part) -> dict[str, Any]:
        body = self.line.dialect.body(part.request, self.line.spec.model, part.request.samples - part.first)
        return {"custom_id": key, "method": "POST", "url": _PATH, "body": body}

    def _harvest(self, submitted: Submitted, batch: Batch) -> None:
        """Commit whatever a finished batch answered, all at once, and decide what becomes of the rest."""
        results = dict(self._results(batch, dict(self._parts())))
        self.book.close(submitted, lambda connection: self._keep(connection, results))
        self.open.remove(submitted)
        self._check_end(batch, results)
        asked = self.book.keys(submitted)
        for key, part in self._parts():  # those that are answered have their outcome now
            fault = results.get(key, Transient("missing in the output of its batch"))
            is_over = isinstance(fault, Unanswerable) or self.tries[part.row] >= self.line.spec.attempts
            if isinstance(fault, Fault) and is_over and key in asked:
                self._finish(part.row, Failure(fault.reason, self.line.hidden(fault.raw)))

    def _keep(self, connection: sqlite3.Connection, results: Mapping[str, Result]) -> None:
        model = self.line.spec.model
        for key, result in results.items():
            if isinstance(result, Completion):
                store(connection, key, model, to_content(result), result.cost_usd)
            elif isinstance(result, Fault) and result.bill is not None and any(result.bill):
                spend(connection, model, self.line.price.cost_usd(*result.bill))

    def _check_end(self, batch: Batch, results: Mapping[str, Result]) -> None:
        """Raise EndpointError when it makes no sense to submit the rest of a batch again."""
        hopeless = next((result for result in results.values() if isinstance(result, EndpointError)), None)
        if hopeless is not None:
            raise EndpointError(self.line.hidden(f"{self.address}: {hopeless}"))
        errors = batch.errors.data or [] if batch.errors else []
        if batch.status == "cancelled":
            raise EndpointError(f"{self.address}: the batch {batch.id} was cancelled; run it again to submit its rest")
        if any(error.code == "token_limit_exceeded" for error in errors) and self.most_rows > 1:
            self.most_rows = max(self.most_rows // 2, 1)
        elif batch.status == "failed":
            said = "; ".join(self.line.hidden(str(error.message)) for error in errors) or "no reason given"
            raise EndpointError(f"{self.address}: refused the batch {batch.id} ({said}); change the teacher's settings")

    def _results(self, batch: Batch, wanted: Mapping[str, _Part]) -> Iterator[tuple[str, Result]]:
        """Yield what output and errors of a batch say of each key; lines that are damaged say nothing."""
        for file in filter(None, (batch.error_file_id, batch.output_file_id)):
            content = self._call(lambda file=file: self.client.files.content(file).content)  # type: ignore[misc]
            for text in content.splitlines():
                with suppress(ValidationError):
                    record = _OutputLine.model_validate_json(text)
                    yield record.custom_id, self._result(record, wanted.get(record.custom_id))

    def _result(self, record: _OutputLine, part: _Part | None) -> Result:
        response = record.response
        if response is None:
            return Transient("no answer in its batch", json.dumps(record.error))
        body = json.dumps(response.body)
        if response.status_code != 200:
            return judge_refusal(read_refusal(response.status_code, response.body, body, {}), self.line.dialect)
        request = part.request if part else CompletionRequest((), 0)
        try:
            return self.line.priced(read_reply(body.encode(), request), request)
        except Fault as fault:
            return fault

    def _finish(self, row: str, outcome: Outcome) -> None:
        if self.rows.pop(row, None) is not None:
            self.done(row, outcome)

    def _call(self, ask: Callable[[], T]) -> T:
        """Return what a call about files and batches gives; try again what may pass."""

        def once() -> T:
            try:
                return ask()
            except openai.APIError as error:
                judged = judge(error, self.line.dialect)
                if isinstance(judged, Transient):
                    raise judged from None
                raise EndpointError(self.line.hidden(f"{self.address}: no batch API here: {judged}")) from None

        retrying = Retrying(
            stop=stop_after_attempt(self.line.spec.attempts),
            wait=wait_random_exponential(multiplier=self.line.patience_seconds, max=_LONGEST_WAIT_SECONDS),
            retry=retry_if_exception_type(Transient),
            reraise=True,
        )
        try:
            return retrying(once)
        except Transient as fault:
            raise EndpointError(
                f"{self.address}: the batch API does not answer ({fault.reason}: {self.line.hidden(fault.raw)}); what "
                "was submitted is remembered: run the same command again"
            ) from None
