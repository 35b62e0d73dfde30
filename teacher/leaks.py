"""Find the texts of one split that stand in another one too, word for word or nearly.

Near duplicates are found through signatures of a text with one element left out, so the work is linear in
the texts that are asked about. Knows nothing of labels, files or which split wins.
"""

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from teacher.example import leak_words, normalise

# Below this many words one other word usually makes another question: "where is my card", "where is my cat".
FEWEST_WORDS = 8
# Below this many characters one other letter does: "lost card", "lost cart".
FEWEST_CHARACTERS = 16
# A signature that keeps fewer words than this says too little about a text.
_FEWEST_KEPT = 3
# Held-out texts remembered for one signature; templates would otherwise make the search quadratic.
_MOST_HELD = 16


@dataclass(frozen=True, slots=True)
class Leak:
    """The held-out text that was found again, the part it stands in, and whether it only nearly matches."""

    part: str
    text: str
    near: bool


class LeakIndex:
    """Held-out texts, to be found again in other parts.

    Two texts are the same when their leak keys are. They are near duplicates when
    - the longer has at least 8 words and at most (1 - near_duplicate) of them, rounded to the nearest whole
      number, are not in the shorter, nor the other way round, whatever their order: at 0.9 one word of 8 to
      14, two of 15 to 24. A word with a typo is another word;
    - or both are shorter than that, hold at least 16 letters and digits, and one letter too many, too few,
      wrong or swapped with its neighbour is all the difference. A digit is never taken for a typo.
    `near_duplicate` 1.0 leaves only the leak key. Candidates come from a pigeonhole: when the words are dealt
    by hash into 2 * (edits // 2) + 1 groups, at least one group differs by at most one word on either side.
    """

    def __init__(self, near_duplicate: float) -> None:
        """Start empty; `near_duplicate` is the share of words two near duplicates have in common."""
        self._near_duplicate = near_duplicate
        self._held: list[tuple[str, str]] = []
        self._keys: dict[str, int] = {}
        self._typos: dict[str, int] = {}
        self._signatures: dict[int, tuple[int, ...]] = {}

    def add(self, part: str, text: str) -> int:
        """Hold `text` of `part`; return its position. Of several equal texts the first is the one found."""
        position = len(self._held)
        self._held.append((part, text))
        words = leak_words(text)
        key = "".join(words) or normalise(text)
        self._keys.setdefault(key, position)
        for spelling in self._spellings(words, key):
            self._typos.setdefault(spelling, position)
        for signature in self._word_signatures(words):
            held = self._signatures.get(signature, ())
            if len(held) < _MOST_HELD:
                self._signatures[signature] = (*held, position)
        return position

    def find(self, text: str) -> Leak | None:
        """Return the held-out text that `text` repeats, an exact match before a near one, or None."""
        position, near = self.find_position(text)
        return None if position is None else Leak(*self._held[position], near)

    def find_position(self, text: str) -> tuple[int | None, bool]:
        """Return the position of the held-out text that `text` repeats, and whether it only nearly does."""
        words = leak_words(text)
        key = "".join(words) or normalise(text)
        if key in self._keys:
            return self._keys[key], False
        # Asking for all at once is what keeps a million clean texts cheap.
        spellings = self._spellings(words, key)
        if not self._typos.keys().isdisjoint(spellings):
            return next(self._typos[spelling] for spelling in spellings if spelling in self._typos), True
        signatures = self._word_signatures(words)
        if not self._signatures.keys().isdisjoint(signatures):
            for position in chain.from_iterable(self._signatures.get(each, ()) for each in signatures):
                if self._are_near(words, leak_words(self._held[position][1])):
                    return position, True
        return None, False

    def _edits(self, longest: int) -> int:
        """Return how many words of the longer text, `longest` words long, may differ."""
        if longest < FEWEST_WORDS:
            return 0
        # The last term keeps a half a half where 1 - 0.9 is a little less than a tenth.
        return int((1 - self._near_duplicate) * longest + 0.5 + 1e-9)

    def _are_near(self, words: Sequence[str], others: Sequence[str]) -> bool:
        left, right = Counter(words), Counter(others)
        differing = max((left - right).total(), (right - left).total())
        return differing <= self._edits(max(len(words), len(others)))

    def _spellings(self, words: Sequence[str], key: str) -> list[str]:
        """Return `key` and `key` without one letter: two keys that share one of these are a typo apart."""
        if self._near_duplicate >= 1 or len(words) >= FEWEST_WORDS or len(key) < FEWEST_CHARACTERS:
            return []
        shorter = [key[:index] + key[index + 1 :] for index, letter in enumerate(key) if letter.isalpha()]
        return [key, *shorter]

    def _word_signatures(self, words: Sequence[str]) -> list[int]:
        """Return, for each group of words and each word left out of it, a number that ignores their order."""
        count = len(words)
        # The other text may be the longer one, and the longer one decides how many words may differ.
        longest = range(max(count, FEWEST_WORDS), int(count / self._near_duplicate) + 2)
        edits = {self._edits(length) for length in longest} - {0}
        if not edits:
            return []
        hashes = [zlib.crc32(word.encode()) for word in words]
        group_counts = {2 * (number // 2) + 1 for number in edits}
        return [signature for groups in group_counts for signature in _signatures(hashes, groups)]


def _signatures(hashes: Sequence[int], groups: int) -> list[int]:
    found = []
    for group in range(groups):
        members = [value for value in hashes if value % groups == group] if groups > 1 else hashes
        if len(members) < _FEWEST_KEPT:
            continue
        total, tag = sum(members), groups << 16 | group
        found.append(total << 32 | tag)
        if len(members) > _FEWEST_KEPT:
            found.extend((total - value) << 32 | tag for value in members)
    return found
