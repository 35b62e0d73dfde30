"""Ways to ask for a distribution over the labels, and what the answers say of it.

Three ways: log-probabilities of the label codes, votes of several samples, and one list of candidates. What an
answer says outside the label set is counted there; nothing ever becomes a label because no other fits.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from teacher.codes import YES_NO, CodeBook
from teacher.completion import Completion, CompletionRequest, Failure
from teacher.logprobs import is_cut_short, label_mass
from teacher.prompt import Messages, Question, as_data
from teacher.spec import LlmApiSpec
from teacher.task import TaskKind

OUTSIDE = "outside the label set"
NO_LOGPROBS = "the endpoint gave no log-probabilities"

_MOST_OUTSIDE = 0.5  # above it the likeliest reading of an answer is that it names no label
_PSEUDO_VOTE = 1.0  # shared out evenly over the labels: Perks 1947, so that 5 votes still count among 77 labels
_JEFFREYS = 0.5  # of a label's yes and of its no
_SPARE_TOKENS = 4  # for a space, a quote or a full stop around an answer


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text's answers say: `probs` (C,), summing to 1 for single-label, and the mass `outside` the labels."""

    probs: NDArray[np.float64]
    outside: float


Read = Callable[[Sequence[Completion]], Reading | Failure]


@dataclass(frozen=True, slots=True)
class Way:
    """How a text is asked about: one call for each of `questions`, and how its completions are read, in that order."""

    method: str
    questions: tuple[Question, ...]
    read: Read
    max_tokens: int
    temperature: float = 0.0
    samples: int = 1
    top_logprobs: int | None = None

    def request(self, messages: Messages) -> CompletionRequest:
        """Return the call that asks one rendered question."""
        return CompletionRequest(
            messages=messages,
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_logprobs=self.top_logprobs,
            samples=self.samples,
        )


def make_way(method: str, kind: TaskKind, book: CodeBook, spec: LlmApiSpec) -> Way:
    """Return the way to ask by `method`: logprobs, votes or candidates; labels answer by the codes of `book`."""
    return _WAYS[method, kind](book, spec)


def read_logprobs(completion: Completion, book: CodeBook) -> Reading | Failure:
    """Read the distribution from one completion's alternatives; see `label_mass` for how the unseen tail is bounded."""
    if completion.tokens is None:
        return _unscored(completion.texts[0], book)
    mass = label_mass(completion.tokens[0], book)
    inside = float(mass.sum())
    if 1 - inside > _MOST_OUTSIDE:
        return Failure(OUTSIDE, completion.texts[0])
    return Reading(mass / inside, max(1 - inside, 0.0))


def read_yes_no(completions: Sequence[Completion]) -> Reading | Failure:
    """Read one yes-or-no completion a label, in the order of the task; `outside` is the mean mass on neither."""
    masses = []
    for completion in completions:
        if completion.tokens is None:
            return _unscored(completion.texts[0], YES_NO)
        masses.append(label_mass(completion.tokens[0], YES_NO))
    answered = np.stack(masses)  # (C, yes and no)
    inside = answered.sum(axis=1)
    if (1 - inside).max() > _MOST_OUTSIDE:
        return Failure(OUTSIDE, completions[int(inside.argmin())].texts[0])
    return Reading(answered[:, 0] / inside, max(float(1 - inside.mean()), 0.0))


def read_votes(texts: Sequence[str], book: CodeBook) -> Reading | Failure:
    """Count samples that each name one label; `outside` is the share that names none.

    A label has probability (votes + 1 / C) / (valid votes + 1).
    """
    votes = Counter(book.label_of(text) for text in texts)
    lost = votes.pop(None, 0)
    if lost / len(texts) > _MOST_OUTSIDE:
        return Failure(OUTSIDE, next(text for text in texts if book.label_of(text) is None))
    counts = np.full(len(book.codes), _PSEUDO_VOTE / len(book.codes))
    for position, number in votes.items():
        counts[position or 0] += number
    return Reading(counts / counts.sum(), lost / len(texts))


def read_list_votes(texts: Sequence[str], book: CodeBook) -> Reading | Failure:
    """Count samples that each list any number of labels; a sample with a stranger in its list names none.

    A label has probability (votes + 1/2) / (valid samples + 1).
    """
    lists = [book.labels_of(text) for text in texts]
    valid = [positions for positions in lists if positions is not None]
    outside = 1 - len(valid) / len(texts)
    if outside > _MOST_OUTSIDE:
        return Failure(OUTSIDE, texts[lists.index(None)])
    counts = np.zeros(len(book.codes))
    for positions in valid:
        counts[list(positions)] += 1
    return Reading((counts + _JEFFREYS) / (len(valid) + 2 * _JEFFREYS), outside)


def read_candidates(text: str, book: CodeBook, most: int) -> Reading | Failure:
    """Spread mass over up to `most` labels named likeliest first: 1/2, 1/4, ..., what is left on all others evenly."""
    named = book.labels_of(text)
    if not named:
        return Failure(OUTSIDE, text)
    named = named[:most]
    probs = np.full(len(book.codes), 0.5 ** len(named) / max(len(book.codes) - len(named), 1))
    probs[list(named)] = 0.5 ** np.arange(1, len(named) + 1)
    return Reading(probs / probs.sum(), 0.0)


def is_split(completion: Completion, book: CodeBook) -> bool:
    """Say whether a code takes more tokens than the endpoint scored, so that it cannot be scored whole."""
    whole = book.label_of(completion.texts[0]) is not None
    return completion.tokens is not None and whole and is_cut_short(completion.tokens[0], book)


def _unscored(text: str, book: CodeBook) -> Failure:
    return Failure(OUTSIDE if book.label_of(text) is None else NO_LOGPROBS, text)


def _one_by_logprobs(book: CodeBook, spec: LlmApiSpec) -> Way:
    question = Question(_ONE, book.codes, book.nothing)
    tokens = len(book.codes[0]) + _SPARE_TOKENS
    return Way("logprobs", (question,), lambda got: read_logprobs(got[0], book), tokens, top_logprobs=spec.top_logprobs)


def _many_by_logprobs(book: CodeBook, spec: LlmApiSpec) -> Way:
    questions = tuple(
        Question(
            f"Does the label {code}: {as_data(name)} apply to the text? Answer with Yes or No, and with nothing else.",
            book.codes,
            book.nothing,
        )
        for code, name in zip(book.codes, book.names, strict=True)
    )
    return Way("logprobs", questions, read_yes_no, 1 + _SPARE_TOKENS, top_logprobs=spec.top_logprobs)


def _one_by_votes(book: CodeBook, spec: LlmApiSpec) -> Way:
    question = Question(_ONE, book.codes, book.nothing)
    return Way(
        "votes",
        (question,),
        lambda got: read_votes(got[0].texts, book),
        _line_tokens(book),
        spec.sampling_temperature,
        spec.samples,
    )


def _many_by_votes(book: CodeBook, spec: LlmApiSpec) -> Way:
    question = Question(_many(book), book.codes, book.nothing)
    return Way(
        "votes",
        (question,),
        lambda got: read_list_votes(got[0].texts, book),
        _list_tokens(book, len(book.codes)),
        spec.sampling_temperature,
        spec.samples,
    )


def _one_by_candidates(book: CodeBook, spec: LlmApiSpec) -> Way:
    most = min(spec.candidates, len(book.codes))
    asked = f"Answer with the codes of up to {most} labels that may fit best, the likeliest first, {_LISTED}."
    question = Question(asked, book.codes, book.nothing)
    return Way(
        "candidates",
        (question,),
        lambda got: read_candidates(got[0].texts[0], book, most),
        _list_tokens(book, most),
    )


def _many_by_candidates(book: CodeBook, spec: LlmApiSpec) -> Way:
    question = Question(_many(book), book.codes, book.nothing)
    return Way(
        "candidates",
        (question,),
        lambda got: read_list_votes(got[0].texts, book),
        _list_tokens(book, len(book.codes)),
    )


_ONE = "Answer with the code of the one label that fits the text best, and with nothing else."
_LISTED = "separated by commas, and with nothing else"


def _many(book: CodeBook) -> str:
    return f"Answer with the codes of all labels that apply to the text, or with {book.nothing}, {_LISTED}."


def _line_tokens(book: CodeBook) -> int:
    """Return how many tokens a code and a name may take; a token has two bytes or more, nearly always."""
    return max(len(name.encode()) for name in book.names) // 2 + len(book.codes[0]) + _SPARE_TOKENS


def _list_tokens(book: CodeBook, most: int) -> int:
    return most * (len(book.codes[0]) + 1) + _line_tokens(book)


_WAYS: dict[tuple[str, TaskKind], Callable[[CodeBook, LlmApiSpec], Way]] = {
    ("logprobs", TaskKind.SINGLE_LABEL): _one_by_logprobs,
    ("logprobs", TaskKind.MULTI_LABEL): _many_by_logprobs,
    ("votes", TaskKind.SINGLE_LABEL): _one_by_votes,
    ("votes", TaskKind.MULTI_LABEL): _many_by_votes,
    ("candidates", TaskKind.SINGLE_LABEL): _one_by_candidates,
    ("candidates", TaskKind.MULTI_LABEL): _many_by_candidates,
}
