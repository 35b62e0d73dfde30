"""The LLM teacher: asks an OpenAI-compatible endpoint about each text, and is calibrated on dev.

How calls travel, are paid and kept is the endpoint's affair, what is asked the prompter's, and how answers are read
that of `answers.py`; here they come together.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, softmax

from teacher.answers import NO_LOGPROBS, Reading, Way, is_split, make_way
from teacher.asked_book import Origin
from teacher.base import Progress, TeacherCard, read_card
from teacher.calibrate import fit_temperature
from teacher.completion import Completion, CompletionRequest, Failure, Outcome
from teacher.encoder import Gold
from teacher.endpoint import Endpoint
from teacher.errors import EndpointError, SettingError, TeacherError
from teacher.example import content_id
from teacher.paid import PaidAnswers, answer_key
from teacher.prompter import Prompter, save_prompt
from teacher.soft_labels import Rejected, SoftLabels
from teacher.spec import LlmApiSpec
from teacher.task import TaskKind
from teacher.wire import endpoint_name

_CERTAIN = 1e-6  # how near to 0 and 1 a probability may come before its logarithm is taken
_RAW_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class _Answers:
    """What is known of N answered texts, `rows` of those asked about, and the texts that have no answer."""

    rows: list[int]
    probs: NDArray[np.float64]  # (N, C), before calibration
    outside: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    sources: tuple[tuple[str, ...], ...]
    rejected: tuple[Rejected, ...]


def fit_llm_api(spec: LlmApiSpec, gold: Gold, directory: Path, paid: PaidAnswers) -> None:
    """Keep the prompt, settle how answers become distributions, fit the temperature on dev, and write the card.

    What can be checked without a call is checked before the first one. Raises TeacherError or one of its kinds.
    """
    save_prompt(spec.prompt, gold, directory)
    prompter, endpoint = Prompter(gold.task, gold.seed, directory), Endpoint(spec, paid)
    texts = [example.text for example in gold.dev]
    way, warnings = _settle_way(spec, prompter, endpoint, texts)
    answers = _ask(texts, prompter, way, endpoint, gold.progress)
    _check_answered(texts, answers, spec)
    targets = gold.targets([gold.dev[row] for row in answers.rows])
    temperature = fit_temperature(gold.task.kind, _logits(gold.task.kind, answers.probs), targets)
    TeacherCard.of(
        gold.task,
        "llm_api",
        asdict(_origin(spec, prompter, way)),
        temperature=temperature,
        max_tokens=spec.max_tokens,
        warnings=warnings,
        details={"spec": spec.model_dump(mode="json"), "method": way.method, "seed": gold.seed},
    ).write(directory)


class LlmApiTeacher:
    """A fitted LLM teacher; what was paid for once is never asked again."""

    def __init__(self, directory: Path, paid: PaidAnswers) -> None:
        """Load a directory that `fit_llm_api` filled; raise SettingError without a key or a price."""
        card = read_card(directory)
        spec = LlmApiSpec.model_validate(card.details["spec"])
        self.task = card.task()
        self.fingerprint = card.fingerprint
        self.parameters = 0  # they are not here
        self.method: str = card.details["method"]
        self.title = f"{spec.model} ({self.method})"
        self._temperature = card.temperature
        self._prompter = Prompter(self.task, card.details["seed"], directory)
        self._way = make_way(self.method, self.task.kind, self._prompter.book, spec)
        self._endpoint = Endpoint(spec, paid)

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return calibrated probabilities with prices and sources; what got no label stands in `rejected`.

        Raises BudgetError before a call that the budget might not cover, EndpointError when no call can succeed.
        """
        answers = _ask(texts, self._prompter, self._way, self._endpoint, lambda rows: None)
        logits = _logits(self.task.kind, answers.probs) / self._temperature
        return SoftLabels(
            ids=tuple(content_id(texts[row]) for row in answers.rows),
            probs=_PROBABILITIES[self.task.kind](logits).astype(np.float32),
            outside=answers.outside.astype(np.float32),
            method=self.method,
            rejected=answers.rejected,
            cost_usd=answers.cost_usd,
            sources=answers.sources if any(answers.sources) else None,
        )


def origins(spec: LlmApiSpec, gold: Gold, directory: Path) -> list[Origin]:
    """Return whom and how `spec` would ask: as it says, or in each way that it may settle on.

    Puts the prompt into `directory`. Raises TeacherError for one that cannot work.
    """
    save_prompt(spec.prompt, gold, directory)
    prompter = Prompter(gold.task, gold.seed, directory)
    methods = [spec.answers] if spec.answers else dict.fromkeys([_first_method(gold.task.kind), "votes"])
    return [_origin(spec, prompter, make_way(each, gold.task.kind, prompter.book, spec)) for each in methods]


def _ask(texts: Sequence[str], prompter: Prompter, way: Way, endpoint: Endpoint, progress: Progress) -> _Answers:
    calls, shown = prompter.calls(texts, way)
    asked = ((content_id(text), request) for text, group in zip(texts, calls, strict=True) for request in group)
    endpoint.note(_origin(endpoint.spec, prompter, way), asked)
    outcomes = iter(endpoint.complete([request for group in calls for request in group], progress))
    rows, readings, costs, rejected = [], [], [], []
    for row, group in enumerate(calls):
        got = [next(outcomes) for _ in group]
        reading, cost = _read(got, way), sum(each.cost_usd for each in got if isinstance(each, Completion))
        if isinstance(reading, Failure):
            raw = " ".join(reading.raw.split())[:_RAW_CHARACTERS]
            rejected.append(Rejected(content_id(texts[row]), reading.reason, raw, cost))
            continue
        rows.append(row)
        readings.append(reading)
        costs.append(cost)
    return _Answers(
        rows=rows,
        probs=np.array([reading.probs for reading in readings]).reshape(len(rows), len(prompter.task.labels)),
        outside=np.array([reading.outside for reading in readings], np.float64),
        cost_usd=np.array(costs, np.float64),
        sources=tuple(shown[row].sources for row in rows),
        rejected=tuple(rejected),
    )


def _read(got: Sequence[Outcome], way: Way) -> Reading | Failure:
    failure = next((each for each in got if isinstance(each, Failure)), None)
    return failure or way.read([each for each in got if isinstance(each, Completion)])


def _settle_way(
    spec: LlmApiSpec, prompter: Prompter, endpoint: Endpoint, texts: Sequence[str]
) -> tuple[Way, list[str]]:
    """Return how to ask, and what to warn of.

    It is as the spec says; without a word in it by log-probabilities, if a first call gives them.
    """
    kind, book = prompter.task.kind, prompter.book
    method = spec.answers or _first_method(kind)
    way = make_way(method, kind, book, spec)
    prompter.check_context(texts, way, spec.max_tokens)
    try:
        first = _first_answer(prompter, way, endpoint, texts)
        problem = _logprobs_problem(first, way, prompter) if method == "logprobs" else None
    except EndpointError as error:
        if spec.answers or method == "votes":
            raise
        problem = str(error)
    if problem is None:
        return way, []
    if spec.answers:
        endpoint.forget(_first_request(prompter, way, texts))  # the server may be set up better before the next run
        raise SettingError(f"teacher.answers is logprobs, but {problem} ({spec.model}); set it to votes, or to null")
    way = make_way("votes", kind, book, spec)
    _first_answer(prompter, way, endpoint, texts)
    return way, [f"{spec.model}: {problem}; {spec.samples} votes are taken for each text instead"]


def _first_method(kind: TaskKind) -> str:
    return "logprobs" if kind is TaskKind.SINGLE_LABEL else "votes"


def _first_answer(prompter: Prompter, way: Way, endpoint: Endpoint, texts: Sequence[str]) -> Completion:
    return endpoint.check(_first_request(prompter, way, texts))


def _first_request(prompter: Prompter, way: Way, texts: Sequence[str]) -> CompletionRequest:
    return prompter.calls(texts[:1] or ["A text."], way)[0][0][0]


def _logprobs_problem(first: Completion, way: Way, prompter: Prompter) -> str | None:
    if first.tokens is None:
        return NO_LOGPROBS
    if len(way.questions) == 1 and is_split(first, prompter.book):
        return f"the label code {first.texts[0].strip()} is several tokens, of which the endpoint scored only some"
    return None


def _check_answered(texts: Sequence[str], answers: _Answers, spec: LlmApiSpec) -> None:
    if texts and not answers.rows:
        first = answers.rejected[0]
        raise TeacherError(
            f"none of the {len(texts)} dev texts got a label from {spec.model} (the first: {first.reason}, "
            f"{first.raw[:80]!r}); look at the prompt, or take a model that follows it"
        )


def _origin(spec: LlmApiSpec, prompter: Prompter, way: Way) -> Origin:
    prompt = answer_key(prompt=prompter.identity, questions=[question.answer for question in way.questions])
    decoding = [way.method, way.max_tokens, way.temperature, way.samples, way.top_logprobs]
    return Origin(endpoint_name(spec), spec.model, prompt, answer_key(decoding=decoding))


def _logits(kind: TaskKind, probs: NDArray[np.float64]) -> NDArray[np.float64]:
    clipped = np.clip(probs, _CERTAIN, 1 - _CERTAIN)
    return np.asarray(logit(clipped) if kind is TaskKind.MULTI_LABEL else np.log(clipped))


_PROBABILITIES = {TaskKind.SINGLE_LABEL: lambda logits: softmax(logits, axis=1), TaskKind.MULTI_LABEL: expit}
