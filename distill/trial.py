"""Put an exported file to the test: calibrate it on dev, finish its head, and judge what it answers then.

Knows nothing of how a file was made; `package.py` decides what follows from a verdict.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from export.bundle import Remembered
from export.classifier import PROBABILITIES, OnnxClassifier
from export.coverage import Coverage, judge_coverage
from export.examples import spell_examples
from export.gate import Comparison, Gate, judge_int8
from export.head import finish_head
from export.invariance import judge_company
from export.machine import usable_cores
from export.metrics import decode, macro_f1, row_scores
from export.parity import judge_tokenizer
from export.scope import Scope, familiarity, fit_scope
from export.selective import Abstention, certainty, fit_abstention
from export.spec import ExportSpec
from teacher.calibrate import fit_temperature, fit_thresholds
from teacher.corpus import iterate_part, read_part
from teacher.task import Task, TaskKind

_POOL_TEXTS = 1000  # unlabelled texts on which int8 is compared with fp32
_REMEMBERED = 32
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Examined:
    """A finished file and its probabilities on dev and pool; `temperature` (see `finish_head`) is part of it now."""

    path: Path
    classifier: OnnxClassifier
    dev: Floats
    pool: Floats
    temperature: float
    unfolded: str
    thresholds: Floats | None


class Trial:
    """One student and one corpus, before which every exported file is examined in the same way."""

    def __init__(
        self, student: Path, corpus: Path, task: Task, spec: ExportSpec, *, dev_is_learned: bool = False
    ) -> None:
        """Read dev, and the beginning of the pool.

        When the teacher learned dev as gold, `dev_is_learned`, its rows still say whether int8 answers as fp32 does;
        how often either is right they say no more, and nothing that rests on that is fitted.
        """
        dev = read_part(corpus, "dev")
        self.texts = [example.text for example in dev]
        self.targets = task.targets([example.labels or () for example in dev])
        self.pool = _pool_sample(corpus)
        self.max_tokens = int(AutoTokenizer.from_pretrained(student).model_max_length)
        self.student, self.task, self.spec = student, task, spec
        self._corpus, self._fitted = corpus, 0 if dev_is_learned else len(dev)

    def open(self, path: Path, threads: int = 1) -> OnnxClassifier:
        """Open an exported file with the tokenizer of the student."""
        return OnnxClassifier(path, self.student / "tokenizer.json", self.max_tokens, threads)

    def examine(self, path: Path) -> Examined:
        """Fit the temperature on the dev logits of the file, put it into its head, and answer dev and pool with it.

        Where dev is learned the temperature is 1: the student keeps the probabilities that it was taught.
        The file then ends with probabilities; answers come one text at a time, as in production: those of int8
        shift with batch-mates.
        """
        kind = self.task.kind
        unfinished = self.open(path, usable_cores())
        texts, targets = self.texts[: self._fitted], self.targets[: self._fitted]
        temperature = fit_temperature(kind, unfinished.run_each(unfinished.encode_many(texts)), targets)
        unfolded = finish_head(path, kind.value, temperature)
        classifier = self.open(path, usable_cores())
        dev, pool = (probabilities(classifier, texts) for texts in (self.texts, self.pool))
        thresholds = fit_thresholds(dev, self.targets) if kind is TaskKind.MULTI_LABEL else None
        return Examined(path, classifier, dev, pool, temperature, unfolded, thresholds)

    def judge(self, fp32: Examined, int8: Examined, coverage: Coverage, kept: Sequence[str] = ()) -> list[Gate]:
        """Return the gates of an int8 file against the fp32 student; `kept` layers were left in fp32 on purpose."""
        comparison = Comparison(
            kind=self.task.kind.value,
            labels=self.task.labels,
            targets=self.targets,
            fp32=fp32.dev,
            int8=int8.dev,
            pool_fp32=fp32.pool,
            pool_int8=int8.pool,
            fp32_thresholds=fp32.thresholds,
            int8_thresholds=int8.thresholds,
        )
        gates = judge_int8(comparison, self.spec)
        if gates[0].passed:  # else nothing is a number
            gates += self.judge_company(int8)
        return [*gates, judge_coverage(coverage, kept)]

    def judge_company(self, examined: Examined) -> list[Gate]:
        """Return the gates for padding and batches of one file against itself, alone."""
        kind = self.task.kind.value
        return judge_company(examined.classifier, self.texts, kind, examined.dev, self.spec.max_kl)

    def judge_tokenizer(self) -> Gate:
        """Return the gate on the tokenizer of the student."""
        return judge_tokenizer(self.student, [*self.texts, *self.pool], self.max_tokens)

    def test_quality(self, examined: Examined) -> dict[str, float]:
        """Return what the model card says of the file that ships; every choice has been made by now."""
        test = read_part(self._corpus, "test")
        targets = self.task.targets([example.labels or () for example in test])
        probs = probabilities(examined.classifier, [example.text for example in test])
        decided = decode(self.task.kind.value, probs, examined.thresholds)
        return {"accuracy": float(row_scores(decided, targets).mean()), "f1": macro_f1(decided, targets)}

    def promise(self, examined: Examined) -> Abstention:
        """Return the threshold at or above which one file keeps the accuracy that the config wants of it."""
        kind = self.task.kind.value
        dev, pool = (decode(kind, probs, examined.thresholds) for probs in (examined.dev, examined.pool))
        rows = slice(self._fitted)
        return fit_abstention(
            certainty(kind, examined.dev, dev)[rows],
            row_scores(dev, self.targets)[rows] > 0,
            certainty(kind, examined.pool, pool),
            self.spec.abstain,
        )

    def scope(self, examined: Examined) -> Scope | None:
        """Return the threshold below which a text is about something else; None for multi-label, which may say none."""
        kind, rows = self.task.kind, slice(self._fitted)
        if kind is not TaskKind.SINGLE_LABEL:
            return None
        is_right = row_scores(decode(kind.value, examined.dev[rows]), self.targets[rows]) > 0
        return fit_scope(familiarity(examined.dev[rows]), is_right, self.spec.scope.keep)

    def remember(self, examined: Examined) -> tuple[Remembered, ...]:
        """Return what one file answers to the names of its first labels, which are no text of anybody's."""
        texts = [label.replace("_", " ") for label in self.task.labels[:_REMEMBERED]]
        probs = probabilities(examined.classifier, texts)
        return tuple(
            Remembered(text=text, label=self.task.labels[row.argmax()], probability=float(row.max()))
            for text, row in zip(texts, probs, strict=True)
        )

    def examples(self, examined: Examined, most: int) -> bytes:
        """Return the bundle's file of at most so many gold texts, placed by what one file answers to them."""
        gold = sorted(read_part(self._corpus, "gold"), key=lambda example: example.id)[:most]  # hashes: a fair draw
        texts, labels = [example.text for example in gold], [", ".join(example.labels or ()) for example in gold]
        encodings = examined.classifier.encode_many(texts)
        return spell_examples(texts, labels, examined.classifier.run_each(encodings))


def probabilities(classifier: OnnxClassifier, texts: Sequence[str]) -> Floats:
    """Return the probabilities (texts, labels) of a finished file, each text alone."""
    return classifier.run_each(classifier.encode_many(texts), PROBABILITIES)


def _pool_sample(corpus: Path) -> list[str]:
    sample: list[str] = []
    for chunk in iterate_part(corpus, "pool"):
        sample.extend(example.text for example in chunk)
        if len(sample) >= _POOL_TEXTS:
            break
    return sample[:_POOL_TEXTS]
