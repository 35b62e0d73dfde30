"""The commands of `distill`: arguments in, one call to the conductor or a function, results on stdout.

Knows no machine learning and imports none at the start, so that `check` and a cached `run` answer at once.
"""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from distill.errors import CheckFailedError, ConfigError, InputError
from distill.progress import make_reporter
from distill.serve_command import serve
from teacher.processes import is_first_process

if TYPE_CHECKING:
    from distill.config import LoadedConfig

app = typer.Typer(
    name="distill",
    help="Distil a large teacher into a small student that answers on a CPU in about a millisecond.",
    epilog="Every command takes --debug, which shows the traceback of an error.",
    add_completion=False,
    rich_markup_mode=None,
)
prompt_app = typer.Typer(help="Work on a teacher's prompt.", rich_markup_mode=None, no_args_is_help=True)
app.add_typer(prompt_app, name="prompt")
app.command()(serve)


class LogFormat(StrEnum):
    """How progress is written; without the option: a live bar on a terminal, else plain lines."""

    PLAIN = "plain"
    JSON = "json"


class Layout(StrEnum):
    """How an exported student is laid out on disk."""

    BUNDLE = "bundle"
    TRITON = "triton"


class Load(StrEnum):
    """Who sends the queries of a speed report."""

    OWN = "own"
    LOADGEN = "loadgen"


ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG", help="a config file")]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="such as train.epochs=4; beats the file")
]
Runs = Annotated[Path, typer.Option(help="the folder that holds one directory a run")]
Log = Annotated[LogFormat | None, typer.Option("--log-format", help="plain or json lines instead of a live bar")]
Budget = Annotated[
    float | None,
    typer.Option(min=0, help="the most, in USD, that this run may ever have paid for answers; it stops before more"),
]
Target = Annotated[Path, typer.Argument(metavar="CONFIG|BUNDLE", help="a config file or a bundle directory")]
Bundle = Annotated[Path, typer.Argument(metavar="BUNDLE", help="a bundle directory")]
Input = Annotated[Path | None, typer.Option("--input", help="a .csv, .tsv, .jsonl, .txt or .parquet file")]
Column = Annotated[str, typer.Option(help="the column of --input that holds the texts")]

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
        typer.echo(directory)
    return directory


def _is_bundle(target: Path, overrides: Sequence[str] | None) -> bool:
    """Say whether `target` is a bundle rather than a config; raise InputError when a bundle comes with overrides."""
    if not (target / "potstill.json").is_file():
        return False
    if overrides:
        raise InputError(f"found {overrides[0]!r}, wanted no overrides: a bundle has no config to override")
    return True


def _load(config: Path, overrides: Sequence[str] | None) -> "LoadedConfig":
    from distill.config import load_config

    return load_config(config, overrides or ())


def _add_stage_command(name: str, until: str | None, text: str) -> None:
    @app.command(name, help=text)
    def command(
        config: ConfigFile,
        overrides: Overrides = None,
        runs: Runs = Path("runs"),
        budget_usd: Budget = None,
        log_format: Log = None,
    ) -> None:
        _run_stages(_load(config, overrides), runs, until, log_format, budget_usd)


for _name, (_until, _text) in _STAGE_COMMANDS.items():
    _add_stage_command(_name, _until, _text)


@app.command()
def export(
    target: Target,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    layout: Annotated[
        Layout, typer.Option(help="triton: also write a model repository, triton/ beside the bundle")
    ] = Layout.BUNDLE,
    budget_usd: Budget = None,
    log_format: Log = None,
) -> None:
    """Export the student to ONNX, and what that lacks before it; or lay out a finished bundle for a server."""
    bundle = target
    if _is_bundle(target, overrides):
        if layout is Layout.BUNDLE:
            raise InputError(f"{target} is a bundle already; wanted a config, or --layout triton")
    else:
        bundle = _run_stages(_load(target, overrides), runs, "export", log_format, budget_usd) / "bundle"
    if layout is Layout.TRITON and is_first_process():
        from export.triton import write_triton

        typer.echo(write_triton(bundle, bundle.parent / "triton"))


@app.command()
def label(
    config: ConfigFile,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    dry_run: Annotated[
        int | None, typer.Option(metavar="ROWS", help="ask only so many rows, keep their answers, and price the rest")
    ] = None,
    budget_usd: Budget = None,
    log_format: Log = None,
) -> None:
    """Prepare the corpus and the teacher, and label the pool; with --dry-run, say what that will cost."""
    loaded = _load(config, overrides)
    if dry_run is None:
        _run_stages(loaded, runs, "label", log_format, budget_usd)
        return
    from distill.pricing import price_labelling

    for line in price_labelling(loaded, dry_run, runs=runs, reporter=make_reporter(log_format), budget_usd=budget_usd):
        typer.echo(line)


@prompt_app.command("search")
def search_prompts(
    config: ConfigFile,
    overrides: Overrides = None,
    tries: Annotated[
        list[str] | None,
        typer.Option("--try", metavar="FIELD=VALUE,VALUE", help="values of a prompt's field, such as examples=0,4,16"),
    ] = None,
    rows: Annotated[int, typer.Option(min=2, help="dev rows that the best prompts answer")] = 200,
    runs: Runs = Path("runs"),
    budget_usd: Budget = None,
) -> None:
    """Try prompts on dev: templates x examples x retrieval, and print how they stand and what to write for the best.

    Without --try: 0, 4 and 16 examples, chosen in every way that can work.
    """
    from distill.prompt_trials import search_config

    loaded = _load(config, overrides)
    for line in search_config(loaded, tries or (), rows, runs=runs, reporter=make_reporter(), budget_usd=budget_usd):
        typer.echo(line)


@app.command("search")
def search_students(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    config: ConfigFile,
    p50_ms: Annotated[float, typer.Option("--p50-ms", help="the most that one answer may take at the median, in ms")],
    max_gap: Annotated[
        float, typer.Option("--max-gap", help="the most points of the task's metric that it may be below its teacher")
    ],
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    budget_usd: Budget = None,
    log_format: Log = None,
) -> None:
    """Find the smallest student that holds both lines on this machine, and make the run that of it."""
    from distill.choice import Lines
    from distill.search import search, spell

    loaded, lines = _load(config, overrides), Lines(p50_ms, max_gap / 100)
    found = search(loaded, lines, runs=runs, reporter=make_reporter(log_format), budget_usd=budget_usd)
    for line in spell(found, config, overrides or (), runs):
        typer.echo(line)
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
def bench(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    target: Target,
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
    input_file: Input = None,
    column: Column = "text",
    full: Annotated[bool, typer.Option("--full", help="write the speed report of a bundle: all scenarios")] = False,
    against: Annotated[
        Path | None, typer.Option(help="with --full: another bundle, a teacher or a checkpoint, measured in turn")
    ] = None,
    generator: Annotated[Load, typer.Option(help="with --full: who makes the load")] = Load.OWN,
    seconds: Annotated[float, typer.Option(min=0.1, help="with --full: the most seconds of a scenario")] = 20.0,
    log_format: Log = None,
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

        plan = SpeedPlan(seconds=seconds, generator=generator.value)
        texts = bench_texts(input_file, column)
        typer.echo(write_speed_report(target, against, texts, plan, make_reporter(log_format)))
        return
    if against is not None:
        raise InputError("found --against without --full, wanted both")
    typer.echo(json.dumps(time_bundle(target, input_file, column), indent=2))


@app.command()
def status(config: ConfigFile, overrides: Overrides = None, runs: Runs = Path("runs")) -> None:
    """Show each stage of a run: done, stale (and which field made it so) or missing."""
    from distill.config import load_config
    from distill.pipeline import pipeline_status

    for stage in pipeline_status(load_config(config, overrides or ()), runs):
        typer.echo(f"{stage.name:<10} {stage.state:<8} {stage.reason or ''}".rstrip())


@app.command()
def init(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="a file with your texts")],
    output: Annotated[Path | None, typer.Option(help="the config to write; else DATA with .yaml")] = None,
) -> None:
    """Look at a data file, write a commented config for it and say what was found."""
    from distill.starter import write_config

    target = output or data.with_suffix(".yaml")
    for line in write_config(data, target):
        typer.echo(line)
    typer.echo(f"wrote {target}; next: distill run {target}")


@app.command()
def check(paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="configs or folders")]) -> None:
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
                typer.echo(f"{file}: ok")
    if problems:
        raise ConfigError("\n".join(problems))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a config, for editors."""
    from distill.config import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@app.command()
def predict(
    bundle: Bundle,
    texts: Annotated[list[str] | None, typer.Argument(help="texts to answer")] = None,
    input_file: Input = None,
    column: Column = "text",
    output: Annotated[Path | None, typer.Option(help="a .jsonl file; else standard output")] = None,
    log_format: Log = None,
) -> None:
    """Answer texts, or the rows of a file, as JSON lines."""
    from distill.predict import predict_to

    if bool(texts) == (input_file is not None):
        raise InputError("found both texts and --input, or neither; wanted one of them")
    unanswered = predict_to(bundle, input_file or texts or [], column, output, make_reporter(log_format))
    if unanswered:
        raise CheckFailedError(f'{unanswered:,} texts have no answer; their "error" says why')


@app.command()
def verify(bundle: Bundle) -> None:
    """Check a bundle: manifest, hashes, labels, tokenizer and a self-test."""
    from export.bundle import verify_bundle
    from export.runtime import self_test

    problems = verify_bundle(bundle) or self_test(bundle)
    if problems:
        count = f"{bundle}: do not use this bundle, problems found: {len(problems)}"
        raise CheckFailedError("\n".join([*problems, count]))
    typer.echo(f"{bundle}: ok")


@app.command()
def collect(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="where a server captured doubtful texts")],
    pool: Annotated[Path, typer.Argument(metavar="POOL.parquet", help="the pool to make or to add to")],
) -> None:
    """Turn what a server captured into a parquet pool for data.unlabeled: each text once."""
    from distill.collect import collect as collect_into

    found = collect_into(folder, pool)
    damaged = f", {found.damaged:,} damaged lines left out" if found.damaged else ""
    typer.echo(f"{pool}: {found.rows:,} texts, {found.added:,} of them new{damaged}")


@app.command()
def doctor() -> None:
    """Show what this machine and installation can do, and what will hold them back."""
    from distill.doctor import examine, render

    typer.echo(render(examine(Path.cwd())))
