"""Prompt templates: what an LLM reads about one text, with everything from a corpus fenced in as data.

A template is a text file with the slots {text}, {labels}, {examples}, {passages} and {answer}, and at will the
sections `### system` and `### user`. Knows nothing of endpoints, models or how an answer is read.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from teacher.errors import SettingError
from teacher.example import Example, normalise
from teacher.task import Task, TaskKind

Messages = tuple[dict[str, str], ...]

_SLOTS = ("text", "labels", "examples", "passages", "answer")
_SLOT = re.compile(r"\{([a-z_]+)\}")
_SECTION = re.compile(r"^### *(\w+) *$", re.MULTILINE)
_ROLES = ("system", "user")
_BYTES_PER_TOKEN = 4  # of English prompts with lists of labels; other scripts have more tokens
_TOKENS_PER_MESSAGE = 8
# What opens a tag or a control token, in the spellings that a tokenizer may fold into one. Hearts and arrows stay.
_TAG = re.compile(r"[<\uff1c\ufe64](?=\s*[^\s\d=-])")
_CONTROL = re.compile(r"\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_\w+|gMASK|CLS|SEP|MASK|PAD|UNK|BOS|EOS)\])")


@dataclass(frozen=True, slots=True)
class Passage:
    """A paragraph of a document; `id` is the file within its folder and the number of the paragraph: `a/b.md#3`."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be answered: the words that go into {answer}, and what each label of the task is called.

    Without `codes` labels are called by their names. `nothing` stands for no label at all in a multi-label example.
    """

    answer: str
    codes: tuple[str, ...] = ()
    nothing: str = "none"


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    """A checked template: (role, text) of each message, with slots."""

    sections: tuple[tuple[str, str], ...]
    source: str

    @classmethod
    def load(cls, path: str | Path | None) -> "PromptTemplate":
        """Read a template file, None: the one that comes with Potstill; raise SettingError when it cannot work."""
        name = "the template" if path is None else str(path)
        try:
            file = files("teacher").joinpath("prompts/default.txt") if path is None else Path(path)
            return cls.parse(file.read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"cannot read the prompt template {name}: {error}; wanted a text file") from error

    @classmethod
    def parse(cls, source: str, name: str = "the template") -> "PromptTemplate":
        """Cut a template into its sections; raise SettingError for a missing text slot or an unknown slot or role."""
        pieces = _SECTION.split(source)
        sections = tuple((pieces[at], pieces[at + 1].strip()) for at in range(1, len(pieces), 2))
        if not sections:
            sections = (("user", source.strip()),)
        elif pieces[0].strip():
            raise SettingError(f"{name}: found text above the first section, wanted it under ### system or ### user")
        strangers = [role for role, _ in sections if role not in _ROLES]
        if strangers:
            raise SettingError(f"{name}: found the section ### {strangers[0]}, wanted ### system or ### user")
        slots = {slot for _, text in sections for slot in _SLOT.findall(text)}
        if unknown := sorted(slots - set(_SLOTS)):
            raise SettingError(f"{name}: found the slot {{{unknown[0]}}}, wanted one of {_braced(_SLOTS)}")
        template = cls(sections, source)
        template.require("text", name=name)
        return template

    @property
    def slots(self) -> frozenset[str]:
        """Return the slots that stand in the template."""
        return frozenset(slot for _, text in self.sections for slot in _SLOT.findall(text))

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the template as hex."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def require(self, *slots: str, name: str = "the template") -> None:
        """Raise TeacherError unless each of `slots` stands in the template."""
        if missing := [slot for slot in slots if slot not in self.slots]:
            raise SettingError(f"{name}: found no {{{missing[0]}}} slot; put {{{missing[0]}}} where it belongs")

    def render(
        self,
        task: Task,
        text: str,
        examples: Sequence[Example],
        passages: Sequence[Passage],
        order: Sequence[int],
        question: Question | None = None,
    ) -> Messages:
        """Return the chat messages about `text`; labels are listed in `order`, positions in `task.labels`.

        Without a {answer} slot the question stands at the end of the last message.
        """
        question = question or _QUESTIONS[task.kind]
        values = {
            "text": f"<text>\n{as_data(text)}\n</text>",
            "labels": list_labels(task, order, question),
            "examples": _examples(task, examples, question),
            "passages": _passages(passages),
            "answer": question.answer,
        }
        messages = [{"role": role, "content": _fill(part, values)} for role, part in self.sections]
        if "answer" not in self.slots:
            messages[-1]["content"] += f"\n{question.answer}"
        return tuple(messages)


def as_data(text: str) -> str:
    """Return `text` on one line in which no tag and no control token of a chat can open, so no fence can close.

    A bracket that opens a tag is spelt &lt; as in HTML, and one that opens a control token gets a space; nothing
    else changes but runs of whitespace.
    """
    return _CONTROL.sub("[ ", _TAG.sub("&lt;", normalise(text)))


def list_labels(task: Task, order: Sequence[int], question: Question) -> str:
    """Return one line a label: its code, its name and its description, as far as there are any."""
    lines = []
    for position in order:
        name = as_data(task.labels[position])
        told = task.descriptions.get(task.labels[position])
        code = f"{question.codes[position]}: " if question.codes else "- "
        lines.append(code + name + (f" - {as_data(told)}" if told else ""))
    return "\n".join(lines)


def estimate_tokens(messages: Messages) -> int:
    """Return about how many tokens `messages` are: one for four bytes of UTF-8, and what stands around a message."""
    return sum(_TOKENS_PER_MESSAGE + len(one["content"].encode()) // _BYTES_PER_TOKEN + 1 for one in messages)


def _fill(part: str, values: Mapping[str, str]) -> str:
    """Put values into slots in one pass, so that a slot inside a value stays text; an empty slot takes its line."""
    lines = [line for line in part.split("\n") if not ((slot := _SLOT.fullmatch(line.strip())) and not values[slot[1]])]
    return _SLOT.sub(lambda slot: values[slot[1]], "\n".join(lines))


def _examples(task: Task, examples: Sequence[Example], question: Question) -> str:
    called = dict(zip(task.labels, question.codes or task.labels, strict=True))
    blocks = []
    for example in examples:
        answer = ", ".join(called[name] for name in example.labels or ()) or question.nothing
        blocks.append(
            f"<example>\n<text>\n{as_data(example.text)}\n</text>\n<label>{as_data(answer)}</label>\n</example>"
        )
    return "\n".join(["Texts with their right answers:", *blocks]) if blocks else ""


def _passages(passages: Sequence[Passage]) -> str:
    blocks = [f"<passage>\n{as_data(passage.text)}\n</passage>" for passage in passages]
    return "\n".join(["Passages that may help:", *blocks]) if blocks else ""


def _braced(slots: Sequence[str]) -> str:
    return ", ".join(f"{{{slot}}}" for slot in slots)


_QUESTIONS = {
    TaskKind.SINGLE_LABEL: Question("Answer with the name of the one label that fits best, and with nothing else."),
    TaskKind.MULTI_LABEL: Question(
        "Answer with the names of all labels that apply, separated by commas, or with none, and with nothing else."
    ),
}
