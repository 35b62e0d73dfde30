"""The committee: a weighted mean of other teachers, with one weight per member and class learned on dev.

Members may reject texts; the others answer those alone. Knows nothing of what kind its members are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from teacher.base import Teacher, TeacherCard, read_card
from teacher.errors import TeacherError
from teacher.example import content_id
from teacher.mixture import cross_fitted, disagreement, learn_weights, mean_outside, mix
from teacher.partial import answered_mask, fit_partial_temperature, log_scores, temper
from teacher.soft_labels import Rejected, SoftLabels
from teacher.task import TaskKind

if TYPE_CHECKING:
    from teacher.encoder import Gold
    from teacher.finetune import Score

_LEAST_MASS = 1e-6
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MemberAnswers:
    """What M members said of N texts, side by side; `probs` (M, N, C) is 0 where a member rejected the text."""

    names: tuple[str, ...]  # what the members are called, numbered where two share a name
    ids: tuple[str, ...]
    probs: Floats
    outside: Floats  # (M, N), 1 where a member rejected the text
    given: tuple[SoftLabels, ...]  # as the members gave them

    @property
    def answered(self) -> NDArray[np.bool_]:
        """Which member answered which text, (M, N)."""
        return 1 - self.outside > _LEAST_MASS

    @property
    def presence(self) -> Floats:
        """The mass that each member puts on the labels, (M, N); 0 where it rejected the text."""
        return np.where(self.answered, 1 - self.outside, 0).astype(np.float32)


def fit_committee(members: Sequence[Teacher], gold: "Gold", directory: Path) -> None:
    """Learn the weights of fitted `members` on `gold.dev`, calibrate their mean there, and save both.

    The card's details hold the weights (M, C) and, as `ablation`, what `ablate` says of dev, where the score of the
    learned weights comes from rows they were not learned on. Raises TeacherError when no member answers any dev text.
    """
    task, targets = gold.task, gold.targets(gold.dev)
    answers = ask_members(members, [example.text for example in gold.dev])
    kept = answers.answered.any(axis=0)
    if not kept.any():
        raise TeacherError(
            f"no member of the committee answers any of the {len(gold.dev)} dev texts, so its weights cannot be "
            "learned; add a member that answers every text, such as kind: prototypes"
        )
    weights = learn_weights(task.kind, answers.probs, targets, answers.presence)
    learned = cross_fitted(task.kind, answers.probs, targets, answers.presence)
    temperature = fit_partial_temperature(
        task.kind, mix(task.kind, answers.probs, weights, answers.presence)[kept], targets[kept]
    )
    TeacherCard.of(
        task,
        "committee",
        [[member.fingerprint for member in members], weights.tolist()],
        temperature=temperature,
        details={
            "weights": weights.tolist(),
            "members": list(answers.names),
            "ablation": ablate(task.kind, answers, learned, targets, gold.score),
        },
    ).write(directory)


class CommitteeTeacher:
    """Fitted members under one set of weights."""

    def __init__(self, directory: Path, members: Sequence[Teacher]) -> None:
        """Read the weights that `fit_committee` wrote for the same members."""
        card = read_card(directory)
        self.task = card.task()
        self.fingerprint = card.fingerprint
        self.parameters = sum(member.parameters for member in members)
        self.weights: Floats = np.asarray(card.details["weights"], np.float32)
        self.temperature = card.temperature
        self._members = members

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return the calibrated weighted mean of those members who answer, and how far they disagree.

        Prices add up over the members and sources are joined; a text that every member rejects is rejected.
        """
        return self.combine(self.label_members(texts))

    def label_members(self, texts: Sequence[str]) -> MemberAnswers:
        """Return what each member says of `texts`."""
        return ask_members(self._members, texts)

    def combine(self, answers: MemberAnswers) -> SoftLabels:
        """Return what the committee makes of the answers of its members."""
        kept = np.flatnonzero(answers.answered.any(axis=0))
        kind, probs, presence = self.task.kind, answers.probs[:, kept], answers.presence[:, kept]
        outside = np.where(presence > 0, answers.outside[:, kept], 0).astype(np.float32)
        cost = _joined_cost(answers)
        return SoftLabels(
            ids=tuple(answers.ids[row] for row in kept.tolist()),
            probs=temper(kind, mix(kind, probs, self.weights, presence), self.temperature),
            outside=mean_outside(self.weights, presence, outside),
            method="committee",
            rejected=_reject(answers, cost),
            cost_usd=None if cost is None else cost[kept],
            sources=_joined_sources(answers, kept),
            disagreement=disagreement(kind, probs, self.weights, presence, outside),
        )


def ask_members(members: Sequence[Teacher], texts: Sequence[str]) -> MemberAnswers:
    """Return what each of `members` says of `texts`, aligned by text."""
    ids = tuple(content_id(text) for text in texts)
    given = tuple(member.label(texts) for member in members)
    shape = (len(members), len(ids))
    probs = np.zeros((*shape, len(members[0].task.labels)), np.float32)
    outside = np.ones(shape, np.float32)
    for place, answers in enumerate(given):
        mask = answered_mask(ids, answers)
        probs[place, mask], outside[place, mask] = answers.probs, answers.outside
    names = [getattr(member, "title", answers.method) for member, answers in zip(members, given, strict=True)]
    return MemberAnswers(_numbered(names), ids, probs, outside, given)


def ablate(
    kind: TaskKind, answers: MemberAnswers, learned: Floats, targets: Floats, score: "Score"
) -> list[dict[str, Any]]:
    """Return how each member alone, their uniform mean and the `learned` mixture (N, C) score on `targets` (N, C).

    One row each: name, `rows` asked, `answered`, and `score` on the answered ones (None for none). `together` is what
    the learned mixture scores on the rows that a member answered, so that the two can be compared.
    """
    uniform = np.full((len(answers.names), targets.shape[1]), 1 / len(answers.names), np.float32)
    anyone = answers.answered.any(axis=0)
    contenders = [
        *((name, answers.probs[place], answers.answered[place]) for place, name in enumerate(answers.names)),
        ("uniform mean", mix(kind, answers.probs, uniform, answers.presence), anyone),
        ("learned weights", learned, anyone),
    ]

    def scored(probs: Floats, mask: NDArray[np.bool_]) -> float | None:
        return float(score(log_scores(kind, probs[mask]), targets[mask])) if mask.any() else None

    return [
        {
            "name": name,
            "rows": len(targets),
            "answered": int(mask.sum()),
            "score": scored(probs, mask),
            "together": scored(learned, mask),
        }
        for name, probs, mask in contenders
    ]


def _numbered(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        f"{name} {names[: place + 1].count(name)}" if names.count(name) > 1 else name
        for place, name in enumerate(names)
    )


def _reject(answers: MemberAnswers, cost_usd: NDArray[np.float64] | None) -> tuple[Rejected, ...]:
    """Return the texts that no member answered, with what each said and what they cost."""
    told = [{one.id: one for one in given.rejected} for given in answers.given]
    rejected = []
    for row in np.flatnonzero(~answers.answered.any(axis=0)).tolist():
        id = answers.ids[row]
        said = [(name, one[id]) for name, one in zip(answers.names, told, strict=True) if id in one]
        reasons = dict.fromkeys(one.reason for _, one in said)
        raw = " / ".join(f"{name}: {one.raw}" for name, one in said if one.raw)
        cost = None if cost_usd is None else float(cost_usd[row])
        rejected.append(Rejected(id, " and ".join(reasons) or "outside the label set", raw, cost))
    return tuple(rejected)


def _joined_cost(answers: MemberAnswers) -> NDArray[np.float64] | None:
    """Return what each text cost over all members, also where a member was paid and then rejected it."""
    if all(given.cost_usd is None for given in answers.given):
        return None
    place, cost = {id: row for row, id in enumerate(answers.ids)}, np.zeros(len(answers.ids))
    for given in answers.given:
        if given.cost_usd is not None:
            cost[answered_mask(answers.ids, given)] += given.cost_usd
        for one in given.rejected:
            cost[place[one.id]] += one.cost_usd or 0.0
    return cost


def _joined_sources(answers: MemberAnswers, kept: NDArray[np.intp]) -> tuple[tuple[str, ...], ...] | None:
    if all(given.sources is None for given in answers.given):
        return None
    sources: list[tuple[str, ...]] = [()] * len(answers.ids)
    for given in answers.given:
        for row, more in zip(np.flatnonzero(answered_mask(answers.ids, given)), given.sources or (), strict=False):
            sources[row] += more
    return tuple(tuple(dict.fromkeys(sources[row])) for row in kept.tolist())
