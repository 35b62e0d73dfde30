from dataclasses import replace

from teacher.completion import (
    Completion,
    CompletionRequest,
    TokenAlternatives,
    completion_key,
    joined,
    known_parts,
    to_content,
)
from teacher.paid import PaidAnswers


def answer(*texts: str, cost_usd: float = 0.5) -> Completion:
    """Return a completion with one token a sample."""
    tokens = tuple((TokenAlternatives(text, -0.5, ((text, -0.5), ("other", float("-inf")))),) for text in texts)
    return Completion(texts, tokens, 7, len(texts), cost_usd)


def test_the_key_of_an_answer_changes_with_whatever_changes_it() -> None:
    base = CompletionRequest(({"role": "user", "content": "x"},), 4)
    others = [
        CompletionRequest(({"role": "user", "content": "y"},), 4),
        CompletionRequest(({"role": "system", "content": "x"},), 4),
        CompletionRequest(base.messages, 5),
        CompletionRequest(base.messages, 4, temperature=0.5),
        CompletionRequest(base.messages, 4, top_logprobs=3),
        CompletionRequest(base.messages, 4, samples=2),
        CompletionRequest(base.messages, 4, stop=("\n",)),
        CompletionRequest(base.messages, 4, logit_bias={"7": 100}),
    ]
    keys = {completion_key("m", each) for each in (base, *others)} | {completion_key("n", base)}
    assert len(keys) == 10


def test_what_the_cache_gives_back_is_what_was_stored(paid: PaidAnswers) -> None:
    request = CompletionRequest(({"role": "user", "content": "x"},), 1)
    for position, stored in enumerate((answer("A"), replace(answer("é\n"), tokens=None))):
        paid.record(completion_key(f"model {position}", request), to_content(stored), stored.cost_usd)
        assert known_parts(paid, f"model {position}", request) == ([stored], 1)


def test_the_parts_of_an_answer_are_known_up_to_the_first_sample_that_is_missing(paid: PaidAnswers) -> None:
    request = CompletionRequest(({"role": "user", "content": "x"},), 1, samples=5)
    for first, texts in ((0, ("A", "B")), (2, ("C",)), (4, ("E",))):
        paid.record(completion_key("m", request, first), to_content(answer(*texts)), 0.5)
    parts, have = known_parts(paid, "m", request)
    assert [part.texts for part in parts] == [("A", "B"), ("C",)]
    assert have == 3


def test_parts_are_joined_with_their_tokens_counts_and_costs() -> None:
    whole = joined([answer("A", "B"), answer("C")])
    assert whole.texts == ("A", "B", "C")
    assert whole.tokens is not None
    assert [sample[0].token for sample in whole.tokens] == ["A", "B", "C"]
    assert (whole.prompt_tokens, whole.completion_tokens, whole.cost_usd) == (14, 3, 1.0)


def test_joined_parts_have_tokens_only_where_every_part_has_them() -> None:
    assert joined([answer("A"), replace(answer("B"), tokens=None)]).tokens is None
