"""Answers from a bundle with numpy, onnxruntime and tokenizers only; no torch.

One text is run alone and unpadded, so the same text always gets the same bits. Several texts are sorted by
length and share batches, which is faster, but int8 answers then shift slightly with their batch-mates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from export.bundle import MODEL_FILES, BundleManifest, Precision, read_listed, read_manifest, refuse_strangers
from export.errors import BundleError, ExportError, TextTooLongError
from export.examples import EXAMPLES, Examples, read_examples
from export.metrics import ACTIVATIONS, decode

_BATCH_TOKENS = 512
_SHRINK_ABOVE_TOKENS = 1024  # a longer call would keep its scratch memory for ever
_PAD_TOKENS = ("[PAD]", "<pad>")
_Logits = NDArray[np.float32]
TooLong = Literal["truncate", "refuse"]


class OnnxClassifier:
    """Logits of texts from one ONNX file and one tokenizer.json; safe to share between threads."""

    def __init__(self, model: Path | bytes, tokenizer: Path | bytes, max_tokens: int, threads: int = 1) -> None:
        """Open both files (paths or contents); raise BundleError when one of them cannot be opened."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Spinning threads burn several times the processor time of the answer itself.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
            content = tokenizer if isinstance(tokenizer, bytes) else tokenizer.read_bytes()
            self._tokenizer = Tokenizer.from_buffer(content)
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(max_tokens)
        except Exception as error:  # neither library has a base class for its errors
            raise BundleError(f"the model or its tokenizer does not open ({error}); export it again") from error
        found = (self._tokenizer.token_to_id(token) for token in _PAD_TOKENS)
        self._pad_id = next((token_id for token_id in found if token_id is not None), 0)
        self._threads = threads

    @property
    def width(self) -> int | None:
        """The number of logits of each text, None when the graph does not say."""
        width: int | str | None = self._session.get_outputs()[0].shape[-1]
        return width if isinstance(width, int) else None

    def logits_one(self, text: str) -> _Logits:
        """Return logits (labels,) of one text, run alone and unpadded."""
        return self.run_one(self.encode(text))

    def logits(self, texts: Sequence[str]) -> _Logits:
        """Return logits (texts, labels) in the order of `texts`, run in batches of similar length."""
        return self.run_many(self.encode_many(texts))

    def encode(self, text: str) -> Encoding:
        """Return the tokens of one text, cut to `max_tokens`; raise ExportError when it is no valid text."""
        try:
            return self._tokenizer.encode(text)
        except TypeError as error:
            raise ExportError(
                f"found {_describe(text)}, wanted a text of valid Unicode; decode or replace it first"
            ) from error

    def encode_many(self, texts: Sequence[str]) -> list[Encoding]:
        """Return the tokens of each text; raise ExportError when one is no valid text."""
        if self._threads > 1:
            try:
                encodings: list[Encoding] = self._tokenizer.encode_batch(texts)
                return encodings
            except TypeError:
                pass  # the loop below finds the text and names it
        return [self.encode(text) for text in texts]

    def run_one(self, encoding: Encoding) -> _Logits:
        """Return logits (labels,) of one encoded text."""
        # A tokenizer may give a blank text no token.
        ids = np.array([encoding.ids or [self._pad_id]], np.int64)
        logits: _Logits = self._run(ids, np.ones_like(ids))[0]
        return logits

    def run_many(self, encodings: Sequence[Encoding]) -> _Logits:
        """Return logits (texts, labels) of encoded texts in their order."""
        lengths = np.array([max(len(encoding.ids), 1) for encoding in encodings], np.int64)
        if not len(lengths):
            return np.zeros((0, self.width or 0), np.float32)
        pieces, places = [], []
        for batch in _batches(lengths):
            ids = np.full((len(batch), lengths[batch[-1]]), self._pad_id, np.int64)
            mask = np.zeros_like(ids)
            for row, index in enumerate(batch):
                ids[row, : len(encodings[index].ids)] = encodings[index].ids
                mask[row, : lengths[index]] = 1
            pieces.append(self._run(ids, mask))
            places.append(batch)
        logits = np.empty((len(lengths), pieces[0].shape[1]), np.float32)
        logits[np.concatenate(places)] = np.concatenate(pieces)
        return logits

    def _run(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> _Logits:
        options = None
        if ids.size > _SHRINK_ABOVE_TOKENS:
            options = onnxruntime.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        try:
            found = self._session.run(["logits"], {"input_ids": ids, "attention_mask": mask}, options)
        except Exception as error:  # onnxruntime's errors have no common base
            raise ExportError(
                f"no answer at shape {ids.shape} ({error}); check that max_tokens fits the model"
            ) from error
        logits: _Logits = found[0]
        return logits


@dataclass(frozen=True, slots=True)
class Prediction:
    """One answer. `label` is the most probable of the decided `labels`, None when no label was decided.

    `probability` belongs to the most probable label, decided or not; `tokens` is what the model read.
    """

    label: str | None
    labels: tuple[str, ...]
    probability: float
    truncated: bool
    tokens: int
    _names: tuple[str, ...] = field(repr=False)
    _probs: tuple[float, ...] = field(repr=False)

    @property
    def probabilities(self) -> dict[str, float]:
        """The probability of every label by name, in the order of the labels."""
        return dict(zip(self._names, self._probs, strict=True))


class Predictor:
    """A bundle that answers texts with labels; safe to share between threads."""

    def __init__(self, manifest: BundleManifest, classifier: OnnxClassifier, examples: Examples | None = None) -> None:
        """Join what the bundle says with its opened model; raise BundleError when they do not fit."""
        self.manifest = manifest
        self.examples = examples
        self._classifier = classifier
        self._thresholds = None
        if manifest.thresholds is not None:
            self._thresholds = np.array([manifest.thresholds[label] for label in manifest.labels], np.float32)
        if classifier.width not in (None, len(manifest.labels)):
            raise BundleError(
                f"the model gives {classifier.width} logits, wanted one for each of the "
                f"{len(manifest.labels)} labels; export the bundle again"
            )

    @classmethod
    def load(cls, bundle: Path | str, precision: Precision | None = None, threads: int = 1) -> "Predictor":
        """Open a bundle at `precision` (None: the one it ships with) after checking every byte it loads.

        Raises BundleError when a file is missing, changed or not listed.
        """
        bundle = Path(bundle)
        manifest = read_manifest(bundle)
        refuse_strangers(bundle, manifest)
        model = read_listed(bundle, manifest, MODEL_FILES[precision or manifest.precision])
        tokenizer = read_listed(bundle, manifest, "tokenizer.json")
        examples = None
        if EXAMPLES in manifest.files:
            examples = read_examples(read_listed(bundle, manifest, EXAMPLES), len(manifest.labels))
        return cls(manifest, OnnxClassifier(model, tokenizer, manifest.max_tokens, threads), examples)

    def predict(self, texts: str | Sequence[str]) -> list[Prediction]:
        """Return one answer a text, in order; a single string is one text.

        Raises TextTooLongError when the bundle refuses long texts, ExportError on a text that is no valid
        Unicode or an answer that is no number.
        """
        encodings = self.encode([texts] if isinstance(texts, str) else texts)
        return self.decide(encodings, self.run(encodings))

    def encode(self, texts: Sequence[str], too_long: TooLong | None = None) -> list[Encoding]:
        """Return the tokens of each text; `too_long` stands in for what the bundle says of long texts.

        Raises TextTooLongError when long texts are refused, ExportError on a text that is no valid Unicode.
        """
        encodings = self._classifier.encode_many(texts)
        if (too_long or self.manifest.too_long) == "refuse":
            self._refuse_long(encodings)
        return encodings

    def run(self, encodings: Sequence[Encoding]) -> _Logits:
        """Return logits (texts, labels); a single text is run alone and unpadded.

        Raises ExportError on an answer that is no number.
        """
        if len(encodings) == 1:
            logits = self._classifier.run_one(encodings[0])[None]
        else:
            logits = self._classifier.run_many(encodings)
        if not np.isfinite(logits).all():
            raise ExportError("the model gave a logit that is not a finite number; export the student again")
        return logits

    def decide(self, encodings: Sequence[Encoding], logits: _Logits) -> list[Prediction]:
        """Return the answers that logits (texts, labels) stand for."""
        probs = ACTIVATIONS[self.manifest.kind](logits / self.manifest.temperature)
        decided = decode(self.manifest.kind, probs, self._thresholds)
        return [self._prediction(*row) for row in zip(encodings, probs, decided, strict=True)]

    def _refuse_long(self, encodings: Sequence[Encoding]) -> None:
        for index, encoding in enumerate(encodings):
            if encoding.overflowing:
                raise TextTooLongError(
                    f"text {index} has more than the {self.manifest.max_tokens} tokens this bundle takes; "
                    "shorten it, or have it cut (truncate)"
                )

    def _prediction(self, encoding: Encoding, probs: _Logits, decided: NDArray[np.bool_]) -> Prediction:
        names = self.manifest.labels
        ranked = sorted(np.flatnonzero(decided), key=lambda column: -probs[column])
        labels = tuple(names[column] for column in ranked)
        return Prediction(
            label=labels[0] if labels else None,
            labels=labels,
            probability=float(probs.max()),
            truncated=bool(encoding.overflowing),
            tokens=len(encoding.ids),
            _names=names,
            _probs=tuple(probs.tolist()),
        )


def self_test(bundle: Path) -> list[str]:
    """Return what keeps a verified bundle from answering: loads each of its models and runs a few texts."""
    problems = []
    manifest = read_manifest(bundle)
    for precision, name in MODEL_FILES.items():
        if name in manifest.files:
            try:
                Predictor.load(bundle, precision).predict([*manifest.labels[:8], "a text"])
            except TextTooLongError:
                pass  # a refusal, as the bundle asks for, is an answer
            except ExportError as error:
                problems.append(f"{precision}: {error}")
    return problems


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.intp]]:
    """Yield indices of texts of rising length, so many that rows x longest stays within the token budget."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * lengths[order[end]] > _BATCH_TOKENS
        if full:
            yield order[start:end]
            start = end


def _describe(text: Any) -> str:
    return "a text with a lone surrogate" if isinstance(text, str) else type(text).__name__
