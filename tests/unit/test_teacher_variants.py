import numpy as np

from teacher.encoder import load_tokenizer
from teacher.example import content_id
from teacher.variants import WordNeighbours, make_variants, word_neighbours

TEXTS = [
    "where is my parcel",
    "i want my money back please",
    "the jacket is too small for me",
    "refund",
    "can you change the delivery address of order 4411",
]
VOCABULARY = {"parcel": 0, "package": 1, "money": 2, "cash": 3, "[UNK]": 4}
EMBEDDINGS = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 3.0], [1, 1]], np.float32)


def test_the_same_seed_gives_the_same_variants_and_another_seed_others() -> None:
    once, again, other = (make_variants(TEXTS, 4, None, seed=seed) for seed in (0, 0, 1))
    assert once == again
    assert {one.text for one in once} != {one.text for one in other}


def test_a_variant_repeats_neither_a_text_nor_another_variant_and_has_no_label() -> None:
    variants = make_variants(TEXTS, 8, None, seed=0)
    ids = [one.id for one in variants]
    assert len(set(ids)) == len(ids) > len(TEXTS)
    assert not set(ids) & {content_id(text) for text in TEXTS}
    assert all(one.id == content_id(one.text) and one.labels is None for one in variants)


def test_a_text_to_avoid_becomes_no_variant_and_nothing_else_changes() -> None:
    free = make_variants(TEXTS, 8, None, seed=0)
    avoided = {one.id for one in free[::3]}
    assert make_variants(TEXTS, 8, None, seed=0, avoided=avoided) == [one for one in free if one.id not in avoided]


def test_there_are_at_most_so_many_variants_as_were_asked_for() -> None:
    assert len(make_variants(TEXTS, 2, None, seed=0)) <= 2 * len(TEXTS)
    assert make_variants(TEXTS, 0, None, seed=0) == []


def test_a_text_of_one_short_word_does_no_harm() -> None:
    assert all(one.text for one in make_variants(["no", "ok"], 6, None, seed=0))


def test_a_word_is_replaced_by_the_nearest_word_of_the_corpus_by_angle() -> None:
    neighbours = WordNeighbours(["parcel package", "money cash"], VOCABULARY, EMBEDDINGS)
    random = np.random.default_rng(0)
    drawn = {word: [neighbours.draw(word, random) for _ in range(400)] for word in ("parcel", "money", "zebra")}
    assert "parcel" not in drawn["parcel"]
    assert set(drawn["zebra"]) == {"zebra"}
    nearest = WordNeighbours(["parcel package money"], VOCABULARY, EMBEDDINGS * [[1], [1], [-1], [1], [1]])
    assert nearest.draw("parcel", random) in ("package", "money")


def test_without_whole_words_in_the_vocabulary_only_words_of_the_corpus_are_neighbours() -> None:
    neighbours = WordNeighbours(["parcel package"], VOCABULARY, EMBEDDINGS)
    random = np.random.default_rng(0)
    assert {neighbours.draw("parcel", random) for _ in range(20)} == {"package"}


def test_half_of_the_neighbours_are_words_that_the_corpus_lacks() -> None:
    words = ("parcel", "package", "crate", "cash", "##age", "to", "Box")
    vectors = np.array([[1, 0], [0.9, 0.1], [0.95, 0], [0, 1], [1, 0.01], [1, 0.02], [1, 0.03]], np.float32)
    neighbours = WordNeighbours(["parcel package"], {word: row for row, word in enumerate(words)}, vectors)
    random = np.random.default_rng(0)
    drawn = [neighbours.draw("parcel", random) for _ in range(600)]
    assert set(drawn) == {"package", "crate", "cash"}
    assert 0.4 < drawn.count("package") / len(drawn) < 0.6


def test_a_word_that_stands_alone_takes_its_neighbours_from_the_vocabulary() -> None:
    vocabulary = {"parcel": 0, "crate": 1, "##age": 2}
    neighbours = WordNeighbours(["parcel"], vocabulary, np.eye(3, dtype=np.float32))
    assert neighbours.draw("Parcel", np.random.default_rng(0)) == "crate"


def test_the_neighbours_come_from_the_embeddings_of_an_encoder(tiny_encoder) -> None:  # type: ignore[no-untyped-def]
    neighbours = word_neighbours(str(tiny_encoder), TEXTS)
    variants = make_variants(TEXTS, 5, neighbours, seed=0)
    used = {word for text in TEXTS for word in text.split()}
    replaced = [one for one in variants if len(one.text.split()) > 3]
    assert any(set(one.text.split()) <= used for one in replaced)
    known = set(load_tokenizer(str(tiny_encoder)).get_vocab())
    assert any(set(one.text.split()) & (known - used) for one in replaced)
