"""What a prompt shows beside its text: examples from gold and passages from documents, chosen for each text.

A text is never shown itself as an example. Knows nothing of prompts or models that read them.
"""

import hashlib
import random
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from teacher.encoder import Gold, load_embedder
from teacher.errors import SettingError, TeacherError
from teacher.example import Example, content_id, leak_words, normalise
from teacher.files import file_digest
from teacher.prompt import Passage
from teacher.scorer import TextScorer
from teacher.spec import PromptSpec

_FILE = "retrieval.json"
_EXAMPLE_VECTORS, _PASSAGE_VECTORS = "examples.npy", "passages.npy"
_DOCUMENT_SUFFIXES = (".txt", ".md")
_LONGEST_PASSAGE = 1500  # characters; longer paragraphs are cut between words
_ENCODER_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Shown:
    """What stands beside one text; the example most like the text comes last, next to it."""

    examples: tuple[Example, ...] = ()
    passages: tuple[Passage, ...] = ()

    @property
    def sources(self) -> tuple[str, ...]:
        """Return the ids of the examples, then of the passages."""
        return (*(one.id for one in self.examples), *(one.id for one in self.passages))


class ExampleRow(BaseModel):
    """A gold row on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str
    labels: tuple[str, ...]


class PassageRow(BaseModel):
    """A passage on disk."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    text: str


class RetrievalCard(BaseModel):
    """retrieval.json: from what examples and passages are chosen, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choose: Literal["fixed", "random", "dense", "bm25"]
    examples: int
    passages: int
    encoder: str | None
    seed: int
    rows: tuple[ExampleRow, ...]
    documents: tuple[PassageRow, ...]


def fit_chooser(spec: PromptSpec, gold: Gold, directory: Path) -> None:
    """Write everything an ExampleChooser needs into `directory`; raise TeacherError when it could not choose."""
    _check(spec, gold)
    rows = _balanced(gold.train, gold.seed) if spec.examples else []
    passages = read_passages(Path(spec.documents)) if spec.documents and spec.passages else []
    card = RetrievalCard(
        choose=spec.choose,
        examples=spec.examples,
        passages=spec.passages if passages else 0,
        encoder=spec.encoder,
        seed=gold.seed,
        rows=tuple(ExampleRow(id=row.id, text=row.text, labels=row.labels or ()) for row in rows),
        documents=tuple(PassageRow(id=passage.id, text=passage.text) for passage in passages),
    )
    if spec.encoder and (passages or (rows and spec.choose == "dense")):
        embedder = load_embedder(spec.encoder, _ENCODER_TOKENS)
        if rows and spec.choose == "dense":
            np.save(directory / _EXAMPLE_VECTORS, embedder.logits([row.text for row in rows]))
        if passages:
            np.save(directory / _PASSAGE_VECTORS, embedder.logits([passage.text for passage in passages]))
    (directory / _FILE).write_text(card.model_dump_json(indent=1), encoding="utf-8")


class ExampleChooser:
    """Choose examples and passages for texts; `digest` covers all that they are chosen from, and how."""

    def __init__(self, directory: Path) -> None:
        """Load what `fit_chooser` wrote; raise TeacherError when it is not there."""
        try:
            card = RetrievalCard.model_validate_json((directory / _FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise TeacherError(f"{directory} holds no {_FILE} to choose examples from; label again") from error
        self._card = card
        self._examples = tuple(Example(row.id, row.text, row.labels) for row in card.rows)
        self._passages = tuple(Passage(row.id, row.text) for row in card.documents)
        vectors = {name: directory / name for name in (_EXAMPLE_VECTORS, _PASSAGE_VECTORS)}
        there = {name: path for name, path in vectors.items() if path.is_file()}
        dense = _Embedder(card.encoder) if card.encoder and there else None
        if dense and Path(card.encoder or "").is_absolute() and not Path(card.encoder or "").is_dir():
            raise SettingError(
                f"{directory / _FILE} chooses examples with the encoder in {card.encoder}, which is not there; put it "
                "back, or set prompt.encoder to where it is now and label again"
            )
        is_ranked = bool(self._examples) and card.choose in ("dense", "bm25")
        self._example_ranker = _ranker(self._examples, dense, there.get(_EXAMPLE_VECTORS)) if is_ranked else None
        self._passage_ranker = _ranker(self._passages, dense, there.get(_PASSAGE_VECTORS)) if self._passages else None
        digests = [file_digest(path) for path in there.values()]
        self.digest = hashlib.sha256(f"{card.model_dump_json(exclude={'encoder'})} {digests}".encode()).hexdigest()

    def choose(self, texts: Sequence[str]) -> list[Shown]:
        """Return what is shown with each text, in the order of `texts`."""
        pairs = zip(self._choose_examples(texts), self._choose_passages(texts), strict=True)
        return [Shown(examples, passages) for examples, passages in pairs]

    def _choose_examples(self, texts: Sequence[str]) -> Iterator[tuple[Example, ...]]:
        count = self._card.examples
        if self._example_ranker is None:
            yield from (self._draw(content_id(text), count) for text in texts)
            return
        for text, best in zip(texts, self._example_ranker.best(texts, count + 1), strict=True):
            own = content_id(text)
            others = [self._examples[at] for at, _ in best if self._examples[at].id != own]
            yield tuple(reversed(others[:count]))

    def _draw(self, own: str, count: int) -> tuple[Example, ...]:
        if self._card.choose == "fixed":
            return tuple([one for one in self._examples[: count + 1] if one.id != own][:count])
        # Drawn by text, so that a text has the same examples in every run and batch.
        drawn = random.Random(f"{self._card.seed} {own}").sample(self._examples, min(count + 1, len(self._examples)))
        return tuple([one for one in drawn if one.id != own][:count])

    def _choose_passages(self, texts: Sequence[str]) -> Iterator[tuple[Passage, ...]]:
        if self._passage_ranker is None:
            yield from (() for _ in texts)
            return
        for best in self._passage_ranker.best(texts, self._card.passages):
            yield tuple(self._passages[at] for at, score in best if score > 0)


def read_passages(folder: Path) -> list[Passage]:
    """Return the paragraphs of all .txt and .md files under `folder`; raise TeacherError when there are none."""
    passages = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.suffix.lower() not in _DOCUMENT_SUFFIXES:
            continue
        try:
            paragraphs = _paragraphs(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(f"cannot read the document {path}: {error}; save it as UTF-8") from error
        name = path.relative_to(folder).as_posix()
        passages += [Passage(f"{name}#{number}", text) for number, text in enumerate(paragraphs, start=1)]
    if not passages:
        found = "no paragraph in a .txt or .md file" if folder.is_dir() else "no folder"
        raise SettingError(f"found {found} at {folder}, wanted the documents of prompt.documents; check the path")
    return passages


class _Ranker(Protocol):
    def best(self, texts: Sequence[str], count: int) -> Iterator[list[tuple[int, float]]]:
        """Yield for each text the (position, score) of its `count` best candidates, best first."""
        ...


class _Embedder:
    """An encoder that is loaded once, when the first text comes."""

    def __init__(self, encoder: str) -> None:
        self._encoder = encoder
        self._scorer: TextScorer | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self._scorer = self._scorer or load_embedder(self._encoder, _ENCODER_TOKENS)
        return self._scorer.logits(texts)


class _DenseRanker:
    def __init__(self, embedder: _Embedder, vectors: NDArray[np.float32]) -> None:
        self._embedder = embedder
        self._vectors = vectors

    def best(self, texts: Sequence[str], count: int) -> Iterator[list[tuple[int, float]]]:
        for embedding in self._embedder.embed(texts):
            yield _best_first(self._vectors @ embedding, count)


class _Bm25Ranker:
    """Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond", as bm25s computes it."""

    def __init__(self, texts: Sequence[str]) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise TeacherError("choosing by bm25 wants the package bm25s; pip install 'potstill[llm]'") from error
        self._index = bm25s.BM25()
        self._index.index([_words(text) for text in texts], show_progress=False)
        self._rows = len(texts)

    def best(self, texts: Sequence[str], count: int) -> Iterator[list[tuple[int, float]]]:
        for text in texts:
            known = self._index.get_tokens_ids(_words(text))
            scores = self._index.get_scores_from_ids(known) if known else np.zeros(self._rows)
            yield _best_first(scores, count)


def _ranker(candidates: Sequence[Example | Passage], embedder: _Embedder | None, vectors: Path | None) -> _Ranker:
    if vectors is not None and embedder is not None:
        return _DenseRanker(embedder, np.load(vectors, allow_pickle=False))
    return _Bm25Ranker([one.text for one in candidates])


def _best_first(scores: NDArray[np.floating], count: int) -> list[tuple[int, float]]:
    """Return (position, score), best first; equals stay in their order."""
    return [(int(at), float(scores[at])) for at in np.argsort(-scores, kind="stable")[:count]]


def _words(text: str) -> list[str]:
    return leak_words(text) or [normalise(text)]


def _balanced(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return `examples` shuffled and dealt out in turns, so that any first few show as many classes as they can."""
    shuffled = random.Random(seed).sample(list(examples), len(examples))
    dealt: dict[tuple[str, ...], int] = {}
    turns = []
    for example in shuffled:
        labels = example.labels or ()
        turns.append(dealt.get(labels, 0))
        dealt[labels] = turns[-1] + 1
    return [example for _, example in sorted(zip(turns, shuffled, strict=True), key=lambda pair: pair[0])]


def _paragraphs(document: str) -> Iterator[str]:
    """Yield what blank lines set apart, each on one line, the long ones cut between words."""
    lines = [line.strip() for line in document.splitlines()]
    for block in "\n".join(lines).split("\n\n"):
        yield from textwrap.wrap(normalise(block), _LONGEST_PASSAGE, break_on_hyphens=False)


def _check(spec: PromptSpec, gold: Gold) -> None:
    if spec.examples and spec.choose == "dense" and not spec.encoder:
        raise SettingError("prompt.choose is dense, which wants prompt.encoder; name one, or choose bm25")
    if spec.examples and len(gold.train) <= spec.examples:
        raise SettingError(
            f"found {len(gold.train)} gold rows, wanted more than the {spec.examples} of prompt.examples; "
            "ask for fewer examples or bring more gold"
        )
    if spec.passages and not spec.documents:
        raise SettingError("prompt.passages is set, but prompt.documents is not; name the folder of documents")
