"""Ask a teacher over HTTP about one text: bounded in time, number and money, and no answer is an answer.

Uses the standard library in a few threads of its own: a call takes as long as hundreds of student answers, so a
thread costs nothing beside it, and the serve extra stays free of an HTTP client.
"""

import asyncio
import json
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from export.doubt_settings import TeacherSettings
from export.errors import ExportError

logger = logging.getLogger("potstill.serve")
_MOST_BYTES = 1 << 20
_INSTRUCTION = "Classify the user's text. Answer with nothing but labels from this list, one a line"


@dataclass(frozen=True, slots=True)
class TeacherAnswer:
    """What a teacher said: the labels it decided on, most probable first, and a probability for some labels by name."""

    labels: tuple[str, ...]
    probabilities: dict[str, float]


class RemoteTeacher:
    """One worker's way to the teacher. `calls` counts what was sent, and each is paid, answered or not."""

    def __init__(self, settings: TeacherSettings, workers: int = 1) -> None:
        """Read the key from the environment; raise ExportError when it is not there."""
        self._settings = settings
        self._key = read_key(settings)
        self._most_calls = settings.most_calls(workers)
        self._free = asyncio.Semaphore(settings.concurrency)
        self._threads = ThreadPoolExecutor(settings.concurrency, thread_name_prefix="teacher")
        self.calls = 0

    async def ask(
        self, text: str, labels: Sequence[str], is_single: bool, deadline: float | None
    ) -> TeacherAnswer | None:
        """Return the teacher's answer to `text`, None when there is none by `deadline` (on time.perf_counter)."""
        latest = time.perf_counter() + self._settings.timeout_ms / 1000
        if deadline is not None:
            latest = min(latest, deadline)
        try:
            async with asyncio.timeout(latest - time.perf_counter()), self._free:
                if self._most_calls is not None and self.calls >= self._most_calls:
                    return None
                self.calls += 1
                loop = asyncio.get_running_loop()
                raw = await loop.run_in_executor(
                    self._threads, self._post, self._body(text, labels), latest - time.perf_counter()
                )
        except TimeoutError:
            logger.warning("the teacher gave no answer in time")
            return None
        except (OSError, ValueError, urllib.error.URLError) as error:
            logger.warning("the teacher gave no answer: %s", error)
            return None
        return self._read(raw, labels, is_single)

    async def close(self) -> None:
        """Wait for no call: what is under way is lost, and its request has long been answered."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _body(self, text: str, labels: Sequence[str]) -> tuple[str, dict[str, Any]]:
        settings = self._settings
        if settings.protocol == "predict":
            named = {} if settings.model is None else {"model": settings.model}
            return settings.url, {"inputs": text, "truncate": True, "details": True, **named}
        system = f"{settings.instruction or _INSTRUCTION}:\n" + "\n".join(labels)
        messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        content = {"model": settings.model, "messages": messages, "temperature": 0}
        return settings.url.rstrip("/") + "/chat/completions", content

    def _post(self, request: tuple[str, dict[str, Any]], timeout_seconds: float) -> Any:
        url, content = request
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {self._key}"} if self._key else {})
        sent = urllib.request.Request(url, json.dumps(content).encode(), headers, method="POST")
        with _OPENER.open(sent, timeout=max(timeout_seconds, 0.001)) as response:
            return json.loads(response.read(_MOST_BYTES))

    def _read(self, raw: Any, labels: Sequence[str], is_single: bool) -> TeacherAnswer | None:
        read = read_predict if self._settings.protocol == "predict" else read_chat
        try:
            answer = read(raw, is_single)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError):
            answer = None
        known = {label.casefold(): label for label in labels}
        named = None if answer is None else [known.get(label.casefold()) for label in answer.labels]
        if answer is None or named is None or None in named or (is_single and len(named) != 1):
            logger.warning("the teacher's answer names no label of this model; the student's answer stands")
            return None
        probabilities = {name: answer.probabilities[name] for name in labels if name in answer.probabilities}
        return TeacherAnswer(tuple(label for label in named if label), probabilities)


def read_key(settings: TeacherSettings) -> str | None:
    """Return the key from the environment, None when none is wanted; raise ExportError when it is not there."""
    key = os.environ.get(settings.key_env) if settings.key_env else None
    if settings.key_env and not key:
        raise ExportError(f"found no key in the environment variable {settings.key_env}; set it and start again")
    return key


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the text and the key to somebody the operator never named."""

    def redirect_request(self, *given: Any) -> None:
        """Refuse."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def read_predict(raw: Any, is_single: bool) -> TeacherAnswer | None:
    """Return what a /predict answered: the scores alone, or with details; None when that server abstained."""
    scores = raw["scores"] if isinstance(raw, dict) else raw
    if scores and isinstance(scores[0], list):
        scores = scores[0]
    probabilities = {str(entry["label"]): float(entry["score"]) for entry in scores}
    if isinstance(raw, dict):
        if raw.get("source") == "abstain":
            return None
        return TeacherAnswer(tuple(map(str, raw["labels"])), probabilities)
    ranked = sorted(probabilities, key=lambda label: -probabilities[label])
    decided = ranked[:1] if is_single else [label for label in ranked if probabilities[label] >= 0.5]
    return TeacherAnswer(tuple(decided), probabilities)


def read_chat(raw: Any, is_single: bool) -> TeacherAnswer | None:
    """Return the labels that a chat model wrote, one a line; it gives no probabilities."""
    lines = [line.strip().strip("\"'`.-* ") for line in raw["choices"][0]["message"]["content"].splitlines()]
    labels = tuple(dict.fromkeys(line for line in lines if line))
    return TeacherAnswer(labels, {}) if labels else None
