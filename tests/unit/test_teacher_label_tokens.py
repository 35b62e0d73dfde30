"""Facts about the tokens of labels: where they begin behind a prompt, and the tree they share."""

from collections.abc import Sequence

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from teacher.errors import LabelMismatchError, TeacherError
from teacher.label_tokens import Border, LabelTree, find_border

WORDS = ["delivery", "decline", "details", "the word is", "card", "size"]


def letters(texts: Sequence[str]) -> list[list[int]]:
    return [[ord(character) for character in text] for text in texts]


@pytest.fixture(scope="module")
def merging() -> Tokenizer:
    """Return a BPE tokenizer that knows whole words, so a label may merge with the end of a prompt."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, min_frequency=1, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([f"{word} {word}" for word in WORDS], trainer)
    return tokenizer


def test_labels_begin_where_the_prompt_ends() -> None:
    border = find_border(letters, "a:", [" card", " size"])
    assert border == Border(0, tuple(tuple(ids) for ids in letters([" card", " size"])))


def test_labels_that_merge_with_the_end_of_the_prompt_all_begin_before_it(merging: Tokenizer) -> None:
    prompt, labels = "the word is de", ["livery", "cline", " size"]

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [merging.encode(text).ids for text in texts]

    border = find_border(encode, prompt, labels)
    assert border.dropped > 0
    kept = encode([prompt])[0][: -border.dropped]
    assert [[*kept, *ids] for ids in border.continuations] == encode([prompt + label for label in labels])


def test_a_token_that_ends_every_sequence_moves_behind_the_label() -> None:
    border = find_border(lambda texts: [[*ids, 0] for ids in letters(texts)], "a:", ["b", "c"])
    assert border == Border(1, ((ord("b"), 0), (ord("c"), 0)))


def test_labels_that_are_the_same_tokens_are_refused() -> None:
    with pytest.raises(LabelMismatchError, match="'Card' and 'card' are the same tokens"):
        find_border(lambda texts: letters([text.lower() for text in texts]), "a:", [" Card", " card"])


def test_a_prompt_without_a_token_is_refused() -> None:
    with pytest.raises(TeacherError, match="no token of its own"):
        find_border(letters, "", ["card", "size"])


def test_a_border_says_when_one_label_begins_another() -> None:
    assert Border(0, ((1, 2), (1, 2, 3))).one_begins_another
    assert not Border(0, ((1, 2), (1, 3, 2))).one_begins_another


def test_a_tree_holds_shared_beginnings_once_and_no_last_tokens() -> None:
    tree = LabelTree.grow(((1, 2, 3), (1, 2, 4), (1, 5), (6,)))
    assert (tree.tokens.tolist(), tree.depths.tolist()) == ([1, 2], [0, 1])
    assert tree.sees.tolist() == [[True, False], [True, True]]


def test_a_tree_foretells_every_token_from_what_stands_before_it() -> None:
    tree = LabelTree.grow(((1, 2, 3), (1, 2, 4), (1, 5), (6,)))
    found = sorted(zip(tree.rows.tolist(), tree.targets.tolist(), strict=True))
    assert found == [(0, 1), (0, 6), (1, 2), (1, 5), (2, 3), (2, 4)]


def test_each_label_is_the_mean_over_its_own_tokens() -> None:
    tree = LabelTree.grow(((1, 2, 3), (1, 5), (6,)))
    worth = dict(zip(zip(tree.rows.tolist(), tree.targets.tolist(), strict=True), range(1, 9), strict=False))
    values = np.arange(1, len(tree.targets) + 1) @ tree.shares
    assert values[1] == pytest.approx((worth[0, 1] + worth[1, 5]) / 2)
    assert values[2] == pytest.approx(worth[0, 6])
    np.testing.assert_allclose(tree.shares.sum(axis=0), 1, rtol=1e-6)


def test_a_token_that_comes_back_deeper_is_another_node() -> None:
    tree = LabelTree.grow(((7, 7, 7), (8, 7, 9)))
    assert (tree.tokens.tolist(), tree.depths.tolist()) == ([7, 8, 7, 7], [0, 0, 1, 1])
    assert tree.sees.astype(int).tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1]]
