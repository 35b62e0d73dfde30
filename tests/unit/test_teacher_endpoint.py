import traceback
from dataclasses import replace

import pytest

from teacher.completion import Completion, CompletionRequest, Failure, completion_key, to_content
from teacher.errors import EndpointError, PriceError, SettingError
from teacher.paid import PaidAnswers
from tests.fault_server import CODES, Serve
from tests.labeller import open_endpoint, requests

KEY = "sk-secret-0123456789"


def test_an_answer_holds_text_alternatives_tokens_and_price(serve: Serve, paid: PaidAnswers) -> None:
    (answer,) = open_endpoint(serve(), paid).complete(requests(1))
    assert isinstance(answer, Completion)
    assert answer.tokens is not None
    (token,) = answer.tokens[0]
    assert answer.texts == (token.token,)
    assert {name for name, _ in token.top} == set(CODES)
    assert answer.cost_usd == pytest.approx((answer.prompt_tokens + answer.completion_tokens) * 1e-6)
    assert paid.spent_usd == answer.cost_usd


def test_answers_come_in_the_order_of_the_requests_and_progress_counts_them(serve: Serve, paid: PaidAnswers) -> None:
    server, seen = serve(latency=0.001), []
    asked = requests(40)
    endpoint = open_endpoint(server, paid)
    outcomes = endpoint.complete(asked, seen.append)
    assert outcomes == [endpoint.complete([each])[0] for each in asked]
    assert sum(seen) == 40
    assert server.most_under_way > 1


def test_what_the_cache_holds_is_not_asked_again_and_keeps_its_price(serve: Serve, paid: PaidAnswers) -> None:
    server = serve()
    first = open_endpoint(server, paid).complete(requests(10))
    seen: list[int] = []
    assert open_endpoint(server, paid).complete(requests(12), seen.append)[:10] == first
    assert server.counts()["paid"] == 12
    assert sum(seen) == 12


def test_what_was_given_up_is_asked_again_by_the_next_run_and_not_before(serve: Serve, paid: PaidAnswers) -> None:
    server, asked = serve(faults=0.5, kinds=["503"]), requests(20)
    first = open_endpoint(server, paid, attempts=1).complete(asked)
    given_up = sum(isinstance(outcome, Failure) for outcome in first)
    assert 0 < given_up < 20
    server.settings.faults = 0.0
    assert open_endpoint(server, paid).complete(asked) == first
    assert server.counts()["asked"] == 20
    with PaidAnswers(paid.path) as later:
        outcomes = open_endpoint(server, later).complete(asked)
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    assert server.counts()["asked"] == 20 + given_up


@pytest.mark.parametrize(("name", "asked"), [("ours", 0), (None, 5)])
def test_another_address_is_another_endpoint_unless_it_has_the_same_name(
    serve: Serve, paid: PaidAnswers, name: str | None, asked: int
) -> None:
    first, second = serve(), serve()
    open_endpoint(first, paid, endpoint=name).complete(requests(5))
    open_endpoint(second, paid, endpoint=name).complete(requests(5))
    assert second.counts()["asked"] == asked


def test_other_transport_settings_find_the_same_answers(serve: Serve, paid: PaidAnswers) -> None:
    server = serve()
    open_endpoint(server, paid).complete(requests(5))
    open_endpoint(server, paid, concurrency=2, timeout_seconds=9.0, attempts=2).complete(requests(5))
    assert server.counts()["asked"] == 5


def test_answers_that_were_paid_before_endpoints_were_told_apart_are_found(serve: Serve, paid: PaidAnswers) -> None:
    (request,) = requests(1)
    older = Completion(("A",), None, 7, 1)
    paid.record(completion_key("tiny", request), to_content(older), 0.5)
    server = serve()
    assert open_endpoint(server, paid).complete([request]) == [replace(older, cost_usd=0.5)]
    assert server.counts()["asked"] == 0


def test_without_a_key_nothing_is_asked(serve: Serve, paid: PaidAnswers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(SettingError, match="found no key in the environment variable SOME_KEY"):
        open_endpoint(serve(), paid, key_env="SOME_KEY")


def test_a_model_without_a_price_is_refused_before_anything_is_asked(serve: Serve, paid: PaidAnswers) -> None:
    with pytest.raises(PriceError, match="no price for 'other'"):
        open_endpoint(serve(), paid, model="other")


def test_the_right_key_is_let_in_and_stands_in_no_file_nor_representation(
    serve: Serve, paid: PaidAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", f"{KEY}\n")
    endpoint = open_endpoint(serve(key=KEY), paid, key_env="SOME_KEY")
    assert isinstance(endpoint.complete(requests(1))[0], Completion)
    assert KEY not in f"{vars(endpoint)} {vars(paid)} {endpoint.spec}"
    assert not [each for each in paid.path.parent.iterdir() if KEY.encode() in each.read_bytes()]


@pytest.mark.parametrize("kind", ["check", "complete"])
def test_a_wrong_key_is_told_without_showing_it(
    serve: Serve, paid: PaidAnswers, monkeypatch: pytest.MonkeyPatch, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    server = serve(key="another")
    endpoint = open_endpoint(server, paid, key_env="SOME_KEY")
    caplog.set_level(0)
    with pytest.raises(EndpointError, match="refused the key") as caught:
        endpoint.check(requests(1)[0]) if kind == "check" else endpoint.complete(requests(1))
    told = "".join(traceback.format_exception(caught.value)) + caplog.text
    assert KEY not in told
    assert "\n" not in str(caught.value)
    assert server.counts()["paid"] == 0


def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(
    serve: Serve, paid: PaidAnswers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(SettingError, match="key in SOME_KEY") as caught:
        open_endpoint(serve(), paid, key_env="SOME_KEY")
    assert KEY not in str(caught.value)


def test_an_unknown_model_is_told_with_those_that_are_known(serve: Serve, paid: PaidAnswers) -> None:
    server = serve(models=["small", "large"])
    with pytest.raises(EndpointError, match=r"does not know this model.*it knows large, small"):
        open_endpoint(server, paid).check(requests(1)[0])
    assert server.counts()["paid"] == 0


@pytest.mark.parametrize("kind", ["check", "complete"])
def test_an_address_that_answers_html_is_told(serve: Serve, paid: PaidAnswers, kind: str) -> None:
    endpoint = open_endpoint(serve(page=True), paid)
    with pytest.raises(EndpointError, match=r"web page \(HTML\).*base_url"):
        endpoint.check(requests(1)[0]) if kind == "check" else endpoint.complete(requests(1))


def test_an_address_where_nothing_answers_is_told(serve: Serve, paid: PaidAnswers) -> None:
    server = serve()
    server.stop()
    endpoint = open_endpoint(server, paid, attempts=2)
    with pytest.raises(EndpointError, match="nothing answers there"):
        endpoint.check(requests(1)[0])
    with pytest.raises(EndpointError, match="row after row got no answer in 2 tries"):
        endpoint.complete(requests(3))
    server.start()


def test_a_first_call_that_is_checked_is_not_paid_again(serve: Serve, paid: PaidAnswers) -> None:
    server = serve()
    endpoint = open_endpoint(server, paid)
    assert endpoint.check(requests(1)[0]) == endpoint.complete(requests(3))[0]
    assert server.counts()["paid"] == 3


@pytest.mark.parametrize("where", ["here", "there"])
def test_a_prompt_that_is_too_long_is_told_before_money_is_spent(serve: Serve, paid: PaidAnswers, where: str) -> None:
    server = serve(context=50)
    long = CompletionRequest(({"role": "user", "content": "word " * 200},), 1)
    endpoint = open_endpoint(server, paid, max_tokens=64 if where == "here" else 8192)
    with pytest.raises(EndpointError, match="context too long"):
        endpoint.check(long)
    outcomes = endpoint.complete([long, CompletionRequest(({"role": "user", "content": "x"},), 1)])
    assert isinstance(outcomes[0], Failure)
    assert isinstance(outcomes[1], Completion)
    assert server.counts()["paid"] == 1


def test_missing_log_probabilities_are_none_and_not_made_up(serve: Serve, paid: PaidAnswers) -> None:
    (answer,) = open_endpoint(serve(logprobs=False), paid).complete(requests(1))
    assert isinstance(answer, Completion)
    assert answer.tokens is None
