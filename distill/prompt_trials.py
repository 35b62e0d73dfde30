"""`distill prompt search`: which prompts a config and the command line ask to be tried, and how the result reads."""

import itertools
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from distill.conductor import Conductor
from distill.config import RESOLVERS, LoadedConfig
from distill.errors import InputError
from distill.pipeline import STAGES, run_pipeline
from distill.progress import Reporter
from distill.prompt_search import Found, PromptSearch, Standing
from distill.scores import HEADLINES, dev_score
from teacher.corpus import read_part
from teacher.encoder import Gold
from teacher.spec import LlmApiSpec, LlmLocalSpec, PromptSpec, TeacherSpec

_DEFAULT_EXAMPLES = (0, 4, 16)
_MOST_TRIALS = 256
Tried = dict[str, Any]  # field of a prompt: value
Prompted = LlmApiSpec | LlmLocalSpec


def search_config(
    loaded: LoadedConfig,
    tries: Sequence[str],
    rows: int,
    *,
    runs: Path,
    reporter: Reporter,
    budget_usd: float | None = None,
) -> list[str]:
    """Try the prompts that `tries` (`examples=0,4,16`) span on up to `rows` dev rows; return a table and the winner.

    Raises InputError for a try that is none, BudgetError when not even one prompt can be paid.
    """
    place, fields = _choose_teacher(_prompted(loaded.config.teacher), tries)
    base = _prompted(loaded.config.teacher)[place].prompt
    for name, values in fields.items():  # one by one too: a combination may have no use for a value
        for value in values:
            _prompt(loaded, base, {name: value})
    run_pipeline(loaded, runs=runs, until="corpus", reporter=reporter)
    conductor = Conductor(loaded, STAGES, runs, reporter, budget_usd)
    paid = conductor.paid
    spent = paid.spent_usd if paid else 0.0
    with reporter.track("prompts", None) as update:
        gold = _gold(conductor, rows, update)
        prompts = {_prompt(loaded, base, tried): tried for tried in _combine(base, fields, len(gold.train))}
        spec = _prompted(conductor.teacher)[place]
        found = PromptSearch(spec, gold, paid).search(list(prompts))
    lines = list(_table(found, prompts, HEADLINES[gold.task.kind]))
    if found.stopped:
        lines.append(f"stopped early: {found.stopped}")
    if paid and isinstance(spec, LlmApiSpec):
        lines.append(f"paid: ${paid.spent_usd - spent:,.4f} for this search, ${paid.spent_usd:,.4f} in this run so far")
    if paid:
        paid.close()
    winner = prompts[found.standings[0].trial.prompt]
    overrides = [f"{place}.prompt.{name}={_spelled(value)}" for name, value in winner.items()]
    return [*lines, f"winner: {shlex.join(overrides)}"]


def _prompted(teacher: TeacherSpec) -> dict[str, Prompted]:
    """Return every teacher with a prompt by its place in the config."""
    parts = teacher.parts(("teacher",))
    return {".".join(map(str, path)): spec for path, spec in parts if isinstance(spec, LlmApiSpec | LlmLocalSpec)}


def _choose_teacher(prompted: Mapping[str, Prompted], tries: Sequence[str]) -> tuple[str, dict[str, list[Any]]]:
    """Return the place of the teacher that all `tries` mean, and the values to try of each field of its prompt."""
    if not prompted:
        raise InputError("found no teacher with a prompt in this config, wanted one of kind llm_api or llm_local")
    fields: dict[str, list[Any]] = {}
    places = set()
    for one in tries:
        key, equals, values = one.partition("=")
        prefix, _, name = key.strip().rpartition(".")
        if not equals or name not in PromptSpec.model_fields:
            raise InputError(f"found --try {one}, wanted one of {', '.join(PromptSpec.model_fields)}: examples=0,4,16")
        fields[name] = [_parsed(value, one) for value in values.split(",")]
        places |= {prefix.removesuffix("prompt").removesuffix(".")} - {""}
    meant = [place for place in prompted if not places or places == {place}]
    if len(meant) != 1:
        there = ", ".join(f"{place}.prompt" for place in prompted)
        found = "no prompt" if places else f"{len(prompted)} prompts"
        raise InputError(f"found {found} that --try could mean, wanted one; name its place in each: {there}")
    return meant[0], fields


def _parsed(value: str, one: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(
            f"found --try {one}, wanted plain values with commas between, such as examples=0,4,16"
        ) from None


def _combine(prompt: PromptSpec, fields: Mapping[str, Sequence[Any]], gold_rows: int) -> list[Tried]:
    """Return every combination of the values to try; how examples are chosen varies only where there are examples."""
    numbers = [number for number in _DEFAULT_EXAMPLES if number < gold_rows]
    ways = ["fixed", "random", "bm25", *(["dense"] if prompt.encoder or fields.get("encoder") else [])]
    spanned: dict[str, Sequence[Any]] = dict(fields) or {"examples": numbers, "choose": ways}
    combinations = []
    for values in itertools.product(*spanned.values()):
        tried = dict(zip(spanned, values, strict=True))
        if not tried.get("examples", prompt.examples):
            tried.pop("choose", None)
        if tried not in combinations:
            combinations.append(tried)
    if len(combinations) > _MOST_TRIALS:
        raise InputError(f"found {len(combinations)} prompts to try, wanted at most {_MOST_TRIALS}; try fewer values")
    return combinations


def _prompt(loaded: LoadedConfig, base: PromptSpec, changes: Tried) -> PromptSpec:
    """Return `base` with `changes`, its files resolved as those of the config are; raise InputError or ConfigError."""
    try:
        prompt = PromptSpec.model_validate(base.model_dump() | changes)
    except ValidationError as error:
        first = error.errors()[0]
        told = f"{'.'.join(map(str, first['loc']))}={first['input']!r}"
        raise InputError(f"found {told} under --try, wanted another value ({first['msg'].lower()})") from None
    return prompt.resolved(lambda role, name: RESOLVERS[role](name, loaded.config, loaded.base))


def _gold(conductor: Conductor, rows: int, update: Any) -> Gold:
    """Return gold whose dev are up to `rows` rows of dev in a random order."""
    corpus, task, seed = conductor.path("corpus"), conductor.task, conductor.config.seed
    dev = read_part(corpus, "dev")
    order = np.random.default_rng(seed).permutation(len(dev))[:rows]
    return Gold(task, read_part(corpus, "gold"), [dev[row] for row in order], dev_score(task.kind), seed, update)


def _table(found: Found, prompts: Mapping[PromptSpec, Tried], metric: str) -> Iterator[str]:
    yield f"{'rows':>6} {metric:>9} {'95 % interval':>16} {'rejected':>8} {'USD a row':>10}  prompt"
    for standing in found.standings:
        yield _line(standing, prompts[standing.trial.prompt])
    if found.lead is not None:
        low, high = (f"{100 * end:+.1f}" for end in (found.lead.low, found.lead.high))
        noise = ", which is within the noise" if found.lead.low <= 0 <= found.lead.high else ""
        yield f"the first leads the second by {100 * found.lead.estimate:.1f} points [{low}, {high}]{noise}"


def _line(standing: Standing, tried: Tried) -> str:
    usd = standing.trial.usd_per_row
    interval = f"[{standing.score.low:.3f}, {standing.score.high:.3f}]"
    told = " ".join(f"{name}={_spelled(value)}" for name, value in tried.items())
    return (
        f"{standing.trial.rows:>6} {standing.score.estimate:>9.3f} {interval:>16} {standing.rejected:>8} "
        f"{'-' if usd is None else f'{usd:.6f}':>10}  {told}"
    )


def _spelled(value: Any) -> str:
    return "null" if value is None else str(value)
