"""Answers with labels from a bundle, with numpy, onnxruntime and tokenizers only; no torch.

The arrays behind them are made by `classifier.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.bundle import MODEL_FILES, BundleManifest, Precision, read_listed, read_manifest, refuse_strangers
from export.classifier import BOTH, LOGITS, PROBABILITIES, OnnxClassifier
from export.errors import BundleError, ExportError, TextTooLongError
from export.examples import EXAMPLES, Examples, read_examples
from export.metrics import ACTIVATIONS, decode
from export.scope import familiarity
from export.tokens import Encoded

__all__ = ["OnnxClassifier", "Outputs", "Prediction", "Predictor", "self_test"]

Floats = NDArray[np.float32]
TooLong = Literal["truncate", "refuse"]
# Of a probability, between processors: rounding in fp32, and the steps of int8 that such rounding may tip over.
_MOST_APART: Mapping[Precision, float] = {"fp32": 1e-3, "int8": 0.02}
_NOT_A_NUMBER = "the model gave a logit that is not a finite number; export the student again"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer. `label` is the most probable of the decided `labels`, None when no label was decided.

    `probability` belongs to the most probable label, decided or not; `tokens` is what the model read. Where
    `in_scope` is False the text seems to be about something else, and the label means little.
    """

    label: str | None
    labels: tuple[str, ...]
    probability: float
    truncated: bool
    tokens: int
    _names: tuple[str, ...] = field(repr=False)
    _least_familiar: float | None = field(repr=False)  # None: the bundle has no such threshold
    _probs: bytes = field(repr=False)  # of a float32 array: a tuple of 77 numbers would cost more than all else here

    @property
    def scores(self) -> list[float]:
        """The probability of every label, in the order of the labels."""
        scores: list[float] = np.frombuffer(self._probs, np.float32).tolist()
        return scores

    @property
    def probabilities(self) -> dict[str, float]:
        """The same by name."""
        return dict(zip(self._names, self.scores, strict=True))

    @property
    def familiarity(self) -> float | None:
        """How much the text looks like one about the labels, see `export.scope`; None where the bundle cannot say."""
        if self._least_familiar is None:
            return None
        return float(familiarity(np.frombuffer(self._probs, np.float32)[None])[0])

    @property
    def in_scope(self) -> bool | None:
        """Whether the text seems to be about one of the labels at all; None where the bundle cannot say."""
        found = self.familiarity
        return None if found is None or self._least_familiar is None else found >= self._least_familiar


class Outputs(NamedTuple):
    """What the model gives for texts, each (texts, labels)."""

    logits: Floats
    probs: Floats


class Predictor:
    """A bundle that answers texts with labels; safe to share between threads."""

    def __init__(
        self,
        manifest: BundleManifest,
        classifier: OnnxClassifier,
        examples: Examples | None = None,
        *,
        deterministic: bool = False,
    ) -> None:
        """Join what the bundle says with its opened model; raise BundleError when they do not fit.

        `deterministic`: every text runs alone and on one thread, also when many are asked for at once.
        """
        self.manifest = manifest
        self.examples = examples
        self._classifier = classifier
        self._is_deterministic = deterministic
        self._thresholds = None
        if manifest.thresholds is not None:
            self._thresholds = np.array([manifest.thresholds[label] for label in manifest.labels], np.float32)
        if classifier.width not in (None, len(manifest.labels)):
            raise BundleError(
                f"the model gives {classifier.width} logits, wanted one for each of the "
                f"{len(manifest.labels)} labels; export the bundle again"
            )
        # Bundles of before the temperature went into the graph have a temperature here and end with logits.
        self._has_probs = classifier.has_probabilities and manifest.temperature == 1

    @classmethod
    def load(
        cls,
        bundle: Path | str,
        precision: Precision | None = None,
        threads: int = 1,
        *,
        deterministic: bool = False,
    ) -> "Predictor":
        """Open a bundle at `precision` (None: the one it ships with) after checking every byte it loads.

        `threads` share the work of one text, which they answer sooner for more processor time than one takes; a
        list of texts runs on as many single-threaded sessions.
        `deterministic` gives a text the same bits whatever else is asked, in a list too, at a lower throughput.
        Raises BundleError when a file is missing, changed or not listed.
        """
        bundle = Path(bundle)
        manifest = read_manifest(bundle)
        refuse_strangers(bundle, manifest)
        model = read_listed(bundle, manifest, MODEL_FILES[precision or manifest.precision])
        tokenizer = read_listed(bundle, manifest, "tokenizer.json")
        classifier = OnnxClassifier(model, tokenizer, manifest.max_tokens, threads)
        examples = None
        if EXAMPLES in manifest.files:
            examples = read_examples(read_listed(bundle, manifest, EXAMPLES), len(manifest.labels))
        return cls(manifest, classifier, examples, deterministic=deterministic)

    def predict(self, texts: str | Sequence[str]) -> list[Prediction]:
        """Return one answer a text, in order; a single string is one text.

        Raises TextTooLongError when the bundle refuses long texts, ExportError on a text that is no valid
        Unicode or an answer that is no number.
        """
        encodings = self.encode([texts] if isinstance(texts, str) else texts)
        probs = self._run(encodings, PROBABILITIES) if self._has_probs else self.run(encodings).probs
        return self.decide(encodings, probs)

    def encode(self, texts: Sequence[str], too_long: TooLong | None = None) -> list[Encoded]:
        """Return the tokens of each text; `too_long` stands in for what the bundle says of long texts.

        Raises TextTooLongError when long texts are refused, ExportError on a text that is no valid Unicode.
        """
        encodings = self._classifier.encode_many(texts)
        if (too_long or self.manifest.too_long) == "refuse":
            self._refuse_long(encodings)
        return encodings

    def words(self, text: str) -> list[tuple[int, int]]:
        """Return where in `text` each word that is read begins and ends, in characters."""
        return self._classifier.tokenizer.words(text)

    def run(self, encodings: Sequence[Encoded]) -> Outputs:
        """Return logits and probabilities; a single text is run alone and unpadded.

        Raises ExportError on an answer that is no number.
        """
        found = self._run(encodings, BOTH if self._has_probs else LOGITS)
        labels = len(self.manifest.labels)
        logits = found[:, :labels]
        if not np.isfinite(logits).all():
            raise ExportError(_NOT_A_NUMBER)
        if self._has_probs:
            return Outputs(logits, found[:, labels:])
        return Outputs(logits, ACTIVATIONS[self.manifest.kind](logits / self.manifest.temperature))

    def decide(self, encodings: Sequence[Encoded], probs: Floats) -> list[Prediction]:
        """Return the answers that probabilities (texts, labels) stand for; raise ExportError where one is no number."""
        return [*map(self._prediction, encodings, probs)]

    def _run(self, encodings: Sequence[Encoded], output: str) -> Floats:
        if self._is_deterministic:
            return self._classifier.run_each(encodings, output)
        if len(encodings) == 1:
            return self._classifier.run_one(encodings[0], output)[None]
        return self._classifier.run_many(encodings, output)

    def _refuse_long(self, encodings: Sequence[Encoded]) -> None:
        for index, encoding in enumerate(encodings):
            if encoding.is_cut:
                raise TextTooLongError(
                    f"text {index} has more than the {self.manifest.max_tokens} tokens this bundle takes; "
                    "shorten it, or have it cut (truncate)"
                )

    def _prediction(self, encoding: Encoded, probs: Floats) -> Prediction:
        best = int(probs.argmax())  # of the first value that is no number, where there is one
        probability = float(probs[best])
        if not isfinite(probability):
            raise ExportError(_NOT_A_NUMBER)
        names = self.manifest.labels
        if self.manifest.kind == "multi_label":
            decided = np.flatnonzero(decode(self.manifest.kind, probs, self._thresholds))
            labels = tuple(names[column] for column in sorted(decided, key=lambda column: -probs[column]))
        else:
            labels = (names[best],)
        return Prediction(
            label=labels[0] if labels else None,
            labels=labels,
            probability=probability,
            truncated=encoding.is_cut,
            tokens=len(encoding),
            _names=names,
            _least_familiar=None if self.manifest.scope is None else self.manifest.scope.threshold,
            _probs=probs.tobytes(),
        )


def self_test(bundle: Path) -> list[str]:
    """Return what keeps a verified bundle from answering here as it did where it was made.

    Loads each of its models and asks about the texts whose answers the manifest remembers.
    """
    problems = []
    manifest = read_manifest(bundle)
    for precision, name in MODEL_FILES.items():
        if name in manifest.files:
            try:
                predictor = Predictor.load(bundle, precision, deterministic=True)
                problems += [f"{precision}: {problem}" for problem in _disagreements(predictor, precision)]
            except TextTooLongError:
                pass  # a refusal, as the bundle asks for, is an answer
            except ExportError as error:
                problems.append(f"{precision}: {error}")
    return problems


def _disagreements(predictor: Predictor, precision: Precision) -> Iterator[str]:
    """Yield at most one sentence: how far the farthest answer is from the one remembered."""
    remembered = predictor.manifest.answers.get(precision, ())
    given = predictor.predict([one.text for one in remembered] or ["a text"])
    pairs = list(zip(remembered, given, strict=False))  # a bundle of before remembers nothing
    apart = [abs(one.probability - answer.probabilities[one.label]) for one, answer in pairs]
    if apart and max(apart) > _MOST_APART[precision]:
        one, answer = pairs[int(np.argmax(apart))]
        yield (
            f"{one.text!r} is {one.label!r} with {answer.probabilities[one.label]:.4f}, and was with "
            f"{one.probability:.4f} where the bundle was made; this processor or this onnxruntime computes "
            f"otherwise: export the bundle here"
        )
