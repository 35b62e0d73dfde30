"""Choose which texts of a pool the teacher is asked, and in which order: a smaller budget takes the first of them.

`random` reads a pool of any size in memory for its ids alone. The other strategies compare texts by embeddings: they
look at `candidates` of the pool, drawn at random when it holds more, and their memory is that of the candidates'
embeddings (100,000 of 384 numbers: 154 MB). Knows nothing of how texts are answered.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from teacher.acquisition import k_center, student_probs, uncertainty
from teacher.errors import StoreError
from teacher.example import Example
from teacher.files import write_atomically
from teacher.parts import iterate_part, read_part
from teacher.spec import SelectSpec
from teacher.task import Task

SELECTION = "selection.parquet"
_BLOCK = 50_000  # texts that are in memory at once while a selection is read
_SAMPLE = 20_000  # texts that TF-IDF and its projection are fitted on
_WIDTH = 128  # of projected TF-IDF
_FEATURES = 2**16  # words, and as many runs of characters; the projection is a dense matrix over them
_MAX_TOKENS = 128
_META = "potstill.selection"

Floats = NDArray[np.float32]
Embed = Callable[[Sequence[str]], Floats]


@dataclass(frozen=True, slots=True)
class Selection:
    """Content ids, the text most worth a call first; chosen from `candidates` of `pool` texts that are no gold."""

    ids: tuple[str, ...]
    strategy: str
    pool: int
    candidates: int

    def write(self, directory: Path) -> None:
        """Write selection.parquet into `directory`."""
        facts = f"{self.strategy} {self.pool} {self.candidates}"
        table = pa.table({"id": pa.array(self.ids, pa.string())}).replace_schema_metadata({_META: facts})
        path = directory / SELECTION
        write_atomically(path, lambda partial: pq.write_table(table, partial, write_page_checksum=True))


def read_selection(directory: Path) -> Selection | None:
    """Return the selection in `directory`, None when there is none; raise StoreError when it is damaged."""
    path = directory / SELECTION
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        strategy, pool, candidates = table.schema.metadata[_META.encode()].decode().split()
        return Selection(tuple(table["id"].to_pylist()), strategy, int(pool), int(candidates))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is damaged; delete the folder and label again") from error


def select_pool(spec: SelectSpec, corpus: Path, task: Task, *, seed: int) -> Selection:
    """Return up to `spec.budget_rows` texts of the pool of `corpus`; gold rows have their labels and are never chosen.

    Raises TeacherError when `spec.encoder` cannot be loaded. The same seed gives the same order.
    """
    gold = read_part(corpus, "gold")
    ids = _unlabelled(corpus, {example.id for example in gold})
    drawn = np.random.default_rng(seed).permutation(len(ids))
    if spec.strategy == "random":
        chosen = tuple(ids[row] for row in drawn[: spec.budget_rows])
        return Selection(chosen, spec.strategy, len(ids), len(ids))
    rows = np.sort(drawn[: max(spec.candidates, spec.budget_rows)])
    candidates = tuple(ids[row] for row in rows)
    texts = [example.text for block in iterate_ids(corpus, candidates) for example in block]
    order = _order(spec, gold, texts, task, seed)
    return Selection(tuple(candidates[row] for row in order), spec.strategy, len(ids), len(candidates))


def iterate_ids(corpus: Path, ids: Sequence[str]) -> Iterator[list[Example]]:
    """Yield the pool texts `ids` in their order, a block at a time; raise StoreError when one is not in the pool."""
    for start in range(0, len(ids), _BLOCK):
        block = ids[start : start + _BLOCK]
        wanted = set(block)
        found = {one.id: one for chunk in iterate_part(corpus, "pool") for one in chunk if one.id in wanted}
        if len(found) < len(wanted):
            raise StoreError(f"{len(wanted) - len(found)} of the texts selected are not in the pool; label again")
        yield [found[one] for one in block]


def _order(spec: SelectSpec, gold: Sequence[Example], texts: Sequence[str], task: Task, seed: int) -> NDArray[np.intp]:
    known = [example.text for example in gold]
    embed = _encoder(spec.encoder) if spec.encoder else _projected_tfidf([*known, *texts], seed)
    labelled, points = embed(known), embed(texts)
    count, doubts = min(spec.budget_rows, len(texts)), None
    if spec.strategy != "diversity":
        targets = task.targets([example.labels or () for example in gold])
        probs = student_probs(task.kind, labelled, targets, points)
        doubts = uncertainty(task.kind, probs, spec.uncertainty)
    if spec.strategy == "uncertainty" and doubts is not None:
        return np.argsort(-doubts, kind="stable")[:count]
    return k_center(points, labelled, count, doubts)


def _unlabelled(corpus: Path, labelled: set[str]) -> list[str]:
    return [one.id for chunk in iterate_part(corpus, "pool") for one in chunk if one.id not in labelled]


def _encoder(model: str) -> Embed:
    from teacher.encoder import load_embedder

    return load_embedder(model, _MAX_TOKENS).logits


def _projected_tfidf(texts: Sequence[str], seed: int) -> Embed:
    """Return latent semantic analysis fitted on a sample of `texts`: TF-IDF of words and characters, projected."""
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.preprocessing import Normalizer

    rows = np.sort(np.random.default_rng(seed).permutation(len(texts))[:_SAMPLE])
    shared: dict[str, Any] = {"sublinear_tf": True, "max_features": _FEATURES, "dtype": np.float32}
    words = TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", **shared)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), **shared)
    width = max(min(_WIDTH, len(rows) - 1), 1)
    projected = make_pipeline(make_union(words, characters), TruncatedSVD(width, random_state=seed), Normalizer())
    projected.fit([texts[row] for row in rows])

    def embed(given: Sequence[str]) -> Floats:
        blocks = [projected.transform(given[start : start + 4096]) for start in range(0, len(given), 4096)]
        return np.asarray(np.concatenate(blocks) if blocks else np.zeros((0, width)), np.float32)

    return embed
