"""What a speed report can time: bundles and PyTorch checkpoints, each answering as it does alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from distill.contenders import best_threads, open_contender, same_threads_after
from distill.errors import InputError
from export.runtime import Predictor
from tests.conftest import LABELS

TEXTS = ["my card was declined", "the parcel never came", "hello the shirt is too small"]


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Leave torch the threads it had: what another file trains in this process depends on them."""
    with same_threads_after():
        yield


def test_a_bundle_answers_as_its_predictor_does_and_has_stages(small_bundle: Path) -> None:
    contender = open_contender(small_bundle, TEXTS)
    assert (contender.kind, contender.threads) == ("bundle", 1)
    assert contender.answer(TEXTS[0]) == Predictor.load(small_bundle).predict(TEXTS[0])
    assert set(contender.stages) == {"tokenize", "model"}
    assert all(stage(TEXTS[0]) is not None for stage in contender.stages.values())


def test_a_classifier_checkpoint_answers_with_its_own_labels(tiny_classifier: Path) -> None:
    contender = open_contender(tiny_classifier, TEXTS)
    answers = contender.answer_many(TEXTS)
    assert isinstance(answers, list)
    assert contender.kind == "checkpoint"
    assert set(answers) <= set(LABELS)
    assert answers == [contender.answer_many([text])[0] for text in TEXTS]  # type: ignore[index]


def test_a_fitted_teacher_is_a_checkpoint(small_teacher: Path) -> None:
    contender = open_contender(small_teacher, TEXTS)
    assert contender.kind == "checkpoint"
    assert contender.threads >= 1
    assert contender.answer(TEXTS[0]) is not None


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no bundle, teacher or classifier"):
        open_contender(tmp_path, TEXTS)


def test_what_is_trained_after_a_measurement_has_the_threads_of_before() -> None:
    before = torch.get_num_threads()
    with same_threads_after():
        best_threads(len, TEXTS)
        torch.set_num_threads(before + 2)
    assert torch.get_num_threads() == before
