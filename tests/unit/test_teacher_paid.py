import os
import signal
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from teacher.errors import BudgetError, StoreError
from teacher.paid import PaidAnswers, answer_key

# Writes answers until it is killed, and says of each key that it was acknowledged.
KILLED = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from teacher.paid import PaidAnswers
paid = PaidAnswers(Path(sys.argv[1]))
def write(number):
    paid.record(f"key {number}", {"text": "x" * 200}, 0.5)
    os.write(1, f"key {number}\\n".encode())
with ThreadPoolExecutor(16) as pool:
    list(pool.map(write, range(1_000_000)))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the file goes."""
    return tmp_path / "run" / "paid.sqlite"


def test_a_recorded_answer_is_found_by_its_key_and_by_no_other(path: Path) -> None:
    with PaidAnswers(path) as paid:
        paid.record("one", {"texts": ["é", "\ud800"]}, 0.25)
        answer = paid.find("one")
        assert answer is not None
        assert (answer.content, answer.cost_usd) == ({"texts": ["é", "\ud800"]}, 0.25)
        assert paid.find("other") is None


def test_answers_and_money_are_there_when_the_file_is_opened_again(path: Path) -> None:
    with PaidAnswers(path) as paid:
        paid.record("one", {"n": 1}, 0.25)
        paid.settle(0.0, 0.5)
    with PaidAnswers(path) as paid:
        assert paid.find("one") is not None
        assert paid.spent_usd == 0.75


def test_the_first_answer_to_a_key_stays_and_the_second_is_paid_all_the_same(path: Path) -> None:
    with PaidAnswers(path) as paid:
        paid.record("one", {"n": 1}, 0.25)
        paid.record("one", {"n": 2}, 0.5)
        answer = paid.find("one")
        assert answer is not None
        assert answer.content == {"n": 1}
        assert (paid.spending()[0].answers, paid.spending()[0].usd, paid.spending()[0].unanswered_usd) == (1, 0.75, 0.5)


def test_what_each_model_has_cost_can_be_read(path: Path) -> None:
    with PaidAnswers(path) as paid:
        for model, cost in (("a", 1.0), ("b", 2.0), ("a", 4.0)):
            paid.record_soon(f"{model} {cost}", {}, cost, model=model).result()
        paid.settle_soon(0.0, 8.0, model="b").result()
        assert [(each.model, each.answers, each.usd, each.unanswered_usd) for each in paid.spending()] == [
            ("a", 2, 5.0, 0.0),
            ("b", 1, 10.0, 8.0),
        ]


def test_threads_that_record_at_once_lose_nothing(path: Path) -> None:
    with PaidAnswers(path) as paid, ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: paid.record(f"key {number}", {"n": number}, 1.0), range(400)))
        assert [paid.find(f"key {number}").content for number in (0, 399)] == [{"n": 0}, {"n": 399}]  # type: ignore[union-attr]
        assert paid.spent_usd == 400


def test_answers_that_arrive_during_a_commit_share_the_next_one(path: Path) -> None:
    with PaidAnswers(path) as paid:
        is_busy, go_on, commits = threading.Event(), threading.Event(), []

        def hold(connection: sqlite3.Connection) -> None:
            connection.set_trace_callback(commits.append)
            is_busy.set()
            go_on.wait()

        held = paid.write(hold)
        is_busy.wait()
        waiting = [paid.record_soon(f"key {number}", {}, 0.0) for number in range(50)]
        go_on.set()
        for each in (held, *waiting):
            each.result()
        assert commits.count("COMMIT") == 2


def test_two_processes_and_two_openings_see_each_others_answers_and_spending(path: Path) -> None:
    with PaidAnswers(path) as mine, PaidAnswers(path, budget_usd=1.0) as other:
        mine.record("one", {}, 0.75)
        assert other.find("one") is not None
        other.record("two", {}, 0.125)
        assert other.spent_usd == 0.875
        with pytest.raises(BudgetError):
            other.reserve(0.25)


def test_work_that_fails_is_undone_and_takes_no_other_with_it(path: Path) -> None:
    with PaidAnswers(path) as paid:
        is_busy, go_on = threading.Event(), threading.Event()
        held = paid.write(lambda connection: (is_busy.set(), go_on.wait()))
        is_busy.wait()
        good = paid.record_soon("good", {}, 1.0)

        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM answers")
            raise KeyError("bad")

        bad = paid.write(fail)
        go_on.set()
        for each in (held, good):
            each.result()
        with pytest.raises(KeyError, match="bad"):
            bad.result()
        assert paid.find("good") is not None
        assert paid.spent_usd == 1.0


def test_the_call_that_would_pass_the_budget_is_refused_with_what_to_do(path: Path) -> None:
    with PaidAnswers(path, budget_usd=1.0) as paid:
        paid.record("one", {}, 0.5)
        paid.reserve(0.25)
        with pytest.raises(BudgetError, match=r"spent \$0.500000 of the budget of \$1.000000.*--budget-usd"):
            paid.reserve(0.375)
        paid.settle(0.25, 0.0)
        paid.reserve(0.375)


def test_a_budget_that_fits_to_the_cent_is_used_to_the_cent(path: Path) -> None:
    with PaidAnswers(path, budget_usd=0.3) as paid:
        for number in range(3):
            paid.reserve(0.1)
            paid.record_soon(f"key {number}", {}, 0.1, reserved_usd=0.1).result()
        with pytest.raises(BudgetError):
            paid.reserve(0.0001)


def test_a_reservation_ends_with_the_commit_of_its_answer(path: Path) -> None:
    with PaidAnswers(path) as paid:
        paid.reserve(0.5)
        assert paid.reserved_usd == 0.5
        paid.record_soon("one", {}, 0.25, reserved_usd=0.5).result()
        assert (paid.reserved_usd, paid.spent_usd) == (0.0, 0.25)


def test_no_acknowledged_answer_is_lost_when_the_process_is_killed(path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    told = "".join(child.stdout.readline() for _ in range(300))
    child.send_signal(signal.SIGKILL)
    told += child.stdout.read()
    child.wait()
    acknowledged = set(told.splitlines())
    with PaidAnswers(path) as paid:
        paid.check()
        stored = {key for (key,) in paid.read("SELECT key FROM answers")}
        assert not acknowledged - stored
        assert len(stored - acknowledged) <= 16
        assert paid.spent_usd == 0.5 * len(stored)


def test_a_changed_answer_is_refused_when_it_is_read(path: Path) -> None:
    with PaidAnswers(path) as paid:
        paid.record("one", {"text": "yes"}, 0.5)
        paid.record("two", {"text": "no"}, 0.5)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE answers SET content = '{\"text\":\"no!\"}' WHERE key = 'one'")
    connection.close()
    with PaidAnswers(path) as paid:
        assert paid.find("two") is not None
        with pytest.raises(StoreError, match=r"paid.sqlite is damaged .*put a copy of it back"):
            paid.find("one")
        with pytest.raises(StoreError, match="the answer one"):
            paid.check()


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_is_refused_and_left_alone(path: Path, keep: float) -> None:
    with PaidAnswers(path) as paid:
        for number in range(200):
            paid.record_soon(f"key {number}", {"text": "x" * 500}, 0.5)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    with pytest.raises(StoreError, match="is damaged"):
        PaidAnswers(path)
    assert path.stat().st_size == int(len(whole) * keep)


@pytest.mark.parametrize("content", [b"text,label\na,b\n", b"SQLite format 3\x00" + bytes(200)])
def test_a_file_of_another_kind_is_refused(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged"):
        PaidAnswers(path)
    assert path.read_bytes() == content


def test_a_newer_format_is_refused(path: Path) -> None:
    PaidAnswers(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(StoreError, match="found format 9, wanted 1"):
        PaidAnswers(path)


def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_what_was_stored(path: Path) -> None:
    with PaidAnswers(path) as paid:
        paid.record("one", {}, 0.5)
        paid.write(lambda connection: connection.execute("PRAGMA max_page_count = 8").fetchall()).result()
        with pytest.raises(OSError, match="No space left") as caught:
            paid.record("two", {"text": "x" * 100_000}, 0.5)
        assert caught.value.filename == str(path)
        assert paid.find("one") is not None
        assert paid.spent_usd == 0.5


def test_many_openings_at_once_make_one_file(path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda number: PaidAnswers(path), range(8)))
    opened[0].record("one", {}, 0.5)
    assert all(paid.find("one") is not None for paid in opened)
    for paid in opened:
        paid.close()
    assert os.listdir(path.parent) == [path.name]


def test_a_key_follows_from_the_parts_alone_and_changes_with_each() -> None:
    parts = {"model": "m", "messages": [{"role": "user", "content": "é"}], "temperature": 0.0}
    assert answer_key(**parts) == answer_key(**dict(reversed(parts.items())))
    assert len({answer_key(**parts | change) for change in ({}, {"model": "n"}, {"temperature": 0.5})}) == 3
