"""The OpenAI protocol on both ends: what a request looks like when it is sent, and what came back, good or bad.

Knows no network: it turns values into bodies, bodies into values, and the SDK's exceptions into three kinds of fault.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
from pydantic import BaseModel, Field, ValidationError

from teacher.completion import Completion, CompletionRequest, TokenAlternatives
from teacher.errors import EndpointError, SettingError
from teacher.spec import LlmApiSpec

_RAW_CHARACTERS = 500
_TRY_AGAIN = (408, 409, 425, 429)
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "PoolTimeout")  # of the SDK's own transport
_NEVER_SENT_ERRORS = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)
_OUT_OF_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "insufficient_balance")
_BYTES_PER_TOKEN = 3  # of an answer whose endpoint does not count
_MESSAGE_TOKENS = 16  # what a chat template puts around a message, at most
_MARGIN = 1.25
NOTHING = (0, 0)


class Fault(Exception):  # noqa: N818 - never reaches a person
    """A call without an answer that can be used; `bill` is prompt and generated tokens, None where nobody knows."""

    def __init__(self, reason: str, raw: str = "", bill: tuple[int, int] | None = NOTHING) -> None:
        """Keep a short countable reason and what came instead."""
        super().__init__(reason)
        self.reason = reason
        self.raw = raw[:_RAW_CHARACTERS]
        self.bill = bill
        self.headers: Mapping[str, str] = {}


class Transient(Fault):
    """The same call may well be answered another time."""

    is_outage = False  # whether it says nothing of the request, only of the endpoint
    is_refusal = False  # whether there were too many calls
    is_web_page = False


class Unanswerable(Fault):
    """This request will not be answered, others may."""


class Reply(BaseModel):
    """What Potstill reads of a chat completion; the rest of it is ignored."""

    choices: list["_Choice"] = []
    usage: "_Usage | None" = None
    error: Any = None


class _Top(BaseModel):
    token: str
    logprob: float = Field(le=0.01)  # also refuses NaN


class _Token(_Top):
    top_logprobs: list[_Top] = []


class _Logprobs(BaseModel):
    content: list[_Token] | None = None


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = Field(0, ge=0)
    completion_tokens: int = Field(0, ge=0)


Reply.model_rebuild()


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error status and what came with it; `said` is one line."""

    status: int
    code: str
    param: str
    said: str
    headers: Mapping[str, str]


class Dialect:
    """Which words of the protocol an endpoint takes; learned from what it refuses."""

    def __init__(self) -> None:
        """Start with the words that most endpoints know."""
        self.limit_name = "max_tokens"
        self.takes_samples = True

    def body(self, request: CompletionRequest, model: str, samples: int) -> dict[str, Any]:
        """Return the body of a request for `samples` answers, or for one where that is all the endpoint gives."""
        body: dict[str, Any] = {
            "model": model,
            "messages": list(request.messages),
            "temperature": request.temperature,
            self.limit_name: request.max_tokens,
        }
        if samples > 1 and self.takes_samples:
            body["n"] = samples
        if request.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if request.stop:
            body["stop"] = list(request.stop)
        if request.logit_bias is not None:
            body["logit_bias"] = dict(request.logit_bias)
        return body

    def learns(self, refusal: Refusal) -> bool:
        """Say whether the refusal tells to say it in another way, and remember that; many calls may be told at once."""
        if "max_completion_tokens" in refusal.said:
            self.limit_name = "max_completion_tokens"
            return True
        if refusal.param == "n":
            self.takes_samples = False
            return True
        return False


class TokenEstimate:
    """How many tokens a prompt may have: a byte each at first, later the most that was seen, and a quarter more."""

    def __init__(self) -> None:
        """Start without having seen a prompt counted."""
        self._per_byte: float | None = None

    def most(self, request: CompletionRequest) -> float:
        """Return the tokens that the prompt of `request` has at most."""
        per_byte = 1.0 if self._per_byte is None else min(self._per_byte * _MARGIN, 1.0)
        return request.bytes * per_byte + _MESSAGE_TOKENS * len(request.messages)

    def learn(self, request: CompletionRequest, prompt_tokens: int) -> None:
        """Note how many tokens the endpoint counted."""
        self._per_byte = max(self._per_byte or 0.0, prompt_tokens / max(request.bytes, 1))


def read_reply(body: bytes, request: CompletionRequest) -> Completion:
    """Return the completion in the body of a reply with status 200; raise a Fault when there is none."""
    text = body.decode("utf-8", "replace")
    if text.lstrip()[:1] == "<":
        page = _fault("a web page for an answer", text, is_outage=True)
        page.is_web_page = True
        raise page
    try:
        reply = Reply.model_validate_json(body)
    except ValidationError:
        raise Transient("cut or malformed answer", text, bill=None) from None
    if reply.error is not None and not reply.choices:
        raise _fault("an error for an answer", text, is_outage=True)
    return read_choices(reply, text, request)


def read_choices(reply: Reply, text: str, request: CompletionRequest) -> Completion:
    """Return the choices of `reply` as a completion without a price; raise a Fault when they are empty."""
    usage = _usage(reply, request)
    if any(choice.finish_reason == "content_filter" for choice in reply.choices):
        raise Unanswerable("stopped by the endpoint's content filter", text, bill=usage)
    texts = tuple(choice.message.content or "" for choice in reply.choices)
    if not any(each.strip() for each in texts):
        raise Transient("empty answer", text, bill=usage)
    samples = [choice.logprobs.content if choice.logprobs else None for choice in reply.choices]
    tokens = tuple(_alternatives(sample) for sample in samples if sample)
    return Completion(texts, tokens if len(tokens) == len(texts) else None, *usage)


def judge(error: Exception, dialect: Dialect) -> Exception:
    """Return what a call that failed in the SDK or below it means: a Fault, or EndpointError when none can succeed."""
    if isinstance(error, openai.APIStatusError):
        return judge_refusal(refusal_of(error), dialect)
    cause = _root(error)
    was_sent = not isinstance(cause, _NEVER_SENT_ERRORS) and type(cause).__name__ not in _NEVER_SENT
    if isinstance(cause, aiohttp.ClientError):
        is_timeout = isinstance(cause, TimeoutError)
    else:
        is_timeout = isinstance(error, openai.APITimeoutError)
    if is_timeout:
        return _fault("timeout", str(error), is_outage=True, bill=None if was_sent else NOTHING)
    raw = f"{error} {cause if cause is not error else ''}".strip()
    if not was_sent:
        return _fault("no connection", raw, is_outage=True)
    return _fault("connection lost", raw, is_outage=True, bill=None)


def _root(error: Exception) -> BaseException:
    """Return what the transport of the SDK failed with; one that stands on aiohttp renames its errors, some wrongly."""
    cause = error.__cause__ or error
    return cause.__cause__ if isinstance(cause.__cause__, aiohttp.ClientError) else cause


def judge_refusal(refusal: Refusal, dialect: Dialect) -> Exception:
    """Return what an error status means: a Fault, or EndpointError when no call can succeed."""
    status, raw = refusal.status, refusal.said
    if status == 402 or refusal.code in _OUT_OF_MONEY:
        return EndpointError(f"the account of the endpoint is out of money ({raw}); top it up and run it again")
    if status in (401, 403):
        return EndpointError(f"the endpoint refused the key ({raw}); set the environment variable of teacher.key_env")
    if status == 404 or refusal.code == "model_not_found":
        return EndpointError(
            f"the endpoint does not know this model or address ({raw}); see teacher.model and base_url"
        )
    if status in _TRY_AGAIN or status >= 500 or dialect.learns(refusal):
        fault = _fault("too many requests" if status == 429 else f"status {status}", raw, is_outage=True)
        fault.is_refusal = status in (429, 503)
        fault.headers = refusal.headers
        return fault
    is_long = refusal.code == "context_length_exceeded" or "context length" in raw.lower()
    return Unanswerable("context too long" if is_long else f"refused with status {status}", raw)


def refusal_of(error: openai.APIStatusError) -> Refusal:
    """Return what an endpoint said with an error status."""
    return read_refusal(error.status_code, error.body, error.response.text, error.response.headers)


def read_refusal(status: int, body: Any, text: str, headers: Mapping[str, str]) -> Refusal:
    """Return the error in a body, which is the error itself or holds it, or else in the text."""
    found = body if isinstance(body, dict) else {}
    found = found["error"] if isinstance(found.get("error"), dict) else found
    message = " ".join(str(found.get("message") or text).split())[:_RAW_CHARACTERS]
    return Refusal(status, str(found.get("code")), str(found.get("param")), message, headers)


def read_key(name: str | None) -> str | None:
    """Return the key in the environment variable `name`; raise SettingError, which does not show it, for a bad one."""
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise SettingError(
            f"found no key in the environment variable {name}, wanted that of the endpoint; set it and run the same "
            "command again (teacher.key_env: null is for an endpoint that wants no key)"
        )
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise SettingError(f"found blanks or other than plain characters in the key in {name}; set it again")
    return key


def shown_address(base_url: str) -> str:
    """Return the address of an endpoint without what somebody may have put before its host."""
    parts = urlsplit(base_url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def endpoint_name(spec: LlmApiSpec) -> str:
    """Return whose answers those of an endpoint are in the cache."""
    return spec.endpoint or shown_address(spec.base_url).rstrip("/")


def _fault(reason: str, raw: str, *, is_outage: bool, bill: tuple[int, int] | None = NOTHING) -> Transient:
    fault = Transient(reason, raw, bill)
    fault.is_outage = is_outage
    return fault


def _usage(reply: Reply, request: CompletionRequest) -> tuple[int, int]:
    if reply.usage is not None:
        return reply.usage.prompt_tokens, reply.usage.completion_tokens
    generated = sum(len((choice.message.content or "").encode()) // _BYTES_PER_TOKEN + 1 for choice in reply.choices)
    return request.bytes // _BYTES_PER_TOKEN, generated


def _alternatives(sample: list[_Token]) -> tuple[TokenAlternatives, ...]:
    return tuple(
        TokenAlternatives(each.token, each.logprob, tuple((top.token, top.logprob) for top in each.top_logprobs))
        for each in sample
    )
