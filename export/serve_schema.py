"""How the endpoints that answer texts look in OpenAPI.

They are served without the framework (see exchange.py), so their description stands here; a test holds the two
together by sending what the description allows.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.json_schema import models_json_schema

_REF = "#/components/schemas/{model}"
_STATUSES = {
    "400": "the body is no JSON, or no inference request",
    "401": "no token, or a wrong one",
    "404": "no such model",
    "413": "body, batch or text above a limit",
    "422": "a field is wrong",
    "429": "too many texts wait; Retry-After says when to come back",
    "500": "a fault of this program; its log says how",
    "503": "the model gave no answer",
    "504": "the answer would come later than x-timeout-ms",
}


class PredictRequest(BaseModel):
    """Texts to classify. `truncate`: cut long texts, or refuse them; without it the bundle decides."""

    model_config = ConfigDict(extra="forbid")

    inputs: str | Annotated[list[str | Annotated[list[str], Field(min_length=1, max_length=1)]], Field(min_length=1)]
    truncate: bool | None = None
    raw_scores: bool | None = None
    model: str | None = None
    details: bool | None = None
    truncation_direction: Literal["Right", "right"] | None = None


class ScoredLabel(BaseModel):
    """One label and its probability, or its logit with `raw_scores`."""

    score: float
    label: str


class DetailedAnswer(BaseModel):
    """One answer with `details`; `model` is the digest of the bundle, `certainty` the student's where it was judged.

    `in_scope` is false where the text seems to be about something else than the labels, null where that is not known.
    """

    label: str | None
    labels: list[str]
    probability: float
    truncated: bool
    tokens: int
    model: str
    source: Literal["student", "teacher", "abstain", "fallback"]
    certainty: float | None
    familiarity: float | None
    in_scope: bool | None
    scores: list[ScoredLabel]


class ExplainRequest(BaseModel):
    """A text to explain; `label`: the one whose log-odds are taken apart, else the most probable."""

    model_config = ConfigDict(extra="forbid")

    text: str
    label: str | None = None
    model: str | None = None


class Piece(BaseModel):
    """A word and what the label's log-odds lose without it; null between words."""

    text: str
    contribution: float | None


class SimilarText(BaseModel):
    """A training text that the student answers alike."""

    text: str
    label: str
    similarity: float


class Explanation(BaseModel):
    """The pieces are what was read, in order; `unread` was cut off. `alike` is null where a bundle has no examples."""

    label: str
    log_odds: float
    pieces: list[Piece]
    unread: str
    alike: list[SimilarText] | None
    model: str


class ErrorBody(BaseModel):
    """Why there is no answer."""

    error: str
    error_type: str


class InputTensor(BaseModel):
    """The texts: shape [texts]."""

    name: Literal["text"]
    shape: Annotated[list[int], Field(min_length=1, max_length=2)]
    datatype: Literal["BYTES"]
    data: Annotated[list[str], Field(min_length=1)]


class WantedOutput(BaseModel):
    """An output to return."""

    name: Literal["label", "probability", "truncated", "tokens", "source", "probabilities", "logits", "decided"]


class InferParameters(BaseModel):
    """`truncate` as in PredictRequest."""

    truncate: bool | None = None


class InferRequest(BaseModel):
    """An Open Inference Protocol v2 request."""

    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=1)]
    outputs: list[WantedOutput] | None = None
    parameters: InferParameters | None = None


class OutputTensor(BaseModel):
    """One value a text, or one a text and label."""

    name: str
    shape: list[int]
    datatype: str
    data: list[str | float | int | bool]


class InferResponse(BaseModel):
    """An Open Inference Protocol v2 response; `model_version` is the digest of the bundle."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def describe(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the OpenAPI document `schema` with the endpoints that answer texts."""
    models = (
        *(PredictRequest, ScoredLabel, DetailedAnswer, ErrorBody),
        *(InferRequest, InferResponse, ExplainRequest, Explanation),
    )
    definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)[1]["$defs"]
    schema.setdefault("components", {}).setdefault("schemas", {}).update(definitions)
    scored = {"type": "array", "items": _ref("ScoredLabel")}
    answer = {"anyOf": [scored, _ref("DetailedAnswer")]}
    answers = {"anyOf": [answer, {"type": "array", "items": answer}]}
    schema["paths"]["/predict"] = _post("Classify texts (text-embeddings-inference)", "PredictRequest", answers, [])
    infer = _post("Classify texts (Open Inference Protocol v2)", "InferRequest", _ref("InferResponse"), ["name"])
    schema["paths"]["/v2/models/{name}/infer"] = infer
    schema["paths"]["/explain"] = _post("What each word adds", "ExplainRequest", _ref("Explanation"), [])
    return schema


def _post(summary: str, body: str, answer: dict[str, Any], parameters: list[str]) -> dict[str, Any]:
    named = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in parameters]
    timeout = {
        "name": "x-timeout-ms",
        "in": "header",
        "schema": {"type": "integer", "minimum": 0, "maximum": 999999999},
    }
    timings = {"name": "x-timings", "in": "header", "schema": {"type": "string"}}
    refusals = {status: _response(text, _ref("ErrorBody")) for status, text in _STATUSES.items()}
    operation = {
        "summary": summary,
        "parameters": [*named, timeout, timings],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref(body)}}},
        "responses": {"200": _response("the answers", answer), **refusals},
    }
    return {"post": operation}


def _ref(model: str) -> dict[str, Any]:
    return {"$ref": _REF.format(model=model)}


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
