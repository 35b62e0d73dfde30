from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from export import tokens
from export.parity import generate_texts
from export.tokens import TextTokenizer

WORDS = ["my", "parcel", "never", "came", ".", "the", "charged", "me", "twice", ",", "hello", "there"]
PLAIN = [
    "my parcel never came",
    "",
    " ",
    "  hello   there ",
    "caf\u00e9",
    "cafe \u0301 me",
    "hello[SEP]there",
    "a\tb\nc",
]


def bert() -> Tokenizer:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *sorted({*WORDS, *"abcdefghijklmnopqrstuvwxyz", "##s", "##e", "##r"})]
    tokenizer = Tokenizer(models.WordPiece({piece: row for row, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[SEP]", "[CLS]"])
    return tokenizer


def framed() -> Tokenizer:
    tokenizer = bert()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def with_a_phrase() -> Tokenizer:
    tokenizer = framed()
    tokenizer.add_tokens(["never came"])
    return tokenizer


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, show_progress=False, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    return tokenizer


def opened(tokenizer: Tokenizer, max_tokens: int, threads: int = 1) -> TextTokenizer:
    return TextTokenizer(tokenizer.to_str().encode(), max_tokens, threads)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("max_tokens", [3, 6, 32])
@pytest.mark.parametrize("build", [bert, framed, with_a_phrase, byte_level])
def test_tokens_are_those_of_the_library(build: Callable[[], Tokenizer], max_tokens: int, threads: int) -> None:
    library = build()
    library.enable_truncation(max_tokens)
    texts = [*PLAIN, *(text.replace("e", "e ") for text in generate_texts(500, seed=max_tokens))]
    wanted = [(encoding.ids, bool(encoding.overflowing)) for encoding in map(library.encode, texts)]
    ours = opened(build(), max_tokens, threads)
    for _ in ("every word is new", "every word is known"):
        assert [(found.ids.tolist(), found.is_cut) for found in ours.encode_many(texts)] == wanted
    assert {is_cut for _, is_cut in wanted} == {True, False}


def test_the_library_is_asked_once_a_word_where_words_stand_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    learn = TextTokenizer._learn
    monkeypatch.setattr(TextTokenizer, "_learn", lambda self, word: asked.append(word) or learn(self, word))
    ours = opened(framed(), 32)
    ours.encode_many(["my parcel never came", "my parcel came", "never my parcel"])
    assert asked == ["my", "parcel", "never", "came"]
    for build in (with_a_phrase, byte_level):
        opened(build(), 32).encode("my parcel never came")
    assert len(asked) == 4


def test_words_that_never_come_back_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "_MOST_WORDS", 8)
    ours, library = opened(framed(), 32), framed()
    for number in range(100):
        text = f"hello {number} {'x' * number}"
        assert ours.encode(text).ids.tolist() == library.encode(text).ids
        assert len(ours._words) <= 8
    assert max(map(len, ours._words)) <= tokens._LONGEST_WORD


def test_a_text_is_read_no_further_than_the_model_does() -> None:
    ours = opened(framed(), 8)
    found = ours.encode("my parcel " + "unread " * 1000)
    assert (len(found), found.is_cut) == (8, True)
    ours.encode("hello there " * 4 + "never-reached")
    assert "never-reached" not in ours._words


def test_threads_share_what_was_seen() -> None:
    texts = generate_texts(300, seed=5)
    ours = opened(framed(), 32)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ours.encode_many, [texts] * 8))
    assert found == [opened(framed(), 32).encode_many(texts)] * 8


@pytest.mark.parametrize("build", [framed, with_a_phrase])
def test_words_are_named_by_where_they_stand(build: Callable[[], Tokenizer]) -> None:
    text = "hello,  there parcels"
    places = opened(build(), 32).words(text)
    assert [text[start:end] for start, end in places] == ["hello", ",", "there", "parcels"]
    assert opened(build(), 5).words(text) == places[:3]
    assert opened(build(), 32).words("") == []


def test_a_tokenizer_without_its_padding_token_pads_with_zero(tiny_classifier: Path) -> None:
    assert opened(byte_level(), 8).pad_id == 0
    library = Tokenizer.from_file(str(tiny_classifier / "tokenizer.json"))
    assert opened(library, 8).pad_id == library.token_to_id("[PAD]")
