"""Facts about the list of suspects. Golden rows: cleanlab 2.9.0, filter_by="confident_learning", on the same arrays."""

import numpy as np
import pytest

from distill.label_errors import find_suspects
from teacher.task import TaskKind

SINGLE, MULTI = TaskKind.SINGLE_LABEL, TaskKind.MULTI_LABEL
_BY_MARGIN = [33, 1, 18, 58, 36, 39, 44, 25, 28, 32, 49, 57, 11, 3, 54]  # ranked by normalized_margin
_OF_SETS = [1, 5, 8, 14, 23, 30, 33, 36, 37, 38, 42, 43, 47, 49, 58, 59, 61, 70, 75]


def test_single_label_suspects_and_their_order_are_those_of_cleanlab() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 4, 60)
    given = np.where(generator.random(60) < 0.2, generator.integers(0, 4, 60), truth)
    noise = generator.dirichlet(np.ones(4), 60)
    probs = noise * 0.5 + 0.5 * np.eye(4)[truth] * generator.random((60, 1))
    probs /= probs.sum(axis=1, keepdims=True)
    assert [suspect.row for suspect in find_suspects(SINGLE, probs, np.eye(4)[given])] == _BY_MARGIN


def test_multi_label_suspects_are_those_of_cleanlab() -> None:
    generator = np.random.default_rng(2)
    truth = generator.random((80, 4)) < 0.4
    given = truth ^ (generator.random((80, 4)) < 0.08)
    probs = np.clip(np.where(truth, 0.7, 0.3) + generator.normal(0, 0.2, (80, 4)), 0.01, 0.99)
    found = find_suspects(MULTI, probs.astype(np.float32), given.astype(np.float32))
    assert sorted(suspect.row for suspect in found) == _OF_SETS


def test_a_suspect_says_what_was_given_and_what_to_think_of_instead() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.95, 0.05]], np.float32)
    (found,) = find_suspects(SINGLE, probs, np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 1]])
    assert (found.row, found.given, found.suggested) == (4, (1,), (0,))
    assert (found.given_probability, found.suggested_probability) == pytest.approx((0.05, 0.95))


def test_a_multi_label_suspect_names_whole_sets() -> None:
    probs = np.array([[0.9, 0.1], [0.8, 0.9], [0.1, 0.9], [0.1, 0.1], [0.97, 0.9]], np.float32)
    given = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [0, 1]], np.float32)
    (found,) = find_suspects(MULTI, probs, given)
    assert (found.row, found.given, found.suggested) == (4, (1,), (0, 1))


def test_a_label_without_a_row_is_suggested_to_nobody() -> None:
    probs = np.array([[0.1, 0.2, 0.7], [0.2, 0.1, 0.7]], np.float32)
    found = find_suspects(SINGLE, probs, np.eye(3, dtype=np.float32)[[0, 1]])
    assert [suspect.suggested for suspect in found] == [(1,), (0,)]
