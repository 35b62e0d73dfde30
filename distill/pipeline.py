"""The pipeline: which stages there are, what each reads, and the order in which they run.

corpus -> teacher -> soft labels -> student -> tuned -> bundle -> report. What a stage does stands in its own
module, which is imported when the stage is built.
"""

from collections.abc import Sequence
from pathlib import Path

from distill import __version__
from distill.conductor import Conductor, Stage, Update
from distill.config import LoadedConfig, check_names, resolve_spec
from distill.narrative import check_gates, tell
from distill.progress import Reporter, SilentReporter
from distill.stages import StageStatus, read_lineage
from teacher.processes import is_first_process


def run_pipeline(
    loaded: LoadedConfig,
    *,
    runs: Path,
    until: str | None = None,
    reporter: Reporter,
    budget_usd: float | None = None,
) -> Path:
    """Build every stage up to `until` (None: all) that is missing or stale; return the run directory.

    `budget_usd` is the most that this run directory may ever have paid for answers; None sets no limit. Raises
    GateError at the end when a gate of the bundle failed: everything else is built and kept.
    """
    conductor = Conductor(loaded, STAGES, runs, reporter, budget_usd)
    check_names(loaded.config, loaded.base)
    conductor.run.mkdir(parents=True, exist_ok=True)
    if is_first_process():
        conductor.write_config()
    wanted = STAGES if until is None else STAGES[: [stage.name for stage in STAGES].index(until) + 1]
    for stage in wanted:
        conductor.ensure(stage)
        tell(stage.name, conductor)
    if any(stage.name == "export" for stage in wanted):
        check_gates(conductor)
    return conductor.run


def pipeline_status(loaded: LoadedConfig, runs: Path) -> list[StageStatus]:
    """Return the state of every stage of a run, in order; builds and loads nothing."""
    return list(Conductor(loaded, STAGES, runs, SilentReporter()).status())


def _build_corpus(conductor: Conductor, directory: Path, update: Update) -> None:
    from teacher.corpus import prepare_corpus

    config = conductor.config
    prepare_corpus(config.data, config.task, conductor.base, directory, config.seed, update)


def _build_teacher(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.teach import teach

    if conductor.paid and is_first_process():
        from distill.paid_before import paid_before

        for line in paid_before(conductor, conductor.paid):
            conductor.reporter.say(line)
    teach(conductor.teacher, conductor.label_inputs(update), directory)


def _build_labels(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.teach import label

    spec = resolve_spec(conductor.config.label, conductor.config, conductor.base)
    label(conductor.path("teacher"), spec, conductor.label_inputs(update), directory)


def _build_student(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.train import train_student
    from teacher.kinds import warm_start_source

    config, source = conductor.config, conductor.student_source()
    embedder = warm_start_source(conductor.path("teacher"))
    train_student(conductor.train_inputs(update), source, embedder, config.student, config.train, directory)


def _build_tuned(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.tune import tune_student

    config, student = conductor.config, conductor.path("train")
    tune_student(conductor.train_inputs(update), student, config.train, config.tune, directory)


def _build_bundle(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.package import package
    from distill.trial import Trial
    from teacher.base import read_card

    keys = {name: conductor.key(name) for name in ("corpus", "teacher", "label", "train", "tune")}
    trial = Trial(
        conductor.path("tune"),
        conductor.path("corpus"),
        conductor.task,
        conductor.config.export,
        dev_is_learned=read_card(conductor.path("teacher")).dev_score is not None,
    )
    package(trial, directory, lineage=keys)


def _build_baselines(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.baselines import fit_baselines

    config, source = conductor.config, conductor.untuned_source()
    fit_baselines(conductor.train_inputs(update), source, config.student, config.train, directory)


def _build_audit(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.audit import cross_validate_gold

    config, encoder = conductor.config, conductor.untuned_source()
    cross_validate_gold(conductor.path("corpus"), conductor.task, encoder, directory, config.seed, update)


def _build_bench(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.measure import measure

    bundle, teacher = conductor.path("export"), conductor.path("teacher")
    measure(bundle, teacher, conductor.label_inputs(update), conductor.config.bench, directory)


def _build_report(conductor: Conductor, directory: Path, update: Update) -> None:
    from distill.evaluate import RunPaths, write_report

    paths = RunPaths(**{stage.directory: conductor.path(stage.name) for stage in STAGES[:-1]})
    lineages = {stage.name: read_lineage(conductor.path(stage.name)) for stage in STAGES[:-1]}
    found = {name: lineage for name, lineage in lineages.items() if lineage is not None}
    about = {
        "name": conductor.config.name,
        "stages": [{"name": name, "seconds": lineage.seconds, "key": lineage.key} for name, lineage in found.items()],
        "lineage": {"config": conductor.config.model_dump(mode="json"), "version": __version__},
        "warnings": conductor.warnings,
        "search": conductor.search_result,
    }
    write_report(paths, conductor.task, about, directory, seed=conductor.config.seed, paid=conductor.paid)


STAGES: Sequence[Stage] = (
    Stage("corpus", "corpus", (), ("data", "task", "seed"), _build_corpus),
    Stage("teacher", "teacher", ("corpus",), ("teacher", "seed"), _build_teacher, trains=True),
    Stage("label", "labels", ("corpus", "teacher"), ("label", "seed"), _build_labels),
    Stage("train", "student", ("corpus", "teacher", "label"), ("student", "train", "seed"), _build_student, True),
    Stage("tune", "tuned", ("train",), ("tune", "seed"), _build_tuned, True),
    Stage("export", "bundle", ("tune",), ("export",), _build_bundle),
    Stage("baselines", "baselines", ("corpus", "label"), ("student", "train", "seed"), _build_baselines, True),
    Stage("audit", "audit", ("corpus",), ("teacher", "student", "seed"), _build_audit),
    Stage("bench", "bench", ("export", "teacher"), ("bench", "seed"), _build_bench),
    Stage("report", "report", ("export", "baselines", "audit", "bench"), ("seed",), _build_report),
)
