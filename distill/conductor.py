"""The conductor of one run: its directories, the keys of its stages, and building one that is missing or stale.

Knows no stage by itself; `pipeline.py` holds the table of them.
"""

import copy
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from distill.config import RESOLVERS, Config, LoadedConfig, config_names, resolve_spec, student_source
from distill.progress import Reporter
from distill.spec import Part
from distill.stages import (
    StageStatus,
    building,
    lineage_path,
    partial_directory,
    read_lineage,
    stage_key,
    stage_status,
)
from teacher.files import write_atomically
from teacher.processes import is_first_process, wait_for_all
from teacher.spec import TeacherSpec

if TYPE_CHECKING:
    from distill.background import Background
    from distill.teach import LabelInputs
    from distill.train import TrainInputs
    from teacher.paid import PaidAnswers
    from teacher.task import Task

Update = Callable[[int], None]
RESULT = "search.json"  # what a search of a run found
SEARCH = "search"  # the folder of a run that holds a run of every student tried, at every share of its training


@dataclass(frozen=True, slots=True)
class Stage:
    """A directory of the run, the stages it reads, the config sections it depends on, and how it is built."""

    name: str
    directory: str
    reads: tuple[str, ...]
    sections: tuple[str, ...]
    build: Callable[["Conductor", Path, Update], None]
    trains: bool = False  # every process of a distributed run takes part


class Conductor:
    """One run of one config: knows its directories and builds what is missing or stale."""

    def __init__(
        self,
        loaded: LoadedConfig,
        stages: Sequence[Stage],
        runs: Path,
        reporter: Reporter,
        budget_usd: float | None = None,
    ) -> None:
        """Name the run directory; nothing is read or written yet. `budget_usd` limits all that was ever paid here."""
        self.stages = {stage.name: stage for stage in stages}
        self.config: Config = loaded.config
        self.base = loaded.base
        self.run = runs / loaded.config.name
        self.reporter = reporter
        self.budget_usd = budget_usd
        self.warnings: list[str] = []
        self.part = Part()
        self._searched: Conductor | None = None

    def sibling(self, config: Config, part: Part, run: Path, stages: Sequence[Stage]) -> "Conductor":
        """Return the run of another student in the folder `run`, on the corpus, teacher and labels of this one.

        Of its training only `part` is done. `stages` are what it has of its own, in the place of those of the same
        name here; its `config` differs in nothing that the others read.
        """
        other = copy.copy(self)
        other.config = config
        shared = {
            name: replace(stage, directory=str(self.path(name).absolute())) for name, stage in self.stages.items()
        }
        other.stages = shared | {stage.name: stage for stage in stages}
        other.run, other.part, other._searched = run, part, self
        return other

    def warn(self, message: str) -> None:
        """Say a warning and keep it for the report."""
        self.warnings.append(message)
        self.reporter.say(f"warning: {message}")

    def write_config(self) -> None:
        """Write the resolved config, with every default, into the run directory."""
        text = yaml.safe_dump(self.config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        write_atomically(self.run / "config.yaml", lambda path: path.write_text(text, encoding="utf-8"))

    def path(self, stage: str) -> Path:
        """Return the directory of a stage."""
        return self.run / self.stages[stage].directory

    def section(self, stage: Stage) -> dict[str, Any]:
        """Return the part of the config that `stage` depends on, as JSON values."""
        config = self.config.model_dump(mode="json")
        section = {name: config[name] for name in stage.sections}
        if stage.name == "corpus":
            section["sources"] = self._source_digest
        if stage.name == "teacher" and self._teacher_files:
            section["files"] = self._teacher_files
        if stage.name == "train" and self.config.train.background:
            section["background"] = self._background_digest
        if stage.name == "train" and self.part.share < 1:
            section["share"] = self.part.share
        if stage.name == "report" and (found := self.search_result):
            section["search"] = found
        return section

    def inputs(self, stage: Stage) -> dict[str, str]:
        """Return the keys that the stages read by `stage` have, or would have, with this config."""
        return {name: self.key(name) for name in stage.reads}

    def key(self, name: str) -> str:
        """Return the key that the stage `name` has, or would have, with this config."""
        stage = self.stages[name]
        return stage_key(name, self.section(stage), self.inputs(stage))

    def status(self) -> Iterator[StageStatus]:
        """Yield the state of every stage in order."""
        for stage in self.stages.values():
            yield stage_status(stage.name, self.path(stage.name), self.section(stage), self.inputs(stage))

    def ensure(self, stage: Stage) -> None:
        """Build `stage` unless it is done."""
        section, inputs, target = self.section(stage), self.inputs(stage), self.path(stage.name)
        if stage_status(stage.name, target, section, inputs).state == "done":
            return
        twin = self._twin(stage)
        if is_first_process():
            if twin:
                shutil.rmtree(partial_directory(target), ignore_errors=True)
            with building(stage.name, target, section, inputs) as partial:
                wait_for_all()
                if twin:
                    shutil.copytree(twin, partial, dirs_exist_ok=True)
                else:
                    self._build(stage, partial)
                wait_for_all()
            if twin:  # what it took to build is not what it took to copy
                shutil.copy2(lineage_path(twin), lineage_path(target))
        else:
            wait_for_all()
            if stage.trains and not twin:
                self._build(stage, partial_directory(target))
            wait_for_all()
        wait_for_all()

    def label_inputs(self, update: Update) -> "LabelInputs":
        """Return what the stages that ask the teacher share."""
        from distill.teach import LabelInputs

        return LabelInputs(self.path("corpus"), self.task, self.config.seed, update, self.paid)

    def train_inputs(self, update: Update) -> "TrainInputs":
        """Return what the training stages share."""
        from distill.train import TrainInputs

        seed = self.config.seed if self.config.train.seed is None else self.config.train.seed
        corpus, labels = self.path("corpus"), self.path("label")
        return TrainInputs(corpus, labels, self.task, seed, update, part=self.part, background=self._background)

    @cached_property
    def task(self) -> "Task":
        """Return the task with the labels that the corpus stage settled."""
        from teacher.corpus import read_meta
        from teacher.task import Task

        wanted = self.config.task.labels
        descriptions = wanted if isinstance(wanted, dict) else {}
        return Task(self.config.task.kind, tuple(read_meta(self.path("corpus")).labels), descriptions)

    @cached_property
    def paid(self) -> "PaidAnswers | None":
        """Return what this run has paid for or waited for, and its budget, which outlive every stage.

        None: its teachers answer for nothing and at once.
        """
        from teacher.paid import PaidAnswers

        if not any(spec.keeps_answers for _, spec in self.config.teacher.parts()):
            return None
        return PaidAnswers(self.run / "answers.sqlite", self.budget_usd)

    @cached_property
    def teacher(self) -> TeacherSpec:
        """Return the teacher's spec with every model and file as what can be opened."""
        return resolve_spec(self.config.teacher, self.config, self.base)

    def untuned_source(self) -> str:
        """Return the checkpoint a student starts from when no fitted teacher is involved."""
        return student_source(self.config, self.base)

    def student_source(self) -> str:
        """Return the checkpoint whose layers or shape the student takes."""
        from teacher.kinds import warm_start_source

        found = warm_start_source(self.path("teacher")) if self.config.student.init == "teacher" else None
        return str(found) if found else self.untuned_source()

    @property
    def search_result(self) -> dict[str, Any] | None:
        """Return what a search on the labels of this run found; None where there was none."""
        try:
            found: dict[str, Any] = json.loads((self.run / RESULT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if found.get("labels") == self.key("label") else None

    @cached_property
    def _source_digest(self) -> str:
        from teacher.corpus import source_digest

        return source_digest(self.config.data, self.base)

    @property
    def _background(self) -> "Background | None":
        from distill.background import Background

        data, sources = self.config.data, self.config.train.background
        if not sources:
            return None
        return Background(tuple(sources), self.base / data.root, data.text, data.max_characters)

    @cached_property
    def _background_digest(self) -> str:
        from teacher.read import digest_sources

        sources = [("background", source) for source in self.config.train.background]
        return digest_sources(sources, self.base / self.config.data.root)

    @cached_property
    def _teacher_files(self) -> dict[str, str]:
        """Return the digest of every file whose content shapes the teacher's answers, by its name in the config."""
        from teacher.files import tree_digest

        named = config_names(self.config)
        names = [(role, name) for path, role, name in named if role != "models" and path[0] != "train"]
        return {name: tree_digest(Path(RESOLVERS[role](name, self.config, self.base))) for role, name in names}

    def _twin(self, stage: Stage) -> Path | None:
        """Return where a search of this run, or the run that is searched, has built the same already."""
        if self._searched is None:
            places = [*self.run.glob(f"{SEARCH}/*/*/{self.run.name}/{stage.directory}")]
        else:
            places = [self._searched.path(stage.name)] if stage.name in self._searched.stages else []
        key = self.key(stage.name)
        return next((place for place in places if (found := read_lineage(place)) and found.key == key), None)

    def _build(self, stage: Stage, partial: Path) -> None:
        silence_libraries()
        with self.reporter.track(stage.name, None) as update:
            stage.build(self, partial, update)


def silence_libraries() -> None:
    """Keep transformers' own progress bars and advice out of the run's output."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
