"""Arrays of logits or probabilities from texts: one ONNX file, one tokenizer.json, no torch.

One text is run alone and unpadded, so the same text always gets the same bits. Several texts are sorted by
length and share batches, which is faster, but int8 answers then shift slightly with their batch-mates. Knows
nothing of labels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from export.errors import BundleError, ExportError
from export.sessions import SessionPool, open_session, shrinking
from export.tokens import Encoded, TextTokenizer

LOGITS, PROBABILITIES = "logits", "probabilities"
BOTH = "both"  # logits and behind them, in the same row, probabilities
_NAMES = {LOGITS: [LOGITS], PROBABILITIES: [PROBABILITIES], BOTH: [LOGITS, PROBABILITIES]}
_BATCH_TOKENS = 512
_SHRINK_ABOVE_TOKENS = 1024  # a longer call would keep its scratch memory for ever
_Job = TypeVar("_Job")
Answers = NDArray[np.float32]
_Batch = tuple[NDArray[np.int64], NDArray[np.int64]]  # input_ids and attention_mask (texts, tokens)


class OnnxClassifier:
    """Logits of texts from one ONNX file and one tokenizer.json; safe to share between threads.

    `threads` share the work of a text that runs alone; many texts run on as many single-threaded sessions.
    """

    def __init__(self, model: Path | bytes, tokenizer: Path | bytes, max_tokens: int, threads: int = 1) -> None:
        """Open both files (paths or contents); raise BundleError when one of them cannot be opened."""
        try:
            self._session = open_session(model, threads)
            content = tokenizer if isinstance(tokenizer, bytes) else tokenizer.read_bytes()
            self.tokenizer = TextTokenizer(content, max_tokens, threads)
        except Exception as error:  # neither library has a base class for its errors
            raise BundleError(f"the model or its tokenizer does not open ({error}); export it again") from error
        self._pool = SessionPool(model, threads) if threads > 1 else None
        self._blank = np.int64(self.tokenizer.pad_id).tobytes()  # a tokenizer may give a blank text no token
        self._masks: dict[int, NDArray[np.int64]] = {}  # of ones, by length; never written to

    @property
    def width(self) -> int | None:
        """The number of logits of each text, None when the graph does not say."""
        width: int | str | None = self._session.get_outputs()[0].shape[-1]
        return width if isinstance(width, int) else None

    @property
    def has_probabilities(self) -> bool:
        """Whether the graph ends with calibrated probabilities."""
        return PROBABILITIES in {output.name for output in self._session.get_outputs()}

    def logits_one(self, text: str) -> Answers:
        """Return logits (labels,) of one text, run alone and unpadded."""
        return self.run_one(self.encode(text))

    def logits(self, texts: Sequence[str]) -> Answers:
        """Return logits (texts, labels) in the order of `texts`, run in batches of similar length."""
        return self.run_many(self.encode_many(texts))

    def encode(self, text: str) -> Encoded:
        """Return the tokens of one text, cut to `max_tokens`; raise ExportError when it is no valid text."""
        return self.tokenizer.encode(text)

    def encode_many(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the tokens of each text; raise ExportError when one is no valid text."""
        return self.tokenizer.encode_many(texts)

    def run_one(self, encoding: Encoded, output: str = LOGITS) -> Answers:
        """Return an output (labels,) of one encoded text, run alone on the threads of this classifier."""
        answer: Answers = _run(self._session, output, self._alone(encoding))[0]
        return answer

    def run_each(self, encodings: Sequence[Encoded], output: str = LOGITS) -> Answers:
        """Return one output (texts, labels), each text alone, unpadded and on one thread: the same bits always."""
        return self._stacked(self._run_all(output, self._alone, encodings))

    def run_many(self, encodings: Sequence[Encoded], output: str = LOGITS) -> Answers:
        """Return one output (texts, labels) of encoded texts in their order, in batches of similar length."""
        lengths = np.array([max(len(encoding), 1) for encoding in encodings], np.int64)
        places = list(_batches(lengths))
        found = self._stacked(self._run_all(output, partial(self._together, encodings, lengths), places))
        answers = np.empty_like(found)
        if places:
            answers[np.concatenate(places)] = found
        return answers

    def run_padded(self, encodings: Sequence[Encoded], padding: int, output: str = LOGITS) -> Answers:
        """Return one output (texts, labels), each text alone with `padding` masked tokens behind it."""
        wider = ((0, 0), (0, padding))

        def padded(encoding: Encoded) -> _Batch:
            ids, mask = self._alone(encoding)
            return np.pad(ids, wider, constant_values=self.tokenizer.pad_id), np.pad(mask, wider)

        return self._stacked(self._run_all(output, padded, encodings))

    def _run_all(self, output: str, build: Callable[[_Job], _Batch], jobs: Iterable[_Job]) -> list[Answers]:
        def answer(session: InferenceSession, job: _Job) -> Answers:
            return _run(session, output, build(job))

        if self._pool is None:
            return [answer(self._session, job) for job in jobs]
        return self._pool.run(answer, jobs)

    def _stacked(self, pieces: list[Answers]) -> Answers:
        return np.concatenate(pieces) if pieces else np.zeros((0, self.width or 0), np.float32)

    def _alone(self, encoding: Encoded) -> _Batch:
        ids = np.frombuffer(encoding.content or self._blank, np.int64)[None]
        mask = self._masks.get(ids.size)
        if mask is None:
            mask = self._masks[ids.size] = np.ones_like(ids)
        return ids, mask

    def _together(self, encodings: Sequence[Encoded], lengths: NDArray[np.int64], rows: NDArray[np.intp]) -> _Batch:
        is_token = np.arange(lengths[rows[-1]]) < lengths[rows, None]
        ids = np.full(is_token.shape, self.tokenizer.pad_id, np.int64)
        content = b"".join([encodings[row].content or self._blank for row in rows.tolist()])
        ids[is_token] = np.frombuffer(content, np.int64)
        return ids, is_token.astype(np.int64)


def _run(session: InferenceSession, output: str, batch: _Batch) -> Answers:
    ids, mask = batch
    options = shrinking() if ids.size > _SHRINK_ABOVE_TOKENS else None
    try:
        found: list[Answers] = session.run(_NAMES[output], {"input_ids": ids, "attention_mask": mask}, options)
    except Exception as error:  # onnxruntime's errors have no common base
        raise ExportError(f"no answer at shape {ids.shape} ({error}); check that max_tokens fits the model") from error
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def _batches(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.intp]]:
    """Yield indices of texts of rising length, so many that rows x longest stays within the token budget."""
    order = np.argsort(lengths, kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        full = end == len(order) or (end + 1 - start) * lengths[order[end]] > _BATCH_TOKENS
        if full:
            yield order[start:end]
            start = end
