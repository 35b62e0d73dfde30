"""Facts about what counts as strange: the score, the threshold that dev suggests, and what a bundle says with it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.special import logsumexp

from distill.package import package
from distill.trial import Trial
from export.metrics import softmax
from export.runtime import Predictor
from export.scope import Scope, describe_scope, familiarity, fit_scope
from export.spec import ExportSpec, ScopeSpec
from teacher.corpus import read_part
from teacher.task import Task
from tests.conftest import MakeBundle
from tests.serving import local_server

TEXTS = ["my parcel is late again", "the hat", "hello my card was declined", "well these shoes", "why is it that"]


@pytest.fixture
def scoped(make_tiny_bundle: MakeBundle, tiny_bundle: Path, tmp_path: Path) -> Path:
    """Return a bundle to which the less familiar ones of TEXTS are strange."""
    answers = [Predictor.load(tiny_bundle).predict(text)[0] for text in TEXTS]
    middle = float(np.median(familiarity(np.array([[*answer.probabilities.values()] for answer in answers]))))
    return make_tiny_bundle(tmp_path / "scoped", scope=Scope(keep=0.6, threshold=middle, kept=0.6, rows=5))


def test_familiarity_is_the_free_energy_of_centred_logits() -> None:
    logits = np.random.default_rng(0).normal(scale=3, size=(5, 7)).astype(np.float32)
    centred = logits - logits.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(familiarity(softmax(logits)), 2 * logsumexp(centred / 2, axis=1), rtol=1e-5)


def test_a_text_of_which_nothing_stands_out_is_the_least_familiar() -> None:
    probs = np.array([[0.25, 0.25, 0.25, 0.25], [0.4, 0.4, 0.1, 0.1], [0.97, 0.01, 0.01, 0.01], [1, 0, 0, 0]])
    found = familiarity(probs)
    assert np.isfinite(found).all()
    assert found.argsort().tolist() == [0, 1, 2, 3]


def test_the_threshold_keeps_the_wanted_share_of_the_right_answers() -> None:
    familiar = np.random.default_rng(0).normal(size=1000)
    is_right = np.random.default_rng(1).random(1000) < 0.9
    scope = fit_scope(familiar, is_right, 0.95)
    assert scope is not None
    assert 0.95 <= (familiar[is_right] >= scope.threshold).mean() < 0.953
    assert scope.kept == (familiar >= scope.threshold).mean()
    test = describe_scope(scope, familiar, is_right)["test"]
    assert test["accuracy"] == pytest.approx(((familiar >= scope.threshold) & is_right).mean())


def test_there_is_no_threshold_without_a_right_answer_or_where_all_look_the_same() -> None:
    assert fit_scope(np.arange(3.0), np.zeros(3, bool), 0.9) is None
    assert fit_scope(np.ones(3), np.ones(3, bool), 0.9) is None
    assert describe_scope(None, np.ones(3), np.zeros(3, bool)) == {}


def test_the_threshold_of_a_bundle_is_fitted_on_the_answers_of_the_file_that_ships(
    tiny_classifier: Path, small_corpus: Path, small_task: Task, tmp_path: Path
) -> None:
    (tmp_path / "bundle").mkdir()
    spec = ExportSpec(precision="fp32", scope=ScopeSpec(keep=0.8))
    package(Trial(tiny_classifier, small_corpus, small_task, spec), tmp_path / "bundle", lineage={})
    dev, predictor = read_part(small_corpus, "dev"), Predictor.load(tmp_path / "bundle")
    answers = [predictor.predict(example.text)[0] for example in dev]
    familiar = familiarity(np.array([[*answer.probabilities.values()] for answer in answers], np.float32))
    is_right = np.array([answer.labels == one.labels for answer, one in zip(answers, dev, strict=True)])
    scope = fit_scope(familiar, is_right, 0.8)
    assert scope is not None
    assert predictor.manifest.scope == scope
    assert [answer.in_scope for answer in answers] == (familiar >= scope.threshold).tolist()


def test_an_answer_says_whether_its_text_is_in_scope(scoped: Path) -> None:
    answers = [Predictor.load(scoped).predict(text)[0] for text in TEXTS]
    threshold = Predictor.load(scoped).manifest.scope.threshold
    assert [answer.in_scope for answer in answers] == [answer.familiarity >= threshold for answer in answers]
    assert sum(answer.in_scope is False for answer in answers) == 2


def test_a_bundle_without_a_threshold_says_nothing_of_scope(tiny_bundle: Path) -> None:
    answer = Predictor.load(tiny_bundle).predict("my parcel is late")[0]
    assert (answer.familiarity, answer.in_scope) == (None, None)


def test_a_server_abstains_on_strange_texts_and_can_be_told_not_to(scoped: Path, tmp_path: Path) -> None:
    strange = next(text for text in TEXTS if Predictor.load(scoped).predict(text)[0].in_scope is False)
    sources = []
    for scope in ("true", "false"):
        (tmp_path / "doubt.yaml").write_text(f"threshold: 0\nscope: {scope}\n")
        with local_server({"shop": scoped}, doubt=tmp_path / "doubt.yaml") as client:
            answer = client.predict(strange, details=True).json
        sources.append((answer["source"], answer["in_scope"]))
    assert sources == [("abstain", False), ("student", False)]
