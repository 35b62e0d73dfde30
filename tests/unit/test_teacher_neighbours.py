import numpy as np
import pytest

from teacher.neighbours import nearest, spread_answers, unit


@pytest.fixture
def clusters() -> np.ndarray:
    """Return 40 vectors in two tight clusters that point in different directions, (40, 8)."""
    random = np.random.default_rng(0)
    centres = np.repeat(np.eye(8, dtype=np.float32)[:2], 20, axis=0)
    return unit((centres + 0.1 * random.normal(size=(40, 8))).astype(np.float32))


def test_nearest_rows_are_those_of_an_exhaustive_search(clusters: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("teacher.neighbours._BLOCK", 7)  # a last block that is not full
    rows, cosines = nearest(clusters, 3)
    likeness = clusters @ clusters.T - 2 * np.eye(40)
    wanted = np.argsort(-likeness, axis=1)[:, :3]
    assert np.array_equal(np.sort(rows), np.sort(wanted))
    np.testing.assert_allclose(np.sort(cosines), np.sort(np.take_along_axis(likeness, wanted, 1)), rtol=1e-5)


def test_there_are_no_more_neighbours_than_other_rows(clusters: np.ndarray) -> None:
    assert nearest(clusters[:3], 10)[0].shape == (3, 2)
    assert nearest(clusters[:1], 10)[0].shape == (1, 0)


def test_neighbours_among_other_vectors_are_those_of_an_exhaustive_search(
    clusters: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher.neighbours._BLOCK", 7)
    rows, _ = nearest(clusters[:16], 3, clusters[10:])
    wanted = np.argsort(-(clusters[:16] @ clusters[10:].T), axis=1)[:, :3]
    assert np.array_equal(np.sort(rows), np.sort(wanted))
    assert nearest(clusters, 3, clusters[:0])[0].shape == (40, 0)


def test_a_wrong_answer_among_right_ones_is_outvoted_and_rows_still_sum_to_1(clusters: np.ndarray) -> None:
    probs = np.repeat(np.array([[0.9, 0.1], [0.2, 0.8]], np.float32), 20, axis=0)
    probs[3] = [0.3, 0.7]
    spread = spread_answers(clusters, probs, 5)
    assert spread.argmax(axis=1).tolist() == [0] * 20 + [1] * 20
    np.testing.assert_allclose(spread.sum(axis=1), 1, rtol=1e-5)


def test_spreading_solves_the_linear_system_of_its_paper(clusters: np.ndarray) -> None:
    # Zhou et al. 2004, equation 3: F* = (1 - a) (I - a S)^-1 Y, here over the same of ones.
    probs = np.random.default_rng(1).dirichlet(np.ones(3), 40).astype(np.float32)
    likeness = clusters.astype(float) @ clusters.T
    np.fill_diagonal(likeness, -np.inf)
    crowd = np.sort(likeness, axis=1)[:, -5:].mean(axis=1)
    likeness -= (crowd[:, None] + crowd) / 2
    rows = np.argsort(-likeness, axis=1)[:, :5]
    weights = np.zeros((40, 40))
    np.put_along_axis(weights, rows, np.exp(10 * np.take_along_axis(likeness, rows, axis=1)), axis=1)
    weights = np.maximum(weights, weights.T)
    scale = np.diag(1 / np.sqrt(weights.sum(axis=1)))
    solved = np.linalg.solve(np.eye(40) - 0.8 * scale @ weights @ scale, np.hstack([probs, np.ones((40, 1))]))
    np.testing.assert_allclose(spread_answers(clusters, probs, 5), solved[:, :-1] / solved[:, -1:], atol=2e-3)


def test_a_row_near_everything_is_not_everybodys_neighbour() -> None:
    # Row 0 points between two loose groups, nearer to most members of both than these are to each other.
    random = np.random.default_rng(3)
    groups = np.repeat(np.eye(400, dtype=np.float32)[:2], 12, axis=0) + 0.1 * random.normal(size=(24, 400))
    vectors = unit(np.vstack([np.eye(400)[:2].sum(axis=0), groups]).astype(np.float32))
    probs = np.vstack([[0, 0, 1], np.repeat([[1, 0, 0], [0, 1, 0]], 12, axis=0)]).astype(np.float32)
    rows, _ = nearest(vectors, 2)
    asks = (rows[1:] == 0).sum()
    assert asks > 12  # by cosine alone it is
    assert spread_answers(vectors, probs, 2)[1:, 2].mean() < 0.1  # 0.12 by cosine


def test_answers_of_independent_labels_stay_between_0_and_1(clusters: np.ndarray) -> None:
    probs = np.random.default_rng(2).random((40, 3)).astype(np.float32)
    spread = spread_answers(clusters, probs, 5)
    assert probs.min() <= spread.min() <= spread.max() <= probs.max()


def test_rows_without_neighbours_keep_their_answers() -> None:
    probs = np.array([[0.7, 0.3]], np.float32)
    np.testing.assert_allclose(spread_answers(np.ones((1, 4), np.float32), probs, 5), probs)
