"""The candidates of a search on trial: who can be built, who is fast enough, who trains how far, and how they stand.

Every step is kept in the run's search folder and found there again. Knows no command line and writes no result.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.choice import Choice, Finalist, Lines, choose, judge_p50, too_slow
from distill.conductor import Conductor
from distill.errors import CheckFailedError
from distill.halving import Standing, by_promise, passed_over, schedule
from distill.ladder import Candidate, candidates, read_shape
from distill.search_stages import measure_p50, open_part, read_standing
from export.metrics import Interval
from student.errors import StudentError


@dataclass(slots=True)
class Tried:
    """A candidate and what came of it: why it was not trained, or what is known after each share of its training."""

    candidate: Candidate
    state: str = ""
    p50_ms: Interval | None = None
    size_bytes: int | None = None
    parts: dict[float, dict[str, Any]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Return the share of its training that was run."""
        return max(self.parts, default=0.0)

    def standing(self, share: float) -> Standing:
        """Return how it stood after `share`."""
        known = self.parts[share]
        return Standing(self.candidate.name, known["size_bytes"], Interval(**known["gap"]))


class Tryout:
    """The candidates of one run, from what can be built to who is trained to the end."""

    def __init__(self, main: Conductor, lines: Lines) -> None:
        self.main, self.lines, self.shape = main, lines, read_shape(main.untuned_source())
        found = candidates(main.config.student, main.config.search, self.shape)
        self.tried = {each.name: Tried(each) for each in found}

    def spec_of(self, name: str | None) -> Any:
        """Return the `student` section of a candidate."""
        return self.tried[str(name)].candidate.spec

    def drop_slow(self) -> Choice | None:
        """Export every candidate untrained and drop what cannot be or is surely too slow; a choice ends the search."""
        drafts = {}
        for name, one in self.tried.items():
            part = open_part(self.main, one.candidate, 1.0)
            try:
                if lacking := self.shape.lacks(one.candidate.spec):
                    raise StudentError(lacking)
                part.ensure(part.stages["draft"])
            except StudentError as error:
                one.state = f"not possible: {error}"
                self.main.warn(f"search: {name} is left out: {error}")
                continue
            drafts[name] = (part.key("draft"), part.path("draft") / "bundle")
        if not drafts:
            raise CheckFailedError(f"no student of the ladder can be built: {next(iter(self.tried.values())).state}")
        for name, p50_ms in measure_p50(self.main, "draft_latency", drafts).items():
            one = self.tried[name]
            one.p50_ms, one.size_bytes = p50_ms, _model_bytes(drafts[name][1])
            if judge_p50(p50_ms, self.lines) == "missed":
                one.state = "too slow"
        timed = {name: one.p50_ms for name, one in self.tried.items() if one.p50_ms}
        self._tell_drafts(timed)
        fastest = min(timed, key=lambda name: timed[name].estimate)
        return too_slow(fastest, timed[fastest], self.lines) if self.tried[fastest].state else None

    def halve(self) -> None:
        """Train the candidates that are left, the more the likelier they are to be the answer."""
        alive = [name for name, one in self.tried.items() if not one.state]
        settings, last = self.main.config.search, 0.0
        self._tell_kinds(alive)
        if self.main.config.train.patience is not None:
            self.main.reporter.say(
                "search: train.patience keeps the best checkpoint, not the last one: students start over at every rung"
            )
        for share, count in schedule(len(alive), settings.rungs, settings.eta):
            if last:
                alive = by_promise([self.tried[name].standing(last) for name in alive], self.lines.max_gap)[:count]
            for name in alive:
                self._train(self.tried[name], share)
            last = share
        while not any(map(self._holds_gap, self.tried.values())) and (spare := self._passed_over()):
            self._train(self.tried[spare[0]], 1.0)

    def choose(self) -> Choice:
        """Time the exported files of all that were trained, in turns, and choose among those trained to the end."""
        trained = {name: one for name, one in self.tried.items() if one.parts}
        opened = {name: open_part(self.main, one.candidate, one.share) for name, one in trained.items()}
        bundles = {name: (part.key("export"), part.path("export")) for name, part in opened.items()}
        for name, p50_ms in measure_p50(self.main, "latency", bundles).items():
            self.tried[name].p50_ms = p50_ms
        finalists, rows = [], 0
        for name, one in trained.items():
            known = one.parts[one.share]
            rows = known["rows"]
            one.size_bytes = known["size_bytes"]
            one.state = "trained" if one.share == 1 else "dropped"
            if one.share == 1 and one.p50_ms:
                gap = Interval(**known["gap"])
                finalists.append(Finalist(name, known["size_bytes"], one.p50_ms, gap, known["unfit"]))
        return choose(finalists, self.lines, rows)

    def _train(self, one: Tried, share: float) -> None:
        part = open_part(self.main, one.candidate, share, one.share or None)
        for stage in ("asked", "train", "tune", "export", "score"):
            part.ensure(part.stages[stage])
        one.parts[share] = known = read_standing(part)
        gap = known["gap"]
        self.main.reporter.say(
            f"search: {one.candidate.name} after {share:.0%} of its training: {known['metric']} "
            f"{known['score']['estimate']:.4f} on dev, {100 * gap['estimate']:+.1f} points from the teacher "
            f"[{100 * gap['low']:+.1f}, {100 * gap['high']:+.1f}]"
        )

    def _holds_gap(self, one: Tried) -> bool:
        known = one.parts.get(1.0)
        return known is not None and not known["unfit"] and known["gap"]["estimate"] >= -self.lines.max_gap

    def _passed_over(self) -> list[str]:
        """Return whom to train to the end although they were dropped, since nobody so far holds the line."""
        found: list[str] = []
        for share in sorted({share for one in self.tried.values() for share in one.parts} - {1.0}, reverse=True):
            finalists = [one.standing(share) for one in self.tried.values() if {share, 1.0} <= one.parts.keys()]
            found += passed_over(finalists, [one.standing(share) for one in self.tried.values() if one.share == share])
        return found

    def _tell_kinds(self, names: list[str]) -> None:
        kind, own = self.main.config.student.kind, self.main.config.train.set_for_one_kind()
        others = [name for name in names if self.spec_of(name).kind != kind]
        if others and own:
            self.main.reporter.say(
                f"search: {', '.join(f'train.{name}' for name in own)} as the config has it is for {kind} students; "
                f"null stands there for {', '.join(others)}"
            )

    def _tell_drafts(self, timed: dict[str, Interval]) -> None:
        told = ", ".join(
            f"{name} {p50_ms.estimate:.3g} ms{' (too slow)' if self.tried[name].state else ''}"
            for name, p50_ms in timed.items()
        )
        self.main.reporter.say(f"search: p50 untrained: {told}")


def _model_bytes(bundle: Path) -> int:
    from export.bundle import MODEL_FILES, read_manifest

    return read_manifest(bundle).files[MODEL_FILES["int8"]].bytes
