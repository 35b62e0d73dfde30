"""Weights as bytes that add up to the same answer on every x86 processor.

Without VNNI the processor multiplies two neighbouring bytes of an input by two of the weights and adds both products in
16 bits, where a sum beyond 32,767 is cut off (`vpmaddubsw`). An input of 255 in both places is the worst there can be,
so weights are safe when no two neighbours add up to more than 128 on either side of 0. Knows nothing of graphs.
"""

import numpy as np
from numpy.typing import NDArray

_LARGEST = 127  # of one weight
_LARGEST_PAIR = 128  # of two neighbours of one sign: 255 * 128 < 2^15
_STRETCHES = np.linspace(1, 2, 11)  # steps to choose from, against the one that just holds the largest weight

Floats = NDArray[np.float32]


def round_without_saturation(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Return `weight` (inputs, outputs) as bytes and the step of each output, float32 (outputs,).

    Neighbours are the inputs 2i and 2i + 1. A wider step leaves fewer pairs to be cut and rounds the others more
    coarsely: each output takes the one of a few steps whose squared error is the least.
    """
    narrowest = np.maximum(np.abs(weight).max(axis=0), np.finfo(np.float32).tiny) / _LARGEST
    rounded, steps = np.zeros(weight.shape, np.int8), np.array(narrowest, np.float32)
    least = np.full(weight.shape[1], np.inf)
    for stretch in _STRETCHES:
        step = (stretch * narrowest).astype(np.float32)
        tried = _round_pairs(weight / step)
        error = np.square(tried * step - weight).sum(axis=0)
        better = error < least
        rounded[:, better], steps[better], least[better] = tried[:, better], step[better], error[better]
    return rounded, steps


def _round_pairs(wanted: Floats) -> Floats:
    """Return the nearest whole numbers to `wanted` (inputs, outputs) of which no two neighbours add up too far."""
    inputs, outputs = wanted.shape
    pairs = np.pad(wanted, ((0, inputs % 2), (0, 0))).reshape(-1, 2, outputs)
    signs, sizes = np.sign(pairs), np.abs(pairs)
    rounded = np.minimum(np.rint(sizes), _LARGEST)
    far = (signs[:, 0] == signs[:, 1]) & (rounded.sum(axis=1) > _LARGEST_PAIR)
    first = np.rint((_LARGEST_PAIR + sizes[:, 0] - sizes[:, 1]) / 2).clip(1, _LARGEST)
    for place, cut in enumerate((first, _LARGEST_PAIR - first)):
        rounded[:, place] = np.where(far, cut, rounded[:, place])
    return np.asarray((rounded * signs).reshape(-1, outputs)[:inputs], np.float32)
