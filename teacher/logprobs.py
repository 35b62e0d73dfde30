"""From the alternatives of generated tokens to the probability of each label, with the unseen tail in its bounds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teacher.codes import CodeBook, Fit
from teacher.completion import TokenAlternatives


@dataclass(frozen=True, slots=True)
class _Step:
    """What one position says, as shares of the mass that came to it."""

    labels: NDArray[np.float64]  # (C,)
    onward: float  # the generated token's share, when the next position tells more


def label_mass(tokens: Sequence[TokenAlternatives], book: CodeBook) -> NDArray[np.float64]:
    """Return the probability (C,) that the answer is each label's code; what lacks to 1 is not on a label.

    At each position every alternative is one of: a whole code, whose label gets its mass; the beginning of codes,
    whose mass goes on to the next position where it was generated, and is shared out evenly among the labels behind
    it where it was not; or something else, whose mass is outside. The unseen rest of a position is split between
    labels and outside as the seen mass is, but a label that no alternative reaches never gets more than the least
    likely alternative: being unseen, it cannot be likelier.
    """
    mass = np.zeros(len(book.codes))
    written, share = "", 1.0
    for token in tokens:
        step = _read_position(token, written, book)
        mass += share * step.labels
        share *= step.onward
        written += token.token
        if not step.onward:
            break
    return mass


def is_cut_short(tokens: Sequence[TokenAlternatives], book: CodeBook) -> bool:
    """Say whether the tokens end within a code, so that the rest of it was never scored."""
    written = "".join(token.token for token in tokens)
    return book.place(written).fit is Fit.BEGINS


def _read_position(token: TokenAlternatives, written: str, book: CodeBook) -> _Step:
    seen = {name: math.exp(logprob) for name, logprob in token.top}
    seen.setdefault(token.token, math.exp(token.logprob))
    total = max(sum(seen.values()), 1.0)  # rounding may carry it over 1
    labels, within = np.zeros(len(book.codes)), set(book.place(written).labels)
    onward = outside = 0.0
    reached: set[int] = set()
    for name, probability in seen.items():
        place = book.place(written + name)
        reached |= set(place.labels) if place.fit is not Fit.NOTHING_YET else set()
        if place.fit is Fit.OUTSIDE:
            outside += probability / total
        elif place.fit is not Fit.WHOLE and name == token.token:
            onward = probability / total
        elif place.fit is not Fit.NOTHING_YET:
            labels[list(place.labels)] += probability / total / len(place.labels)
    unreached = [] if onward and not reached else sorted(within - reached)
    rest = 1.0 - labels.sum() - onward - outside
    labels[unreached] += _share_of_each(rest, labels.sum() + onward, outside, min(seen.values()), len(unreached))
    return _Step(labels, onward)


def _share_of_each(rest: float, inside: float, outside: float, least: float, labels: int) -> float:
    """Return what each of the unreached `labels` gets of a position's unseen `rest`."""
    known = inside + outside
    if labels == 0 or known <= 0 or rest <= 0:
        return 0.0
    return min(rest * inside / known / labels, least)
