"""Split gold into gold, dev and test: seeded, stratified, every class left in gold.

Texts that are (nearly) the same stay on one side, so that nothing leaks. Knows nothing of files.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from teacher.example import Example
from teacher.leaks import LeakIndex


def split_gold(
    gold: Sequence[Example], shares: Mapping[str, float], near_duplicate: float, seed: int
) -> dict[str, list[Example]]:
    """Deal `gold` into the parts named by `shares` (each between 0 and 1, in sum below 1) and "gold".

    Stratified by label (by the rarest one of a multi-label row). At least one row of every label stays in
    "gold"; a part is empty when there are too few rows. Each part keeps the order of `gold`.
    """
    names = _deal(_group(gold, near_duplicate), _strata(gold), shares, np.random.default_rng(seed))
    names = _return_lost_labels(gold, names)
    parts: dict[str, list[Example]] = {part: [] for part in ("gold", *shares)}
    for example, name in zip(gold, names, strict=True):
        parts[name].append(example)
    return parts


def _group(gold: Sequence[Example], near_duplicate: float) -> list[int]:
    """Return for each row the number of its group: rows that repeat one another share one."""
    index = LeakIndex(near_duplicate)
    groups: list[int] = []
    for row, example in enumerate(gold):
        found, _ = index.find_position(example.text)
        groups.append(row if found is None else groups[found])
        index.add("gold", example.text)
    return groups


def _strata(gold: Sequence[Example]) -> list[str]:
    counts = Counter(name for example in gold for name in example.labels or ())
    return [min(example.labels or ("",), key=lambda name: (counts[name], name)) for example in gold]


def _deal(
    groups: Sequence[int], strata: Sequence[str], shares: Mapping[str, float], random: np.random.Generator
) -> list[str]:
    """Return the part of each row. A part's debt grows by its share with every row; groups pay it off."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    by_stratum: dict[str, list[int]] = defaultdict(list)
    for group in members:
        by_stratum[strata[group]].append(group)
    names = ["gold"] * len(groups)
    # Half a row to begin with rounds the size of each part to the nearest whole number.
    debts = dict.fromkeys(shares, 0.5)
    for stratum in sorted(by_stratum):
        shuffled = random.permutation(np.asarray(by_stratum[stratum])).tolist()
        for place, group in enumerate(shuffled):
            rows = members[group]
            for part, share in shares.items():
                debts[part] += share * len(rows)
            part = max(debts, key=debts.__getitem__)
            # The first group of each stratum stays in gold; rounding keeps 5 * 0.2 a whole row.
            if place > 0 and round(debts[part] - len(rows), 9) >= 0:
                debts[part] -= len(rows)
                for row in rows:
                    names[row] = part
    return names


def _return_lost_labels(gold: Sequence[Example], names: Sequence[str]) -> list[str]:
    """Move a row back for each label that only the other parts hold."""
    names = list(names)
    kept = {label for row, name in enumerate(names) if name == "gold" for label in gold[row].labels or ()}
    for row, example in enumerate(gold):
        if not kept.issuperset(example.labels or ()):
            names[row] = "gold"
            kept.update(example.labels or ())
    return names
