"""The step after the student's answer: how certain is it, and what goes out when that is not enough.

Joins a threshold, a teacher over HTTP and the capture of texts; each is optional, and without any of them the server
does not come here. A failing teacher never fails a request.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from export.bundle import BundleManifest
from export.capture import CapturePool
from export.doubt_settings import DoubtSettings
from export.errors import BundleError
from export.models import ServedModel
from export.remote_teacher import RemoteTeacher, TeacherAnswer, read_key
from export.runtime import Prediction
from export.selective import certainty
from export.serve_hooks import Answer

logger = logging.getLogger("potstill.serve")


class Doubt:
    """One worker's handling of doubtful texts."""

    def __init__(self, settings: DoubtSettings, workers: int = 1) -> None:
        """Open what the settings name; raise ExportError when a key or a function is not there."""
        self._settings = settings
        self._teacher = RemoteTeacher(settings.teacher, workers) if settings.teacher else None
        self._pool = CapturePool(settings.capture, workers) if settings.capture else None
        self._told: set[str] = set()

    async def decide(self, model: ServedModel, answers: Sequence[Answer], deadline: float | None) -> Sequence[Answer]:
        """Return what goes out for each answer of the student, with its certainty."""
        certain = _certainty(model, answers)
        measured = [
            replace(answer, certainty=value, is_strange=self._settings.scope and answer.prediction.in_scope is False)
            for answer, value in zip(answers, certain, strict=True)
        ]
        threshold = self._threshold(model)
        if self._settings.below == "answer":
            return measured
        return await asyncio.gather(
            *(
                self._settle(model, answer, deadline) if _is_doubtful(answer, threshold) else _stay(answer)
                for answer in measured
            )
        )

    def capture(self, model: ServedModel, answers: Sequence[Answer]) -> None:
        """Queue what is doubtful for the pool; never waits."""
        threshold = self._threshold(model)
        if self._pool is None:
            return
        for answer in answers:
            if _is_doubtful(answer, threshold):
                self._pool.offer(answer, model.digest)

    async def close(self) -> None:
        """Write what is queued and let go of the teacher."""
        if self._teacher is not None:
            await self._teacher.close()
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)

    def _threshold(self, model: ServedModel) -> float | None:
        if self._settings.threshold is not None:
            return self._settings.threshold
        promise = model.manifest.abstain
        if promise is None or promise.threshold is None:
            if model.digest not in self._told:
                logger.warning("%s: this version proved no threshold; every answer goes out", model.name)
                self._told.add(model.digest)
            return None
        return promise.threshold

    async def _settle(self, model: ServedModel, answer: Answer, deadline: float | None) -> Answer:
        if self._teacher is None:
            return replace(answer, source="abstain", prediction=replace(answer.prediction, label=None, labels=()))
        labels, is_single = model.manifest.labels, model.manifest.kind == "single_label"
        said = await self._teacher.ask(answer.text, labels, is_single, deadline)
        if said is None:
            return replace(answer, source="fallback")
        return replace(answer, source="teacher", prediction=_taught(answer.prediction, labels, said))


def check_doubt(settings: DoubtSettings, manifests: Sequence[BundleManifest]) -> None:
    """Raise ExportError when something that the settings rely on is not there: a threshold, a key, a function."""
    if settings.teacher is not None:
        read_key(settings.teacher)
    if settings.capture is not None:
        settings.capture.load_redact()
    for manifest in manifests:
        if settings.threshold is None and (manifest.abstain is None or manifest.abstain.threshold is None):
            raise BundleError(
                f"{manifest.name}: the bundle proved no threshold for doubtful texts; export it again with another "
                "export.abstain.accuracy or more dev rows, or set a threshold yourself"
            )


def _certainty(model: ServedModel, answers: Sequence[Answer]) -> list[float]:
    probs = np.array([answer.prediction.scores for answer in answers])
    decided = np.array([[name in answer.prediction.labels for name in model.manifest.labels] for answer in answers])
    found: list[float] = certainty(model.manifest.kind, probs, decided).tolist()
    return found


def _taught(student: Prediction, labels: Sequence[str], said: TeacherAnswer) -> Prediction:
    """Return the teacher's answer in the shape of the student's; 1 for what it named without a probability."""
    probabilities = {name: said.probabilities.get(name, float(name in said.labels)) for name in labels}
    return replace(
        student,
        label=said.labels[0] if said.labels else None,
        labels=said.labels,
        probability=max(probabilities.values()),
        _least_familiar=None,  # the student's; of the teacher's answer nobody has fitted one
        _probs=np.array([*probabilities.values()], np.float32).tobytes(),
    )


def _is_doubtful(answer: Answer, threshold: float | None) -> bool:
    is_unsure = threshold is not None and answer.certainty is not None and answer.certainty < threshold
    return answer.is_strange or is_unsure


async def _stay(answer: Answer) -> Answer:
    return answer
