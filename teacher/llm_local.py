"""The local LLM teacher: a Hugging Face causal LM scores every label behind a prompt about the text.

The prompt is read once for all labels (`label_scorer.py`). Scores are averaged over permutations of the label list,
the label prior is taken out, and a temperature is fitted on gold. The weights stay where they are; the teacher's
folder holds the prompt, what its examples are chosen from, and the digest of the weights.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM

from teacher.base import TeacherCard
from teacher.checkpoint import checkpoint_digest, load_checkpoint, open_quickest, read_checked_card, stored_dtype
from teacher.conversation import Conversation
from teacher.encoder import ACTIVATIONS, Gold, load_tokenizer
from teacher.errors import TeacherError
from teacher.example import Example, content_id
from teacher.kept_scores import KeptScores
from teacher.label_prior import LabelCalibration, batch_prior, contextual_prior, fit_calibration
from teacher.label_scorer import LabelScorer
from teacher.paid import PaidAnswers
from teacher.prompt import PromptTemplate, Question, as_data
from teacher.retrieval import ExampleChooser, Shown, fit_chooser
from teacher.scorer import check_vocabulary
from teacher.soft_labels import Rejected, SoftLabels
from teacher.spec import LlmLocalSpec
from teacher.task import Task, TaskKind

_TEMPLATE = "prompt.txt"
_CHUNK_TEXTS = 512  # prompts held as tokens at once
_CALIBRATION_ROWS, _CALIBRATION_ROWS_PER_LABEL = 512, 8
_CONTENT_FREE = ("", "N/A", "[MASK]")  # Zhao et al. 2021
_QUESTIONS = {
    TaskKind.SINGLE_LABEL: Question("Answer with the name of the one label that fits best, and with nothing else."),
    TaskKind.MULTI_LABEL: Question("Answer with the name of one label that applies, and with nothing else."),
}


@dataclass(frozen=True, slots=True)
class Asking:
    """How texts are asked about: the model, the order of labels in each prompt, and what fits into it."""

    model: str
    digest: str  # of its files
    task: Task
    orders: tuple[tuple[int, ...], ...]
    batch_size: int
    max_tokens: int


class LocalReader:
    """A causal LM that reads prompts and scores labels."""

    def __init__(self, asking: Asking, directory: Path, dtype: torch.dtype, answers: PaidAnswers | None = None) -> None:
        """Open the model; raise TeacherError when it cannot be opened or the bare prompt does not fit into it."""
        self.asking = asking
        self.template = PromptTemplate.load(directory / _TEMPLATE)
        self.chooser = ExampleChooser(directory)
        self._conversation = Conversation(load_tokenizer(asking.model))
        self._names = [as_data(name) for name in asking.task.labels]  # as the prompt spells them
        model = load_checkpoint(AutoModelForCausalLM, asking.model, dtype)
        check_vocabulary(model, self._conversation.tokenizer)
        most = min(asking.max_tokens, getattr(model.config, "max_position_embeddings", None) or asking.max_tokens)
        self.scorer = LabelScorer(model, self._conversation.encode, most, asking.batch_size)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self._answers = self._settled_answers()
        self._kept = KeptScores(answers, ["llm_local", asking.digest, str(dtype), most, self._answers])

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the mean log-probability per token (N, C) of each label; NaN where the prompt is too long."""
        return self.scores_beside(texts, self.chooser.choose(texts))

    def scores_beside(self, texts: Sequence[str], shown: Sequence[Shown]) -> NDArray[np.float32]:
        """Return the scores of `texts` in prompts that show `shown`, averaged over the orders of the labels."""
        scores = np.zeros((len(texts), len(self._names)), np.float32)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            rows = range(start, min(start + _CHUNK_TEXTS, len(texts)))
            prompts = [[self._prompt(texts[row], shown[row], order) for order in self.asking.orders] for row in rows]
            scores[rows.start : rows.stop] = self._kept.scores(prompts, self._score)
        return scores

    def _score(self, prompts: list[list[str]]) -> NDArray[np.float32]:
        """Return the scores of texts from their prompts, one for each order."""
        each = [self.scorer.scores(of_order, self._answers) for of_order in zip(*prompts, strict=True)]
        return np.asarray(np.mean(each, axis=0), np.float32)

    def _prompt(self, text: str, shown: Shown, order: Sequence[int]) -> str:
        task, question = self.asking.task, _QUESTIONS[self.asking.task.kind]
        messages = self.template.render(task, text, shown.examples, shown.passages, order, question)
        return self._conversation.spell(messages, question.answer)

    def _settled_answers(self) -> list[str]:
        """Return the strings to score, with the end of an answer when one label begins another; check that they fit."""
        bare = self._prompt("", self.chooser.choose([""])[0], self.asking.orders[0])
        answers = self._conversation.answers(bare, self._names, ended=False)
        border = self.scorer.border(bare, answers)
        if border.one_begins_another:
            answers = self._conversation.answers(bare, self._names, ended=True)
            border = self.scorer.border(bare, answers)
        prompt, longest = len(self.scorer.encode([bare])[0]), max(len(ids) for ids in border.continuations)
        if prompt + longest >= self.scorer.max_tokens:
            raise TeacherError(
                f"the prompt without a text is {prompt} tokens and the longest label {longest}, but "
                f"{self.asking.model} takes {self.scorer.max_tokens} here; show fewer examples or passages, shorten "
                "the descriptions, or raise teacher.max_tokens"
            )
        return answers


def fit_llm_local(spec: LlmLocalSpec, gold: Gold, directory: Path, answers: PaidAnswers | None = None) -> None:
    """Keep the prompt and its examples, learn prior and temperature on `gold.dev`, and write the card.

    Scores are kept in `answers`, where there are some.
    Raises TeacherError before the model is asked when it has no weights or the prompt cannot work.
    """
    digest = checkpoint_digest(spec.model)
    template = PromptTemplate.load(spec.prompt.template)
    if spec.orders > 1:
        template.require("labels")
    (directory / _TEMPLATE).write_text(template.source, encoding="utf-8")
    fit_chooser(spec.prompt, gold, directory)
    orders = label_orders(len(gold.task.labels), spec.orders, gold.seed)
    asking = Asking(spec.model, digest, gold.task, orders, spec.batch_size, spec.max_tokens)
    rows = _calibration_rows(gold)
    texts = [row.text for row in rows]
    reader, dtype = open_quickest(lambda dtype: LocalReader(asking, directory, dtype, answers), texts)
    calibration = _calibrate(spec, gold, reader, rows)
    details = {
        "model": spec.model,
        "digest": digest,
        "orders": [list(order) for order in orders],
        "batch_size": spec.batch_size,
        "dtype": str(dtype).removeprefix("torch."),
        **calibration.details(),
    }
    shaping = {key: value for key, value in details.items() if key not in ("model", "batch_size")}
    TeacherCard.of(
        gold.task,
        "llm_local",
        [shaping, template.digest, reader.chooser.digest],
        temperature=calibration.temperature,
        max_tokens=spec.max_tokens,
        details=details,
    ).write(directory)


class LlmLocalTeacher:
    """A fitted local LLM: calibrated probabilities over the labels, no mass outside them."""

    def __init__(self, directory: Path, answers: PaidAnswers | None = None) -> None:
        """Load what `fit_llm_local` wrote; raise TeacherError when the weights are gone or have changed."""
        card = read_checked_card(directory)
        details: dict[str, Any] = card.details
        self.task = card.task()
        self.fingerprint = card.fingerprint
        orders = tuple(tuple(order) for order in details["orders"])
        model, digest = details["model"], details["digest"]
        asking = Asking(model, digest, self.task, orders, details["batch_size"], card.max_tokens)
        self.reader = LocalReader(asking, directory, stored_dtype(details["dtype"]), answers)
        self.parameters = self.reader.parameters
        self._calibration = LabelCalibration.from_details(card.temperature, details)

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return softmax or sigmoid of the calibrated scores; a text too long for the context is rejected."""
        shown = self.reader.chooser.choose(texts)
        scores = self.reader.scores_beside(texts, shown)
        fits = np.isfinite(scores).all(axis=1)
        logits = torch.from_numpy(self._calibration.logits(scores[fits]))
        ids = [content_id(text) for text in texts]
        kept = np.flatnonzero(fits)
        return SoftLabels(
            tuple(ids[row] for row in kept),
            ACTIVATIONS[self.task.kind](logits).numpy(),
            np.zeros(len(kept), np.float32),
            "llm_local",
            rejected=tuple(Rejected(ids[row], "longer than the context") for row in np.flatnonzero(~fits)),
            sources=tuple(shown[row].sources for row in kept),
        )


def label_orders(labels: int, orders: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Return `orders` orders of `labels` labels: as they are, then permutations drawn with `seed`."""
    draw = random.Random(seed)
    return (tuple(range(labels)), *(tuple(draw.sample(range(labels), labels)) for _ in range(orders - 1)))


def _calibration_rows(gold: Gold) -> list[Example]:
    most = max(_CALIBRATION_ROWS, _CALIBRATION_ROWS_PER_LABEL * len(gold.task.labels))
    return random.Random(gold.seed).sample(list(gold.dev), min(most, len(gold.dev)))


def _calibrate(spec: LlmLocalSpec, gold: Gold, reader: LocalReader, rows: Sequence[Example]) -> LabelCalibration:
    scores = reader.scores([row.text for row in rows])
    gold.progress(len(rows))
    fits = np.isfinite(scores).all(axis=1)
    scores, targets = scores[fits].astype(np.float64), gold.targets(rows)[fits]
    prior = None
    if spec.prior == "contextual":
        prior = contextual_prior(gold.task.kind, reader.scores(_CONTENT_FREE))
    elif spec.prior == "batch" and len(scores):
        prior = batch_prior(gold.task.kind, scores, targets)
    return fit_calibration(gold.task.kind, scores, targets, prior)
