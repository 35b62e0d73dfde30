"""`distill search`: the smallest student that holds a line on its time and one on its gap to the teacher, if there is.

Cheap questions first: what cannot be built, and what is too slow before it has learned anything, is never trained. What
is finished is kept, so a search that was killed goes on, and one that was done before answers at once.
"""

import json
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from distill.choice import Choice, Finalist, Lines, choose, judge_p50, too_slow
from distill.conductor import RESULT, SEARCH, Conductor
from distill.config import LoadedConfig
from distill.errors import CheckFailedError, InputError
from distill.halving import Standing, by_promise, passed_over, schedule
from distill.ladder import Candidate, candidates, overrides, read_shape
from distill.narrative import tell
from distill.pipeline import STAGES, run_pipeline
from distill.progress import Reporter
from distill.search_stages import measure_p50, open_part, read_standing
from export.metrics import Interval
from student.errors import StudentError
from teacher.files import write_atomically
from teacher.processes import process_count


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


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found: the content of search.json, and the line to end with when no student holds both lines."""

    result: dict[str, Any]
    failure: str | None


def search(
    loaded: LoadedConfig, lines: Lines, *, runs: Path, reporter: Reporter, budget_usd: float | None = None
) -> Found:
    """Search the ladder of `loaded`, and make the run that of the student found, with the frontier in its report.

    Raises InputError for what cannot be searched, before anything is trained or paid.
    """
    _check(loaded, lines)
    run_pipeline(loaded, runs=runs, until="corpus", reporter=reporter)
    main = Conductor(loaded, STAGES, runs, reporter, budget_usd)
    _check_rows(main, lines)
    ladder = _Ladder(main, lines)
    if choice := ladder.drop_slow():
        return _finish(ladder, choice, None)
    run_pipeline(loaded, runs=runs, until="label", reporter=reporter, budget_usd=budget_usd)
    ladder.halve()
    choice = ladder.choose()
    found = _finish(ladder, choice, _overrides(main, ladder.spec_of(choice.chosen or choice.closest)))
    if choice.chosen:
        config = loaded.config.model_copy(update={"student": ladder.spec_of(choice.chosen)})
        run_pipeline(replace(loaded, config=config), runs=runs, reporter=reporter, budget_usd=budget_usd)
    return found


def _check(loaded: LoadedConfig, lines: Lines) -> None:
    if not (math.isfinite(lines.p50_ms) and lines.p50_ms > 0):
        raise InputError(f"found --p50-ms {lines.p50_ms:g}, wanted a number of milliseconds above 0")
    if not 0 <= lines.max_gap <= 1:
        raise InputError(f"found --max-gap {100 * lines.max_gap:g}, wanted points from 0 to 100")
    if loaded.config.export.precision != "int8":
        raise InputError("found export.precision fp32, wanted int8: the lines of a search are about the int8 file")
    if process_count() > 1:
        raise InputError(f"found {process_count()} processes, wanted one: a search times its students on this machine")


def _check_rows(main: Conductor, lines: Lines) -> None:
    from teacher.corpus import read_meta

    meta = read_meta(main.path("corpus"))
    dev = meta.rows["dev"]
    if not dev or not meta.rows["pool"]:
        raise InputError(f"found {dev} dev rows and {meta.rows['pool']} pool rows, wanted some of both: see data")
    if 3 / dev > lines.max_gap:
        main.warn(
            f"search: {dev:,} dev rows tell no gap of less than {300 / dev:.2g} points from none; name more dev rows"
        )
    if not meta.unlabeled:
        main.warn("search: the pool holds the texts of gold alone; students learn most from unlabelled ones")


class _Ladder:
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

    def _tell_drafts(self, timed: dict[str, Interval]) -> None:
        told = ", ".join(
            f"{name} {p50_ms.estimate:.3g} ms{' (too slow)' if self.tried[name].state else ''}"
            for name, p50_ms in timed.items()
        )
        self.main.reporter.say(f"search: p50 untrained: {told}")


def _finish(ladder: _Ladder, choice: Choice, arguments: Sequence[str] | None) -> Found:
    """Write search.json, and let a report that stands already show it."""
    main, trained = ladder.main, [one for one in ladder.tried.values() if one.parts]
    result: dict[str, Any] = {
        "labels": main.key("label"),
        "lines": asdict(ladder.lines),
        **({key: trained[0].parts[trained[0].share][key] for key in ("metric", "rows", "teacher")} if trained else {}),
        "students": [_row(one, choice) for one in ladder.tried.values()],
        **asdict(choice),
        "overrides": list(arguments or ()),
    }
    text = json.dumps(result, indent=2, allow_nan=False)
    write_atomically(main.run / RESULT, lambda path: path.write_text(text, encoding="utf-8"))
    for stale in (main.run / SEARCH).glob("labels-*"):
        if stale.name != f"labels-{main.key('label')[:16]}":
            shutil.rmtree(stale)
    if choice.chosen:
        return Found(result, None)
    states = {stage.name: stage.state for stage in main.status()}
    if states.pop("report") != "missing" and set(states.values()) == {"done"}:
        main.ensure(main.stages["report"])
        tell("report", main)
    return Found(result, choice.sentence)


def _row(one: Tried, choice: Choice) -> dict[str, Any]:
    known = one.parts.get(one.share, {})
    row: dict[str, Any] = {
        "name": one.candidate.name,
        "state": "chosen" if one.candidate.name == choice.chosen else one.state,
        "unfit": known.get("unfit", ""),
        "share": one.share,
        "size_bytes": one.size_bytes,
    }
    measured = {"p50_ms": one.p50_ms and asdict(one.p50_ms), "score": known.get("score"), "gap": known.get("gap")}
    return row | {name: value for name, value in measured.items() if value}


def _overrides(main: Conductor, spec: Any) -> list[str]:
    return overrides(spec, main.config.student)


def _model_bytes(bundle: Path) -> int:
    from export.bundle import MODEL_FILES, read_manifest

    return read_manifest(bundle).files[MODEL_FILES["int8"]].bytes


def spell(config: Path, found: Found) -> Iterator[str]:
    """Yield what a person reads: the table, the answer, and the command that makes the run of it."""
    from export.report_search import search_table
    from export.report_wording import entries

    table = search_table({"search": found.result})
    widths = [max(map(len, cells)) for cells in zip(table.columns, *table.rows, strict=True)]
    for row in (table.columns, *table.rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    if found.failure is None:
        yield found.result["sentence"]
    yield from entries(found.result, "remarks")
    if found.result["overrides"] or found.failure is None:
        who = "it" if found.failure is None else found.result["closest"]
        yield f"to make {who} again: {shlex.join(['distill', 'run', str(config), *found.result['overrides']])}"
