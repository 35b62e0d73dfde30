"""Time a finished bundle alone: single answers, text in to label out, and the cold start.

Needs the `serve` extra only; a comparison with the teacher is the bench stage of a run.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distill.tables import read_column
from export.errors import TextTooLongError

if TYPE_CHECKING:
    from export.runtime import Predictor

_REPEATS = 3
_SAMPLE_REPEATS = 20
_WARMUP = 20
# From three words to a long message, for a first look without a file of real texts.
_SAMPLE_TEXTS = (
    "where is it",
    "I want my money back",
    "my card was declined at the shop this morning",
    "Hello, could you please tell me when the order I placed last week will be delivered?",
    "I changed my mind about the blue one, can I still swap it for the green one in a larger size?",
    "It has been ten days now and nobody has answered my two emails, so I would like to speak to somebody "
    "who can tell me what went wrong, when it will be put right and who pays for the second delivery.",
)


def time_bundle(bundle: Path, source: Path | None, column: str, most: int = 700) -> dict[str, Any]:
    """Return the latency of single answers, text in to label out, and the cold start, as JSON values.

    The texts are the first `most` of `column` in `source`, or a few samples when `source` is None.
    """
    from export.bench import cold_start, measure_interleaved, summarise
    from export.runtime import Predictor

    texts = bench_texts(source, column, most)
    predictor = Predictor.load(bundle)
    asked, texts = len(texts), [text for text in texts if is_answered(predictor, text)]
    repeats = _SAMPLE_REPEATS if source is None else _REPEATS
    samples = measure_interleaved({"bundle": predictor.predict}, texts, repeats, _WARMUP, seed=0)
    return {
        "texts": len(texts),
        "too_long": asked - len(texts),
        "latency": asdict(summarise(samples["bundle"])),
        "cold_start": asdict(cold_start(bundle, texts[0])),
    }


def bench_texts(source: Path | None, column: str, most: int = 700) -> Sequence[str]:
    """Return the first `most` texts of a file's column, or a few samples when there is no file."""
    if source is None:
        return _SAMPLE_TEXTS
    return [text for text in islice(read_column(source, column), most) if isinstance(text, str) and text]


def is_answered(predictor: "Predictor", text: str) -> bool:
    """Return whether `text` is short enough for a bundle that refuses long ones."""
    if predictor.manifest.too_long == "truncate":
        return True
    try:
        predictor.predict(text)
    except TextTooLongError:
        return False
    return True
