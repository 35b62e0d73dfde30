"""Answer the rows of a file with a bundle: streamed in, streamed out, the output complete or not there.

Knows nothing of the model; works with the `serve` extra alone.
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from distill.progress import Reporter
from distill.tables import read_column
from export.errors import TextTooLongError

if TYPE_CHECKING:
    from export.runtime import Prediction, Predictor

_ROWS_AT_ONCE = 1024


def predict_to(bundle: Path, source: Path | Sequence[str], column: str, output: Path | None, reporter: Reporter) -> int:
    """Answer the texts of `source` (a list, or a column of a file) into `output`, or stdout when it is None.

    One JSON line a text, in order. Returns how many texts have no answer (nothing there, or too long for a
    bundle that refuses those); their lines have `error`.
    """
    from export.machine import usable_cores
    from export.runtime import Predictor

    texts = read_column(source, column) if isinstance(source, Path) else iter(source)
    # Texts given by hand go one at a time, as in production: the same text, the same bits.
    at_once, threads = (_ROWS_AT_ONCE, usable_cores()) if isinstance(source, Path) else (1, 1)
    predictor = Predictor.load(bundle, threads=threads)
    unanswered = 0
    with (
        nullcontext(sys.stdout) if output is None else open_atomically(output) as file,
        reporter.track("predict", None) as update,
    ):
        while batch := list(islice(texts, at_once)):
            for answer in answer_batch(predictor, batch):
                unanswered += "error" in answer
                print(json.dumps(answer, ensure_ascii=False), file=file)
            update(len(batch))
    return unanswered


def answer_batch(predictor: "Predictor", values: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """Yield the answer to each value as JSON values, in order."""
    faults = [_fault(value) for value in values]
    texts = [value for value, fault in zip(values, faults, strict=True) if fault is None]
    predictions = iter(_predict(predictor, texts))
    for value, fault in zip(values, faults, strict=True):
        answer = next(predictions) if fault is None else fault
        yield ({"text": _printable(value), "error": answer} if isinstance(answer, str) else as_json(value, answer))


def as_json(text: str, prediction: "Prediction") -> dict[str, Any]:
    """Return one prediction as JSON values."""
    return {
        "text": text,
        "label": prediction.label,
        "labels": list(prediction.labels),
        "probability": round(float(prediction.probability), 6),
        "truncated": prediction.truncated,
        "in_scope": prediction.in_scope,
    }


def _fault(value: Any) -> str | None:
    """Return why `value` is no text to answer, or None."""
    if not isinstance(value, str) or not value.strip():
        return "found no text"
    return None if _printable(value) == value else "found bytes that are not UTF-8"


def _printable(value: Any) -> Any:
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _predict(predictor: "Predictor", texts: Sequence[str]) -> Iterable["Prediction | str"]:
    """Return a prediction for each text, or why there is none."""
    try:
        return predictor.predict(texts) if texts else []
    except TextTooLongError:
        return [_predict_one(predictor, text) for text in texts]


def _predict_one(predictor: "Predictor", text: str) -> "Prediction | str":
    try:
        return predictor.predict(text)[0]
    except TextTooLongError as error:
        return str(error)


@contextmanager
def open_atomically(path: Path) -> Iterator[TextIO]:
    """Open `path` for writing text; it appears, whole and on disk, only when the context ends well."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
