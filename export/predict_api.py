"""`POST /predict` in the shape of text-embeddings-inference: JSON in, scores out.

A text, or a list of texts (each a string, or the list of one string that text-embeddings-inference takes). That
server reads a list of two strings as a pair; a classifier of single texts reads two texts. Beyond its shape:
`model` names one of several bundles, `details` asks for label, probability, `truncated`, `tokens` and `model`.
"""

from collections.abc import Sequence
from typing import Any

from export.exchange import Request, Response
from export.runtime import TooLong
from export.serve_errors import RequestError
from export.serve_hooks import ABSTAIN, Answer
from export.service import STAGES, Answered, Service

_FIELDS = {"inputs", "truncate", "raw_scores", "model", "details", "truncation_direction"}
# What `truncate` says of long texts; without it the bundle decides.
TOO_LONG: dict[bool | None, TooLong | None] = {None: None, True: "truncate", False: "refuse"}


async def predict(service: Service, request: Request) -> Response:
    """Answer one request."""
    content = request.content
    if not isinstance(content, dict) or "inputs" not in content:
        raise RequestError("validation", 'wanted an object with "inputs", such as {"inputs": "a text"}')
    if unknown := content.keys() - _FIELDS:
        raise RequestError("validation", f"found {sorted(unknown)[0]!r:.60}, wanted only: {', '.join(sorted(_FIELDS))}")
    texts, is_single = _texts(content["inputs"])
    name = content.get("model")
    if not isinstance(name, str | None):
        raise RequestError("validation", "model: wanted the name of a model")
    if content.get("truncation_direction") not in (None, "Right", "right"):
        raise RequestError("validation", "truncation_direction: wanted Right, long texts lose their end")
    too_long = TOO_LONG[read_flag(content, "truncate")]
    raw_scores, details = read_flag(content, "raw_scores"), read_flag(content, "details")
    answered = await service.answer(texts, name, too_long, request.deadline(service.settings.timeout_ms))
    shaped = [_shape(each, answered, bool(raw_scores), bool(details)) for each in answered.answers]
    return Response(shaped[0] if is_single else shaped, headers=answer_headers(request, answered))


def answer_headers(request: Request, answered: Answered) -> dict[str, str]:
    """Return what the shape of an answer has no place for; stage times in ms where `x-timings` asks for them."""
    predictions = [answer.prediction for answer in answered.answers]
    headers = {
        "x-model": answered.model.digest,
        "x-tokens": str(sum(prediction.tokens for prediction in predictions)),
        "x-truncated": str(sum(prediction.truncated for prediction in predictions)),
    }
    if any(answer.source != "student" for answer in answered.answers):
        headers["x-source"] = ",".join(answer.source for answer in answered.answers)
    if b"x-timings" in request.headers:
        for name in STAGES:
            headers[f"x-{name}-ms"] = f"{1000 * getattr(answered.stages, name):.3f}"
    return headers


def _shape(answer: Answer, answered: Answered, raw_scores: bool, details: bool) -> Any:
    labels = answered.model.manifest.labels
    scores = answer.logits.tolist() if raw_scores else answer.prediction.scores
    ranked = sorted(range(len(labels)), key=scores.__getitem__, reverse=True)
    listed = [{"score": scores[index], "label": labels[index]} for index in ranked]
    if not details:
        # A client that takes the first, or the highest, must not take a doubtful label for an answer.
        return [{"score": 1.0, "label": ABSTAIN}, *listed] if answer.source == ABSTAIN else listed
    prediction = answer.prediction
    return {
        "label": prediction.label,
        "labels": prediction.labels,
        "probability": prediction.probability,
        "truncated": prediction.truncated,
        "tokens": prediction.tokens,
        "model": answered.model.digest,
        "source": answer.source,
        "certainty": answer.certainty,
        "familiarity": prediction.familiarity,
        "in_scope": prediction.in_scope,
        "scores": listed,
    }


def _texts(inputs: Any) -> tuple[Sequence[str], bool]:
    """Return the texts and whether they were a single string."""
    if isinstance(inputs, str):
        return [inputs], True
    if isinstance(inputs, list) and inputs:
        texts = [each[0] if isinstance(each, list) and len(each) == 1 else each for each in inputs]
        if all(isinstance(text, str) for text in texts):
            return texts, False
    raise RequestError("validation", "inputs: wanted a string or a list of strings that is not empty")


def read_flag(content: dict[str, Any], name: str) -> bool | None:
    """Return a field that is true, false or absent."""
    value = content.get(name)
    if not isinstance(value, bool | None):
        raise RequestError("validation", f"{name}: wanted true or false")
    return value
