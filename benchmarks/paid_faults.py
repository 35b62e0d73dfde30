"""Rows R1 to R4 of the faults: kills, interruptions, a provider's faults and budgets, against the fault server."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from checkout import ROOT
from fault_process import FaultProcess, fault_process
from lines import Line

from teacher.completion import Completion, Outcome
from teacher.endpoint import Endpoint
from teacher.errors import BudgetError
from teacher.paid import PaidAnswers
from tests.fault_server import CODES, FAULTS
from tests.labeller import mock_spec, requests

_CONCURRENCY = 16
_MOST_EXIT_SECONDS = 10.0
_MOST_SPEND = 1.35
_KILLS, _KILL_ROWS, _KILL_LATENCY = 20, 12_000, 0.05
_SIGNALS, _SIGNAL_ROWS, _SIGNAL_LATENCY = 20, 4_000, 0.2
_FAULT_CALLS, _FAULT_SHARE = 5_000, 0.3
_BUDGETS, _BUDGET_ROWS = 100, 120
_LIMIT_SECONDS = 600.0
_SETTLE_SECONDS = 1.0  # until the server has counted what was under way


@dataclass(frozen=True, slots=True)
class _End:
    """How a process ended, what it left in the file, and what the server has been paid by then."""

    code: int
    seconds: float  # from the signal on
    said: str
    lost: int  # acknowledged answers that are not in the file
    answers: int
    paid: int  # calls that the server was paid for, over all processes so far
    prompts: int  # different ones among them


def kills(scratch: Path, share: float) -> Line:
    """Kill a labelling process again and again, and count what is lost or paid twice."""
    number, rows = max(round(_KILLS * share), 1), max(round(_KILL_ROWS * share), 100)
    with fault_process(latency=_KILL_LATENCY) as server:
        ends = [
            _run(server, scratch, rows, signal.SIGKILL, rows * (index + 1) // (number + 1)) for index in range(number)
        ]
        last = _run(server, scratch, rows, None, rows)
    orphans = [end.prompts - end.answers for end in ends]
    repaid = last.paid - last.prompts
    survived = sum(
        end.code == -signal.SIGKILL and not end.lost and 0 <= orphan <= _CONCURRENCY
        for end, orphan in zip(ends, orphans, strict=True)
    )
    return Line(
        "R1",
        f"injected {number} / survived {survived}: kill -9 over {rows:,} rows at concurrency {_CONCURRENCY}, "
        f"{sum(end.lost for end in [*ends, last])} committed answers lost, {last.answers - rows} duplicate rows, "
        f"re-paid {repaid} calls, {max(orphans)} at most for a kill",
        "0 lost, 0 duplicates, <= 16 re-paid a kill",
        survived == number and last.answers == rows and not last.code and not last.lost,
    )


def interruptions(scratch: Path, share: float) -> Line:
    """Interrupt a labelling process with SIGINT and SIGTERM in turn; nothing may be paid twice."""
    number, rows = max(round(_SIGNALS * share), 2), max(round(_SIGNAL_ROWS * share), 200)
    with fault_process(latency=_SIGNAL_LATENCY) as server:
        ends = [
            _run(server, scratch, rows, (signal.SIGINT, signal.SIGTERM)[index % 2], rows * (index + 1) // (number + 1))
            for index in range(number)
        ]
    survived = sum(
        end.code == 130
        and end.seconds <= _MOST_EXIT_SECONDS
        and end.paid == end.answers
        and "resume with: distill ask" in end.said
        for end in ends
    )
    return Line(
        "R2",
        f"injected {number} / survived {survived}: SIGINT and SIGTERM in turn, slowest exit "
        f"{max(end.seconds for end in ends):.1f} s, {max(end.paid - end.answers for end in ends)} re-paid, resume "
        "command printed",
        "exit within 10 s, 0 re-paid, the resume command printed",
        survived == number,
    )


def provider_faults(scratch: Path, share: float) -> Line:
    """Let 30 % of the calls fail in ten ways; every row ends answered or rejected with a reason."""
    rows = max(round(_FAULT_CALLS * share), 100)
    with fault_process(faults=_FAULT_SHARE) as server:
        spec = mock_spec(server.url, scratch, concurrency=_CONCURRENCY, timeout_seconds=1.0)
        with PaidAnswers(scratch / "paid.sqlite") as paid:
            outcomes = Endpoint(spec, paid, patience_seconds=0.1).complete(requests(rows))
            booked = paid.spent_usd
        counts = server.counts()
    ends = Counter(_end(outcome) for outcome in outcomes)
    injected = sum(counts["injected"].values())
    kinds = sum(bool(counts["injected"].get(kind)) for kind in FAULTS)
    ideal = counts["usd"] / counts["paid"] * rows
    spend = counts["usd"] / ideal
    told = ", ".join(f"{number:,} {end}" for end, number in ends.most_common())
    has_all_ended = len(outcomes) == rows == sum(ends.values())
    return Line(
        "R3",
        f"injected {injected:,} / survived {injected if has_all_ended else 0:,}: {kinds} kinds over {rows:,} rows in "
        f"{counts['asked']:,} calls; rows: {told}; spend {spend:.2f}x (booked here {booked / ideal:.2f}x)",
        "every row ok or rejected with a reason, spend <= 1.35x",
        has_all_ended and kinds == len(FAULTS) and spend <= _MOST_SPEND and ends["ok"] > 0,
    )


def budgets(scratch: Path, share: float) -> Line:
    """Stop at random budgets; what is spent over one may not exceed what calls under way cost."""
    number, chance = max(round(_BUDGETS * share), 5), random.Random(0)
    survived, worst, unused = 0, 0.0, 0.0
    with fault_process(latency=0.002) as server:
        for index in range(number):
            folder = scratch / f"budget-{index}"
            folder.mkdir()
            asked = requests(_BUDGET_ROWS, first=index * _BUDGET_ROWS)
            spec = mock_spec(server.url, folder, concurrency=_CONCURRENCY)
            budget = chance.uniform(0, 1.1) * _BUDGET_ROWS * 50e-6
            before, is_stopped = server.counts(), False
            with PaidAnswers(folder / "paid.sqlite", budget) as paid:
                try:
                    Endpoint(spec, paid).complete(asked)
                except BudgetError:
                    is_stopped = True
                booked = paid.spent_usd
            after = server.counts()
            spent, calls = after["usd"] - before["usd"], after["paid"] - before["paid"]
            under_way = _CONCURRENCY * spent / max(calls, 1)
            is_whole = calls == _BUDGET_ROWS
            survived += spent - budget <= under_way and is_stopped != is_whole and abs(spent - booked) < 1e-9
            worst = max(worst, spent - budget)
            unused = max(unused, budget - spent if is_stopped else 0.0)
    return Line(
        "R4",
        f"injected {number} / survived {survived}: random budgets over {_BUDGET_ROWS} rows at concurrency "
        f"{_CONCURRENCY}, overspent by ${max(worst, 0.0):.6f} at most, stopped with ${unused:.6f} of a budget left at "
        "most",
        "overspend <= the price of the calls in flight",
        survived == number,
    )


def _run(server: FaultProcess, folder: Path, rows: int, sent: signal.Signals | None, after: int) -> _End:
    """Run the labelling process until `after` answers are acknowledged, send it a signal and see what is left."""
    program = str(ROOT / "tests" / "labeller.py")
    child = subprocess.Popen(
        [sys.executable, program, "ask", server.url, str(folder), str(rows)],
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        # A process started in the background inherits a SIGINT that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    witness = folder / "acknowledged"
    give_up = time.monotonic() + _LIMIT_SECONDS
    while sent is not None and child.poll() is None and time.monotonic() < give_up:
        if witness.exists() and witness.stat().st_size >= after * 65:
            child.send_signal(sent)
            break
        time.sleep(0.005)
    began = time.monotonic()
    said = child.communicate(timeout=_LIMIT_SECONDS)[1]
    seconds = time.monotonic() - began
    time.sleep(_SETTLE_SECONDS)
    counts = server.counts()
    with PaidAnswers(folder / "paid.sqlite") as paid:
        paid.check()
        keys = {key for (key,) in paid.read("SELECT key FROM answers")}
    lost = len(set(witness.read_text().split()) - keys) if witness.exists() else 0
    return _End(child.returncode, seconds, said, lost, len(keys), counts["paid"], counts["prompts"])


def _end(outcome: Outcome) -> str:
    if not isinstance(outcome, Completion):
        return f"rejected ({outcome.reason})" if outcome.reason else "without a reason"
    return "ok" if outcome.texts[0] in CODES else "answered outside the label set"
