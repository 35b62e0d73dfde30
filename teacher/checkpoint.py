"""Models that stay where they are: their digest, and opening them with one-line errors.

For teachers too large to copy into a run; the digest ties what a run answered to the files it answered with.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME, cached_file

from teacher.base import TeacherCard, read_card
from teacher.errors import TeacherError
from teacher.files import file_digest
from teacher.finetune import bf16_is_native

_SHAPING = ("*.safetensors", "*.bin", "*.json", "*.model", "*.jinja", "*.txt")  # weights, config, tokenizer, template
_AGREEMENT_TEXTS, _LEAST_TEXTS = 64, 16
_AGREEMENT_SHARE = 0.98


class Scores(Protocol):
    """What scores texts with an opened model; rows of NaN stand for texts it could not take."""

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return scores (N, C)."""
        ...


Opened = TypeVar("Opened", bound=Scores)


def checkpoint_digest(model: str) -> str:
    """Return the SHA-256 over the files of a checkpoint that shape its answers, as hex.

    Raises TeacherError when `model` is no checkpoint or holds no weights.
    """
    folder = _folder(model)
    files = sorted({path for pattern in _SHAPING for path in folder.glob(pattern)})
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        raise TeacherError(
            f"{model} holds no weights (*.safetensors or *.bin); download the whole model or name another"
        )
    content = "".join(f"{path.name} {file_digest(path)}\n" for path in files)
    return hashlib.sha256(content.encode()).hexdigest()


def read_checked_card(directory: Path) -> TeacherCard:
    """Return the card of a fitted teacher; raise TeacherError when the files of its model have changed since."""
    card = read_card(directory)
    model: str = card.details["model"]
    if checkpoint_digest(model) != card.details["digest"]:
        raise TeacherError(
            f"the files of {model} have changed since this teacher was fitted; put them back or run distill label again"
        )
    return card


def load_checkpoint(kind: Any, model: str, dtype: torch.dtype) -> PreTrainedModel:
    """Open `model` with the auto class `kind` in evaluation mode, on the GPU where there is one.

    Raises TeacherError when the files are missing or of another kind of model.
    """
    try:
        opened = kind.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise TeacherError(f"cannot load {model}: {str(error).splitlines()[0]}") from error
    loaded: PreTrainedModel = opened.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    return loaded


def open_quickest(open_as: Callable[[torch.dtype], Opened], texts: Sequence[str]) -> tuple[Opened, torch.dtype]:
    """Return what `open_as` opens, in bfloat16 where the machine multiplies it and it decides like float32.

    Decisions are compared on up to 64 of `texts` after the mean of each label is taken out, so that a label that
    always wins does not hide the others. Too few texts: float32.
    """
    chosen = np.unique(np.linspace(0, len(texts) - 1, _AGREEMENT_TEXTS).astype(int)) if texts else np.empty(0, int)
    exact = open_as(torch.float32)
    if len(chosen) < _LEAST_TEXTS or not bf16_is_native():
        return exact, torch.float32
    sample = [texts[row] for row in chosen]
    wanted = _decisions(exact.scores(sample))
    del exact  # two copies of a large model may not fit
    quick = open_as(torch.bfloat16)
    if (_decisions(quick.scores(sample)) == wanted).mean() >= _AGREEMENT_SHARE:
        return quick, torch.bfloat16
    del quick
    return open_as(torch.float32), torch.float32


def stored_dtype(name: str) -> torch.dtype:
    """Return the dtype that a card names, float32 where this machine cannot multiply bfloat16."""
    return torch.bfloat16 if name == "bfloat16" and bf16_is_native() else torch.float32


def _decisions(scores: NDArray[np.float32]) -> NDArray[np.intp]:
    known = scores[np.isfinite(scores).all(axis=1)]
    return np.asarray((known - known.mean(axis=0)).argmax(axis=1))


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    try:
        found = cached_file(model, CONFIG_NAME)
    except (OSError, ValueError) as error:
        raise TeacherError(f"cannot find {model}: {str(error).splitlines()[0]}") from error
    return Path(str(found)).parent
