"""Facts about finding the same text, or nearly the same, in another part."""

import random
import string

import pytest

from teacher.example import leak_key, leak_words
from teacher.leaks import LeakIndex

SENTENCE = "I ordered a new card last week and it has still not arrived"
VOCABULARY = [f"word{number}" for number in range(60)]


def find(held: str, text: str, near_duplicate: float = 0.9) -> str | None:
    """Return "same", "near" or None for `text` against a part that holds `held`."""
    index = LeakIndex(near_duplicate)
    index.add("test", held)
    leak = index.find(text)
    return None if leak is None else "near" if leak.near else "same"


@pytest.mark.parametrize(
    "text",
    [
        "i ordered a new card last week, and it has still not arrived!",
        "I ORDERED A NEW CARD LAST WEEK AND IT HAS STILL NOT ARRIVED",
        "I ordered a new card last week\u200b and it has\u00a0still not\u200f arrived\ufeff",
        "I ordered a new-card last  week and it has still not ar\u00adrived",
    ],
)
def test_case_punctuation_spaces_and_invisible_characters_do_not_make_another_text(text: str) -> None:
    assert find(SENTENCE, text) == "same"


@pytest.mark.parametrize(
    "text",
    [
        "I orderd a new card last week and it has still not arrived",
        "I ordered a new card last week and it has not arrived",
        "Hello I ordered a new card last week and it has still not arrived",
        "I ordered a new card last month and it has still not arrived",
        "last week I ordered a new card and it has still not arrived",
        "i ordered a new card, last week - and it hass still not arrived?",
    ],
)
def test_one_word_more_less_or_other_is_a_near_duplicate(text: str) -> None:
    assert find(SENTENCE, text) == "near"


@pytest.mark.parametrize(
    ("held", "text"),
    [
        ("where is my card", "where is my cat"),
        ("where is my card", "where is my cart"),
        ("how do I change my PIN", "how do I change my plan"),
        ("please send 100 to my savings", "please send 200 to my savings"),
        (SENTENCE, "I ordered a new phone last month and it has still not arrived"),
        ("", "???"),
    ],
)
def test_another_question_is_not_a_near_duplicate(held: str, text: str) -> None:
    assert find(held, text) is None


@pytest.mark.parametrize(
    "text",
    [
        "where is my pakage now",
        "where is my pacakge now",
        "where is my packagge now",
        "Where is my peckage now",
    ],
)
def test_one_wrong_letter_in_a_short_text_is_a_near_duplicate(text: str) -> None:
    assert find("where is my package now", text) == "near"


def test_a_word_taken_from_the_shortest_long_text_is_a_near_duplicate() -> None:
    assert find("can you tell me where my parcel is", "can you tell where my parcel is") == "near"


def test_longer_texts_may_differ_in_more_words() -> None:
    words = [f"word{number}" for number in range(40)]
    four_others = " ".join(
        ["other", *words[1:10], "other", *words[11:20], "other", *words[21:30], "other", *words[31:]]
    )
    six_others = four_others.replace("word5", "more").replace("word15", "more")
    assert find(" ".join(words), four_others) == "near"
    assert find(" ".join(words), six_others) is None


def test_similarity_one_leaves_only_the_same_text() -> None:
    assert find(SENTENCE, SENTENCE.replace("week", "month"), near_duplicate=1.0) is None
    assert find("where is my package now", "where is my pakage now", near_duplicate=1.0) is None
    assert find(SENTENCE, SENTENCE.upper(), near_duplicate=1.0) == "same"


def test_the_same_text_is_found_before_a_near_one() -> None:
    index = LeakIndex(0.9)
    index.add("test", SENTENCE.replace("week", "month"))
    index.add("dev", SENTENCE)
    leak = index.find(SENTENCE.lower())
    assert leak is not None
    assert (leak.part, leak.text, leak.near) == ("dev", SENTENCE, False)


def test_texts_without_letters_are_compared_as_they_are() -> None:
    assert find("👍", "👍") == "same"
    assert find("👍", "👎") is None


def test_vowel_signs_tell_words_apart_and_accents_match_in_either_form() -> None:
    assert leak_key("की") != leak_key("का")
    assert leak_key("Cafe\u0301") == leak_key("CAFÉ") == "café"
    assert leak_key("I ❤\ufe0f it") == leak_key("i ❤ IT")


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert leak_words("我的卡 ok") == ["我", "的", "卡", "ok"]
    assert find("我上周订的新卡到现在还没有收到", "我上周订的新卡到现在还没收到") == "near"


def _perturb(text: str, random_: random.Random) -> str:
    """Return `text` with one realistic edit."""
    words = text.split()
    place = random_.randrange(len(words))
    edit = random_.choice(["typo", "remove", "add", "replace", "punctuation"])
    if edit == "typo":
        word = words[place]
        at = random_.randrange(len(word))
        words[place] = word[:at] + random_.choice(string.ascii_lowercase) + word[at + 1 :]
    elif edit == "remove":
        del words[place]
    elif edit == "add":
        words.insert(place, "really")
    elif edit == "replace":
        words[place] = "something"
    else:
        words[place] = words[place].upper() + ","
    return " ".join(words)


def test_nearly_all_of_a_thousand_near_duplicates_are_found_among_many_texts() -> None:
    random_ = random.Random(0)
    texts = [" ".join(random_.choices(VOCABULARY, k=random_.randint(8, 60))) for _ in range(1000)]
    index = LeakIndex(0.9)
    for text in texts:
        index.add("test", text)
    found = [index.find(_perturb(text, random_)) for text in texts]
    right = sum(leak is not None and leak.text == text for leak, text in zip(found, texts, strict=True))
    assert right >= 990


def test_unrelated_texts_raise_no_alarm() -> None:
    random_ = random.Random(1)
    texts = [" ".join(random_.choices(VOCABULARY, k=random_.randint(8, 30))) for _ in range(1000)]
    index = LeakIndex(0.9)
    for text in texts[:500]:
        index.add("test", text)
    assert sum(index.find(text) is not None for text in texts[500:]) == 0
