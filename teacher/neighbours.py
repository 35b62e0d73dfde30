"""Nearest neighbours among vectors, and answers spread over the graph they make.

Knows nothing of texts and teachers.
"""

from collections.abc import Iterator

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

_BLOCK = 2048  # rows whose likeness to all others is in memory at once
_SPREAD = 0.8  # of an answer that its neighbours give, at each step
_STEPS = 30  # after which less than a thousandth of an answer still moves
_CANDIDATES = 3  # times as many near rows as neighbours are looked at
_SHARPNESS = 10  # how much more the nearest of the neighbours counts than the farthest

Floats = NDArray[np.float32]


def unit(vectors: Floats) -> Floats:
    """Return `vectors` (N, width) scaled to length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def nearest(vectors: Floats, count: int, among: Floats | None = None) -> tuple[NDArray[np.intp], Floats]:
    """Return for each of the unit `vectors` (N, width) the rows of its `count` nearest others and their cosines.

    With `among` (M, width), also of unit length, the rows are those of `among`. Both are (N, count) in no order; with
    fewer than `count` others, all of those.
    """
    count = min(count, len(vectors) - 1 if among is None else len(among))
    if count < 1 or not len(vectors):
        return np.zeros((len(vectors), 0), np.intp), np.zeros((len(vectors), 0), np.float32)
    rows, cosines = zip(*_nearest_blocks(vectors, count, among), strict=True)
    return np.concatenate(rows), np.concatenate(cosines)


def spread_answers(vectors: Floats, probs: Floats, neighbours: int) -> Floats:
    """Return `probs` (N, C) mixed with those of the nearest rows of `vectors` (N, width), of theirs, and so on.

    Iterates F = 0.8 S F + 0.2 `probs` over the symmetric graph S of `neighbours` nearest others, as Zhou et al. 2004,
    "Learning with Local and Global Consistency", and divides by what becomes of ones: each answer is a weighted mean
    of the answers given, so rows that sum to 1 still do. How near two rows are is judged by their cosine less the
    mean of those to their own nearest rows (Conneau et al. 2018, "Word Translation Without Parallel Data", CSLS): a
    row near everything is nobody's neighbour for that alone.
    """
    graph = _graph(unit(vectors), neighbours)
    given = np.concatenate([probs, np.ones((len(probs), 1), np.float32)], axis=1)
    spread = given
    for _ in range(_STEPS):
        spread = _SPREAD * (graph @ spread) + (1 - _SPREAD) * given
    return np.asarray(spread[:, :-1] / spread[:, -1:], np.float32)


def _graph(vectors: Floats, neighbours: int) -> scipy.sparse.csr_array:
    rows, cosines = nearest(vectors, _CANDIDATES * neighbours)
    count = min(neighbours, rows.shape[1])
    if count:
        crowd = np.partition(cosines, -count, axis=1)[:, -count:].mean(axis=1)
        likeness = cosines - (crowd[:, None] + crowd[rows]) / 2
        kept = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        rows, likeness = (np.take_along_axis(values, kept, axis=1) for values in (rows, likeness))
    else:
        likeness = cosines
    weights = np.exp(_SHARPNESS * likeness).ravel()
    starts = np.arange(len(rows) + 1) * count
    one_way = scipy.sparse.csr_array((weights, rows.ravel(), starts), shape=(len(rows), len(rows)))
    both_ways = one_way.maximum(one_way.T)
    scale = scipy.sparse.diags_array(1 / np.sqrt(np.maximum(both_ways.sum(axis=1), 1e-12)))
    return scipy.sparse.csr_array(scale @ both_ways @ scale).astype(np.float32)


def _nearest_blocks(vectors: Floats, count: int, among: Floats | None) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    for start in range(0, len(vectors), _BLOCK):
        likeness = vectors[start : start + _BLOCK] @ (vectors if among is None else among).T
        if among is None:
            rows = np.arange(len(likeness))
            likeness[rows, start + rows] = -np.inf
        near = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        yield near, np.take_along_axis(likeness, near, axis=1)
