"""Does the bundle split texts into the same tokens as the training did? transformers against the runtime.

Knows nothing of models. The generated texts are of the kinds that part tokenizers: emoji, mixed scripts,
control characters, combining marks, unusual blanks, very long words, the special tokens spelled out.
"""

import random
from collections.abc import Sequence
from pathlib import Path

from transformers import AutoTokenizer

from export.errors import ExportError
from export.gate import Gate, at_most
from export.tokens import TextTokenizer

TEXTS = 10_000  # compared in all; a small corpus leaves more to be generated
_CORPUS_TEXTS = TEXTS // 2
_SHOWN_CHARACTERS = 60
_BLOCK = 1000
# First and last code point; each piece of a text is drawn from one of these.
_RANGES = (
    (0x20, 0x7E), (0xA1, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F),
    (0xE00, 0xE7F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x2600, 0x27BF),
    (0x1, 0x1F), (0x7F, 0x9F), (0x300, 0x36F), (0x2000, 0x206F), (0xFE00, 0xFE0F), (0xFF00, 0xFFEF), (0x1D400, 0x1D7FF),
)  # fmt: skip
_PIECES = (
    "👩‍💻",
    "🏳️‍🌈",
    "👍🏽",
    "🇩🇪",
    "é",
    "\ufeff",
    "\u200b",
    "\xa0",
    "\r\n",
    "\t",
    "ﬁ",
    "İ",
    "ß",
    "[SEP]",
    "[PAD]",
    "<s>",
    "##",
)


def judge_tokenizer(checkpoint: Path, texts: Sequence[str], max_tokens: int) -> Gate:
    """Return a gate on how many of 10,000 texts both tokenizers split differently: `texts` and generated ones.

    Raises ExportError when `checkpoint` holds no tokenizer that both can open.
    """
    try:
        reference = AutoTokenizer.from_pretrained(checkpoint)
        served = TextTokenizer((checkpoint / "tokenizer.json").read_bytes(), max_tokens)
    except Exception as error:  # both libraries raise what their parsers raise
        raise ExportError(f"{checkpoint}: its tokenizer does not open ({error}); save the checkpoint again") from error
    given = texts[:_CORPUS_TEXTS]
    compared = [*given, *generate_texts(max(TEXTS - len(given), 0), seed=0)]
    different = []
    for start in range(0, len(compared), _BLOCK):
        block = compared[start : start + _BLOCK]
        wanted = reference(block, truncation=True, max_length=max_tokens)["input_ids"]
        found = served.encode_many(block)
        different += [text for text, ids, given in zip(block, wanted, found, strict=True) if ids != given.ids.tolist()]
    detail = f"texts of {len(compared)} that transformers and the runtime split differently"
    if different:
        detail += f", first {different[0][:_SHOWN_CHARACTERS]!r}"
    return at_most("tokenizer_parity", len(different), 0, detail)


def generate_texts(count: int, seed: int) -> list[str]:
    """Return texts of valid Unicode that mix scripts, emoji and control characters."""
    generator = random.Random(seed)
    return [
        "".join(_piece(generator) + generator.choice(("", " ", "  ")) for _ in range(generator.randint(1, 12)))
        for _ in range(count)
    ]


def _piece(generator: random.Random) -> str:
    if generator.random() < 0.2:
        return generator.choice(_PIECES)
    first, last = generator.choice(_RANGES)
    length = 150 if generator.random() < 0.01 else generator.randint(1, 6)
    return "".join(chr(generator.randint(first, last)) for _ in range(length))
