import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teacher.answers import OUTSIDE
from teacher.cards import fit_warnings
from teacher.committee import ask_members
from teacher.encoder import Gold
from teacher.errors import EndpointError, TeacherError
from teacher.example import Example, content_id
from teacher.llm_api import LlmApiTeacher, fit_llm_api
from teacher.paid import PaidAnswers
from teacher.soft_labels import SoftLabels
from teacher.spec import LlmApiSpec
from teacher.task import Task, TaskKind
from tests.conftest import LABELS, corpus_rows
from tests.fault_server import FaultServer

TASK = Task(TaskKind.SINGLE_LABEL, LABELS, {"size": "how a thing fits"})
MANY = Task(TaskKind.MULTI_LABEL, LABELS)
TRUTH = dict(corpus_rows())
ROWS = [Example(content_id(text), text, (label,)) for text, label in corpus_rows()[::9]]
TRAIN, DEV = ROWS[::2], ROWS[1::6]
TEXTS = [text for text, _ in corpus_rows()[4::30]]
STRANGE = "xyzzy"


class ReadingServer(FaultServer):
    """Knows the right label of each text, is wrong about every `errs`-th, and as sure as `sure` says."""

    def __init__(self, *, sure: float = 0.8, errs: int = 1_000_000, **settings: Any) -> None:
        super().__init__(**settings)
        self.sure = sure
        self.errs = errs

    def _reply(self, body: dict[str, Any]) -> dict[str, Any]:
        prompt = "\n".join(message["content"] for message in body["messages"])
        text = prompt.rpartition("<text>\n")[2].partition("\n</text>")[0]
        codes = {name: code for code, name in re.findall(r"^([A-Z]+): (\w+)", prompt, re.MULTILINE)}
        shares = self._shares(text, prompt, codes)
        reply = super()._reply(body)
        choice = reply["choices"][0]
        top = [{"token": word, "logprob": math.log(share)} for word, share in shares.items()]
        choice["message"]["content"] = next(iter(shares))
        if choice["logprobs"] is not None:
            choice["logprobs"]["content"] = [top[0] | {"top_logprobs": top[: body["top_logprobs"]]}]
        return reply | {"choices": [choice] * len(reply["choices"])}

    def _shares(self, text: str, prompt: str, codes: dict[str, str]) -> dict[str, float]:
        if STRANGE in text:
            return {"I cannot say.": 1.0}
        right = [label for label in LABELS if label in (TRUTH.get(each) for each in text.split(" and "))]
        if int(hashlib.sha256(text.encode()).hexdigest(), 16) % self.errs == 1:
            right = [LABELS[LABELS.index(right[0]) - 1]]
        if asked := re.search(r"Does the label \w+: (\w+) apply", prompt):
            is_right = asked[1] in right
            return {"Yes": self.sure, "No": 1 - self.sure} if is_right else {"No": self.sure, "Yes": 1 - self.sure}
        if "all labels" in prompt or "up to" in prompt:
            return {", ".join(codes[label] for label in right) or "none": 1.0}
        others = {codes[label]: (1 - self.sure) / 2 for label in LABELS if label != right[0]}
        return {codes[right[0]]: self.sure, **others}


@pytest.fixture
def server() -> Iterator[ReadingServer]:
    """Return a running server that knows the corpus."""
    running = ReadingServer()
    running.start()
    yield running
    running.stop()


@pytest.fixture
def prices(tmp_path: Path) -> str:
    """Return a table of prices that knows the server's model."""
    path = tmp_path / "prices.yaml"
    path.write_text("models: {tiny: {prompt: 1, completion: 1}, other: {prompt: 1, completion: 1}}", encoding="utf-8")
    return str(path)


def make_spec(server: ReadingServer, prices: str, **changes: Any) -> LlmApiSpec:
    fixed = {"base_url": server.url, "model": "tiny", "key_env": None, "prices": prices, "attempts": 2}
    return LlmApiSpec.model_validate(fixed | changes)


def fit(spec: LlmApiSpec, paid: PaidAnswers, folder: Path, task: Task = TASK, seed: int = 0) -> LlmApiTeacher:
    folder.mkdir(exist_ok=True)
    fit_llm_api(spec, Gold(task, TRAIN, DEV, lambda logits, targets: 0.0, seed), folder, paid)
    return LlmApiTeacher(folder, paid)


def accuracy(answers: SoftLabels, texts: list[str]) -> float:
    wanted = [LABELS.index(TRUTH[text]) for text in texts]
    return float((answers.probs.argmax(axis=1) == wanted).mean())


def test_log_probabilities_become_a_distribution_with_its_price(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    answers = fit(make_spec(server, prices), paid, tmp_path / "teacher").label(TEXTS)
    assert (answers.method, accuracy(answers, TEXTS)) == ("logprobs", 1.0)
    np.testing.assert_allclose(answers.probs.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(answers.outside, 0, atol=1e-6)
    assert answers.ids == tuple(content_id(text) for text in TEXTS)
    assert answers.cost_usd is not None
    assert answers.cost_usd.min() > 0
    assert paid.spent_usd == pytest.approx(server.usd)


def test_what_was_paid_is_never_asked_again(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    first = fit(make_spec(server, prices), paid, tmp_path / "teacher").label(TEXTS)
    asked = server.counts()["asked"]
    second = fit(make_spec(server, prices), paid, tmp_path / "again").label(TEXTS)
    assert server.counts()["asked"] == asked == len(DEV) + len(TEXTS)
    np.testing.assert_array_equal(first.probs, second.probs)
    np.testing.assert_array_equal(first.cost_usd, second.cost_usd)


def test_votes_are_taken_and_said_where_there_are_no_log_probabilities(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    server.settings.logprobs = False
    teacher = fit(make_spec(server, prices), paid, tmp_path / "teacher")
    assert teacher.label(TEXTS).method == "votes"
    assert ask_members([teacher], TEXTS).names == ("tiny (votes)",)
    warning = "tiny: the endpoint gave no log-probabilities; 5 votes are taken for each text instead"
    assert list(fit_warnings(tmp_path / "teacher")) == [warning]
    assert accuracy(teacher.label(TEXTS), TEXTS) == 1.0


def test_asking_for_log_probabilities_that_nobody_offers_is_one_line_after_one_call(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    server.settings.logprobs = False
    with pytest.raises(TeacherError, match=r"teacher\.answers is logprobs, but .* set it to votes") as error:
        fit(make_spec(server, prices, answers="logprobs"), paid, tmp_path / "teacher")
    assert "\n" not in str(error.value)
    assert server.counts()["paid"] == 1
    server.settings.logprobs = True  # somebody has set the server up better
    assert fit(make_spec(server, prices, answers="logprobs"), paid, tmp_path / "again").method == "logprobs"


@pytest.mark.parametrize("answers", ["logprobs", "votes", "candidates"])
def test_an_answer_outside_the_label_set_is_rejected_with_its_words(
    answers: str, server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    teacher = fit(make_spec(server, prices, answers=answers), paid, tmp_path / "teacher")
    fitting = paid.spent_usd
    labels = teacher.label([TEXTS[0], STRANGE, TEXTS[1]])
    assert labels.ids == (content_id(TEXTS[0]), content_id(TEXTS[1]))
    (rejected,) = labels.rejected
    assert (rejected.id, rejected.reason, rejected.raw) == (content_id(STRANGE), OUTSIDE, "I cannot say.")
    assert labels.method == answers
    assert rejected.cost_usd is not None
    assert rejected.cost_usd > 0
    assert sum(labels.spent_usd) == pytest.approx(paid.spent_usd - fitting)


def test_a_prompt_that_no_dev_text_gets_a_label_from_is_an_error(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    strangers = [Example(content_id(f"{STRANGE} {n}"), f"{STRANGE} {n}", ("size",)) for n in range(3)]
    gold = Gold(TASK, TRAIN, strangers, lambda logits, targets: 0.0)
    with pytest.raises(TeacherError, match=r"none of the 3 dev texts got a label .*'I cannot say\.'"):
        fit_llm_api(make_spec(server, prices, answers="votes"), gold, tmp_path, paid)
    assert not (tmp_path / "teacher.json").exists()


@pytest.mark.parametrize("answers", ["logprobs", "votes", "candidates"])
def test_each_label_of_a_multi_label_task_has_its_own_probability(
    answers: str, server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    texts = [f"{TEXTS[0]} and {TEXTS[-1]}", TEXTS[5]]
    labels = fit(make_spec(server, prices, answers=answers), paid, tmp_path / "teacher", MANY).label(texts)
    wanted = MANY.targets([("delivery", "size"), (TRUTH[TEXTS[5]],)])
    np.testing.assert_array_equal(labels.probs > 0.5, wanted > 0.5)


def test_a_multi_label_task_is_asked_by_votes_unless_told_otherwise(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    assert fit(make_spec(server, prices), paid, tmp_path / "teacher", MANY).method == "votes"


def test_dev_teaches_how_sure_the_model_may_be(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    server.sure, server.errs = 0.99, 4
    teacher = fit(make_spec(server, prices), paid, tmp_path / "boastful")
    card = json.loads((tmp_path / "boastful" / "teacher.json").read_text())
    assert card["temperature"] > 1.5
    assert teacher.label(TEXTS).probs.max() < 0.95


def test_a_loaded_teacher_answers_as_the_fitted_one(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    template = tmp_path / "mine.txt"
    template.write_text("{labels}\n{examples}\n{text}", encoding="utf-8")
    spec = make_spec(server, prices, prompt={"template": str(template), "examples": 2, "choose": "random"})
    teacher = fit(spec, paid, tmp_path / "teacher", seed=3)
    first = teacher.label(TEXTS)
    template.unlink()
    loaded = LlmApiTeacher(tmp_path / "teacher", paid)
    np.testing.assert_array_equal(loaded.label(TEXTS).probs, first.probs)
    assert (loaded.fingerprint, loaded.task) == (teacher.fingerprint, TASK)


def test_the_sources_of_a_row_are_what_its_prompt_showed(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "rules.md").write_text("A parcel comes by courier.", encoding="utf-8")
    prompt = {"examples": 3, "choose": "bm25", "documents": str(documents), "passages": 1}
    teacher = fit(make_spec(server, prices, prompt=prompt), paid, tmp_path / "teacher")
    own = TRAIN[0]
    answers = teacher.label(["my parcel has not arrived", own.text])
    assert answers.sources is not None
    assert answers.sources[0][-1] == "rules.md#1"
    known = {example.id for example in TRAIN}
    assert all(set(sources[:3]) <= known - {own.id} for sources in answers.sources)
    shown = next(prompt for prompt in server.asked if own.text in prompt)
    assert shown.count("<example>") == 3
    assert shown.count(own.text) == 1


def test_a_prompt_that_shows_nothing_has_no_sources(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    assert fit(make_spec(server, prices), paid, tmp_path / "teacher").label(TEXTS[:2]).sources is None


def test_the_fingerprint_follows_the_prompt_and_not_the_transport(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    def fingerprint(seed: int = 0, task: Task = TASK, **changes: Any) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return fit(make_spec(server, prices, **changes), paid, folder, task, seed).fingerprint

    first = fingerprint()
    assert fingerprint(concurrency=2, timeout_seconds=9, attempts=1) == first
    plain = Task(TASK.kind, TASK.labels)
    others = [fingerprint(answers="votes"), fingerprint(prompt={"examples": 1}), fingerprint(1), fingerprint(0, plain)]
    assert len({first, *others}) == 5


def test_labels_are_listed_in_an_order_that_the_seed_decides(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    for seed in range(4):
        fit(make_spec(server, prices), paid, tmp_path / str(seed), seed=seed)
    lists = {tuple(re.findall(r"^[A-Z]: (\w+)", prompt, re.MULTILINE)) for prompt in server.asked}
    assert len(lists) > 1
    assert {tuple(sorted(one)) for one in lists} == {tuple(sorted(LABELS))}


def test_no_texts_have_no_answers(server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path) -> None:
    assert fit(make_spec(server, prices), paid, tmp_path / "teacher").label([]).probs.shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"model": "other"}, "other"),
        ({"key_env": "NO_SUCH_KEY_HERE"}, "NO_SUCH_KEY_HERE"),
        ({"model": "unpriced"}, "no price for 'unpriced'"),
        ({"max_tokens": 64}, r"the prompt of a middling text .* at most 64"),
        ({"prompt": {"template": "blind.txt"}}, r"no \{text\} slot"),
        ({"prompt": {"template": "bare.txt"}}, r"no \{labels\} slot"),
        ({"prompt": {"template": "plain.txt", "examples": 2}}, r"no \{examples\} slot"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "127.0.0.1:9"),
    ],
)
def test_what_cannot_work_is_one_line_before_money_is_spent(
    changes: dict[str, Any], complaint: str, server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    for name, template in (("blind", "{labels}"), ("bare", "{text}"), ("plain", "{labels} {text}")):
        (tmp_path / f"{name}.txt").write_text(template, encoding="utf-8")
    if prompt := changes.get("prompt"):
        changes = {"prompt": prompt | {"template": str(tmp_path / prompt["template"])}}
    with pytest.raises(TeacherError, match=complaint) as error:
        fit(make_spec(server, prices, **changes), paid, tmp_path / "teacher")
    assert "\n" not in str(error.value)
    assert server.counts()["paid"] == 0


def test_an_endpoint_that_answers_web_pages_is_one_line(
    server: ReadingServer, prices: str, paid: PaidAnswers, tmp_path: Path
) -> None:
    server.settings.page = True
    with pytest.raises(EndpointError) as error:
        fit(make_spec(server, prices), paid, tmp_path / "teacher")
    assert "\n" not in str(error.value)
