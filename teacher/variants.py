"""Variants of texts: what somebody might have written instead, for a teacher to score.

A variant inherits no label; whoever trains on one asks the teacher about the variant itself. Knows nothing of tasks
and teachers.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from teacher.encoder import load_embedder
from teacher.example import Example, content_id, normalise
from teacher.neighbours import nearest, unit

Words = list[str]
_NEIGHBOURS, _UNSEEN = 8, 4  # of which one takes a word's place; among words that the texts have, and lack
_REPLACED, _DROPPED, _TWICE = 0.2, 0.15, 0.3  # shares of words, of words, and of variants that are varied once more


class WordNeighbours:
    """For each word of some texts that has an embedding: the words whose embeddings are nearest by cosine.

    Half of those drawn are words that the texts have, half are words that they lack, as far as `vocabulary` has whole
    words: what a student will be asked about has both.
    """

    def __init__(self, texts: Sequence[str], vocabulary: Mapping[str, int], embeddings: NDArray[np.float32]) -> None:
        """Look words up in the rows (vocabulary, width) that `vocabulary` names."""
        used = {word for text in texts for word in text.lower().split() if word.isalpha()}
        known = sorted(used & vocabulary.keys())
        unseen = sorted(_whole_words(vocabulary) - used)
        vectors, others = (unit(embeddings[[vocabulary[word] for word in words]]) for words in (known, unseen))
        near, far = nearest(vectors, _NEIGHBOURS)[0], nearest(vectors, _UNSEEN, others)[0]
        self._near: dict[str, list[list[str]]] = {
            word: [words for words in ([known[at] for at in near[row]], [unseen[at] for at in far[row]]) if words]
            for row, word in enumerate(known)
        }

    def draw(self, word: str, random: np.random.Generator) -> str:
        """Return one of the neighbours of `word`, or `word` where none is known."""
        kinds = self._near.get(word.lower())
        if not kinds:
            return word
        words = kinds[int(random.integers(len(kinds)))]
        return words[int(random.integers(len(words)))]


def _whole_words(vocabulary: Mapping[str, int]) -> set[str]:
    """Return the tokens of a WordPiece vocabulary that are words of three letters or more; of another one none."""
    if not any(token.startswith("##") for token in vocabulary):
        return set()  # nothing tells a word from a piece of one
    return {token for token in vocabulary if len(token) > 2 and token.isalpha() and token == token.lower()}


def word_neighbours(model: str, texts: Sequence[str]) -> WordNeighbours:
    """Return the neighbours of the words of `texts` among the token embeddings of the encoder `model`."""
    embedder = load_embedder(model, max_tokens=8)
    table = embedder.model.encoder.get_input_embeddings().weight
    return WordNeighbours(texts, embedder.tokenizer.get_vocab(), table.detach().float().numpy())


def make_variants(
    texts: Sequence[str], copies: int, neighbours: WordNeighbours | None, *, seed: int, avoided: Iterable[str] = ()
) -> list[Example]:
    """Return up to `copies` variants of each of `texts`, none of them one of `texts` or there twice.

    None has its id in `avoided` either. Each is made in one or two of these ways: words replaced by neighbours (where
    there are `neighbours`), words dropped, two words swapped, a typing error, the start of the text followed by the
    end of another one. The same seed gives the same variants.
    """
    random = np.random.default_rng(seed)
    ways = _ways(texts, neighbours, random)
    seen = {*avoided, *(content_id(text) for text in texts)}
    variants = []
    for text in texts:
        for copy in range(copies):
            words = ways[copy % len(ways)](text.split())
            if random.random() < _TWICE:
                words = ways[int(random.integers(len(ways)))](words)
            variant = normalise(" ".join(words))
            if variant and (key := content_id(variant)) not in seen:
                seen.add(key)
                variants.append(Example(key, variant))
    return variants


def _ways(
    texts: Sequence[str], neighbours: WordNeighbours | None, random: np.random.Generator
) -> list[Callable[[Words], Words]]:
    def replace(words: Words) -> Words:
        if neighbours is None:
            return words
        chosen = set(random.choice(len(words), max(1, int(_REPLACED * len(words))), replace=False).tolist())
        return [neighbours.draw(word, random) if at in chosen else word for at, word in enumerate(words)]

    def drop(words: Words) -> Words:
        return [word for word in words if random.random() >= _DROPPED] or words

    def splice(words: Words) -> Words:
        other = texts[int(random.integers(len(texts)))].split()
        head = words[: max(1, int(len(words) * random.uniform(0.3, 0.8)))]
        return head + other[int(len(other) * random.uniform(0.2, 0.7)) :]

    def mistype(words: Words) -> Words:
        at = int(random.integers(len(words)))
        return [*words[:at], _mistyped(words[at], random), *words[at + 1 :]]

    def swap(words: Words) -> Words:
        if len(words) < 2:
            return words
        at = int(random.integers(len(words) - 1))
        return [*words[:at], words[at + 1], words[at], *words[at + 2 :]]

    return [drop, splice, mistype, swap] if neighbours is None else [replace, drop, splice, mistype, swap]


def _mistyped(word: str, random: np.random.Generator) -> str:
    if len(word) < 4:
        return word
    at = int(random.integers(1, len(word) - 2))
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return swapped if random.random() < 0.5 else word[:at] + word[at + 1 :]
