"""An OpenAI-compatible endpoint: ask it what the cache does not hold yet, within a budget, and lose no answer.

The key is read from the environment and stays here: no message, file or representation of a value shows it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import openai

from teacher.asked_book import Origin, note_asked
from teacher.base import Progress
from teacher.batch import ask_in_batches
from teacher.completion import Completion, CompletionRequest, Failure, Outcome, completion_key, joined, known_parts
from teacher.direct import Line, ask_directly, web_page
from teacher.errors import EndpointError
from teacher.paid import PaidAnswers
from teacher.prices import find_price
from teacher.spec import LlmApiSpec
from teacher.wire import judge, read_key, refusal_of, shown_address

_MOST_BYTES_PER_TOKEN = 8  # of a prompt, so that only what cannot fit is kept from the endpoint
_MOST_NAMES = 8


class Endpoint:
    """The model `spec.model` at `spec.base_url`, paid through `paid`."""

    def __init__(self, spec: LlmApiSpec, paid: PaidAnswers, *, patience_seconds: float = 1.0) -> None:
        """Read key and price before anything is asked; `patience_seconds` is the first wait between two tries.

        Raises SettingError without a key or a price.
        """
        key, prices = read_key(spec.key_env), Path(spec.prices) if spec.prices else None
        price = find_price(spec.model, prices, is_batch=spec.transport == "batch")
        self.spec, self.paid = spec, paid
        self._line = Line(spec, key, price, paid, patience_seconds)

    def complete(self, requests: Sequence[CompletionRequest], progress: Progress = lambda rows: None) -> list[Outcome]:
        """Return the outcome of each request in order; equal requests are asked and paid once.

        What the cache holds is not asked again, nor what was given up since it was opened. Raises BudgetError before
        a call that the budget might not cover, and EndpointError when no call can succeed; what was answered until
        then is in the cache.
        """
        keys = [self._key(request) for request in requests]
        rows = Counter(keys)
        outcomes: dict[str, Outcome] = {}
        lacking: dict[str, CompletionRequest] = {}
        for key, request in zip(keys, requests, strict=True):
            if key in outcomes or key in lacking:
                continue
            known = self._known(request, key)
            if known is None:
                lacking[key] = request
            else:
                outcomes[key] = known
                progress(rows[key])

        def done(key: str, outcome: Outcome) -> None:
            outcomes[key] = outcome
            progress(rows[key])

        if lacking:
            ask = ask_in_batches if self.spec.transport == "batch" else ask_directly
            ask(self._line, lacking, done)
            failed = {key: outcomes[key] for key in lacking if isinstance(outcomes[key], Failure)}
            self.paid.given_up |= failed
        return [outcomes[key] for key in keys]

    def check(self, request: CompletionRequest) -> Completion:
        """Ask one request before many: raise EndpointError for whatever would make every call fail.

        The address is tried for free before the request is paid for; the answer is in the cache for later.
        """
        if isinstance(known := self._known(request, self._key(request)), Failure):
            raise EndpointError(f"{known.reason}: {known.raw}")
        models = self._models()
        hint = f"; it knows {', '.join(models[:_MOST_NAMES])}" if models and self.spec.model not in models else ""
        try:
            outcome = self.complete([request])[0]
        except EndpointError as error:
            raise EndpointError(f"{error}{hint}") from None
        if isinstance(outcome, Failure):
            raise EndpointError(
                f"{shown_address(self.spec.base_url)}: found no answer to a first call ({outcome.reason}: "
                f"{outcome.raw}){hint}; change the teacher's settings and run the same command again"
            )
        return outcome

    def forget(self, request: CompletionRequest) -> None:
        """Let `request` be asked again; what it cost stays booked."""
        key = self._key(request)
        self.paid.given_up.pop(key, None)
        self.paid.write(lambda connection: connection.execute("DELETE FROM answers WHERE key = ?", (key,))).result()

    def note(self, origin: Origin, asked: Iterable[tuple[str, CompletionRequest]]) -> None:
        """Write down which texts, by content id, the answers to requests will be about."""
        keys = ((completion_key(origin.model, request, endpoint=origin.endpoint), text) for text, request in asked)
        note_asked(self.paid, origin, keys)

    def worst_usd(self, request: CompletionRequest) -> float:
        """Return what `request` may cost at most."""
        return self._line.worst_usd(request, request.samples)

    def _key(self, request: CompletionRequest) -> str:
        return completion_key(self.spec.model, request, endpoint=self._line.endpoint)

    def _known(self, request: CompletionRequest, key: str) -> Outcome | None:
        """Return the outcome that needs no call: it is in the cache, was given up, or cannot fit into the context."""
        parts, have = known_parts(self.paid, self.spec.model, request, self._line.endpoint)
        return joined(parts) if have >= request.samples else self.paid.given_up.get(key) or self._too_long(request)

    def _too_long(self, request: CompletionRequest) -> Failure | None:
        least = request.bytes // _MOST_BYTES_PER_TOKEN + request.max_tokens
        if least <= self.spec.max_tokens:
            return None
        return Failure(
            "context too long",
            f"found a prompt of {request.bytes:,} bytes, at least {least:,} tokens with the answer, wanted at most "
            f"{self.spec.max_tokens:,} (teacher.max_tokens); take fewer examples, passages or another model",
        )

    def _models(self) -> list[str]:
        """Return the models that the endpoint lists, none where it has no list; raise EndpointError when it is none."""
        line, address = self._line, shown_address(self.spec.base_url)
        try:
            with openai.OpenAI(**line.arguments()) as client:
                response = client.models.with_raw_response.list()
            if response.content.lstrip()[:1] == b"<":
                raise web_page(self.spec.base_url)
            return sorted(str(model.id) for model in response.parse().data)
        except openai.APIStatusError as error:
            if error.status_code in (401, 402, 403):
                raise EndpointError(line.hidden(f"{address}: {judge(error, line.dialect)}")) from None
            if refusal_of(error).said[:1] == "<" and error.status_code < 500:
                raise web_page(self.spec.base_url) from None
        except openai.APIConnectionError as error:
            reason = line.hidden(f"{error} {error.__cause__ or ''}".strip())
            raise EndpointError(
                f"{address}: nothing answers there ({reason}); look at teacher.base_url and the network"
            ) from None
        except (openai.OpenAIError, AttributeError, TypeError, ValueError):
            pass  # a list that cannot be read is none
        return []
