"""Facts about the training texts that a bundle may carry."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.package import package
from distill.trial import Trial
from export.bundle import read_manifest, verify_bundle
from export.errors import BundleError
from export.examples import EXAMPLES, read_examples, spell_examples
from export.runtime import Predictor
from export.spec import ExportSpec
from teacher.corpus import read_part
from teacher.task import Task
from tests.serving import local_server

LOGITS = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
TEXTS = [f"text {row}" for row in range(30)]
LABELS = [str(row % 5) for row in range(30)]


def test_the_nearest_texts_are_those_of_the_highest_cosine() -> None:
    examples = read_examples(spell_examples(TEXTS, LABELS, LOGITS), 5)
    wanted = LOGITS[7] + 0.01
    centred = LOGITS - LOGITS.mean(axis=1, keepdims=True)
    direction = wanted - wanted.mean()
    cosine = centred @ direction / np.linalg.norm(centred, axis=1) / np.linalg.norm(direction)
    found = examples.nearest(wanted, 3)
    assert (found[0].text, found[0].label) == ("text 7", "2")
    assert [each.similarity for each in found] == pytest.approx(sorted(cosine)[:-4:-1], abs=0.002)


def test_what_does_not_fit_is_refused() -> None:
    whole = json.loads(spell_examples(TEXTS, LABELS, LOGITS))
    infinite = base64.b64encode(np.full(150, np.inf, "<f2").tobytes()).decode()
    wrong: list[Any] = [
        {},
        [],
        {**whole, "directions": infinite},
        {**whole, "labels": []},
        {**whole, "width": 4},
        {**whole, "directions": "?"},
    ]
    for content in [json.dumps(each).encode() for each in wrong] + [b"", b"\xff"]:
        with pytest.raises(BundleError, match=r"examples.json: cannot be used"):
            read_examples(content, 5)


def test_a_bundle_carries_gold_texts_only_when_asked(
    small_bundle: Path, small_student: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    spec = ExportSpec(precision="fp32", examples=12)
    package(Trial(small_student, small_corpus, small_task, spec), tmp_path, lineage={})
    assert EXAMPLES not in read_manifest(small_bundle).files
    assert Predictor.load(small_bundle).examples is None
    assert verify_bundle(tmp_path) == []
    examples = Predictor.load(tmp_path).examples
    gold = {example.text: ", ".join(example.labels or ()) for example in read_part(small_corpus, "gold")}
    assert examples is not None
    assert len(examples.texts) == 12
    assert dict(zip(examples.texts, examples.labels, strict=True)).items() <= gold.items()


def test_an_explanation_shows_the_texts_that_are_alike(showing_bundle: Path) -> None:
    with local_server({"shop": showing_bundle}) as client:
        found = client.ask("POST", "/explain", {"text": "my parcel is late again"}).json["alike"]
    assert (found[0]["text"], found[0]["label"]) == ("my parcel is late again", "delivery")
    assert found[0]["similarity"] == pytest.approx(1, abs=0.001)
    assert len(found) == 3
