"""Logits of many texts from a torch classifier on a CPU, fast: sort by length, fill a token budget, bf16 where
it agrees with fp32."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from teacher.errors import TeacherError
from teacher.finetune import TokenRows, bf16_is_native, pad
from teacher.pooled import PooledEncoder

TOKENS_PER_BATCH = 2048
_AGREEMENT_TEXTS = 256
_AGREEMENT_SHARE = 0.99


class TextScorer:
    """Answer texts with a model that maps token ids to `logits` and says how many in `num_labels`."""

    def __init__(
        self, model: PreTrainedModel | PooledEncoder, tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> None:
        """Keep `model` in evaluation mode on the device it is on; raise like `check_vocabulary`."""
        check_vocabulary(model, tokenizer)
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self._bf16: bool | None = None  # unknown until enough texts were answered both ways

    def logits(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return logits (N, C) in the order of `texts`; raise TeacherError when one is not finite."""
        return self.outputs(texts)["logits"]

    def outputs(self, texts: Sequence[str], *extra: str) -> dict[str, NDArray[np.float32]]:
        """Return `logits` and, of a model that takes `output_NAME`, each output of `extra`, (N, ...), from one pass.

        No text has no extra output. Raises as `logits` does.
        """
        rows = TokenRows(self.tokenizer, texts, self.max_tokens)
        if self._bf16 is None and len(rows) >= _AGREEMENT_TEXTS:
            self._bf16 = bf16_is_native() and self._bf16_agrees(rows)
        found = self._run(rows, np.arange(len(rows)), bool(self._bf16), extra)
        if not np.isfinite(found["logits"]).all():
            raise TeacherError("the model answered with NaN or infinity; its weights are damaged or overflowed")
        return found

    def _bf16_agrees(self, rows: TokenRows) -> bool:
        sample = np.linspace(0, len(rows) - 1, _AGREEMENT_TEXTS).astype(int)
        exact, quick = (self._run(rows, sample, bf16)["logits"].argmax(axis=1) for bf16 in (False, True))
        return bool((exact == quick).mean() >= _AGREEMENT_SHARE)

    def _run(
        self, rows: TokenRows, wanted: NDArray[np.intp], bf16: bool, extra: Sequence[str] = ()
    ) -> dict[str, NDArray[np.float32]]:
        asked = {f"output_{name}": True for name in extra}
        device = next(self.model.parameters()).device
        lengths = np.minimum(round_up(rows.lengths[wanted]), self.max_tokens)
        cuts = batches(np.argsort(lengths, kind="stable"), lengths)
        found = {"logits": np.empty((len(wanted), self.model.num_labels), np.float32)}
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            for chosen in cuts:
                tokens = [rows.tokens(row) for row in wanted[chosen]]
                # A few texts at once are answered in their own shape, as fast as can be.
                batch = self._pad(tokens, int(lengths[chosen[-1]]) if len(cuts) > 1 else None)
                answer = self.model(**{name: array.to(device) for name, array in batch.items()}, **asked)
                for name in ("logits", *extra):
                    given = answer[name][: len(chosen)].float().cpu().numpy()
                    found.setdefault(name, np.empty((len(wanted), *given.shape[1:]), np.float32))[chosen] = given
        return found

    def _pad(self, tokens: list[NDArray[np.int32]], length: int | None) -> dict[str, torch.Tensor]:
        """Return a batch of the one shape that all batches of `length` have; None: of the shape of `tokens`."""
        padding = self.tokenizer.pad_token_id or 0
        if length is None:
            return pad(tokens, padding)
        # bf16 kernels are compiled for each new shape and kept for ever, some 4 MB a shape.
        missing = TOKENS_PER_BATCH // length - len(tokens)
        batch = pad(tokens + tokens[-1:] * missing, padding)
        width = (0, length - batch["input_ids"].shape[1])
        return {
            "input_ids": torch.nn.functional.pad(batch["input_ids"], width, value=padding),
            "attention_mask": torch.nn.functional.pad(batch["attention_mask"], width),
        }


def check_vocabulary(model: PreTrainedModel | PooledEncoder, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise TeacherError when `tokenizer` makes token ids for which `model` has no embedding."""
    encoder = model.encoder if isinstance(model, PooledEncoder) else model
    # Of the config: a static student shares embeddings, so it reads more tokens than it has rows. A model that takes
    # pictures too keeps what it knows of texts in a config of its own.
    tokens = encoder.config.get_text_config().vocab_size
    highest = max(tokenizer.get_vocab().values(), default=-1)
    if highest >= tokens:
        raise TeacherError(
            f"the tokenizer does not belong to the model: it makes token ids up to {highest}, but the model embeds "
            f"only {tokens} tokens; use the tokenizer that the model was trained with"
        )


def round_up(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `lengths` rounded up to one of eight values between each power of two and the next, at least even."""
    steps = np.maximum(2 ** np.floor(np.log2(np.maximum(lengths, 1))).astype(np.int64) // 8, 2)
    return -(-lengths // steps) * steps


def batches(order: NDArray[np.intp], lengths: NDArray[np.int64]) -> list[NDArray[np.intp]]:
    """Cut rows sorted by length into batches of at most TOKENS_PER_BATCH padded tokens, at least one row each."""
    cuts, start = [], 0
    for end in range(1, len(order) + 1):
        if end == len(order) or (end + 1 - start) * lengths[order[end]] > TOKENS_PER_BATCH:
            cuts.append(order[start:end])
            start = end
    return cuts
