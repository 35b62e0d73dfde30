"""Try prompts on dev, on more rows the better they do.

Successive halving (Jamieson & Talwalkar 2016): all trials answer a few rows, the better half twice as many, and so on,
so most of the money goes to prompts that may win. A trial is fitted once, on its first rows. Prints nothing.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from distill.quality import Answers, Given, decide_by, difference, fill, headline
from export.metrics import Interval
from teacher.encoder import Gold
from teacher.errors import BudgetError
from teacher.kinds import fit_teacher, load_teacher
from teacher.paid import PaidAnswers
from teacher.prompter import save_prompt
from teacher.spec import LlmApiSpec, LlmLocalSpec, PromptSpec

_LEAST_ROWS = 16  # fewer say nothing of a prompt


@dataclass(slots=True)
class Trial:
    """A prompt and what came of it so far: the answers to the first rows, and what the answered ones cost."""

    prompt: PromptSpec
    is_fitted: bool = False
    parts: list[Given] = field(default_factory=list)
    costs_usd: list[float] = field(default_factory=list)

    @property
    def given(self) -> Given:
        """Return the answers to all rows so far."""
        return Given(
            np.concatenate([part.probs for part in self.parts]), np.concatenate([part.answered for part in self.parts])
        )

    @property
    def rows(self) -> int:
        """Return how many rows were asked."""
        return sum(len(part.probs) for part in self.parts)

    @property
    def usd_per_row(self) -> float | None:
        """Return the mean price of an answered row; None where nothing is paid."""
        return float(np.mean(self.costs_usd)) if self.costs_usd else None


@dataclass(frozen=True, slots=True)
class Standing:
    """How a trial stands on the rows it answered; a rejected row counts as wrong."""

    trial: Trial
    score: Interval
    rejected: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, the best first; `lead` is the winner's over the second on the same rows, paired.

    `stopped` says why it ended early, None when it did not.
    """

    standings: tuple[Standing, ...]
    lead: Interval | None
    stopped: str | None


class PromptSearch:
    """Prompts for one teacher, tried on `gold.dev` in its order; examples come from `gold.train`."""

    def __init__(self, spec: LlmApiSpec | LlmLocalSpec, gold: Gold, paid: PaidAnswers | None) -> None:
        """Ask nothing yet. An endpoint is asked directly: a batch may take a day, and its answers would be the same."""
        self._spec = spec.model_copy(update={"transport": "direct"}) if isinstance(spec, LlmApiSpec) else spec
        self._gold = gold
        self._paid = paid
        self._texts = [example.text for example in gold.dev]
        self._targets = gold.targets(gold.dev)

    def search(self, prompts: Sequence[PromptSpec]) -> Found:
        """Try `prompts` and return how they stand; what the budget does not allow is left out and said.

        Raises TeacherError for a prompt that cannot work before anything is asked, and BudgetError when not even the
        first trial can be paid.
        """
        trials = [Trial(prompt) for prompt in prompts]
        with tempfile.TemporaryDirectory() as folder:
            for place, trial in enumerate(trials):
                self._directory(Path(folder), place).mkdir()
                save_prompt(trial.prompt, self._gold, self._directory(Path(folder), place))
            stopped = self._halve(trials, Path(folder))
        standings = sorted((self._stand(trial) for trial in trials if trial.parts), key=_order)
        return Found(tuple(standings), self._lead(standings), stopped)

    def _halve(self, trials: Sequence[Trial], folder: Path) -> str | None:
        alive = list(trials)
        for rows in rungs(len(trials), len(self._texts)):
            for trial in alive:
                try:
                    self._ask(trial, rows, self._directory(folder, trials.index(trial)))
                except BudgetError as error:
                    if not any(each.parts for each in trials):
                        raise
                    return str(error)
            alive = [each.trial for each in sorted(map(self._stand, alive), key=_order)][: max(len(alive) // 2, 2)]
        return None

    def _ask(self, trial: Trial, rows: int, directory: Path) -> None:
        """Let a trial answer up to the first `rows` of dev."""
        if not trial.is_fitted:
            spec = self._spec.model_copy(update={"prompt": trial.prompt})
            first = replace(self._gold, dev=self._gold.dev[:rows], progress=lambda rows: None)
            fit_teacher(spec, first, directory, self._paid)
            trial.is_fitted = True
        texts = self._texts[trial.rows : rows]
        if texts:
            answers = load_teacher(directory, self._paid).label(texts)  # loaded again, so that one model is in memory
            trial.parts.append(fill(answers, texts))
            trial.costs_usd += answers.spent_usd
            self._gold.progress(len(texts))

    def _stand(self, trial: Trial) -> Standing:
        score = headline(self._gold.task.kind, self._answers(trial), self._targets[: trial.rows], self._gold.seed)
        return Standing(trial, score, int((~trial.given.answered).sum()))

    def _answers(self, trial: Trial) -> Answers:
        return decide_by(self._gold.task.kind, trial.given, self._targets[: trial.rows], trial.given)

    def _lead(self, standings: Sequence[Standing]) -> Interval | None:
        if len(standings) < 2 or standings[0].trial.rows != standings[1].trial.rows:
            return None
        first, second = (self._answers(standing.trial) for standing in standings[:2])
        return difference(self._gold.task.kind, first, second, self._targets[: len(first.probs)], self._gold.seed)

    @staticmethod
    def _directory(folder: Path, place: int) -> Path:
        return folder / f"trial-{place}"


def rungs(trials: int, rows: int) -> list[int]:
    """Return how many rows the trials alive have answered after each round; the better half goes on, two to the end."""
    rounds = max(math.ceil(math.log2(trials)) - 1, 0)
    return sorted({min(max(rows >> step, _LEAST_ROWS), rows) for step in range(rounds + 1)})


def _order(standing: Standing) -> tuple[int, float, float]:
    return -standing.trial.rows, -standing.score.estimate, standing.trial.usd_per_row or 0.0
