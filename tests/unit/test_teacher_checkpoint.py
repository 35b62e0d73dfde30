"""Facts about models that stay where they are: their digest, and the precision they are opened in."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from teacher import checkpoint
from teacher.base import TeacherCard
from teacher.checkpoint import checkpoint_digest, load_checkpoint, open_quickest, read_checked_card, stored_dtype
from teacher.errors import TeacherError
from teacher.task import Task, TaskKind

TEXTS = [str(number) for number in range(40)]


class Noisy:
    """Scores that tell texts apart in float32, and in bfloat16 only for the first `right` texts of all."""

    def __init__(self, dtype: torch.dtype, right: int) -> None:
        self.is_exact = dtype == torch.float32
        self.right = right

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        scores = np.zeros((len(texts), 2), np.float32)
        for row, text in enumerate(texts):
            scores[row, int(text) % 2 if self.is_exact or int(text) < self.right else 1 - int(text) % 2] = 1
        return scores


def folder_with(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        (tmp_path / name.replace("_", ".")).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("changed", ["model_safetensors", "config_json", "tokenizer_json", "chat_jinja"])
def test_a_digest_covers_weights_config_and_tokenizer(changed: str, tmp_path: Path) -> None:
    fitted = tmp_path / "teacher"
    fitted.mkdir()
    files = {"model_safetensors": "w", "config_json": "c", "tokenizer_json": "t", "chat_jinja": "j"}
    before = checkpoint_digest(str(folder_with(tmp_path, **files, readme_md="r")))
    assert checkpoint_digest(str(folder_with(tmp_path, readme_md="other"))) == before
    details = {"model": str(tmp_path), "digest": before}
    card = TeacherCard.of(Task(TaskKind.SINGLE_LABEL, ("a", "b")), "nli", [], temperature=1.0, details=details)
    card.write(fitted)
    assert read_checked_card(fitted) == card
    folder_with(tmp_path, **{changed: "other"})
    with pytest.raises(TeacherError, match="have changed"):
        read_checked_card(fitted)


def test_a_folder_without_weights_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="holds no weights"):
        checkpoint_digest(str(folder_with(tmp_path, config_json="{}")))


def test_a_model_that_is_nowhere_has_no_digest(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="cannot find"):
        checkpoint_digest(str(tmp_path / "nothing"))


def test_a_model_of_another_kind_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="cannot load") as caught:
        load_checkpoint(
            AutoModelForCausalLM,
            str(folder_with(tmp_path, config_json='{"model_type": "no_such_model"}')),
            torch.float32,
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("right", "wanted"), [(40, torch.bfloat16), (39, torch.float32)])
def test_bfloat16_is_taken_when_it_decides_the_same(
    right: int, wanted: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "bf16_is_native", lambda: True)
    opened, dtype = open_quickest(lambda dtype: Noisy(dtype, right), TEXTS)
    assert dtype == wanted
    assert opened.is_exact == (wanted == torch.float32)


def test_few_texts_prove_nothing_about_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "bf16_is_native", lambda: True)
    for texts in (TEXTS[:5], []):
        assert open_quickest(lambda dtype: Noisy(dtype, 40), texts)[1] == torch.float32


def test_a_stored_bfloat16_is_float32_where_the_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for native, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(checkpoint, "bf16_is_native", lambda native=native: native)
        assert stored_dtype("bfloat16") == wanted
    assert stored_dtype("float32") == torch.float32
