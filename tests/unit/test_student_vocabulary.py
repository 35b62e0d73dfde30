import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerFast

from student.errors import StudentError
from student.vocabulary import Trimmed, changed_splits, prove_unchanged, trim_vocabulary

CORPUS = ["my card was declined", "My parcel never came!", "the café charged me twice", "hello ☃ there", ""]
TRAINING = [*CORPUS, "the jacket does not fit", "please refund these shoes", "why is the courier late again"]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wordpiece(pieces: list[str]) -> PreTrainedTokenizerFast:
    vocabulary = ["[PAD]", *pieces, "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return BertTokenizerFast(vocab={piece: index for index, piece in enumerate(vocabulary)})


def wrap(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(SPECIAL)  # behind the vocabulary, so that trimming moves them
    end, start = ("</s>", backend.token_to_id("</s>")), ("<s>", backend.token_to_id("<s>"))
    template = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[start, end]
    )
    roberta = processors.RobertaProcessing(end, start)
    backend.post_processor = roberta if isinstance(backend.model, models.BPE) else processors.Sequence([template])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def byte_bpe() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, show_progress=False, initial_alphabet=alphabet)
    backend.train_from_iterator(TRAINING, trainer)
    return wrap(backend)


def marked_bpe(**marks: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE(unk_token="<unk>", **marks))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=180, show_progress=False, special_tokens=["<unk>"], **marks)
    backend.train_from_iterator(TRAINING, trainer)
    return wrap(backend)


def suffixed_bpe() -> PreTrainedTokenizerFast:
    return marked_bpe(end_of_word_suffix="</w>")


def prefixed_bpe() -> PreTrainedTokenizerFast:
    return marked_bpe(continuing_subword_prefix="##")


def unigram() -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=90, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>")
    backend.train_from_iterator(TRAINING, trainer)
    unknown, *pieces = json.loads(backend.to_str())["model"]["vocab"]
    backend.model = models.Unigram([*map(tuple, pieces), tuple(unknown)], unk_id=len(pieces))
    return wrap(backend)


def letters_and_words() -> PreTrainedTokenizerFast:
    letters = sorted({letter for text in TRAINING for letter in text.lower() if letter not in " ☃"})
    words = sorted({word for text in TRAINING for word in text.lower().split() if word.isalpha()})
    continued = [f"##{letter}" for letter in letters]
    return wordpiece([*letters, *continued, "##ed", *words])


EVERY_KIND = [letters_and_words, byte_bpe, suffixed_bpe, prefixed_bpe, unigram]


@pytest.mark.parametrize("build", EVERY_KIND)
def test_a_trimmed_corpus_keeps_its_splits_with_fewer_rows(
    build: Callable[[], PreTrainedTokenizerFast],
) -> None:
    full = build()
    trimmed = trim_vocabulary(full, CORPUS, least_rows=0)
    prove_unchanged(full, trimmed.tokenizer, trimmed.kept_ids, CORPUS)
    assert trimmed.after == len(trimmed.tokenizer) == len(trimmed.kept_ids) < trimmed.before == len(full)


@pytest.mark.parametrize("build", EVERY_KIND)
def test_each_new_row_stands_for_the_same_token_in_the_old_order(
    build: Callable[[], PreTrainedTokenizerFast],
) -> None:
    full = build()
    trimmed = trim_vocabulary(full, CORPUS, least_rows=0)
    old = full.convert_ids_to_tokens(trimmed.kept_ids.tolist())
    assert trimmed.tokenizer.convert_ids_to_tokens(range(trimmed.after)) == old
    assert np.all(np.diff(trimmed.kept_ids) > 0)


@pytest.mark.parametrize("build", EVERY_KIND)
def test_a_saved_trimmed_tokenizer_opens_with_both_libraries(
    build: Callable[[], PreTrainedTokenizerFast], tmp_path: Path
) -> None:
    full = build()
    trimmed = trim_vocabulary(full, CORPUS, least_rows=0)
    trimmed.tokenizer.save_pretrained(tmp_path)
    expected = trimmed.tokenizer(CORPUS)["input_ids"]
    light = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert AutoTokenizer.from_pretrained(tmp_path)(CORPUS)["input_ids"] == expected
    assert [light.encode(text).ids for text in CORPUS] == expected


@pytest.mark.parametrize("build", EVERY_KIND)
def test_every_special_token_keeps_its_row(build: Callable[[], PreTrainedTokenizerFast]) -> None:
    full = build()
    trimmed = trim_vocabulary(full, ["my card"], least_rows=0)
    rows = trimmed.kept_ids[trimmed.tokenizer.convert_tokens_to_ids(full.all_special_tokens)]
    assert trimmed.tokenizer.special_tokens_map == full.special_tokens_map
    assert rows.tolist() == full.all_special_ids


@pytest.mark.parametrize("build", EVERY_KIND)
def test_an_unseen_word_falls_back_to_known_pieces(build: Callable[[], PreTrainedTokenizerFast]) -> None:
    full = build()
    trimmed = trim_vocabulary(full, ["my card"], least_rows=0).tokenizer
    ids = trimmed("refund", add_special_tokens=False)["input_ids"]
    assert len(ids) > len(full("refund", add_special_tokens=False)["input_ids"])
    assert trimmed.unk_token_id not in ids


def test_the_least_rows_are_filled_with_the_lowest_ids() -> None:
    full = letters_and_words()
    bare = set(trim_vocabulary(full, ["my card"], least_rows=0).kept_ids.tolist())
    filled = set(trim_vocabulary(full, ["my card"], least_rows=len(bare) + 5).kept_ids.tolist())
    assert filled - bare == set(sorted(set(range(len(full))) - bare)[:5])


def test_filling_with_a_merged_token_brings_its_parts_along() -> None:
    vocabulary = {piece: index for index, piece in enumerate(["<unk>", "abc", "ab", "a", "b", "c", "d"])}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("ab", "c")], unk_token="<unk>"))
    full = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    trimmed = trim_vocabulary(full, ["d"], least_rows=6)
    assert trimmed.tokenizer.tokenize("abc") == ["abc"]
    assert trimmed.after == 7


def test_a_vocabulary_smaller_than_the_least_rows_is_kept_whole() -> None:
    full = wordpiece(["[unused0]", "card", "my"])
    trimmed = trim_vocabulary(full, ["my"], least_rows=100)
    assert trimmed.kept_ids.tolist() == list(range(len(full)))


def test_placeholders_that_no_text_can_reach_are_the_last_to_fill() -> None:
    full = wordpiece(["[unused0]", "[unused1]", "card", "parcel", "my"])
    trimmed = trim_vocabulary(full, ["my"], least_rows=7)
    assert set(full.get_vocab()) - set(trimmed.tokenizer.get_vocab()) == {"[unused0]", "[unused1]", "parcel"}


def test_added_tokens_beyond_the_vocabulary_move_down_with_it() -> None:
    full = byte_bpe()
    full.add_tokens([AddedToken("<order>"), AddedToken("<user>", special=True)])
    trimmed = trim_vocabulary(full, ["my card"], least_rows=0)
    prove_unchanged(full, trimmed.tokenizer, trimmed.kept_ids, ["<user> my <order> card"])
    ids = trimmed.tokenizer.convert_tokens_to_ids(["<order>", "<user>"])
    assert ids == [trimmed.after - 2, trimmed.after - 1]


def test_what_only_the_model_or_the_post_processor_names_is_kept() -> None:
    vocabulary = {piece: index for index, piece in enumerate(["spare", "[UNK]", "[CLS]", "[SEP]", "card"])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    full = PreTrainedTokenizerFast(tokenizer_object=backend)
    trimmed = trim_vocabulary(full, [], least_rows=0).tokenizer
    assert trimmed.convert_ids_to_tokens(trimmed("other")["input_ids"]) == ["[CLS]", "[UNK]", "[SEP]"]


def test_a_unigram_keeps_its_unknown_piece_and_its_bytes() -> None:
    pieces = [("spare", -1.0), ("<unk>", 0.0), ("<0x41>", -3.0), ("a", -2.0), ("zz", -9.0)]
    full = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.Unigram(pieces, unk_id=1)))
    trimmed = trim_vocabulary(full, ["a"], least_rows=0)
    assert trimmed.tokenizer("☃")["input_ids"] == [0]
    assert trimmed.tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<unk>", "<0x41>", "a", "zz"]


def test_padding_and_truncation_stay_as_they_were() -> None:
    backend = copy.deepcopy(byte_bpe().backend_tokenizer)
    backend.add_special_tokens(["<fill>"])
    backend.enable_padding(length=8, pad_id=backend.token_to_id("<fill>"), pad_token="<fill>")
    backend.enable_truncation(8)
    trimmed = trim_vocabulary(wrap(backend), ["my card"], least_rows=0).tokenizer.backend_tokenizer
    assert trimmed.truncation["max_length"] == 8
    assert trimmed.padding["pad_id"] == trimmed.token_to_id("<fill>") < backend.token_to_id("<fill>")


def test_tokens_behind_the_truncation_length_count_as_used() -> None:
    full = letters_and_words()
    full.backend_tokenizer.enable_truncation(4)
    trimmed = trim_vocabulary(full, ["my card was declined"], least_rows=0)
    assert "declined" in trimmed.tokenizer.get_vocab()


def test_texts_are_streamed_once() -> None:
    drawn: list[str] = []

    def stream() -> Iterator[str]:
        for text in CORPUS:
            drawn.append(text)
            yield text

    full = letters_and_words()
    trimmed = trim_vocabulary(full, stream(), least_rows=0)
    assert drawn == CORPUS
    assert "declined" in trimmed.tokenizer.get_vocab()


def test_unknown_characters_do_not_grow_cheaper_when_the_lowest_score_is_unused() -> None:
    scores = {"<unk>": 0.0, "▁": -1.0, "a": -20.0, "b": -20.0, "ab": -1.0, "b☃": -20.0, "zz": -90.0}
    backend = Tokenizer(models.Unigram(list(scores.items()), unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    full = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    trimmed = trim_vocabulary(full, ["ab", "ab☃"], least_rows=0).tokenizer
    assert trimmed.tokenize("ab☃") == full.tokenize("ab☃") == ["▁", "a", "b☃"]


def test_a_word_level_tokenizer_is_refused_with_the_way_out() -> None:
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "card": 1}, unk_token="<unk>"))
    with pytest.raises(StudentError, match=r"WordLevel, wanted one of WordPiece.*vocabulary: full") as caught:
        trim_vocabulary(PreTrainedTokenizerFast(tokenizer_object=backend), ["card"])
    assert "Unigram" in str(caught.value)


def test_a_tokenizer_without_a_fast_backend_is_refused() -> None:
    with pytest.raises(StudentError, match="str has no fast backend") as caught:
        trim_vocabulary("bert-base-uncased", ["card"])
    assert "vocabulary: full" in str(caught.value)


def test_changed_splits_is_the_share_of_texts_that_split_otherwise() -> None:
    full = letters_and_words()
    trimmed = trim_vocabulary(full, ["my card"], least_rows=0).tokenizer
    assert changed_splits(full, trimmed, ["my card", "card", "the card", "my my"]) == 0.25


def test_padding_does_not_count_as_a_changed_split() -> None:
    full = letters_and_words()
    trimmed = trim_vocabulary(full, ["my card"], least_rows=0).tokenizer
    for tokenizer in (full, trimmed):
        tokenizer.backend_tokenizer.enable_padding(pad_token="[PAD]")
    assert changed_splits(full, trimmed, ["card", "jacket"]) == 0.5


def test_a_split_of_the_same_length_into_other_pieces_is_a_changed_one() -> None:
    full = wordpiece(["a", "b", "##b", "##c", "ab", "##bc"])
    trimmed = trim_vocabulary(full, ["bbc"], least_rows=0).tokenizer
    assert (full.tokenize("abc"), trimmed.tokenize("abc")) == (["ab", "##c"], ["a", "##bc"])
    assert changed_splits(full, trimmed, ["abc"]) == 1


def test_a_piece_that_turns_unknown_is_a_changed_split() -> None:
    scores = {"<unk>": 0.0, "▁": -1.0, "☃☃": -2.0}
    backend = Tokenizer(models.Unigram(list(scores.items()), unk_id=0))
    full = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    bare = Tokenizer(models.Unigram([*scores.items()][:2], unk_id=0))
    after = PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>")
    assert changed_splits(full, after, ["☃☃"]) == 1


def test_changed_splits_of_no_texts_is_an_error() -> None:
    full = wordpiece(["card"])
    with pytest.raises(StudentError, match="found no texts") as caught:
        changed_splits(full, full, [])
    assert "held-out" in str(caught.value)


def test_a_word_that_becomes_known_by_trimming_is_caught_by_the_proof() -> None:
    full = wordpiece(["x", "y", "##y", "##z", "xyz", "##zq"])  # no "##q": "xyzq" stops after "xyz"
    corpus = ["yzq", "xyzq"]
    trimmed = trim_vocabulary(full, corpus, least_rows=0)
    with pytest.raises(StudentError, match=r"'xyzq' was .*UNK.*vocabulary: full") as caught:
        prove_unchanged(full, trimmed.tokenizer, trimmed.kept_ids, corpus)
    assert "##zq" in str(caught.value)


def test_rows_in_another_order_fail_the_proof() -> None:
    full = letters_and_words()
    trimmed = trim_vocabulary(full, CORPUS, least_rows=0)
    swapped = Trimmed(trimmed.tokenizer, trimmed.kept_ids[::-1], trimmed.before, trimmed.after)
    with pytest.raises(StudentError, match="changes a text") as caught:
        prove_unchanged(full, swapped.tokenizer, swapped.kept_ids, CORPUS)
    assert CORPUS[0] in str(caught.value)


def test_the_tiny_encoder_splits_its_corpus_as_before(tiny_encoder: Path) -> None:
    full = AutoTokenizer.from_pretrained(tiny_encoder)
    corpus = ["hello my parcel is late again", "the invoice is wrong"]
    trimmed = trim_vocabulary(full, corpus, least_rows=0)
    prove_unchanged(full, trimmed.tokenizer, trimmed.kept_ids, corpus)
    assert changed_splits(full, trimmed.tokenizer, corpus) == 0
    assert trimmed.after < trimmed.before
