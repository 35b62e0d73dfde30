"""The NLI teacher: a text entails a hypothesis about a label, or it does not.

Zero-shot classification by entailment (Yin et al. 2019, "Benchmarking Zero-shot Text Classification"). Which output
of the model is entailment and which contradiction is read from its config by name. The weights stay where they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from teacher.base import TeacherCard
from teacher.checkpoint import checkpoint_digest, load_checkpoint, open_quickest, read_checked_card, stored_dtype
from teacher.encoder import ACTIVATIONS, Gold, load_tokenizer
from teacher.errors import LabelMismatchError, TeacherError
from teacher.example import content_id
from teacher.kept_scores import KeptScores
from teacher.label_prior import LabelCalibration, fit_calibration
from teacher.paid import PaidAnswers
from teacher.scorer import batches, check_vocabulary
from teacher.soft_labels import SoftLabels
from teacher.spec import NliSpec
from teacher.task import Task, TaskKind

_SLOT = "{}"
_ENTAILMENT = frozenset({"entailment", "entailed", "entails", "entail"})
_CONTRADICTION = frozenset({"contradiction", "contradictory", "contradicts", "contradict", "notentailment"})
_CHUNK_PAIRS = 8192  # pairs held as tokens at once
_LEAST_TEXT_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Reading:
    """How labels become hypotheses, one list of C for each template, and what fits into the model."""

    model: str
    digest: str  # of its files
    kind: TaskKind
    hypotheses: tuple[tuple[str, ...], ...]
    max_tokens: int


class EntailmentReader:
    """A sequence classifier over (text, hypothesis) pairs."""

    def __init__(self, reading: Reading, dtype: torch.dtype, answers: PaidAnswers | None = None) -> None:
        """Open the model; raise TeacherError or LabelMismatchError when it is no NLI model or a hypothesis is too
        long for it."""
        self.reading = reading
        self._tokenizer = load_tokenizer(reading.model)
        self.model = load_checkpoint(AutoModelForSequenceClassification, reading.model, dtype)
        check_vocabulary(self.model, self._tokenizer)
        positions = getattr(self.model.config, "max_position_embeddings", None) or reading.max_tokens
        self._max_tokens = min(reading.max_tokens, self._tokenizer.model_max_length, positions)
        self._signs = _evidence_signs(reading.model, self.model.config, reading.kind)
        self._check_hypotheses()
        identity = ["nli", reading.digest, str(dtype), reading.kind, reading.hypotheses, self._max_tokens]
        self._kept = KeptScores(answers, identity)

    def scores(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the evidence (N, C) for each label, the mean over the templates.

        Single-label: the entailment logit. Multi-label: entailment minus contradiction, whose sigmoid is the softmax
        over these two. Texts are cut where text and hypothesis pass the token limit.
        """
        templates, labels = len(self.reading.hypotheses), len(self.reading.hypotheses[0])
        scores = np.empty((len(texts), labels), np.float32)
        step = max(1, _CHUNK_PAIRS // (templates * labels))
        for start in range(0, len(texts), step):
            scores[start : start + step] = self._kept.scores(texts[start : start + step], self._score)
        return scores

    def _score(self, texts: list[str]) -> NDArray[np.float32]:
        hypotheses = self.reading.hypotheses
        pairs = [(text, hypothesis) for text in texts for row in hypotheses for hypothesis in row]
        scores = self._evidence(pairs).reshape(len(texts), len(hypotheses), -1).mean(axis=1)
        if not np.isfinite(scores).all():
            raise TeacherError("the model answered with NaN or infinity; its weights are damaged or overflowed")
        return np.asarray(scores, np.float32)

    def _evidence(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """Return the evidence (P,) in P pairs, answered in batches of like length."""
        encoded = self._tokenizer(
            [text for text, _ in pairs],
            [hypothesis for _, hypothesis in pairs],
            truncation="only_first",
            max_length=self._max_tokens,
        )
        lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
        evidence = np.empty(len(pairs), np.float32)
        with torch.inference_mode():
            for rows in batches(np.argsort(lengths, kind="stable"), lengths):
                batch = {name: [encoded[name][row] for row in rows] for name in encoded}
                padded = _padded(self._tokenizer, batch)
                logits = self.model(**{name: array.to(self.model.device) for name, array in padded.items()}).logits
                evidence[rows] = (logits.float() @ self._signs.to(logits.device)).cpu().numpy()
        return evidence

    def _check_hypotheses(self) -> None:
        every = [hypothesis for row in self.reading.hypotheses for hypothesis in row]
        lengths = [len(ids) for ids in self._tokenizer([""] * len(every), every)["input_ids"]]
        longest = int(np.argmax(lengths))
        if lengths[longest] + _LEAST_TEXT_TOKENS > self._max_tokens:
            raise TeacherError(
                f"the hypothesis {every[longest][:60]!r} is {lengths[longest]} tokens, but {self.reading.model} takes "
                f"{self._max_tokens} here with the text; shorten the label's description or raise teacher.max_tokens"
            )


def fit_nli(spec: NliSpec, gold: Gold, directory: Path, answers: PaidAnswers | None = None) -> None:
    """Turn labels into hypotheses, calibrate the answers on `gold.dev`, and write the card.

    Scores are kept in `answers`, where there are some.
    Raises TeacherError or LabelMismatchError before a text is read when a template has no slot, or the model has no
    weights or no entailment label.
    """
    hypotheses = make_hypotheses(spec.templates, gold.task)
    digest = checkpoint_digest(spec.model)
    reading = Reading(spec.model, digest, gold.task.kind, hypotheses, spec.max_tokens)
    texts = [example.text for example in gold.dev]
    reader, dtype = open_quickest(lambda dtype: EntailmentReader(reading, dtype, answers), texts)
    scores = reader.scores(texts)
    gold.progress(len(texts))
    calibration = fit_calibration(gold.task.kind, scores, gold.targets(gold.dev), prior=None)
    details = {
        "digest": digest,
        "hypotheses": [list(row) for row in hypotheses],
        "dtype": str(dtype).removeprefix("torch."),
        **calibration.details(),
    }
    TeacherCard.of(
        gold.task,
        "nli",
        details,
        temperature=calibration.temperature,
        max_tokens=spec.max_tokens,
        details={**details, "model": spec.model},
    ).write(directory)


class NliTeacher:
    """A fitted NLI model: calibrated probabilities over the labels, no mass outside them."""

    def __init__(self, directory: Path, answers: PaidAnswers | None = None) -> None:
        """Load what `fit_nli` wrote; raise TeacherError when the weights are gone or have changed."""
        card = read_checked_card(directory)
        details: dict[str, Any] = card.details
        self.task = card.task()
        self.fingerprint = card.fingerprint
        hypotheses = tuple(tuple(row) for row in details["hypotheses"])
        reading = Reading(details["model"], details["digest"], card.task_kind, hypotheses, card.max_tokens)
        self.reader = EntailmentReader(reading, stored_dtype(details["dtype"]), answers)
        self.parameters = sum(parameter.numel() for parameter in self.reader.model.parameters())
        self._calibration = LabelCalibration.from_details(card.temperature, details)

    def label(self, texts: Sequence[str]) -> SoftLabels:
        """Return softmax over the labels, or a sigmoid for each, of the calibrated evidence."""
        logits = torch.from_numpy(self._calibration.logits(self.reader.scores(texts)))
        ids = tuple(content_id(text) for text in texts)
        probs = ACTIVATIONS[self.task.kind](logits).numpy()
        return SoftLabels(ids, probs, np.zeros(len(ids), np.float32), "nli")


def make_hypotheses(templates: Sequence[str], task: Task) -> tuple[tuple[str, ...], ...]:
    """Return for each template the hypothesis of each label: its description in the slot, else its name in words.

    Raises TeacherError for a template without exactly one {}, LabelMismatchError when two labels say the same.
    """
    for template in templates:
        if template.count(_SLOT) != 1:
            raise TeacherError(
                f"the hypothesis template {template!r} has {template.count(_SLOT)} slots, wanted one; put {{}} where "
                "the label belongs, as in 'This text is about {}.'"
            )
    words = [task.descriptions.get(name) or name.replace("_", " ") for name in task.labels]
    if len(set(words)) != len(words):
        twice = sorted({word for word in words if words.count(word) > 1})
        raise LabelMismatchError(f"several labels read {twice[0]!r} in a hypothesis; describe each label differently")
    return tuple(tuple(template.replace(_SLOT, word) for word in words) for template in templates)


def _evidence_signs(model: str, config: Any, kind: TaskKind) -> torch.Tensor:
    """Return what each logit of the model counts for a label: 1 entailment, and multi-label -1 contradiction."""
    indices = _named_outputs(model, config)
    signs = torch.zeros(config.num_labels)
    signs[_index(model, indices, _ENTAILMENT, "entailment")] = 1.0
    if kind is TaskKind.MULTI_LABEL:
        signs[_index(model, indices, _CONTRADICTION, "contradiction")] = -1.0
    return signs


def _named_outputs(model: str, config: Any) -> dict[str, int]:
    """Return label2id of the config; raise LabelMismatchError when it contradicts id2label."""
    by_index = {int(index): str(name) for index, name in (config.id2label or {}).items()}
    by_name = {str(name): int(index) for name, index in (config.label2id or {}).items()}
    by_name = by_name or {name: index for index, name in by_index.items()}
    if by_name != {name: index for index, name in by_index.items()}:
        raise LabelMismatchError(
            f"label2id and id2label in the config of {model} contradict each other ({by_name}, {by_index}); mend it"
        )
    return by_name


def _index(model: str, indices: Mapping[str, int], wanted: frozenset[str], meaning: str) -> int:
    found = [name for name in indices if "".join(filter(str.isalpha, name.lower())) in wanted]
    if len(found) != 1:
        raise LabelMismatchError(
            f"found {len(found)} outputs for {meaning} in the config of {model}, whose label2id names "
            f"{', '.join(indices) or 'none'}; wanted one: use an NLI model, or name its outputs in config.json"
        )
    return indices[found[0]]


def _padded(tokenizer: PreTrainedTokenizerBase, batch: Mapping[str, list[list[int]]]) -> dict[str, torch.Tensor]:
    """Return the tensors (rows, longest) of a batch of encoded pairs, padded on the right."""
    longest = max(len(ids) for ids in batch["input_ids"])
    fill = {"input_ids": tokenizer.pad_token_id or 0, "token_type_ids": tokenizer.pad_token_type_id}
    return {
        name: torch.tensor([[*row, *[fill.get(name, 0)] * (longest - len(row))] for row in rows])
        for name, rows in batch.items()
    }
