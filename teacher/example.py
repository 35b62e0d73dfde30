"""One text of a corpus, its identity, and when two texts count as the same across splits.

Knows nothing of files, tasks or how a corpus is split.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass

# Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: there each character stands for a word.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")
# Marks that change how a character looks, never what it says.
_VARIATIONS = frozenset(map(chr, (0x034F, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))))


@dataclass(frozen=True, slots=True)
class Example:
    """A normalised text under its content id; `labels` is None when nobody has labelled it."""

    id: str
    text: str
    labels: tuple[str, ...] | None = None


def normalise(text: str) -> str:
    """Return `text` in NFC, stripped, with every run of whitespace folded to one space."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def content_id(text: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of the normalised text."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:16]


def leak_words(text: str) -> list[str]:
    """Return the words of `text`, case-folded, each without its punctuation and invisible characters."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return folded.translate(_WORD_CHARACTERS).split()


def leak_key(text: str) -> str:
    """Return what two spellings of one text share: its letters and digits, case-folded.

    A text without any (a lone emoji) is its own key.
    """
    return "".join(leak_words(text)) or normalise(text)


class _WordCharacters(dict[int, str | None]):
    """What `str.translate` makes of a character; each is worked out once."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        # The vowel signs of many scripts are marks: without them different words would be one.
        is_mark = unicodedata.category(character) in ("Mn", "Mc") and character not in _VARIATIONS
        kept = character if character.isalnum() or character.isspace() or is_mark else None
        self[code] = f" {kept} " if kept and _UNSPACED.match(kept) else kept
        return self[code]


_WORD_CHARACTERS = _WordCharacters()
