"""Open Inference Protocol v2 over HTTP: health, metadata, and inference on BYTES tensors.

One input called `text`; the version of a model is the digest of its bundle. Binary tensor data is refused.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import prod
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from export.exchange import Request, Response
from export.models import ServedModel
from export.predict_api import TOO_LONG, answer_headers, read_flag
from export.serve_errors import RequestError
from export.serve_hooks import ABSTAIN, Answer
from export.service import Answered, Service


def _decided(answer: Answer) -> list[bool]:
    return [label in answer.prediction.labels for label in answer.prediction.probabilities]


INPUT = "text"
# Output name: (datatype, whether it has one value a label, value of one answer)
OUTPUTS: dict[str, tuple[str, bool, Callable[[Answer], Any]]] = {
    "label": ("BYTES", False, lambda answer: ABSTAIN if answer.source == ABSTAIN else answer.prediction.label or ""),
    "probability": ("FP32", False, lambda answer: answer.prediction.probability),
    "truncated": ("BOOL", False, lambda answer: answer.prediction.truncated),
    "tokens": ("INT32", False, lambda answer: answer.prediction.tokens),
    "source": ("BYTES", False, lambda answer: answer.source),
    "probabilities": ("FP32", True, lambda answer: answer.prediction.scores),
    "logits": ("FP32", True, lambda answer: answer.logits.tolist()),
    "decided": ("BOOL", True, _decided),
}
_WITHOUT_ASKING = ("label", "probability", "truncated", "tokens")


def find_model(path: str) -> tuple[str, str | None] | None:
    """Return name and version of `/v2/models/NAME[/versions/VERSION]/infer`, None for any other path."""
    match path.split("/"):
        case ["", "v2", "models", name, "infer"]:
            return name, None
        case ["", "v2", "models", name, "versions", version, "infer"]:
            return name, version
    return None


def infer(name: str, version: str | None) -> Callable[[Service, Request], Awaitable[Response]]:
    """Return the handler of inference requests for a model."""

    async def handle(service: Service, request: Request) -> Response:
        model = _version(service, name, version)
        texts, outputs, too_long = _read(request)
        deadline = request.deadline(service.settings.timeout_ms)
        answered = await service.answer(texts, model.name, too_long, deadline)
        content: dict[str, Any] = {"model_name": name, "model_version": answered.model.digest}
        if "id" in request.content:
            content["id"] = request.content["id"]
        content["outputs"] = [_tensor(each, answered) for each in outputs]
        return Response(content, headers=answer_headers(request, answered))

    return handle


def add_v2(api: FastAPI, service: Service) -> None:
    """Add health and metadata to `api`."""

    @api.get("/v2")
    async def server() -> dict[str, Any]:
        """Return the name of the server."""
        return {"name": "potstill", "version": service.version, "extensions": []}

    @api.get("/v2/health/live")
    async def live() -> dict[str, bool]:
        """Say that the process runs."""
        return {"live": True}

    @api.get("/v2/health/ready")
    async def ready() -> JSONResponse:
        """Say whether to send requests: 503 once the server was told to stop."""
        return JSONResponse({"ready": service.is_ready}, 200 if service.is_ready else 503)

    @api.get("/v2/models/{name}")
    @api.get("/v2/models/{name}/versions/{version}")
    async def model(name: str, version: str | None = None) -> dict[str, Any]:
        """Return what a model takes and gives."""
        return _metadata(_version(service, name, version))

    @api.get("/v2/models/{name}/ready")
    @api.get("/v2/models/{name}/versions/{version}/ready")
    async def model_ready(name: str, version: str | None = None) -> JSONResponse:
        """Say whether a model answers."""
        found = _version(service, name, version)
        return JSONResponse({"name": found.name, "ready": service.is_ready}, 200 if service.is_ready else 503)


def _version(service: Service, name: str, version: str | None) -> ServedModel:
    model = service.model(name)
    if version not in (None, model.digest):
        raise RequestError("not_found", f"found no version {version!r:.80} of {name}, wanted {model.digest}")
    return model


def _metadata(model: ServedModel) -> dict[str, Any]:
    labels = list(model.manifest.labels)
    outputs = [
        {"name": name, "datatype": datatype, "shape": [-1, len(labels)] if is_wide else [-1]}
        for name, (datatype, is_wide, _) in OUTPUTS.items()
    ]
    return {
        "name": model.name,
        "versions": [model.digest],
        "platform": "potstill_onnx",
        "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
        "outputs": outputs,
        "parameters": {"labels": labels, "kind": model.manifest.kind, "max_tokens": model.manifest.max_tokens},
    }


def _read(request: Request) -> tuple[Sequence[str], Sequence[str], Any]:
    """Return the texts, the names of the wanted outputs and what to do with long texts."""
    content = request.content
    if b"inference-header-content-length" in request.headers:
        raise RequestError("malformed", "found binary tensor data, wanted the texts as JSON strings in data")
    if not isinstance(content, dict) or not isinstance(content.get("id", ""), str):
        raise RequestError("malformed", "wanted an inference request: an object with inputs and, if any, a string id")
    match content.get("inputs"):
        case [{"name": name, "datatype": "BYTES", "shape": [*shape], "data": [*data]}] if name == INPUT:
            texts = _flat(shape, data)
        case _:
            raise RequestError("malformed", f"inputs: wanted one tensor: name {INPUT}, datatype BYTES, shape, data")
    parameters = content.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError("malformed", "parameters: wanted an object")
    return texts, _outputs(content.get("outputs")), TOO_LONG[read_flag(parameters, "truncate")]


def _flat(shape: Sequence[Any], data: Sequence[Any]) -> Sequence[str]:
    texts = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in data]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise RequestError("malformed", "data: wanted a list of strings that is not empty")
    rows = [size for size in shape if isinstance(size, int) and not isinstance(size, bool)]
    if len(rows) != len(shape) or len(shape) not in (1, 2) or prod(rows) != len(texts) or rows[0] != len(texts):
        raise RequestError("malformed", f"found shape {shape!s:.60} for {len(texts)} texts, wanted [{len(texts)}]")
    return texts


def _outputs(asked: Any) -> Sequence[str]:
    if asked is None or asked == []:
        return _WITHOUT_ASKING
    names = (
        [each.get("name") if isinstance(each, dict) else None for each in asked] if isinstance(asked, list) else [None]
    )
    if not all(isinstance(name, str) and name in OUTPUTS for name in names):
        raise RequestError("malformed", f"outputs: wanted objects with a name among: {', '.join(OUTPUTS)}")
    return list(dict.fromkeys(map(str, names)))


def _tensor(name: str, answered: Answered) -> dict[str, Any]:
    datatype, is_wide, value = OUTPUTS[name]
    rows = [value(answer) for answer in answered.answers]
    shape = [len(rows), len(answered.model.manifest.labels)] if is_wide else [len(rows)]
    data = [each for row in rows for each in row] if is_wide else rows
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}
