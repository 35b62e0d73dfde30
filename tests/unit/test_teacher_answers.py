import math
from collections.abc import Sequence

import numpy as np
import pytest

from teacher.answers import (
    NO_LOGPROBS,
    OUTSIDE,
    Reading,
    is_split,
    make_way,
    read_candidates,
    read_list_votes,
    read_logprobs,
    read_votes,
    read_yes_no,
)
from teacher.codes import YES_NO, CodeBook, Fit, Place
from teacher.completion import Completion, Failure, TokenAlternatives
from teacher.logprobs import label_mass
from teacher.spec import LlmApiSpec
from teacher.task import Task, TaskKind

TASK = Task(TaskKind.SINGLE_LABEL, ("delivery", "payment", "size"))
BOOK = CodeBook.make(TASK, (0, 1, 2))  # A, B, C
SPEC = LlmApiSpec(base_url="http://127.0.0.1:9/v1", model="any", candidates=2, samples=7)
Seen = dict[str, float]


def token(chosen: str, seen: Seen) -> TokenAlternatives:
    top = tuple((name, math.log(share)) for name, share in seen.items())
    return TokenAlternatives(chosen, math.log(seen[chosen]), top)


def completion(*positions: tuple[str, Seen], text: str | None = None) -> Completion:
    written = text if text is not None else "".join(chosen for chosen, _ in positions)
    return Completion((written,), (tuple(token(*position) for position in positions),), 10, len(positions))


def wide_book(labels: int) -> CodeBook:
    names = tuple(f"label {number}" for number in range(labels))
    return CodeBook.make(Task(TaskKind.SINGLE_LABEL, names), range(labels))


def probs_of(reading: Reading | Failure) -> Sequence[float]:
    assert isinstance(reading, Reading)
    assert reading.probs.min() >= 0
    return [float(share) for share in reading.probs]


@pytest.mark.parametrize(("labels", "length"), [(2, 1), (26, 1), (27, 2), (676, 2), (677, 3)])
def test_codes_are_as_short_as_can_be_and_all_equally_long(labels: int, length: int) -> None:
    codes = wide_book(labels).codes
    assert len(set(codes)) == labels
    assert {len(code) for code in codes} == {length}


def test_long_codes_differ_in_their_first_letter_as_far_as_they_can() -> None:
    firsts = [code[0] for code in wide_book(77).codes]
    assert max(firsts.count(letter) for letter in set(firsts)) == 3


def test_codes_are_given_out_in_the_order_of_the_list() -> None:
    assert CodeBook.make(TASK, (2, 0, 1)).codes == ("B", "C", "A")


def test_a_code_is_never_the_name_of_a_label() -> None:
    book = CodeBook.make(Task(TaskKind.SINGLE_LABEL, ("B", "a", "none", "nothing")), range(4))
    assert book.codes == ("C", "D", "E", "F")
    assert [book.label_of(name) for name in ("B", "a", "c", "none")] == [0, 1, 0, 2]
    assert book.nothing == "no label"


@pytest.mark.parametrize(
    "answer", ["B", " b\n", "**B**", '"B."', "(B)", "payment", "Payment.", "B: payment", "b  payment"]
)
def test_an_answer_is_matched_after_normalising(answer: str) -> None:
    assert BOOK.label_of(answer) == 1


@pytest.mark.parametrize("answer", ["", "D", "pay", "payments", "A or B", "the label is B", "A: payment", "-"])
def test_an_answer_that_is_not_exactly_a_label_is_none(answer: str) -> None:
    assert BOOK.label_of(answer) is None


def test_names_that_read_alike_stand_for_no_label() -> None:
    book = CodeBook(("Refund", "refund.", "other"), ("A", "B", "C"))
    assert [book.label_of(answer) for answer in ("refund", "A: refund", "B: refund", "B", "other")] == [
        None,
        0,
        1,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("answer", "labels"),
    [
        ("A, C", (0, 2)),
        ("C,A,C", (2, 0)),
        ("payment; A", (1, 0)),
        ("A\nB", (0, 1)),
        ("none", ()),
        ("None.", ()),
        ("B", (1,)),
        ("A, Q", None),
        ("", None),
        (",", None),
        ("A B", None),
    ],
)
def test_a_list_holds_labels_alone(answer: str, labels: tuple[int, ...] | None) -> None:
    assert BOOK.labels_of(answer) == labels


def test_what_is_written_is_placed_among_the_codes() -> None:
    book = wide_book(30)  # AA, BA, ..., ZA, AB, BB, CB, DB
    assert book.place(" ") == Place(Fit.NOTHING_YET, tuple(range(30)))
    assert book.place(" A") == Place(Fit.BEGINS, (0, 26))
    assert book.place("ba.") == Place(Fit.WHOLE, (1,))
    assert book.place("AAA").fit is book.place("AX").fit is Fit.OUTSIDE


def test_the_probabilities_of_codes_are_those_of_their_tokens() -> None:
    reading = read_logprobs(completion(("B", {"B": 0.7, "A": 0.2, "C": 0.1})), BOOK)
    assert probs_of(reading) == pytest.approx([0.2, 0.7, 0.1])
    assert isinstance(reading, Reading)
    assert reading.outside == pytest.approx(0, abs=1e-9)


def test_spellings_of_one_code_add_up_and_other_words_are_outside() -> None:
    reading = read_logprobs(completion((" B", {" B": 0.4, "B": 0.2, "b": 0.1, "A": 0.1, "The": 0.2})), BOOK)
    assert isinstance(reading, Reading)
    assert reading.outside == pytest.approx(0.2)
    assert probs_of(reading) == pytest.approx([0.1 / 0.8, 0.7 / 0.8, 0.0])


def test_the_unseen_tail_is_split_as_the_seen_mass_is() -> None:
    book = wide_book(12)
    mass = label_mass([token("A", {"A": 0.6, "B": 0.2, "I": 0.1})], CodeBook(book.names, book.codes))
    assert mass.sum() == pytest.approx(1.0)  # I is a code among these, so nothing seen is outside
    mass = label_mass([token("A", {"A": 0.6, "B": 0.1, "The": 0.1})], book)
    assert mass[2:] == pytest.approx([0.2 * 0.7 / 0.8 / 10] * 10)
    assert 1 - mass.sum() == pytest.approx(0.1 + 0.2 * 0.1 / 0.8)


def test_a_label_that_was_not_seen_never_gets_more_than_the_least_that_was() -> None:
    mass = label_mass([token("A", {"A": 0.5, "B": 0.01})], BOOK)
    assert mass == pytest.approx([0.5, 0.01, 0.01])


def test_a_code_of_two_tokens_is_scored_whole() -> None:
    book = wide_book(30)
    first = ("A", {"A": 0.8, "B": 0.2})
    mass = label_mass([token(*first), token("B", {"B": 0.9, "A": 0.1})], book)
    assert mass[[26, 0]] == pytest.approx([0.72, 0.08])  # AB and AA
    assert mass[[1, 27]] == pytest.approx([0.1, 0.1])  # BA and BB share what fell on B
    assert mass.sum() == pytest.approx(1.0)


def test_a_code_in_one_token_and_in_two_adds_up() -> None:
    book = wide_book(30)
    mass = label_mass([token("A", {"A": 0.5, "AB": 0.5}), token("B", {"B": 1.0})], book)
    assert mass[26] == pytest.approx(1.0)


def test_the_space_before_a_code_tells_nothing_and_costs_nothing() -> None:
    mass = label_mass([token(" ", {" ": 1.0}), token("B", {"B": 0.9, "A": 0.1})], BOOK)
    assert mass == pytest.approx([0.1, 0.9, 0.0])


def test_what_comes_after_a_code_does_not_count() -> None:
    assert label_mass([token("B", {"B": 1.0}), token(" x", {" x": 1.0})], BOOK)[1] == pytest.approx(1.0)


def test_an_endpoint_that_scores_only_what_it_wrote_still_bounds_the_rest() -> None:
    scored = TokenAlternatives("B", math.log(0.9), ())
    assert label_mass([scored], BOOK) == pytest.approx([0.05, 0.9, 0.05])


@pytest.mark.parametrize("positions", [[("The", {"The": 0.9, "A": 0.1})], [("The", {"The": 1.0})], []])
def test_an_answer_that_most_likely_is_no_label_is_no_reading(positions: list[tuple[str, Seen]]) -> None:
    reading = read_logprobs(completion(*positions, text="The parcel"), BOOK)
    assert reading == Failure(OUTSIDE, "The parcel")


def test_a_completion_without_log_probabilities_is_no_reading() -> None:
    assert read_logprobs(Completion(("A",), None, 1, 1), BOOK) == Failure(NO_LOGPROBS, "A")
    assert read_logprobs(Completion(("Hm",), None, 1, 1), BOOK) == Failure(OUTSIDE, "Hm")
    assert read_yes_no([Completion(("Yes",), None, 1, 1)]) == Failure(NO_LOGPROBS, "Yes")


def test_random_alternatives_never_make_more_than_a_whole() -> None:
    generator = np.random.default_rng(0)
    book = wide_book(40)
    words = [*"ABCDE", "AA", "BA", "AB", " ", "The", "QQ", "x", "CA."]
    for _ in range(300):
        positions = []
        for _ in range(3):
            shares = generator.dirichlet(np.ones(len(words))) * generator.uniform(0.5, 1)
            seen = {word: float(share) for word, share in zip(words, shares, strict=True) if generator.random() < 0.7}
            seen = {word: max(share, 1e-9) for word, share in seen.items()} or {"A": 0.5}
            positions.append(token(str(generator.choice(list(seen))), seen))
        mass = label_mass(positions, book)
        assert (mass >= 0).all()
        assert mass.sum() <= 1 + 1e-9


def test_a_code_whose_second_token_was_never_scored_is_found_out() -> None:
    book = wide_book(30)
    assert is_split(completion(("A", {"A": 0.9}), text="AB"), book)
    assert not is_split(completion(("A", {"A": 0.9}), ("B", {"B": 0.9}), text="AB"), book)
    assert not is_split(completion(("A", {"A": 0.9}), text="A"), book)


def test_yes_and_no_of_each_label_give_its_probability() -> None:
    answers = [completion((" yes", {" yes": 0.6, "No": 0.2})), completion(("No", {"No": 0.9, "Yes": 0.1}))]
    reading = read_yes_no(answers)
    assert probs_of(reading) == pytest.approx([0.75, 0.1])
    assert isinstance(reading, Reading)
    assert reading.outside == pytest.approx(0.1)
    assert read_yes_no([answers[0], completion(("Maybe", {"Maybe": 1.0}))]) == Failure(OUTSIDE, "Maybe")


def test_votes_are_counted_with_one_pseudo_vote_over_all_labels() -> None:
    reading = read_votes(["A", "A", "payment", "A"], BOOK)
    assert probs_of(reading) == pytest.approx([(3 + 1 / 3) / 5, (1 + 1 / 3) / 5, (1 / 3) / 5])


def test_votes_for_no_label_are_outside_and_never_a_default() -> None:
    reading = read_votes(["A", "Q", "A", "B"], BOOK)
    assert isinstance(reading, Reading)
    assert reading.outside == pytest.approx(0.25)
    assert sum(reading.probs) == pytest.approx(1)
    assert read_votes(["A", "refund", "what?"], BOOK) == Failure(OUTSIDE, "refund")


def test_lists_are_counted_label_by_label() -> None:
    reading = read_list_votes(["A, B", "A", "none", "A, Q"], BOOK)
    assert probs_of(reading) == pytest.approx([2.5 / 4, 1.5 / 4, 0.5 / 4])
    assert isinstance(reading, Reading)
    assert reading.outside == pytest.approx(0.25)
    assert read_list_votes(["Q", "A, Q", "A"], BOOK) == Failure(OUTSIDE, "Q")


def test_candidates_get_half_of_what_is_left_each() -> None:
    assert probs_of(read_candidates("B, A", BOOK, 2)) == pytest.approx([0.25, 0.5, 0.25])
    assert probs_of(read_candidates("B", BOOK, 2)) == pytest.approx([0.25, 0.5, 0.25])
    assert probs_of(read_candidates("C, A, B", BOOK, 2)) == pytest.approx([0.25, 0.25, 0.5])
    assert probs_of(read_candidates("C, A, B", BOOK, 3)) == pytest.approx([2 / 7, 1 / 7, 4 / 7])
    assert read_candidates("none", BOOK, 2) == Failure(OUTSIDE, "none")
    assert read_candidates("B, Q", BOOK, 2) == Failure(OUTSIDE, "B, Q")


@pytest.mark.parametrize("kind", list(TaskKind))
@pytest.mark.parametrize("method", ["logprobs", "votes", "candidates"])
def test_each_way_asks_as_its_method_wants(method: str, kind: TaskKind) -> None:
    way = make_way(method, kind, BOOK, SPEC)
    request = way.request(({"role": "user", "content": "x"},))
    assert way.method == method
    assert request.samples == (SPEC.samples if method == "votes" else 1)
    assert request.temperature == (SPEC.sampling_temperature if method == "votes" else 0)
    assert request.top_logprobs == (SPEC.top_logprobs if method == "logprobs" else None)
    assert len(way.questions) == (3 if method == "logprobs" and kind is TaskKind.MULTI_LABEL else 1)


def test_a_way_of_one_yes_or_no_call_a_label_reads_them_in_the_order_of_the_task() -> None:
    way = make_way("logprobs", TaskKind.MULTI_LABEL, CodeBook.make(TASK, (2, 1, 0)), SPEC)
    assert ["C: delivery" in way.questions[0].answer, "A: size" in way.questions[2].answer] == [True, True]
    answers = [completion((word, {word: 1.0})) for word in ("Yes", "No", "Yes")]
    assert probs_of(way.read(answers)) == pytest.approx([1, 0, 1])


def test_yes_and_no_are_told_apart_in_any_case() -> None:
    assert [YES_NO.label_of(word) for word in ("YES", "no.", "maybe")] == [0, 1, None]
