"""Labelling functions in a Python file: how a person writes them, how the file is run, and what they vote.

A rule votes for a label, for several (in a list, where the task allows several), or abstains with None. Knows nothing
of how votes are combined.
"""

import re
import types
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from teacher.errors import LabelMismatchError, SettingError, TeacherError
from teacher.label_model import Votes
from teacher.task import Task, TaskKind

_SHOWN = 60  # characters of a text in an error
Vote = Callable[[str], str | Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named labelling function; `labels` are the ones it is known to vote for, when that is known."""

    name: str
    vote: Vote
    labels: tuple[str, ...] = ()


_collected: ContextVar[list[Rule] | None] = ContextVar("_collected", default=None)


def rule(function: Vote) -> Vote:
    """Make a labelling function a rule of the file it stands in; it stays a function."""
    _collect(Rule(getattr(function, "__name__", "rule"), function))
    return function


def keywords(label: str, words: Sequence[str]) -> Vote:
    """Add a rule that votes for `label` where one of `words` (or phrases) stands as a whole word, in any case."""
    if isinstance(words, str) or not all(isinstance(word, str) and word.strip() for word in words) or not words:
        raise SettingError(f"keywords({label!r}, ...): found {words!r}, wanted a list of words")
    phrases = "|".join(r"\s+".join(map(re.escape, word.split())) for word in words)
    return _add_search(f"keywords {label}", label, rf"(?<!\w)(?:{phrases})(?!\w)")


def pattern(label: str, regex: str) -> Vote:
    """Add a rule that votes for `label` where the regular expression is found, in any case."""
    return _add_search(f"pattern {label}", label, regex)


def load_rules(path: Path, task: Task) -> list[Rule]:
    """Run the file at `path` and return its rules, each under a name of its own.

    Raises TeacherError when it fails or has no rule, LabelMismatchError when one is for a label that is not there.
    """
    token = _collected.set([])
    try:
        # Compiled by hand: an import would leave a cache beside the file and find a module of the same name first.
        module = types.ModuleType("potstill_rules")
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), module.__dict__)
        found = _collected.get() or []
    except TeacherError:
        raise
    # The file is the user's: it may raise anything, an exit included.
    except (Exception, SystemExit) as error:
        raise SettingError(f"{path} cannot be run: {_told(error)}; correct the file") from error
    finally:
        _collected.reset(token)
    if not found:
        raise SettingError(f"{path} has no rule; mark functions with @rule, or call keywords(...) or pattern(...)")
    for each in found:
        for label in each.labels:
            _column(label, each.name, None, task)
    return _renamed(found)


def collect_votes(rules: Sequence[Rule], texts: Sequence[str], task: Task) -> Votes:
    """Return the votes of `rules` on `texts`.

    Raises TeacherError when a rule raises or gives several labels in a single-label task, and LabelMismatchError when
    it votes for a label that is not there; both name the rule, the text and the label.
    """
    cast = [
        (row, voter, column)
        for row, text in enumerate(texts)
        for voter, each in enumerate(rules)
        for column in _columns(each, text, task)
    ]
    rows, voters, labels = np.asarray(cast, np.int64).reshape(-1, 3).T
    return Votes(rows, voters, labels, (len(texts), len(rules), len(task.labels)))


def _collect(each: Rule) -> None:
    collected = _collected.get()
    if collected is not None:
        collected.append(each)


def _add_search(name: str, label: str, regex: str) -> Vote:
    try:
        compiled = re.compile(regex, re.IGNORECASE)
    except re.error as error:
        raise SettingError(f"{name}: {regex!r} is no regular expression ({error}); correct it") from error

    def vote(text: str) -> str | None:
        return label if compiled.search(text) else None

    _collect(Rule(name, vote, (label,)))
    return vote


def _renamed(rules: Sequence[Rule]) -> list[Rule]:
    """Return `rules` with a number behind a name that was there before."""
    names: dict[str, int] = {}
    renamed = []
    for each in rules:
        names[each.name] = names.get(each.name, 0) + 1
        name = each.name if names[each.name] == 1 else f"{each.name} {names[each.name]}"
        renamed.append(Rule(name, each.vote, each.labels))
    return renamed


def _columns(each: Rule, text: str, task: Task) -> list[int]:
    """Return the columns of the labels that a rule votes for on `text`."""
    try:
        vote = each.vote(text)
    except Exception as error:
        raise SettingError(
            f"the rule {each.name!r} failed on the text {text[:_SHOWN]!r}: {_told(error)}; correct the rule"
        ) from error
    if vote is None:
        return []
    named = [vote] if isinstance(vote, str) or not isinstance(vote, Sequence) else list(dict.fromkeys(vote))
    if task.kind is TaskKind.SINGLE_LABEL and len(named) > 1:
        raise SettingError(
            f"the rule {each.name!r} voted for {named} on the text {text[:_SHOWN]!r}; "
            f"wanted one label or None in a {task.kind} task"
        )
    return [_column(label, each.name, text, task) for label in named]


def _column(label: object, name: str, text: str | None, task: Task) -> int:
    if isinstance(label, str) and label in task.labels:
        return task.labels.index(label)
    place = "" if text is None else f" on the text {text[:_SHOWN]!r}"
    raise LabelMismatchError(
        f"the rule {name!r} votes for {label!r}{place}, which is not among the {len(task.labels)} labels of the task; "
        "correct the rule or list the label under task.labels"
    )


def _told(error: BaseException) -> str:
    """Return what the user's code raised, and in which line of it; the text of a SyntaxError has its own."""
    inside = error.__traceback__.tb_next if error.__traceback__ else None
    place = f" (line {inside.tb_lineno})" if inside and not isinstance(error, SyntaxError) else ""
    return f"{type(error).__name__}: {' '.join(str(error).split())}{place}"
