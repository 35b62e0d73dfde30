"""Facts about the generative label model: what agreement alone tells of voters, and what known labels add."""

import numpy as np
import pytest
from numpy.typing import NDArray

from teacher.label_model import LabelModel, Votes, fit_label_model, smoothed_prior
from teacher.task import TaskKind

SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL
ROWS, CLASSES = 4000, 4
Floats = NDArray[np.float32]


def one_hot(truth: NDArray[np.int64]) -> Floats:
    return np.eye(CLASSES, dtype=np.float32)[truth]


def simulate(accuracies: list[float], coverage: float, rows: int = ROWS) -> tuple[Votes, NDArray[np.int64]]:
    """Return votes of independent voters with known `accuracies`, and the truth."""
    generator = np.random.default_rng(0)
    truth = generator.integers(CLASSES, size=rows)
    cast = []
    for voter, accuracy in enumerate(accuracies):
        for row in np.flatnonzero(generator.random(rows) < coverage):
            wrong = (truth[row] + generator.integers(1, CLASSES)) % CLASSES
            cast.append((row, voter, truth[row] if generator.random() < accuracy else wrong))
    return as_votes(cast, (rows, len(accuracies), CLASSES)), truth


def as_votes(cast: list[tuple[int, int, int]], shape: tuple[int, int, int]) -> Votes:
    columns = np.asarray(cast, np.int64).reshape(-1, 3).T
    return Votes(columns[0], columns[1], columns[2], shape)


def test_agreement_alone_finds_the_accuracy_of_each_voter() -> None:
    accuracies = [0.95, 0.8, 0.6, 0.4]
    votes, _ = simulate(accuracies, coverage=0.7)
    model = fit_label_model(SINGLE, votes, np.full(CLASSES, 1 / CLASSES))
    np.testing.assert_allclose(model.hit[:, 0], accuracies, atol=0.03)


def test_weighed_votes_beat_the_majority() -> None:
    votes, truth = simulate([0.95, 0.5, 0.5, 0.5], coverage=1.0)
    prior = np.full(CLASSES, 1 / CLASSES)
    weighed = fit_label_model(SINGLE, votes, prior).posterior(votes).argmax(axis=1)
    majority = votes.by_text(np.ones(len(votes.rows))).argmax(axis=1)
    assert (weighed == truth).mean() > (majority == truth).mean() + 0.1


def test_the_posterior_is_calibrated_when_the_assumptions_hold() -> None:
    votes, truth = simulate([0.9, 0.7, 0.6], coverage=0.8)
    probs = fit_label_model(SINGLE, votes, np.full(CLASSES, 1 / CLASSES)).posterior(votes)
    np.testing.assert_allclose(probs.sum(axis=1), 1)
    assert probs.max(axis=1).mean() == pytest.approx((probs.argmax(axis=1) == truth).mean(), abs=0.02)


def test_two_voters_who_disagree_are_told_apart_by_known_labels() -> None:
    votes, truth = simulate([0.9, 0.3], coverage=1.0, rows=200)
    model = fit_label_model(SINGLE, votes, np.full(CLASSES, 1 / CLASSES), one_hot(truth))
    np.testing.assert_allclose(model.hit[:, 0], [0.9, 0.3], atol=0.08)


def test_a_known_label_that_every_voter_denies_is_doubted() -> None:
    votes, truth = simulate([0.95] * 5, coverage=1.0, rows=200)
    known = one_hot(truth)
    known[0] = one_hot((truth + 1) % CLASSES)[0]
    model = fit_label_model(SINGLE, votes, np.full(CLASSES, 1 / CLASSES), known)
    assert model.posterior(votes, known)[0].argmax() == truth[0]


def test_a_single_vote_is_worth_the_accuracy_of_its_voter() -> None:
    votes, _ = simulate([0.9, 0.7, 0.8], coverage=0.6)
    model = fit_label_model(SINGLE, votes, np.full(CLASSES, 1 / CLASSES))
    alone = model.posterior(as_votes([(0, 1, 2)], (1, 3, CLASSES)))
    assert alone[0, 2] == pytest.approx(model.hit[1, 0])
    assert alone[0, 0] == pytest.approx((1 - model.hit[1, 0]) / (CLASSES - 1))


def test_a_text_without_votes_has_the_prior() -> None:
    votes, _ = simulate([0.9, 0.7], coverage=0.5)
    prior = np.array([0.5, 0.2, 0.2, 0.1])
    model = fit_label_model(SINGLE, votes, prior)
    np.testing.assert_allclose(model.posterior(as_votes([], (1, 2, CLASSES)))[0], prior)


def test_a_voter_with_few_votes_is_taken_for_one_like_the_others() -> None:
    votes, truth = simulate([0.95, 0.9], coverage=1.0)
    row = int(votes.by_text(np.ones(len(votes.rows)))[np.arange(ROWS), truth].argmax())  # both are right about it
    wrong = (truth[row] + 1) % CLASSES
    more = (np.append(column, extra) for column, extra in ((votes.rows, row), (votes.voters, 2), (votes.labels, wrong)))
    model = fit_label_model(SINGLE, Votes(*more, (ROWS, 4, CLASSES)), np.full(CLASSES, 1 / CLASSES))
    common = 0.925
    assert model.hit[2, 0] == pytest.approx(5 * common / 6, abs=0.02)
    assert model.hit[3, 0] == pytest.approx(common, abs=0.02)


def multi_votes() -> tuple[Votes, Floats]:
    """Return five voters that name each of two labels with known rates, and the truth."""
    generator = np.random.default_rng(1)
    truth = (generator.random((ROWS, 2)) < [0.4, 0.2]).astype(np.float32)
    cast = [
        (row, voter, label)
        for voter in range(5)
        for row in range(ROWS)
        for label in range(2)
        if generator.random() < (0.6 + 0.05 * voter if truth[row, label] else 0.02 * voter)
    ]
    return as_votes(cast, (ROWS, 5, 2)), truth


def test_each_label_of_a_multi_label_task_has_a_model_of_its_own() -> None:
    votes, truth = multi_votes()
    model = fit_label_model(MULTI, votes, truth.mean(axis=0))
    np.testing.assert_allclose(model.hit, np.repeat(0.6 + 0.05 * np.arange(5), 2).reshape(5, 2), atol=0.06)
    np.testing.assert_allclose(model.miss, np.repeat(0.02 * np.arange(5), 2).reshape(5, 2), atol=0.03)
    assert ((model.posterior(votes) > 0.5) == truth.astype(bool)).mean() > 0.95


def test_silence_counts_against_a_label_only_for_voters_that_ever_name_it() -> None:
    votes, truth = multi_votes()
    kept = (votes.voters != 4) | (votes.labels != 1)
    fewer = Votes(votes.rows[kept], votes.voters[kept], votes.labels[kept], votes.shape)
    model = fit_label_model(MULTI, fewer, truth.mean(axis=0))
    quiet = model.posterior(as_votes([], (1, 5, 2)))[0]
    assert (quiet < truth.mean(axis=0)).all()
    changed = model.hit.copy()
    changed[4, 1] = 0.9
    louder = LabelModel(MULTI, model.prior, changed, model.miss, model.speaks)
    np.testing.assert_allclose(louder.posterior(as_votes([], (1, 5, 2)))[0], quiet)


def test_the_same_votes_give_the_same_model() -> None:
    votes, _ = simulate([0.9, 0.7, 0.6], coverage=0.5, rows=300)
    prior = np.full(CLASSES, 1 / CLASSES)
    first, second = (fit_label_model(SINGLE, votes, prior) for _ in range(2))
    assert (first.hit == second.hit).all()


def test_the_prior_counts_each_possible_answer_once_more() -> None:
    targets = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    np.testing.assert_allclose(smoothed_prior(SINGLE, targets), [3 / 6, 2 / 6, 1 / 6])
    np.testing.assert_allclose(smoothed_prior(MULTI, targets), [3 / 5, 2 / 5, 1 / 5])


def test_coverage_and_accuracy_are_counted_by_voter() -> None:
    votes = as_votes([(0, 0, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)], (4, 3, 2))
    truth = np.array([[0, 1], [1, 0], [1, 0], [1, 0]], np.float32)
    np.testing.assert_allclose(votes.coverage(), [0.5, 0.25, 0])
    np.testing.assert_allclose(votes.accuracy(truth), [0.5, 0.5, np.nan])
    assert votes.counts().tolist() == [1, 2, 0, 0]
