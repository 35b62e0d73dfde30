"""From a text to the calls that ask about it: the template, the label codes, and what is shown beside the text.

Everything a prompt depends on is kept in the teacher's folder. Knows no endpoint.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from teacher.answers import Way
from teacher.codes import CodeBook
from teacher.completion import CompletionRequest
from teacher.encoder import Gold
from teacher.errors import SettingError
from teacher.prompt import PromptTemplate, estimate_tokens
from teacher.retrieval import ExampleChooser, Shown, fit_chooser
from teacher.spec import PromptSpec
from teacher.task import Task

_TEMPLATE = "template.txt"


class Prompter:
    """Render prompts for texts; labels are listed, and codes given out, in an order drawn from `seed`."""

    def __init__(self, task: Task, seed: int, directory: Path) -> None:
        """Load what `save_prompt` wrote; raise TeacherError when it is not there."""
        self.task = task
        self.template = PromptTemplate.load(directory / _TEMPLATE)
        self.chooser = ExampleChooser(directory)
        self.order = tuple(int(at) for at in np.random.default_rng(seed).permutation(len(task.labels)))
        self.book = CodeBook.make(task, self.order)

    @property
    def identity(self) -> list[object]:
        """Return what every prompt depends on, as JSON can spell it."""
        described = sorted(self.task.descriptions.items())
        return [self.template.digest, self.chooser.digest, self.task.labels, described, self.book.codes, self.order]

    def calls(self, texts: Sequence[str], way: Way) -> tuple[list[list[CompletionRequest]], list[Shown]]:
        """Return for each text the calls that ask about it, one for each question of `way`, and what they show."""
        shown = self.chooser.choose(texts)
        return [self._requests(text, each, way) for text, each in zip(texts, shown, strict=True)], shown

    def check_context(self, texts: Sequence[str], way: Way, max_tokens: int) -> None:
        """Raise TeacherError when the prompts of most `texts` are estimated to pass `max_tokens` with an answer."""
        groups = self.calls(texts, way)[0]
        tokens = [max(estimate_tokens(each.messages) + each.max_tokens for each in group) for group in groups]
        if tokens and (middle := round(statistics.median(tokens))) > max_tokens:
            raise SettingError(
                f"the prompt of a middling text and its answer take about {middle:,} tokens, wanted at most "
                f"{max_tokens:,} (teacher.max_tokens); show fewer examples or passages, describe labels shorter, "
                "or raise it if the model takes more"
            )

    def _requests(self, text: str, shown: Shown, way: Way) -> list[CompletionRequest]:
        render = self.template.render
        return [
            way.request(render(self.task, text, shown.examples, shown.passages, self.order, question))
            for question in way.questions
        ]


def save_prompt(spec: PromptSpec, gold: Gold, directory: Path) -> None:
    """Check template, examples and documents and copy them into `directory`; raise TeacherError for what is wrong."""
    template = PromptTemplate.load(spec.template)
    wanted = {"labels": True, "examples": spec.examples > 0, "passages": spec.passages > 0}
    template.require(*[slot for slot, is_wanted in wanted.items() if is_wanted], name=spec.template or "the template")
    fit_chooser(spec, gold, directory)
    (directory / _TEMPLATE).write_text(template.source, encoding="utf-8")
