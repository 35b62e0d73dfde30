"""`POST /explain`: which words the student's answer rests on, by leaving each out and asking the student again.

Occlusion (Zeiler and Fergus 2014; Li et al. 2016, "Understanding Neural Networks through Representation Erasure").
The variants queue like any other request, so an explanation cannot starve the answers of others. No teacher is
asked and nothing is captured.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.exchange import Request, Response
from export.models import ServedModel
from export.serve_errors import RequestError
from export.service import Service
from export.tokens import Encoded

_FIELDS = {"text", "label", "model"}
_MOST_PIECES = 48  # words of a longer text are left out in groups


async def explain(service: Service, request: Request) -> Response:
    """Return the text in pieces with what each contributes to `label` (None: the most probable), in log-odds.

    `alike` are training texts where the bundle carries some.
    """
    text, label, name = _read(request.content, service.settings.max_characters)
    model = service.model(name)
    labels = model.manifest.labels
    if label is not None and label not in labels:
        raise RequestError("validation", f"label: found {label!r:.60}, wanted a label of this model")
    whole = _encode(model, [text])[0]
    spans = _spans(model.predictor.words(text))
    read = text[: spans[-1][1]] if spans else ""  # behind it the text was cut, and must not slip in
    variants = [read[:start] + read[end:] for start, end in spans]
    job = service.scheduler.submit(model, [whole, *_encode(model, variants)], request.deadline(None))
    logits, _ = await job.done
    column = int(logits[0].argmax()) if label is None else labels.index(label)
    odds = log_odds(logits, column, model.manifest.kind, model.manifest.temperature)
    examples = model.predictor.examples
    return Response(
        {
            "label": labels[column],
            "log_odds": float(odds[0]),
            "pieces": _pieces(read, spans, (odds[0] - odds[1:]).tolist()),
            "unread": text[len(read) :] if whole.is_cut else "",
            "alike": None if examples is None else [asdict(each) for each in examples.nearest(logits[0])],
            "model": model.digest,
        }
    )


def log_odds(logits: NDArray[np.float32], column: int, kind: str, temperature: float) -> NDArray[np.float64]:
    """Return log p / (1 - p) of one label for each row of `logits` (N, C); exact where p itself rounds to 1."""
    scaled = logits.astype(np.float64) / temperature
    others = np.delete(scaled, column, axis=1)
    if kind == "multi_label" or not others.shape[1]:
        return np.asarray(scaled[:, column])
    return np.asarray(scaled[:, column] - np.logaddexp.reduce(others, axis=1))


def _read(content: Any, max_characters: int) -> tuple[str, str | None, str | None]:
    if not isinstance(content, dict) or not isinstance(content.get("text"), str) or content.keys() - _FIELDS:
        raise RequestError("validation", f'wanted an object with "text" and, if wanted: {", ".join(sorted(_FIELDS))}')
    label, name = content.get("label"), content.get("model")
    if not isinstance(label, str | None) or not isinstance(name, str | None):
        raise RequestError("validation", "label, model: wanted names")
    if len(content["text"]) > max_characters:
        raise RequestError(
            "too_large", f"the text has {len(content['text'])} characters, wanted at most {max_characters}"
        )
    return content["text"], label, name


def _encode(model: ServedModel, texts: Sequence[str]) -> list[Encoded]:
    try:
        return model.predictor.encode(texts, too_long="truncate")
    except ExportError as error:
        raise RequestError("validation", str(error)) from error


def _spans(words: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the first and last character of each word, neighbours together where there are many."""
    size = -(-len(words) // _MOST_PIECES) or 1
    groups = [words[start : start + size] for start in range(0, len(words), size)]
    return [(group[0][0], group[-1][1]) for group in groups]


def _pieces(text: str, spans: Sequence[tuple[int, int]], contributions: Sequence[float]) -> list[dict[str, Any]]:
    """Return `text` in order: words with their contribution, and what stands between them with None."""
    pieces: list[dict[str, Any]] = []
    reached = 0
    for (start, end), contribution in zip(spans, contributions, strict=True):
        if start > reached:
            pieces.append({"text": text[reached:start], "contribution": None})
        pieces.append({"text": text[start:end], "contribution": contribution})
        reached = end
    return pieces
