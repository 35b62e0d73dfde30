import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from export.cost import CostModel, Curve
from export.errors import ExportError
from export.models import ServedModel
from export.runtime import Predictor
from export.scheduler import Job, Scheduler
from export.serve_errors import RequestError

SLOW = CostModel(Curve(0.01, 0.001, 0.0), Curve(0.01, 0.0, 0.0))
SHORT, LONG = "my parcel", "my parcel is late again and the invoice is wrong"


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> ServedModel:
    return ServedModel("shop", Predictor.load(tiny_bundle), SLOW)


def submit(scheduler: Scheduler, model: ServedModel, *texts: str, deadline: float | None = None) -> Job:
    return scheduler.submit(model, model.predictor.encode(texts), deadline)


def run(scheduler: Scheduler, work: Callable[[], list[Job]]) -> list[Job]:
    async def play() -> list[Job]:
        jobs = work()
        await asyncio.gather(*(job.done for job in jobs), return_exceptions=True)
        return jobs

    return asyncio.run(play())


def roomy(batching: bool = False) -> Scheduler:
    return Scheduler(max_queue=100, max_wait_seconds=100, batching=batching)


def test_an_answer_is_that_of_the_text_run_alone_whatever_else_waits(model: ServedModel) -> None:
    scheduler = roomy()
    jobs = run(scheduler, lambda: [submit(scheduler, model, SHORT, LONG), submit(scheduler, model, LONG)])
    alone = [model.predictor.run(model.predictor.encode([text])) for text in (SHORT, LONG)]
    for found, wanted in zip(jobs[0].done.result(), zip(*alone, strict=True), strict=True):
        assert np.array_equal(found, np.concatenate(wanted))
    assert all(map(np.array_equal, jobs[1].done.result(), alone[1]))


def test_a_short_request_passes_a_long_one_that_came_just_before(model: ServedModel) -> None:
    scheduler = roomy()
    long, short = run(scheduler, lambda: [submit(scheduler, model, *[LONG] * 8), submit(scheduler, model, SHORT)])
    assert short.ended < long.ended


def test_a_long_request_is_not_passed_for_ever(model: ServedModel) -> None:
    scheduler = roomy()

    def work() -> list[Job]:
        early = submit(scheduler, model, LONG)
        time.sleep(4 * SLOW.alone(20))
        return [early, submit(scheduler, model, SHORT)]

    early, late = run(scheduler, work)
    assert early.ended < late.ended


def test_a_request_whose_wait_is_predicted_too_long_is_refused_with_a_time_to_come_back(model: ServedModel) -> None:
    scheduler = Scheduler(max_queue=100, max_wait_seconds=0.1, batching=False)

    def work() -> list[Job]:
        jobs = [submit(scheduler, model, LONG) for _ in range(5)]
        assert scheduler.is_full()
        with pytest.raises(RequestError) as refused:
            submit(scheduler, model, SHORT, SHORT)
        assert (refused.value.status, refused.value.headers) == (429, {"retry-after": "1"})
        return jobs

    assert all(job.done.result().probs.shape == (1, 3) for job in run(scheduler, work))
    assert not scheduler.is_full()


def test_no_more_texts_wait_than_the_queue_holds(model: ServedModel) -> None:
    scheduler = Scheduler(max_queue=4, max_wait_seconds=100, batching=False)

    def work() -> list[Job]:
        jobs = [submit(scheduler, model, SHORT, SHORT, SHORT)]
        scheduler.refuse_when_full(1)
        with pytest.raises(RequestError, match="3 texts are waiting"):
            scheduler.refuse_when_full(2)
        return jobs

    run(scheduler, work)
    assert scheduler.waiting_texts == 0


def test_a_deadline_that_cannot_be_met_is_refused_before_any_work(model: ServedModel) -> None:
    scheduler = roomy()

    def work() -> list[Job]:
        with pytest.raises(RequestError) as refused:
            submit(scheduler, model, LONG, deadline=time.perf_counter() + 0.001)
        assert refused.value.status == 504
        return []

    run(scheduler, work)
    assert scheduler.waiting_texts == 0


def test_a_request_that_became_late_in_the_queue_is_not_run(model: ServedModel) -> None:
    scheduler = roomy()

    def work() -> list[Job]:
        job = submit(scheduler, model, SHORT, deadline=time.perf_counter() + 0.05)
        time.sleep(0.06)
        return [job]

    (job,) = run(scheduler, work)
    assert isinstance(job.done.exception(), RequestError)
    assert (job.finished, scheduler.waiting_texts) == (0, 0)


def test_what_nobody_waits_for_any_more_is_not_run(model: ServedModel) -> None:
    scheduler = roomy()

    def work() -> list[Job]:
        gone, other = submit(scheduler, model, SHORT), submit(scheduler, model, LONG)
        gone.done.cancel()
        return [gone, other]

    gone, other = run(scheduler, work)
    assert (gone.finished, other.finished, scheduler.waiting_texts) == (0, 1, 0)


@pytest.mark.parametrize(("batching", "pieces"), [(False, 6), (True, 1)])
def test_texts_of_a_request_share_a_run_only_when_asked_to(model: ServedModel, batching: bool, pieces: int) -> None:
    scheduler = roomy(batching)
    (job,) = run(scheduler, lambda: [submit(scheduler, model, *[SHORT, LONG] * 3)])
    assert (len(job.pieces), job.done.result().probs.shape) == (pieces, (6, 3))


def test_a_model_that_fails_is_told_as_503_and_the_next_request_runs(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(encodings: object) -> None:
        raise ExportError("the model gave a logit that is not a finite number")

    scheduler = roomy()
    with monkeypatch.context() as broken:
        broken.setattr(model.predictor, "run", fail)
        (job,) = run(scheduler, lambda: [submit(scheduler, model, SHORT, LONG)])
    error = job.done.exception()
    assert isinstance(error, RequestError)
    assert (error.status, scheduler.waiting_texts) == (503, 0)
    (after,) = run(scheduler, lambda: [submit(scheduler, model, SHORT)])
    assert after.done.result().probs.shape == (1, 3)
