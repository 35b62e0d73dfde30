"""Token ids of texts from one tokenizer.json, by the tokenizers library; what a word became is remembered.

Most words of a stream of texts were there before. Where a tokenizer treats what stands between two spaces by
itself, as BERT's does, a text is the ids of its words one after the other, and a word that was seen costs a look
into a table. Everything else goes through the library whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from export.errors import ExportError

_ID_BYTES = 8
_PAD_TOKENS = ("[PAD]", "<pad>")
_MOST_WORDS = 16_384  # some 6 MB at most; a stream that never repeats itself must not fill the memory
_LONGEST_WORD = 32  # characters; a longer one seldom comes back


@dataclass(slots=True)
class Encoded:
    """The token ids of one text, special tokens included; `is_cut` where the text had more than the model reads.

    They are kept as the bytes of an int64 array, so those of many texts are one array as soon as they are joined.
    """

    content: bytes
    is_cut: bool

    @property
    def ids(self) -> NDArray[np.int64]:
        """The token ids (tokens,), not to be written to."""
        return np.frombuffer(self.content, np.int64)

    def __len__(self) -> int:
        return len(self.content) // _ID_BYTES


class TextTokenizer:
    """Splits texts as its tokenizer.json says, cut to `max_tokens` and unpadded; safe to share between threads."""

    def __init__(self, content: bytes, max_tokens: int, threads: int = 1) -> None:
        """Open the content of a tokenizer.json; raises whatever the library raises.

        With more than one of `threads` the library may split many texts on all cores at once.
        """
        self._tokenizer = Tokenizer.from_buffer(content)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        found = (self._tokenizer.token_to_id(token) for token in _PAD_TOKENS)
        self.pad_id = next((token_id for token_id in found if token_id is not None), 0)
        frame = self._tokenizer.encode("a")
        inner = [place for place, is_special in enumerate(frame.special_tokens_mask) if not is_special] or [0]
        self._before, self._behind = _as_bytes(frame.ids[: inner[0]]), _as_bytes(frame.ids[inner[-1] + 1 :])
        self._room = _ID_BYTES * max_tokens - len(self._behind)  # for all that stands before those behind
        self._remembers = self._room > len(self._before) and _splits_at_spaces(self._tokenizer)
        self._words: dict[str, bytes] = {}
        self._is_parallel = threads > 1
        if not self._remembers:
            self._tokenizer.enable_truncation(max_tokens)

    def encode(self, text: str) -> Encoded:
        """Return the tokens of one text; raise ExportError when it is no valid text."""
        try:
            if self._remembers and isinstance(text, str):
                return self._by_words(text)
            return _read(self._tokenizer.encode(text))
        except TypeError as error:
            raise ExportError(
                f"found {_describe(text)}, wanted a text of valid Unicode; decode or replace it first"
            ) from error

    def encode_many(self, texts: Sequence[str]) -> list[Encoded]:
        """Return the tokens of each text; raise ExportError when one is no valid text."""
        if self._is_parallel and not self._remembers and len(texts) > 1:
            try:
                return [*map(_read, self._tokenizer.encode_batch_fast(texts))]
            except TypeError:
                pass  # the line below finds the text and names it
        return [*map(self.encode, texts)]

    def words(self, text: str) -> list[tuple[int, int]]:
        """Return where in `text` each word that is read begins and ends, in characters."""
        encoding = self._tokenizer.encode(text)
        encoding.truncate(self._room // _ID_BYTES)
        places = zip(encoding.word_ids, encoding.offsets, strict=True)
        words = []
        for word, group in groupby(places, key=lambda place: place[0]):
            spans = [span for _, span in group]
            if word is not None:
                words.append((spans[0][0], spans[-1][1]))
        return words

    def _by_words(self, text: str) -> Encoded:
        ids, known, room = bytearray(self._before), self._words.get, self._room
        for word in text.split(" "):
            found = known(word)
            ids += self._learn(word) if found is None else found
            if len(ids) > room:
                return Encoded(bytes(ids[:room]) + self._behind, is_cut=True)
        ids += self._behind
        return Encoded(bytes(ids), is_cut=False)

    def _learn(self, word: str) -> bytes:
        ids = _as_bytes(self._tokenizer.encode(word, add_special_tokens=False).ids)
        if len(word) <= _LONGEST_WORD:
            if len(self._words) >= _MOST_WORDS:
                self._words.clear()
            self._words[word] = ids
        return ids


def _read(encoding: Encoding) -> Encoded:
    return Encoded(_as_bytes(encoding.ids), bool(encoding.overflowing))


def _as_bytes(ids: Sequence[int]) -> bytes:
    return np.array(ids, np.int64).tobytes()


def _splits_at_spaces(tokenizer: Tokenizer) -> bool:
    """Say whether the tokens of a text are those of what stands between its spaces, in order.

    BERT's normalizer looks at one character at a time (and at the accents behind it, which no space has), its
    pre-tokenizer parts words at blanks, and WordPiece looks at one word at a time.
    """
    return (
        isinstance(tokenizer.normalizer, BertNormalizer)
        and isinstance(tokenizer.pre_tokenizer, BertPreTokenizer)
        and isinstance(tokenizer.model, WordPiece)
        and not any(" " in token.content for token in tokenizer.get_added_tokens_decoder().values())
    )


def _describe(text: object) -> str:
    return "a text with a lone surrogate" if isinstance(text, str) else type(text).__name__
