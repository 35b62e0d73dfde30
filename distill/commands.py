"""The commands of `distill`: arguments in, one call to the conductor or a function, results on stdout.

Knows no machine learning and imports none at the start, so that `check` and a cached `run` answer at once.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from distill.errors import CheckFailedError, ConfigError, InputError
from distill.progress import make_reporter
from distill.serve_command import serve
from teacher.processes import is_first_process

if TYPE_CHECKING:
    from distill.config import LoadedConfig

Decorator = Callable[[Any], Any]
_PATH = click.Path(path_type=Path)

app = click.Group(
    "distill",
    help="Distil a large teacher into a small student that answers on a CPU in about a millisecond.",
    epilog="Every command takes --debug, which shows the traceback of an error.",
    no_args_is_help=False,  # a missing command is wrong use like any other
)
prompt_app = click.Group("prompt", help="Work on a teacher's prompt.", no_args_is_help=False)
app.add_command(prompt_app)
app.add_command(serve)

with_config = click.argument("config", metavar="CONFIG", type=_PATH, help="a config file")
with_target = click.argument("target", metavar="CONFIG|BUNDLE", type=_PATH, help="a config file or a bundle directory")
with_bundle = click.argument("bundle", metavar="BUNDLE", type=_PATH, help="a bundle directory")
with_overrides = click.argument(
    "overrides", metavar="[KEY=VALUE]...", nargs=-1, help="such as train.epochs=4; beats the file"
)


def _option(name: str, text: str, **more: Any) -> Decorator:
    return click.option(name, help=text, show_default=more.get("default") is not None, **more)


with_runs = _option("--runs", "the folder that holds one directory a run", type=_PATH, default=Path("runs"))
with_log = _option("--log-format", "plain or json lines instead of a live bar", type=click.Choice(["plain", "json"]))
with_budget = _option(
    "--budget-usd",
    "the most, in USD, that this run may ever have paid for answers; it stops before more",
    type=click.FloatRange(min=0),
)
with_input = click.option("--input", "input_file", type=_PATH, help="a .csv, .tsv, .jsonl, .txt or .parquet file")
with_column = _option("--column", "the column of --input that holds the texts", default="text")

_STAGE_COMMANDS = {
    "run": (None, "Run every stage that is not done: from the corpus to the report."),
    "train": ("train", "Train the student on the soft labels, and what that lacks before it."),
    "tune": ("tune", "Tune the student on gold, and what that lacks before it."),
    "report": ("report", "Write the report, and what that lacks before it."),
}


def _run_stages(
    loaded: "LoadedConfig", runs: Path, until: str | None, log: str | None, budget_usd: float | None
) -> Path:
    from distill.pipeline import run_pipeline

    directory = run_pipeline(loaded, runs=runs, until=until, reporter=make_reporter(log), budget_usd=budget_usd)
    if is_first_process():
        click.echo(directory)
    return directory


def _is_bundle(target: Path, overrides: Sequence[str]) -> bool:
    """Say whether `target` is a bundle rather than a config; raise InputError when a bundle comes with overrides."""
    if not (target / "potstill.json").is_file():
        return False
    if overrides:
        raise InputError(f"found {overrides[0]!r}, wanted no overrides: a bundle has no config to override")
    return True


def _load(config: Path, overrides: Sequence[str]) -> "LoadedConfig":
    from distill.config import load_config

    return load_config(config, overrides)


def _add_stage_command(name: str, until: str | None, text: str) -> None:
    @app.command(name, help=text)
    @with_config
    @with_overrides
    @with_runs
    @with_budget
    @with_log
    def command(
        config: Path, overrides: Sequence[str], runs: Path, budget_usd: float | None, log_format: str | None
    ) -> None:
        _run_stages(_load(config, overrides), runs, until, log_format, budget_usd)


for _name, (_until, _text) in _STAGE_COMMANDS.items():
    _add_stage_command(_name, _until, _text)


@app.command()
@with_target
@with_overrides
@with_runs
@_option(
    "--layout",
    "triton: also write a model repository, triton/ beside the bundle",
    type=click.Choice(["bundle", "triton"]),
    default="bundle",
)
@with_budget
@with_log
def export(
    target: Path, overrides: Sequence[str], runs: Path, layout: str, budget_usd: float | None, log_format: str | None
) -> None:
    """Export the student to ONNX, and what that lacks before it; or lay out a finished bundle for a server."""
    bundle = target
    if _is_bundle(target, overrides):
        if layout == "bundle":
            raise InputError(f"{target} is a bundle already; wanted a config, or --layout triton")
    else:
        bundle = _run_stages(_load(target, overrides), runs, "export", log_format, budget_usd) / "bundle"
    if layout == "triton" and is_first_process():
        from export.triton import write_triton

        click.echo(write_triton(bundle, bundle.parent / "triton"))


@app.command()
@with_config
@with_overrides
@with_runs
@_option("--dry-run", "ask only so many rows, keep their answers, and price the rest", type=int, metavar="ROWS")
@with_budget
@with_log
def label(
    config: Path,
    overrides: Sequence[str],
    runs: Path,
    dry_run: int | None,
    budget_usd: float | None,
    log_format: str | None,
) -> None:
    """Prepare the corpus and the teacher, and label the pool; with --dry-run, say what that will cost."""
    loaded = _load(config, overrides)
    if dry_run is None:
        _run_stages(loaded, runs, "label", log_format, budget_usd)
        return
    from distill.pricing import price_labelling

    for line in price_labelling(loaded, dry_run, runs=runs, reporter=make_reporter(log_format), budget_usd=budget_usd):
        click.echo(line)


@prompt_app.command("search")
@with_config
@with_overrides
@click.option(
    "--try",
    "tries",
    metavar="FIELD=VALUE,VALUE",
    multiple=True,
    help="values of a prompt's field, such as examples=0,4,16",
)
@_option("--rows", "dev rows that the best prompts answer", type=click.IntRange(min=2), default=200)
@with_runs
@with_budget
def search_prompts(
    config: Path, overrides: Sequence[str], tries: Sequence[str], rows: int, runs: Path, budget_usd: float | None
) -> None:
    """Try prompts on dev: templates x examples x retrieval, and print how they stand and what to write for the best.

    Without --try: 0, 4 and 16 examples, chosen in every way that can work.
    """
    from distill.prompt_trials import search_config

    loaded = _load(config, overrides)
    for line in search_config(loaded, tries, rows, runs=runs, reporter=make_reporter(), budget_usd=budget_usd):
        click.echo(line)


@app.command("search")
@with_config
@with_overrides
@_option("--p50-ms", "the most that one answer may take at the median, in ms", type=float, required=True)
@_option(
    "--max-gap", "the most points of the task's metric that it may be below its teacher", type=float, required=True
)
@with_runs
@with_budget
@with_log
def search_students(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    config: Path,
    overrides: Sequence[str],
    p50_ms: float,
    max_gap: float,
    runs: Path,
    budget_usd: float | None,
    log_format: str | None,
) -> None:
    """Find the smallest student that holds both lines on this machine, and make the run that of it."""
    from distill.choice import Lines
    from distill.search import search, spell

    loaded, lines = _load(config, overrides), Lines(p50_ms, max_gap / 100)
    found = search(loaded, lines, runs=runs, reporter=make_reporter(log_format), budget_usd=budget_usd)
    for line in spell(found, config, overrides, runs):
        click.echo(line)
    if found.failure:
        raise CheckFailedError(found.failure)


def _check_bought(loaded: "LoadedConfig", runs: Path) -> None:
    """Raise InputError when answers are still to be bought, for which a command without a budget is the wrong one."""
    from distill.pipeline import pipeline_status
    from teacher.spec import LlmApiSpec

    if not any(isinstance(spec, LlmApiSpec) for _, spec in loaded.config.teacher.parts()):
        return
    if any(stage.name == "label" and stage.state != "done" for stage in pipeline_status(loaded, runs)):
        raise InputError(
            "found a teacher that is paid and has not labelled yet, wanted its labels; run distill label with the same "
            "config first, with --budget-usd to limit what it pays"
        )


@app.command()
@with_target
@with_overrides
@with_runs
@with_input
@with_column
@click.option("--full", is_flag=True, help="write the speed report of a bundle: all scenarios")
@_option("--against", "with --full: another bundle, a teacher or a checkpoint, measured in turn", type=_PATH)
@_option("--generator", "with --full: who makes the load", type=click.Choice(["own", "loadgen"]), default="own")
@_option("--seconds", "with --full: the most seconds of a scenario", type=click.FloatRange(min=0.1), default=20.0)
@with_log
def bench(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    target: Path,
    overrides: Sequence[str],
    runs: Path,
    input_file: Path | None,
    column: str,
    full: bool,
    against: Path | None,
    generator: Literal["own", "loadgen"],
    seconds: float,
    log_format: str | None,
) -> None:
    """Measure the speed of a run's student, or of a finished bundle alone (on the texts of --input)."""
    if not _is_bundle(target, overrides):
        if full:
            raise InputError(f"{target}: found no bundle, which --full wants: runs/<name>/bundle of a finished run")
        loaded = _load(target, overrides)
        _check_bought(loaded, runs)
        _run_stages(loaded, runs, "bench", log_format, None)
        return
    from distill.timing import bench_texts, time_bundle

    if full:
        from distill.speed import write_speed_report
        from distill.speed_process import SpeedPlan

        plan = SpeedPlan(seconds=seconds, generator=generator)
        texts = bench_texts(input_file, column)
        click.echo(write_speed_report(target, against, texts, plan, make_reporter(log_format)))
        return
    if against is not None:
        raise InputError("found --against without --full, wanted both")
    click.echo(json.dumps(time_bundle(target, input_file, column), indent=2))


@app.command()
@with_config
@with_overrides
@with_runs
def status(config: Path, overrides: Sequence[str], runs: Path) -> None:
    """Show each stage of a run: done, stale (and which field made it so) or missing."""
    from distill.config import load_config
    from distill.pipeline import pipeline_status

    for stage in pipeline_status(load_config(config, overrides), runs):
        click.echo(f"{stage.name:<10} {stage.state:<8} {stage.reason or ''}".rstrip())


@app.command()
@click.argument("data", metavar="DATA", type=_PATH, help="a file with your texts")
@_option("--output", "the config to write; else DATA with .yaml", type=_PATH)
def init(data: Path, output: Path | None) -> None:
    """Look at a data file, write a commented config for it and say what was found."""
    from distill.starter import write_config

    target = output or data.with_suffix(".yaml")
    for line in write_config(data, target):
        click.echo(line)
    click.echo(f"wrote {target}; next: distill run {target}")


@app.command()
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=_PATH, help="configs or folders")
def check(paths: Sequence[Path]) -> None:
    """Validate every config; load no model and no data."""
    from distill.config import load_config

    problems = []
    for path in paths:
        files = sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")]) if path.is_dir() else [path]
        if not files:
            problems.append(f"{path}: found no .yaml file, wanted at least one")
        for file in files:
            try:
                load_config(file)
            except ConfigError as error:
                problems.append(str(error))
            else:
                click.echo(f"{file}: ok")
    if problems:
        raise ConfigError("\n".join(problems))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from distill.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@app.command()
@with_bundle
@click.argument("texts", metavar="[TEXT]...", nargs=-1, help="texts to answer")
@with_input
@with_column
@_option("--output", "a .jsonl file; else standard output", type=_PATH)
@with_log
def predict(
    bundle: Path,
    texts: Sequence[str],
    input_file: Path | None,
    column: str,
    output: Path | None,
    log_format: str | None,
) -> None:
    """Answer texts, or the rows of a file, as JSON lines."""
    from distill.predict import predict_to

    if bool(texts) == (input_file is not None):
        raise InputError("found both texts and --input, or neither; wanted one of them")
    unanswered = predict_to(bundle, input_file or texts, column, output, make_reporter(log_format))
    if unanswered:
        raise CheckFailedError(f'{unanswered:,} texts have no answer; their "error" says why')


@app.command()
@with_bundle
def verify(bundle: Path) -> None:
    """Check a bundle: manifest, hashes, labels, tokenizer and a self-test."""
    from export.bundle import verify_bundle
    from export.runtime import self_test

    problems = verify_bundle(bundle) or self_test(bundle)
    if problems:
        count = f"{bundle}: do not use this bundle, problems found: {len(problems)}"
        raise CheckFailedError("\n".join([*problems, count]))
    click.echo(f"{bundle}: ok")


@app.command()
@click.argument("folder", metavar="FOLDER", type=_PATH, help="where a server captured doubtful texts")
@click.argument("pool", metavar="POOL.parquet", type=_PATH, help="the pool to make or to add to")
def collect(folder: Path, pool: Path) -> None:
    """Turn what a server captured into a parquet pool for data.unlabeled: each text once."""
    from distill.collect import collect as collect_into

    found = collect_into(folder, pool)
    damaged = f", {found.damaged:,} damaged lines left out" if found.damaged else ""
    click.echo(f"{pool}: {found.rows:,} texts, {found.added:,} of them new{damaged}")


@app.command()
def doctor() -> None:
    """Show what this machine and installation can do, and what will hold them back."""
    from distill.doctor import examine, render

    click.echo(render(examine(Path.cwd())))
