"""What an LLM endpoint is asked and what it answers, as values that the answer cache keeps.

Knows neither networks nor money: `endpoint.py` asks call by call, `batch.py` through a provider's batch API.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from teacher.paid import Answer, PaidAnswers, answer_key


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One chat completion: all of it changes the answer, so all of it is part of the key that the cache goes by.

    The label set is in it too: in the messages, and in `logit_bias` where answers are held to the labels' tokens.
    """

    messages: tuple[dict[str, str], ...]  # each with role and content
    max_tokens: int
    temperature: float = 0.0
    top_logprobs: int | None = None  # None: no log-probabilities are asked for
    samples: int = 1
    stop: tuple[str, ...] = ()
    logit_bias: Mapping[str, float] | None = None  # token id to bias

    @property
    def bytes(self) -> int:
        """Return how many bytes of UTF-8 the messages hold."""
        return sum(len(text.encode()) for message in self.messages for text in message.values())


@dataclass(frozen=True, slots=True)
class TokenAlternatives:
    """A generated token, its log-probability in nats, and the likeliest tokens at its place with theirs."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """The texts of an answer, one a sample, and the tokens of each; None where the endpoint gave no log-probabilities.

    `cost_usd` is what was paid for it once, also when it comes from the cache now.
    """

    texts: tuple[str, ...]
    tokens: tuple[tuple[TokenAlternatives, ...], ...] | None
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer: why, short and countable, and what the endpoint said instead."""

    reason: str
    raw: str = ""


Outcome = Completion | Failure


def completion_key(model: str, request: CompletionRequest, first_sample: int = 0, endpoint: str = "") -> str:
    """Return the cache key of the samples of `request` from `first_sample` on.

    Two endpoints may serve different models under one name, so `endpoint` is part of it; how it is reached is not.
    Without one it is the key that answers had before endpoints were part of it.
    """
    parts = {each.name: getattr(request, each.name) for each in fields(request)}
    if endpoint:
        parts["endpoint"] = endpoint
    return answer_key(model=model, first_sample=first_sample, **parts)


def to_content(completion: Completion) -> dict[str, Any]:
    """Return `completion` as the JSON object that the cache stores; its cost stands beside it there."""
    tokens = completion.tokens
    return {
        "texts": completion.texts,
        "tokens": tokens and [[[each.token, each.logprob, each.top] for each in sample] for sample in tokens],
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
    }


def from_answer(answer: Answer) -> Completion:
    """Return the completion that the cache stored."""
    content = answer.content
    tokens = content["tokens"]
    return Completion(
        texts=tuple(content["texts"]),
        tokens=tokens and tuple(tuple(_token(each) for each in sample) for sample in tokens),
        prompt_tokens=content["prompt_tokens"],
        completion_tokens=content["completion_tokens"],
        cost_usd=answer.cost_usd,
    )


def joined(parts: Sequence[Completion]) -> Completion:
    """Return the samples of `parts` as one completion; log-probabilities only where every part has them."""
    if len(parts) == 1:
        return parts[0]
    tokens = [part.tokens for part in parts if part.tokens is not None]
    return replace(
        parts[0],
        texts=tuple(text for part in parts for text in part.texts),
        tokens=tuple(sample for each in tokens for sample in each) if len(tokens) == len(parts) else None,
        prompt_tokens=sum(part.prompt_tokens for part in parts),
        completion_tokens=sum(part.completion_tokens for part in parts),
        cost_usd=sum(part.cost_usd for part in parts),
    )


def known_parts(
    paid: PaidAnswers, model: str, request: CompletionRequest, endpoint: str = ""
) -> tuple[list[Completion], int]:
    """Return what the cache holds of `request`, an item for each call that was paid, and how many samples that is.

    Answers that were paid before endpoints were part of the key are found too.
    """
    parts: list[Completion] = []
    have = 0
    while have < request.samples:
        keys = dict.fromkeys(completion_key(model, request, have, each) for each in (endpoint, ""))
        stored = next(filter(None, map(paid.find, keys)), None)
        if stored is None:
            break
        parts.append(from_answer(stored))
        have += len(parts[-1].texts)
    return parts, have


def _token(stored: Sequence[Any]) -> TokenAlternatives:
    token, logprob, top = stored
    return TokenAlternatives(token, logprob, tuple((name, value) for name, value in top))
