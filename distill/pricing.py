"""What labelling will cost, from a few real calls whose answers are kept: nothing that is asked here is paid twice."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from distill.conductor import Conductor
from distill.config import LoadedConfig
from distill.errors import InputError
from distill.paid_before import paid_before, rows_to_ask
from distill.pipeline import STAGES, run_pipeline
from distill.progress import Reporter
from distill.scores import dev_score
from export.metrics import Interval
from teacher.corpus import Example, content_id, iterate_part, read_meta, read_part
from teacher.encoder import Gold
from teacher.kinds import fit_teacher, load_teacher
from teacher.paid import Answer, PaidAnswers
from teacher.parts import PartName
from teacher.prices import find_price
from teacher.spec import LlmApiSpec

_LEAST_ROWS = 3  # one is for calibration, and a spread wants two


@dataclass(frozen=True, slots=True)
class Quote:
    """What one paid teacher costs: means a row over `rows` that were asked, the price with its 95 % interval.

    `label_rows` are those of pool and dev that labelling asks, `report_rows` the test rows that the report adds.
    `doubt` says why the price of the model may be another by now.
    """

    place: str
    model: str
    rows: int
    rejected: int
    calls: float
    prompt_tokens: float
    completion_tokens: float
    usd: Interval
    label_rows: int
    report_rows: int
    doubt: str | None = None

    def lines(self) -> Iterator[str]:
        """Yield what a person wants to know before paying."""
        yield (
            f"{self.place} ({self.model}): {self.rows} rows asked, {self.rejected} of them rejected; a row takes "
            f"{self.calls:.3g} calls, {self.prompt_tokens:,.0f} prompt and {self.completion_tokens:,.1f} completion "
            f"tokens and {_usd(self.usd)}"
        )
        for what, rows in (("labelling", self.label_rows), ("the report, test rows", self.report_rows)):
            tokens = rows * (self.prompt_tokens + self.completion_tokens)
            yield (
                f"  {what}: {rows:,} rows, {rows * self.calls:,.0f} calls, {tokens:,.0f} tokens, {_usd(self.usd, rows)}"
            )
        if self.doubt:
            yield f"  warning: {self.doubt}"


class MeteredAnswers(PaidAnswers):
    """Paid answers that remember the tokens of every call that was found or paid, by its key."""

    def __init__(self, path: Path, budget_usd: float | None = None) -> None:
        """Open the file like PaidAnswers, with nothing metered yet."""
        super().__init__(path, budget_usd)
        self.calls: dict[str, tuple[int, int]] = {}

    def find(self, key: str) -> Answer | None:
        """Return what is stored under `key`, and count its call."""
        answer = super().find(key)
        if answer is not None:
            self.calls[key] = _tokens(answer.content)
        return answer

    def record_soon(
        self, key: str, content: Mapping[str, Any], cost_usd: float, *, model: str = "", reserved_usd: float = 0.0
    ) -> Future[None]:
        """Store an answer, and count its call."""
        self.calls[key] = _tokens(content)
        return super().record_soon(key, content, cost_usd, model=model, reserved_usd=reserved_usd)


def price_labelling(
    loaded: LoadedConfig, rows: int, *, runs: Path, reporter: Reporter, budget_usd: float | None = None
) -> list[str]:
    """Ask `rows` real rows of every paid teacher in the config and return lines that price the whole run.

    The rows are drawn from dev, pool and test as labelling and the report will ask them, and their answers stay in the
    run's cache. Raises InputError for fewer than 3 rows, BudgetError before a call that would pass `budget_usd`.
    """
    if rows < _LEAST_ROWS:
        raise InputError(f"found --dry-run {rows}, wanted at least {_LEAST_ROWS} rows to tell a price and its spread")
    conductor = Conductor(loaded, STAGES, runs, reporter, budget_usd)
    parts = {
        ".".join(map(str, path)): spec
        for path, spec in conductor.teacher.parts(("teacher",))
        if isinstance(spec, LlmApiSpec)
    }
    if not parts:
        return ["nothing to pay: no teacher of this config asks an endpoint"]
    run_pipeline(loaded, runs=runs, until="corpus", reporter=reporter)
    with closing(MeteredAnswers(conductor.run / "answers.sqlite", budget_usd)) as paid:
        before = list(paid_before(conductor, paid))
        quotes = [_quote(place, spec, conductor, paid, rows) for place, spec in parts.items()]
        lines = [line for quote in quotes for line in quote.lines()]
        if len(quotes) > 1:
            lines.append(f"in all, labelling: ${sum(quote.label_rows * quote.usd.estimate for quote in quotes):,.4f}")
        lines += before
        lines.append(f"paid in this run so far: ${paid.spent_usd:,.4f}; these answers are kept and not paid again")
    return lines


def _quote(place: str, spec: LlmApiSpec, conductor: Conductor, paid: MeteredAnswers, rows: int) -> Quote:
    corpus, task, seed = conductor.path("corpus"), conductor.task, conductor.config.seed
    counts = rows_to_ask(conductor)
    counts["pool"] *= 1 + (conductor.config.label.variants or 0)
    dev, others = _sample(corpus, counts, rows, seed)
    gold = Gold(task, read_part(corpus, "gold"), dev, dev_score(task.kind), seed)
    direct = spec.model_copy(update={"transport": "direct"})  # a batch may take a day; its answers would be the same
    with tempfile.TemporaryDirectory() as folder, conductor.reporter.track(f"pricing {place}", rows) as update:
        fit_teacher(direct, gold, Path(folder), paid)
        teacher = load_teacher(Path(folder), paid)
        texts = [example.text for example in [*dev, *others]]
        paid.calls.clear()  # of a first call that settles how to ask
        answers = teacher.label(texts)
        everything = dict(paid.calls)
        answered = []
        kept = set(answers.ids)
        for text in (one for one in texts if content_id(one) in kept):
            paid.calls.clear()  # every answer comes from the cache now, so these are the calls behind one row
            teacher.label([text])
            answered.append(dict(paid.calls))
        update(rows)
    known = {key for row in answered for key in row}
    lost = [tokens for key, tokens in everything.items() if key not in known]
    per_row = _totals(answered, lost, rejected=len(texts) - len(answered))
    prices = find_price(spec.model, Path(spec.prices) if spec.prices else None, is_batch=spec.transport == "batch")
    usd = prices.cost_usd(1, 0) * per_row[:, 1] + prices.cost_usd(0, 1) * per_row[:, 2]
    calls, prompt_tokens, completion_tokens = per_row.mean(axis=0)
    return Quote(
        place=place,
        model=spec.model,
        rows=len(texts),
        rejected=len(texts) - len(answered),
        calls=float(calls),
        prompt_tokens=float(prompt_tokens),
        completion_tokens=float(completion_tokens),
        usd=mean_interval(usd),
        label_rows=counts["dev"] + counts["pool"],
        report_rows=counts["test"],
        doubt=prices.doubt,
    )


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean of at least two values with Student's 95 % interval, its lower end at least 0."""
    mean = float(values.mean())
    half = float(student_t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return Interval(mean, max(mean - half, 0.0), mean + half)


def _sample(corpus: Path, counts: Mapping[PartName, int], rows: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Return rows of dev, at least one, and of pool and test, as many of each as their share of all rows to ask."""
    generator = np.random.default_rng(seed)
    share = rows / sum(counts.values())
    of_dev = min(max(round(share * counts["dev"]), 1), counts["dev"])
    of_test = min(round(share * counts["test"]), counts["test"], rows - of_dev)
    wanted: list[tuple[PartName, int]] = [("dev", of_dev), ("test", of_test), ("pool", rows - of_dev - of_test)]
    dev, *others = ([*_draw(corpus, part, count, generator)] for part, count in wanted)
    return dev, [example for part in others for example in part]


def _draw(corpus: Path, part: PartName, count: int, generator: np.random.Generator) -> Iterator[Example]:
    places = set(generator.permutation(read_meta(corpus).rows[part])[:count].tolist())
    examples = chain.from_iterable(iterate_part(corpus, part))
    return (example for place, example in enumerate(examples) if place in places)


def _totals(
    answered: Sequence[Mapping[str, tuple[int, int]]], lost: Sequence[tuple[int, int]], rejected: int
) -> NDArray[np.float64]:
    """Return calls, prompt and completion tokens of each row (N, 3); rejected rows share the calls of no other row."""
    rows = [[len(row), *(sum(tokens[at] for tokens in row.values()) for at in (0, 1))] for row in answered]
    shared = [len(lost), *(sum(tokens[at] for tokens in lost) for at in (0, 1))]
    return np.concatenate([np.array(rows).reshape(-1, 3), np.tile(np.array(shared) / max(rejected, 1), (rejected, 1))])


def _tokens(content: Mapping[str, Any]) -> tuple[int, int]:
    return int(content["prompt_tokens"]), int(content["completion_tokens"])


def _usd(price: Interval, rows: int = 1) -> str:
    digits = 6 if rows == 1 else 4
    low, mean, high = (f"{rows * usd:,.{digits}f}" for usd in (price.low, price.estimate, price.high))
    return f"${mean} [{low}, {high}]"
