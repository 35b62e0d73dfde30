"""Trim a fast tokenizer to the tokens a corpus needs, and prove that the corpus still splits the same.

Works on the tokenizer's own JSON (WordPiece, BPE and Unigram). Knows nothing of the model: whoever trims
takes the rows `Trimmed.kept_ids` of the embedding and carries the new special-token ids into its config.
"""

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from student.errors import StudentError

_BATCH_TEXTS = 1024
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")
# BERT's reserved rows hold low ids, but its pre-tokenizer splits at the brackets: no text can reach them.
_PLACEHOLDER = re.compile(r"\[unused\d+\]")

NewIds = Mapping[int, int]  # old token id -> new token id


@dataclass(frozen=True, slots=True, eq=False)
class Trimmed:
    """A trimmed tokenizer: row i of its embedding is row `kept_ids[i]` of the old one.

    `kept_ids` is int64 (after,) and rises: new ids keep the old order. `before` and `after` count tokens.
    """

    tokenizer: PreTrainedTokenizerFast
    kept_ids: NDArray[np.int64]
    before: int
    after: int


def trim_vocabulary(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str], *, least_rows: int = 6000) -> Trimmed:
    """Keep what `texts` (streamed once) use, what unseen words fall back to, and at least `least_rows` rows.

    Kept are special and added tokens, used tokens, single characters and bytes, the parts of every kept BPE
    merge, then the lowest remaining ids: vocabularies are ordered by frequency or by merge. A vocabulary of
    `least_rows` or fewer is kept whole. Raises StudentError for a tokenizer that cannot be trimmed.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise _refusal(f"the tokenizer {type(tokenizer).__name__} has no fast backend")
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    if model["type"] not in _RENUMBER:
        raise _refusal(f"the tokenizer's model is {model['type']}, wanted one of {', '.join(_RENUMBER)}")
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    backend = _untruncated(tokenizer)
    needed = _indispensable(state, vocabulary, backend) | _used_ids(backend, texts)
    fillers = sorted(vocabulary, key=lambda piece: (bool(_PLACEHOLDER.fullmatch(piece)), vocabulary[piece]))
    kept = _complete(needed, [vocabulary[piece] for piece in fillers], _merge_parts(model), least_rows)
    kept_ids = np.array(sorted(kept), dtype=np.int64)
    new_ids = {int(old): new for new, old in enumerate(kept_ids)}
    _renumber(state, new_ids)
    trimmed = _reload(tokenizer, state)
    if trimmed.get_vocab() != {piece: new_ids[old] for piece, old in vocabulary.items() if old in new_ids}:
        raise _refusal(f"{type(tokenizer).__name__} did not load its trimmed vocabulary as it was written")
    return Trimmed(trimmed, kept_ids, before=len(vocabulary), after=len(kept_ids))


def changed_splits(before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, texts: Iterable[str]) -> float:
    """Return the share of `texts` (0 to 1) that the two tokenizers split into different token strings.

    An unknown piece counts as the unknown token, whatever text it stands for.
    Raises StudentError when there are no texts.
    """
    old_pieces, new_pieces = ({row: piece for piece, row in side.get_vocab().items()} for side in (before, after))
    rows = changed = 0
    for _, old, new in _encode_both(before, after, texts):
        rows += 1
        changed += [old_pieces[row] for row in old] != [new_pieces[row] for row in new]
    if rows == 0:
        raise StudentError("found no texts, wanted at least one: pass held-out texts to compare the splits on")
    return changed / rows


def prove_unchanged(
    before: PreTrainedTokenizerFast,
    after: PreTrainedTokenizerFast,
    kept_ids: NDArray[np.int64],
    texts: Iterable[str],
) -> None:
    """Check that every text, special tokens included, gives the same ids once mapped back by `kept_ids`.

    On the trimmed corpus this holds by construction, with one exception: a WordPiece vocabulary that lacks a
    character which its longer pieces contain may now spell a word that it did not know before.
    Raises StudentError that shows the first text that changed.
    """
    for text, old, new in _encode_both(before, after, texts):
        if kept_ids[np.asarray(new, dtype=np.int64)].tolist() != old:
            was, became = before.convert_ids_to_tokens(old[:20]), after.convert_ids_to_tokens(new[:20])
            raise _refusal(f"the trimmed vocabulary changes a text: {text[:80]!r} was {was} and became {became}")


def _refusal(found: str) -> StudentError:
    return StudentError(f"{found}; set `student.vocabulary: full` to keep every token")


def _untruncated(tokenizer: PreTrainedTokenizerFast) -> Tokenizer:
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    iterator = iter(texts)
    while batch := list(islice(iterator, _BATCH_TEXTS)):
        yield batch


def _encode(backend: Tokenizer, batch: list[str]) -> list[list[int]]:
    # The fast call leaves out offsets, and the token strings with them: only its ids may be read.
    return [encoding.ids for encoding in backend.encode_batch_fast(batch)]


def _encode_both(
    before: PreTrainedTokenizerFast, after: PreTrainedTokenizerFast, texts: Iterable[str]
) -> Iterator[tuple[str, list[int], list[int]]]:
    old, new = _untruncated(before), _untruncated(after)
    for batch in _batches(texts):
        yield from zip(batch, _encode(old, batch), _encode(new, batch), strict=True)


def _used_ids(backend: Tokenizer, texts: Iterable[str]) -> set[int]:
    used: set[int] = set()
    for batch in _batches(texts):
        used.update(chain.from_iterable(_encode(backend, batch)))
    return used


def _indispensable(state: Mapping[str, Any], vocabulary: Mapping[str, int], backend: Tokenizer) -> set[int]:
    """Return the ids that stay whatever the corpus: named by the tokenizer, or a last resort."""
    model = state["model"]
    ids = {token["id"] for token in state["added_tokens"]}
    ids.update(backend.encode("").ids, backend.encode("", "").ids)  # what the post-processor adds
    if state["padding"]:
        ids.add(state["padding"]["pad_id"])
    if model.get("unk_token") in vocabulary:
        ids.add(vocabulary[model["unk_token"]])
    if model["type"] == "Unigram":
        # An unknown character costs the lowest score and a penalty, so without that score splits would move.
        ids.add(min(range(len(model["vocab"])), key=lambda index: model["vocab"][index][1]))
        if model["unk_id"] is not None:
            ids.add(model["unk_id"])
    prefix = model.get("continuing_subword_prefix") or ""
    suffix = model.get("end_of_word_suffix") or ""
    for piece, token_id in vocabulary.items():
        bare = piece.removeprefix(prefix).removesuffix(suffix)
        if len(bare) <= 1 or _BYTE_PIECE.fullmatch(piece):
            ids.add(token_id)
    return ids


def _merged(model: Mapping[str, Any], left: str, right: str) -> str:
    return left + right.removeprefix(model.get("continuing_subword_prefix") or "")


def _merge_parts(model: Mapping[str, Any]) -> dict[int, list[int]]:
    """Return, for each token that BPE merges make, the ids they join; empty for other models."""
    parts: dict[int, list[int]] = {}
    vocab = model["vocab"]
    for left, right in model.get("merges", ()):
        parts.setdefault(vocab[_merged(model, left, right)], []).extend((vocab[left], vocab[right]))
    return parts


def _complete(
    needed: Collection[int], fillers: Iterable[int], parts: Mapping[int, list[int]], least_rows: int
) -> set[int]:
    """Close `needed` over its merge parts, then add `fillers`, closed likewise, up to `least_rows`.

    With every merge on the way to a kept token kept in its old rank, BPE takes the same steps as before.
    """
    kept: set[int] = set()

    def add(token_ids: Iterable[int]) -> None:
        waiting = list(token_ids)
        while waiting:
            token_id = waiting.pop()
            if token_id not in kept:
                kept.add(token_id)
                waiting.extend(parts.get(token_id, ()))

    add(needed)
    for token_id in fillers:
        if len(kept) >= least_rows:
            break
        add([token_id])
    return kept


def _renumber_wordpiece(model: dict[str, Any], new_ids: NewIds) -> None:
    model["vocab"] = {piece: new_ids[old] for piece, old in model["vocab"].items() if old in new_ids}


def _renumber_bpe(model: dict[str, Any], new_ids: NewIds) -> None:
    _renumber_wordpiece(model, new_ids)
    model["merges"] = [pair for pair in model["merges"] if _merged(model, *pair) in model["vocab"]]


def _renumber_unigram(model: dict[str, Any], new_ids: NewIds) -> None:
    model["vocab"] = [piece for old, piece in enumerate(model["vocab"]) if old in new_ids]
    if model["unk_id"] is not None:
        model["unk_id"] = new_ids[model["unk_id"]]


_RENUMBER: dict[str, Callable[[dict[str, Any], NewIds], None]] = {
    "WordPiece": _renumber_wordpiece,
    "BPE": _renumber_bpe,
    "Unigram": _renumber_unigram,
}


def _renumber(state: dict[str, Any], new_ids: NewIds) -> None:
    """Write the new ids into every place of the tokenizer's JSON that holds ids."""
    _RENUMBER[state["model"]["type"]](state["model"], new_ids)
    for token in state["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    if state["padding"]:
        state["padding"]["pad_id"] = new_ids[state["padding"]["pad_id"]]
    if state["post_processor"]:
        _renumber_processor(state["post_processor"], new_ids)


def _renumber_processor(processor: dict[str, Any], new_ids: NewIds) -> None:
    for inner in processor.get("processors", ()):  # a Sequence
        _renumber_processor(inner, new_ids)
    if processor["type"] == "TemplateProcessing":
        for special in processor["special_tokens"].values():
            special["ids"] = [new_ids[old] for old in special["ids"]]
    elif processor["type"] in ("BertProcessing", "RobertaProcessing"):
        for name in ("sep", "cls"):
            token, old = processor[name]
            processor[name] = [token, new_ids[old]]


def _reload(tokenizer: PreTrainedTokenizerFast, state: dict[str, Any]) -> PreTrainedTokenizerFast:
    """Return `state` opened by the tokenizer's own class, from disk as any user of the checkpoint will."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        (Path(folder) / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
        reloaded = type(tokenizer).from_pretrained(folder)
    reloaded.name_or_path = tokenizer.name_or_path
    return reloaded
