"""What a server does with texts, whatever protocol brought them: limits, tokens, queue, model, hooks, counting."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from export.errors import ExportError, TextTooLongError
from export.models import Models, ServedModel
from export.runtime import TooLong
from export.scheduler import Job, Scheduler
from export.serve_errors import RequestError
from export.serve_hooks import Answer, Hooks, make_hooks
from export.serve_metrics import Metrics
from export.serve_settings import ServeSettings

_METRICS_SECONDS = 0.5  # a scrape may miss what other workers counted since
STAGES = ("tokenize", "queue", "run", "decide")


@dataclass(slots=True)
class Stages:
    """Seconds of each stage of one request."""

    tokenize: float = 0.0
    queue: float = 0.0
    run: float = 0.0
    decide: float = 0.0


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers to the texts of one request, the version that gave them, and where the time went."""

    model: ServedModel
    answers: Sequence[Answer]
    stages: Stages = field(default_factory=Stages)


class Service:
    """One worker's models behind one queue."""

    def __init__(self, settings: ServeSettings) -> None:
        """Load every bundle; raise BundleError when one cannot be used."""
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models(settings.bundles, self.metrics.versions.add)
        self.scheduler = Scheduler(settings.max_queue, settings.max_wait_ms / 1000, settings.batching)
        self.hooks = Hooks()
        self.is_ready = False
        self.version = version("potstill")
        # What a client's wish for new versions does; with several workers they are all told.
        self.on_reload: Callable[[], None] = self.reload
        self._background: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Take part in the running event loop."""
        self.hooks = make_hooks(self.settings)
        self._background.add(asyncio.create_task(self._keep_books()))
        if self.settings.watch_seconds:
            self._background.add(asyncio.create_task(self.models.watch(self.settings.watch_seconds)))
        self.is_ready = True

    def reload(self) -> None:
        """Look for new versions now, in the background."""
        task = asyncio.get_running_loop().create_task(self.models.refresh())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def stop(self) -> None:
        """End what `start` began."""
        self.is_ready = False
        for task in self._background:
            task.cancel()
        for close in self.hooks.closing:
            await close()
        self.write_metrics()

    def write_metrics(self) -> None:
        """Write down what this worker counted, for whichever worker is asked."""
        self.metrics.flush(self.scheduler.waiting_texts)

    async def _keep_books(self) -> None:
        while True:
            await asyncio.sleep(_METRICS_SECONDS)
            self.write_metrics()

    def model(self, name: str | None) -> ServedModel:
        """Return the version that answers for `name` (None: the default) now."""
        model = self.models.get(name)
        if model is None:
            known = ", ".join(self.models.slots)
            raise RequestError("not_found", f"found no model called {name!r}, wanted one of: {known}")
        return model

    async def answer(
        self, texts: Sequence[str], name: str | None, too_long: TooLong | None, deadline: float | None
    ) -> Answered:
        """Return the answers to `texts` in order; raise RequestError when there are none.

        `deadline` is on time.perf_counter; what cannot be answered before it is not begun.
        """
        model = self.model(name)
        self._check(texts)
        self.scheduler.refuse_when_full(len(texts))
        stages = Stages()
        started = time.perf_counter()
        try:
            encodings = model.predictor.encode(texts, too_long)
        except TextTooLongError as error:
            raise RequestError("too_large", str(error)) from error
        except ExportError as error:
            raise RequestError("validation", str(error)) from error
        stages.tokenize = time.perf_counter() - started
        job = self.scheduler.submit(model, encodings, deadline)
        answers = await self._finish(job, texts, stages)
        self._count(model, answers, stages)
        return Answered(model, answers, stages)

    async def _finish(self, job: Job, texts: Sequence[str], stages: Stages) -> Sequence[Answer]:
        logits, probs = await job.done
        stages.queue, stages.run = job.started - job.arrived, job.ended - job.started
        predictions = job.model.predictor.decide(job.encodings, probs)
        answers: Sequence[Answer] = [*map(Answer, texts, predictions, logits)]
        if self.hooks.decide is not None:
            started = time.perf_counter()
            answers = await self.hooks.decide(job.model, answers, job.deadline)
            stages.decide = time.perf_counter() - started
        if self.hooks.capture is not None:
            self.hooks.capture(job.model, answers)
        return answers

    def _check(self, texts: Sequence[str]) -> None:
        most = self.settings
        if len(texts) > most.max_texts:
            raise RequestError("too_large", f"found {len(texts)} texts in one request, wanted at most {most.max_texts}")
        for index, text in enumerate(texts):
            if len(text) > most.max_characters:
                raise RequestError(
                    "too_large", f"text {index} has {len(text)} characters, wanted at most {most.max_characters}"
                )

    def _count(self, model: ServedModel, answers: Sequence[Answer], stages: Stages) -> None:
        metrics, name = self.metrics, model.name
        for answer in answers:
            metrics.texts.add(name, answer.source)
            if answer.prediction.truncated:
                metrics.truncated.add(name)
            metrics.tokens.add(name, amount=answer.prediction.tokens)
        for stage in STAGES:
            if seconds := getattr(stages, stage):
                metrics.stages.add(stage, amount=seconds)
