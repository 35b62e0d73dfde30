"""`distill search`: the smallest student that holds a line on its time and one on its gap to the teacher, if there is.

Cheap questions first: what cannot be built, and what is too slow before it has learned anything, is never trained. What
is finished is kept, so a search that was killed goes on, and one that was done before answers at once.
"""

import json
import math
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from distill.choice import Choice, Lines
from distill.conductor import RESULT, SEARCH, Conductor
from distill.config import LoadedConfig
from distill.errors import InputError
from distill.ladder import overrides
from distill.narrative import tell
from distill.pipeline import STAGES, run_pipeline
from distill.progress import Reporter
from distill.tryout import Tried, Tryout
from teacher.files import write_atomically
from teacher.processes import process_count


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
    tryout = Tryout(main, lines)
    if choice := tryout.drop_slow():
        return _finish(tryout, choice, None)
    run_pipeline(loaded, runs=runs, until="label", reporter=reporter, budget_usd=budget_usd)
    tryout.halve()
    choice = tryout.choose()
    found = _finish(tryout, choice, overrides(tryout.spec_of(choice.chosen or choice.closest), main.config))
    if choice.chosen:
        config = loaded.config.with_student(tryout.spec_of(choice.chosen))
        run_pipeline(replace(loaded, config=config), runs=runs, reporter=reporter, budget_usd=budget_usd)
    return found


def _check(loaded: LoadedConfig, lines: Lines) -> None:
    if not (math.isfinite(lines.p50_ms) and lines.p50_ms > 0):
        raise InputError(f"found --p50-ms {lines.p50_ms:g}, wanted a number of milliseconds above 0")
    if not 0 <= lines.max_gap <= 1:
        raise InputError(f"found --max-gap {100 * lines.max_gap:g}, wanted points from 0 to 100")
    if loaded.config.export.precision != "int8":
        raise InputError("found export.precision fp32, wanted int8: the lines of a search are about the int8 file")
    if getattr(loaded.config.teacher, "refit", False):
        raise InputError("found teacher.refit, wanted none: a search judges its students on dev rows, which it learns")
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


def _finish(tryout: Tryout, choice: Choice, arguments: Sequence[str] | None) -> Found:
    """Write search.json, and let a report that stands already show it."""
    main, trained = tryout.main, [one for one in tryout.tried.values() if one.parts]
    result: dict[str, Any] = {
        "labels": main.key("label"),
        "lines": asdict(tryout.lines),
        **({key: trained[0].parts[trained[0].share][key] for key in ("metric", "rows", "teacher")} if trained else {}),
        "students": [_row(one, choice) for one in tryout.tried.values()],
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


def spell(found: Found, config: Path, given: Sequence[str], runs: Path) -> Iterator[str]:
    """Yield what a person reads: the table, the answer, and the command that makes the run of it.

    That is `distill run` on `config` in the folder `runs`, with the overrides `given` to the search.
    """
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
        kept = [one for one in given if not one.startswith("search.")]
        folder = [] if runs == Path("runs") else ["--runs", str(runs)]
        command = shlex.join(["distill", "run", str(config), *kept, *found.result["overrides"], *folder])
        yield f"to make {who} again: {command}"
