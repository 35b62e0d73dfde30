"""An OpenAI-compatible server for tests and benchmarks: it answers, counts what would have to be paid, and misbehaves.

    python tests/fault_server.py --latency 0.2 --faults 0.3     # prints its port, runs until it is ended

Answers are a label code that follows from the prompt alone. Every choice of a fault follows from the seed, the
prompt and how often it was asked, not from time. GET /counts says what happened, POST /settings changes a setting.
"""

import argparse
import asyncio
import hashlib
import json
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from aiohttp import web

FAULTS = (
    "429 with Retry-After",
    "429",
    "500",
    "503",
    "reset",
    "timeout",
    "cut JSON",
    "empty",
    "outside the label set",
    "200 with an error",
)
CODES = ("A", "B", "C")
USD_PER_TOKEN = 1e-6  # of prompt and of completion, as the tests' price table has it
_HTML = "<!doctype html><html><body>Welcome</body></html>"


@dataclass
class Settings:
    """How the server behaves; all of it may change while it runs."""

    latency: float = 0.0  # seconds
    faults: float = 0.0  # share of the calls that meet a fault
    kinds: list[str] = field(default_factory=lambda: list(FAULTS))
    hang: float = 3.0  # seconds of a timeout, longer than the client waits
    retry_after: float = 0.05
    seed: int = 0
    models: list[str] = field(default_factory=lambda: ["tiny"])
    key: str | None = None  # the only one that is let in
    page: bool = False  # answer everything with HTML
    logprobs: bool = True
    context: int = 1_000_000  # tokens
    most_samples: int = 100
    refuses_samples: bool = False  # more than one is an error
    at_once: int = 1_000_000  # more calls than this are refused
    limit_name: str = "max_tokens"
    batch_polls: int = 1  # how often a batch is looked at before it ends
    batch_ends: list[str] = field(default_factory=list)  # statuses of the next batches; afterwards completed
    batch_loses: float = 0.0  # share of rows that are missing in the output
    batch_fails: float = 0.0  # share of rows with an error


class FaultServer:
    """The server's state: settings, counts, files and batches."""

    def __init__(self, **settings: Any) -> None:
        """Start with `settings` changed from their defaults."""
        self.settings = Settings(**settings)
        self.asked: Counter[str] = Counter()  # by prompt
        self.paid: Counter[str] = Counter()  # by prompt
        self.injected: Counter[str] = Counter()  # by kind
        self.usd = 0.0
        self.under_way = self.most_under_way = 0
        self.headers: list[dict[str, str]] = []
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.port = 0

    def app(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=1 << 28)
        app.add_routes(
            [
                web.get("/v1/models", self._models),
                web.post("/v1/chat/completions", self._chat),
                web.post("/v1/files", self._upload),
                web.get("/v1/files/{id}/content", self._content),
                web.post("/v1/batches", self._make_batch),
                web.get("/v1/batches", self._list_batches),
                web.get("/v1/batches/{id}", self._look_at_batch),
                web.get("/counts", self._counts),
                web.post("/settings", self._change),
            ]
        )
        return app

    def counts(self) -> dict[str, Any]:
        """Return what happened so far."""
        return {
            "asked": sum(self.asked.values()),
            "paid": sum(self.paid.values()),
            "prompts": len(self.paid),
            "most_paid": max(self.paid.values(), default=0),
            "usd": self.usd,
            "injected": dict(self.injected),
            "most_under_way": self.most_under_way,
            "batches": len(self.batches),
        }

    def start(self) -> "FaultServer":
        """Serve on a free port of the loopback in a thread of its own; return when it listens."""
        self._loop = asyncio.new_event_loop()
        is_up = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(is_up),), daemon=True)
        self._thread.start()
        is_up.wait()
        return self

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """The address that a client takes as its base."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, is_up: threading.Event) -> None:
        self._end = asyncio.Event()
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, backlog=1024)
        await site.start()
        self.port = runner.addresses[0][1]
        is_up.set()
        await self._end.wait()
        await runner.cleanup()

    async def _models(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, {})
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "x"} for name in self.settings.models]
        return refusal or web.json_response({"object": "list", "data": models})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.headers.append(dict(request.headers))
        refusal = self._refusal(request, body)
        if refusal is not None:
            return refusal
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            return await self._answer(request, body)
        finally:
            self.under_way -= 1

    async def _answer(self, request: web.Request, body: Mapping[str, Any]) -> web.StreamResponse:
        settings, prompt = self.settings, _prompt(body)
        self.asked[prompt] += 1
        kind = self._fault(prompt)
        if self.under_way > settings.at_once:
            kind = "429 with Retry-After"
        if kind:
            self.injected[kind] += 1
        if kind in ("429 with Retry-After", "429", "500", "503"):
            headers = {"Retry-After": str(settings.retry_after)} if "Retry" in kind else {}
            return _error(int(kind[:3]), "try again", "busy", headers)
        await asyncio.sleep(settings.latency)
        if kind == "200 with an error":
            return web.json_response({"error": {"message": "the model fell over", "code": 502}})
        reply = self._reply(body)
        self._book(prompt, reply)  # from here on somebody has to pay
        if kind == "timeout":
            await asyncio.sleep(settings.hang)
        if kind in ("reset", "timeout") and request.transport is not None:
            request.transport.abort()
        return _spoilt(reply, kind)

    def _reply(self, body: Mapping[str, Any]) -> dict[str, Any]:
        prompt, samples = _prompt(body), min(body.get("n") or 1, self.settings.most_samples)
        code = CODES[int(hashlib.sha256(prompt.encode()).hexdigest(), 16) % len(CODES)]
        rest = [{"token": each, "logprob": -3.0} for each in CODES if each != code]
        top = [{"token": code, "logprob": -0.105}, *rest][: body.get("top_logprobs") or 0]
        token = {"token": code, "logprob": -0.105, "top_logprobs": top}
        logprobs = {"content": [token]} if self.settings.logprobs and body.get("logprobs") else None
        message = {"role": "assistant", "content": code}
        choice = {"message": message, "logprobs": logprobs, "finish_reason": "stop"}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": index, **choice} for index in range(samples)],
            "usage": {"prompt_tokens": _tokens(prompt), "completion_tokens": samples, "total_tokens": 0},
        }

    def _book(self, prompt: str, reply: Mapping[str, Any], discount: float = 0.0) -> None:
        self.paid[prompt] += 1
        usage = reply["usage"]
        self.usd += (usage["prompt_tokens"] + usage["completion_tokens"]) * USD_PER_TOKEN * (1 - discount)

    def _fault(self, prompt: str) -> str | None:
        settings = self.settings
        seed = f"{settings.seed}:{self.asked[prompt]}:{prompt}"
        drawn = int(hashlib.sha256(seed.encode()).hexdigest()[:12], 16) / 16**12
        if drawn >= settings.faults:
            return None
        return settings.kinds[int(drawn / settings.faults * len(settings.kinds))]

    def _refusal(self, request: web.Request, body: Mapping[str, Any]) -> web.Response | None:
        settings = self.settings
        if settings.page:
            return web.Response(text=_HTML, content_type="text/html")
        given = request.headers.get("Authorization", "")
        if settings.key is not None and given != f"Bearer {settings.key}":
            return _error(401, f"Incorrect API key provided: {given}", "invalid_api_key")
        return self._bad_body(body) if body else None

    def _bad_body(self, body: Mapping[str, Any]) -> web.Response | None:
        settings = self.settings
        if body["model"] not in settings.models:
            return _error(404, f"The model `{body['model']}` does not exist", "model_not_found")
        if settings.limit_name not in body:
            return _error(400, f"Use '{settings.limit_name}' instead.", "unsupported_parameter", param="max_tokens")
        if (body.get("n") or 1) > 1 and settings.refuses_samples:
            return _error(400, "only n=1 is supported", "unsupported_value", param="n")
        if _tokens(_prompt(body)) + body[settings.limit_name] > settings.context:
            return _error(400, f"This model's maximum context length is {settings.context}", "context_length_exceeded")
        return None

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request, {})
        if refusal is not None:
            return refusal
        name = f"file-{len(self.files)}"
        uploaded = (await request.post())["file"]
        self.files[name] = uploaded.file.read()  # type: ignore[union-attr]
        return web.json_response(
            {
                "id": name,
                "object": "file",
                "bytes": 1,
                "created_at": 0,
                "filename": "x",
                "purpose": "batch",
                "status": "ok",
            }
        )

    async def _content(self, request: web.Request) -> web.StreamResponse:
        return web.Response(body=self.files[request.match_info["id"]])

    async def _make_batch(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = f"batch-{len(self.batches)}"
        ends = self.settings.batch_ends
        self.batches[name] = {
            "id": name,
            "object": "batch",
            "endpoint": body["endpoint"],
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "created_at": 0,
            "status": "in_progress",
            "end": ends.pop(0) if ends else "completed",
            "polls": self.settings.batch_polls,
        }
        return web.json_response(self.batches[name])

    async def _list_batches(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": list(self.batches.values()), "has_more": False})

    async def _look_at_batch(self, request: web.Request) -> web.StreamResponse:
        batch = self.batches[request.match_info["id"]]
        batch["polls"] -= 1
        if batch["polls"] < 0 and batch["status"] == "in_progress":
            self._end_batch(batch)
        return web.json_response(batch)

    def _end_batch(self, batch: dict[str, Any]) -> None:
        """Answer the rows: an expired batch the first half of them, a failed one none."""
        batch["status"] = batch["end"].partition(":")[0]
        rows = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        if batch["status"] == "failed":
            code = batch["end"].partition(":")[2] or "invalid"
            batch["errors"] = {"object": "list", "data": [{"code": code, "message": "the batch was refused"}]}
            return
        done = rows if batch["status"] == "completed" else rows[: len(rows) // 2]
        output: list[str] = []
        errors: list[str] = []
        for row in done:
            self.asked[_prompt(row["body"])] += 1
            drawn = int(hashlib.sha256(f"{batch['id']}:{row['custom_id']}".encode()).hexdigest()[:12], 16) / 16**12
            if drawn < self.settings.batch_loses:
                continue
            is_failed = drawn < self.settings.batch_loses + self.settings.batch_fails
            reply = {"error": {"message": "x", "code": "server_error"}} if is_failed else self._reply(row["body"])
            response = {"status_code": 500 if is_failed else 200, "body": reply}
            (errors if is_failed else output).append(json.dumps({"custom_id": row["custom_id"], "response": response}))
            if not is_failed:
                self._book(_prompt(row["body"]), reply, 0.5)
        for name, lines in (("output_file_id", output), ("error_file_id", errors)):
            if lines:
                batch[name] = f"{batch['id']}-{name}"
                self.files[batch[name]] = "\n".join(lines).encode()

    async def _counts(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self.counts())

    async def _change(self, request: web.Request) -> web.StreamResponse:
        for name, value in (await request.json()).items():
            setattr(self.settings, name, value)
        return web.json_response(asdict(self.settings))


def _spoilt(reply: dict[str, Any], kind: str | None) -> web.Response:
    if kind == "cut JSON":
        text = json.dumps(reply)
        return web.Response(text=text[: len(text) // 2], content_type="application/json")
    if kind in ("empty", "outside the label set"):
        text = "" if kind == "empty" else "I would rather not say."
        for choice in reply["choices"]:
            choice["message"]["content"], choice["logprobs"] = text, None
    return web.json_response(reply)


def _prompt(body: Mapping[str, Any]) -> str:
    return "\n".join(message["content"] for message in body["messages"])


def _tokens(prompt: str) -> int:
    return len(prompt.encode()) // 4 + 8


def _error(
    status: int, message: str, code: str, headers: Mapping[str, str] | None = None, param: str | None = None
) -> web.Response:
    body = {"error": {"message": message, "type": "error", "code": code, "param": param}}
    return web.json_response(body, status=status, headers=headers or {})


Serve = Callable[..., FaultServer]  # starts a server with some settings, as the fixture of this name does


def main() -> None:
    """Serve until the process is ended; the first line on stdout is the port."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server that misbehaves.")
    for each in fields(Settings):
        if isinstance(default := getattr(Settings(), each.name), int | float) and not isinstance(default, bool):
            parser.add_argument(f"--{each.name.replace('_', '-')}", type=type(default), default=default)
    server = FaultServer(**vars(parser.parse_args()))
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # clients that are killed are no news
    server.start()
    print(server.port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
