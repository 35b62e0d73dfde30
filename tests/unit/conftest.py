"""One small finished run, stage by stage: each test reads what the stage before left. Built once a session."""

import csv
import gc
import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# Two threads that fight over one core make a tiny model a hundred times slower; torch reads this when it loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from teacher.corpus import prepare_corpus, read_part
from teacher.spec import DataSpec, EncoderSpec, LabelSpec, TaskSpec
from teacher.task import Task, TaskKind

if TYPE_CHECKING:
    from teacher.encoder import Gold

LABELS = ("delivery", "payment", "size")
_OPENINGS = ("hello", "please help", "i think", "well")
_SUBJECTS = {
    "delivery": ("my parcel", "the courier", "the package", "my order"),
    "payment": ("my card", "the invoice", "the charge", "my refund"),
    "size": ("the shirt", "these shoes", "the jacket", "this dress"),
}
_SAYINGS = {
    "delivery": ("has not arrived", "is late again", "was left outside", "never came"),
    "payment": ("was declined", "shows two amounts", "did not go through", "failed online"),
    "size": ("does not fit", "feels too wide", "runs large", "is too tight"),
}
Row = tuple[str, str]


def _single_rows() -> list[Row]:
    return [
        (f"{opening} {subject} {saying}", label)
        for label in LABELS
        for opening, subject, saying in itertools.product(_OPENINGS, _SUBJECTS[label], _SAYINGS[label])
    ]


def _told(label: str) -> list[Row]:
    return list(zip(_SUBJECTS[label], _SAYINGS[label], strict=True))


def _multi_rows() -> list[Row]:
    alone = [(" ".join(words), label) for label in LABELS for words in _told(label)]
    pairs = [
        (f"{opening} {one} and {other}", f"{label}|{second}")
        for opening in _OPENINGS
        for (one, label), (other, second) in itertools.combinations(alone, 2)
        if label != second
    ]
    return [(f"{opening} {text}", label) for opening in _OPENINGS for text, label in alone] + pairs


def _prepare(folder: Path, rows: list[Row], kind: TaskKind) -> Path:
    rows = random.Random(0).sample(rows, len(rows))
    test, dev, gold, pool = rows[:40], rows[40:80], rows[80:140], rows[80:]
    for name, part in (("test", test), ("dev", dev), ("gold", gold), ("pool", pool)):
        with (folder / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("text", "label"), *part])
    data = DataSpec(unlabeled=["pool.csv"], gold="gold.csv", dev="dev.csv", test="test.csv")
    prepare_corpus(data, TaskSpec(kind=kind), folder, folder / "corpus", seed=0)
    return folder / "corpus"


def pytest_collection_finish() -> None:
    """Take what the imports made out of the garbage collector's sight: each training run collects several times."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def small_task() -> Task:
    """Return the single-label task of `small_corpus`."""
    return Task(TaskKind.SINGLE_LABEL, LABELS)


@pytest.fixture(scope="session")
def multi_task() -> Task:
    """Return the multi-label task of `multi_corpus`."""
    return Task(TaskKind.MULTI_LABEL, LABELS)


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared corpus: 112 pool rows, 60 of them gold, 40 dev, 40 test, three labels."""
    return _prepare(tmp_path_factory.mktemp("small"), _single_rows(), TaskKind.SINGLE_LABEL)


@pytest.fixture(scope="session")
def multi_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a prepared corpus whose texts carry one or two of the three labels."""
    return _prepare(tmp_path_factory.mktemp("multi"), _multi_rows(), TaskKind.MULTI_LABEL)


@pytest.fixture(scope="session")
def gold(small_corpus: Path, small_task: Task) -> "Gold":
    """Return the gold and dev rows of `small_corpus`."""
    return _gold(small_corpus, small_task)


@pytest.fixture(scope="session")
def multi_gold(multi_corpus: Path, multi_task: Task) -> "Gold":
    """Return the gold and dev rows of `multi_corpus`."""
    return _gold(multi_corpus, multi_task)


def _gold(corpus: Path, task: Task) -> "Gold":
    from distill.scores import dev_score
    from teacher.encoder import Gold

    return Gold(task, read_part(corpus, "gold"), read_part(corpus, "dev"), dev_score(task.kind))


@pytest.fixture(scope="session")
def small_teacher(
    small_corpus: Path, small_task: Task, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the teacher stage's directory: the tiny encoder, fine-tuned on gold."""
    from distill.teach import LabelInputs, teach

    directory = tmp_path_factory.mktemp("teacher")
    spec = EncoderSpec(
        model=str(tiny_encoder), epochs=12, learning_rate=1e-2, head_learning_rate=1e-2, max_tokens=32, soup=1
    )
    teach(spec, LabelInputs(small_corpus, small_task), directory)
    return directory


@pytest.fixture(scope="session")
def small_labels(
    small_corpus: Path, small_teacher: Path, small_task: Task, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the store with the teacher's answers to the pool, three shards."""
    from distill.teach import LabelInputs, label

    directory = tmp_path_factory.mktemp("labels")
    label(small_teacher, LabelSpec(shard_rows=50), LabelInputs(small_corpus, small_task), directory)
    return directory


@pytest.fixture(scope="session")
def small_student(
    small_corpus: Path,
    small_labels: Path,
    small_teacher: Path,
    small_task: Task,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the train stage's directory: two layers of the teacher, distilled on the pool."""
    from distill.spec import TrainSpec
    from distill.train import TrainInputs, train_student
    from student.spec import StudentSpec

    directory = tmp_path_factory.mktemp("student")
    inputs = TrainInputs(small_corpus, small_labels, small_task)
    train = TrainSpec(epochs=8, learning_rate=5e-3, head_learning_rate=5e-3)
    train_student(inputs, str(small_teacher), small_teacher, StudentSpec(layers=2), train, directory)
    return directory


@pytest.fixture(scope="session")
def small_bundle(
    small_corpus: Path, small_student: Path, small_task: Task, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return the export stage's directory: the student as fp32 and int8."""
    from distill.package import package
    from distill.trial import Trial
    from export.spec import ExportSpec

    directory = tmp_path_factory.mktemp("packaged") / "bundle"
    directory.mkdir()
    spec = ExportSpec(max_drop=1, max_kl=9, max_class_drop=1, max_calibration_rise=1)
    package(Trial(small_student, small_corpus, small_task, spec), directory, lineage={"tune": "key"})
    return directory


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every sync fail as on a full disk."""

    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)


@pytest.fixture(scope="session")
def drawings() -> dict[str, str | None]:
    """Return what `drawn_once` has drawn so far."""
    return {}


@pytest.fixture
def drawn_once(drawings: dict[str, str | None], monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Let pages share the charts that are drawn from the same data; return those, for who wants them drawn anew."""
    from export import report_html

    def once(chart: Callable[..., str | None]) -> Callable[..., str | None]:
        def draw(*data: object) -> str | None:
            key = f"{chart.__name__} {data!r}"
            if key not in drawings:
                drawings[key] = chart(*data)
            return drawings[key]

        return draw

    for name, found in list(vars(report_html).items()):
        if name.endswith("_chart"):
            monkeypatch.setattr(report_html, name, once(found))
    return drawings
