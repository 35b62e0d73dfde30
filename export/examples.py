"""Training texts that a bundle may carry, so that a person sees what the student takes a text to be like.

Likeness is that of the student's own answers: the cosine of their logits, which are what distillation made alike.
No second graph and no second tokenizer. They are training texts in plain sight, so a bundle has them only when asked.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.errors import BundleError

EXAMPLES = "examples.json"


@dataclass(frozen=True, slots=True)
class Alike:
    """A training text, its label, and how alike the student's answers are, from -1 to 1."""

    text: str
    label: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Examples:
    """Texts and labels (N,) and the directions (N, C) of the student's answers to them."""

    texts: Sequence[str]
    labels: Sequence[str]
    directions: NDArray[np.float32]

    def nearest(self, logits: NDArray[np.float32], most: int = 5) -> list[Alike]:
        """Return the texts whose answers are most like `logits` (C,), most alike first."""
        similarity = self.directions @ _directions(logits[None])[0]
        order = np.argsort(-similarity, kind="stable")[:most]
        return [Alike(self.texts[row], self.labels[row], float(similarity[row])) for row in order]


def spell_examples(texts: Sequence[str], labels: Sequence[str], logits: NDArray[np.float32]) -> bytes:
    """Return the file of `texts` with their labels and the student's `logits` (N, C), each direction in float16."""
    directions = _directions(logits).astype("<f2")
    content = {
        "texts": list(texts),
        "labels": list(labels),
        "width": int(logits.shape[1]),
        "directions": base64.b64encode(directions.tobytes()).decode("ascii"),
    }
    return json.dumps(content, ensure_ascii=False).encode("utf-8")


def read_examples(content: bytes, width: int) -> Examples:
    """Return what `spell_examples` wrote; raise BundleError when it does not fit a model of `width` logits."""
    try:
        found = json.loads(content)
        texts, labels = [*map(str, found["texts"])], [*map(str, found["labels"])]
        directions = np.frombuffer(base64.b64decode(found["directions"], validate=True), "<f2")
        if found["width"] != width or len(texts) != len(labels) or not np.isfinite(directions).all():
            raise ValueError(
                f"{len(texts)} texts, {len(labels)} labels, width {found['width']}, wanted {width} numbers"
            )
        return Examples(texts, labels, _directions(directions.reshape(len(texts), width).astype(np.float32)))
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise BundleError(f"{EXAMPLES}: cannot be used ({error}); export the bundle again") from error


def _directions(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = logits - logits.mean(axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9), np.float32)
