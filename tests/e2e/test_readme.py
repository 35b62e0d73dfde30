"""The README does what it says: its commands run, its configs load, its Python answers, its files are there."""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill.cli import run as run_command
from distill.commands import app
from distill.config import Config, load_config
from tests.conftest import corpus_rows, write_csv
from tests.e2e.conftest import Outcome, Project
from tests.serving import local_server

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MINIMAL: dict[str, Any] = {"name": "shop", "data": {"gold": "gold.csv"}}
READY = MINIMAL | {"teacher": {"kind": "encoder", "model": "owner/name"}}
SHOWN_ONLY = {"name", "data.gold", "data.unlabeled", "teacher.model"}  # they have no default worth showing


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block and the language it names."""

    language: str
    text: str


def blocks(language: str) -> list[Block]:
    """Return the fenced blocks of one language in order."""
    found = [Block(*match) for match in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)]
    return [block for block in found if block.language == language]


def commands() -> list[list[str]]:
    """Return every shell command as words."""
    lines = [line for block in blocks("sh") for line in block.text.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


@pytest.fixture
def shop(finished: tuple[Project, Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a working directory with the finished run `runs/shop`, its files and a messages.csv."""
    project, _ = finished
    shutil.copytree(project.folder, tmp_path, dirs_exist_ok=True)
    rows = [(text, label if row % 3 else "") for row, (text, label) in enumerate(corpus_rows())]
    write_csv(tmp_path / "messages.csv", ["text", "label"], [*rows])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_screen_holds_just_make_demo_and_make_test() -> None:
    first = blocks("sh")[0].text.split("\n")
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert first == ["make demo", "make test", ""]
    assert {"demo", "test"} <= set(targets)
    assert README.index("make demo") < README.index("\n## ")


def test_every_distill_command_of_the_readme_runs(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished_config = (shop / "shop.yaml").read_text(encoding="utf-8")
    ran = []
    for words in [words[1:] for words in commands() if words[0] == "distill"]:
        if words[0] == "init":
            (shop / "shop.yaml").unlink()
        assert run_command(words) == 0, (words, capsys.readouterr().err)
        ran.append(words[0])
        if words[0] == "init":
            assert load_config(shop / "shop.yaml").config.data.gold == "messages.csv"
            # The run that comes next is finished already; training it again would show nothing new.
            (shop / "shop.yaml").write_text(finished_config, encoding="utf-8")
    assert {"init", "check", "run", "status", "export", "predict", "verify"} <= set(ran)
    assert len((shop / "answers.jsonl").read_text(encoding="utf-8").splitlines()) == len(corpus_rows())


def test_the_config_that_init_writes_runs_with_a_model_of_ones_own(shop: Path) -> None:
    assert run_command(["init", "messages.csv", "--output", "mine.yaml"]) == 0
    overrides = ["teacher={kind: prototypes, model: encoder}", "label.weak_teacher=warn", "--runs", "mine"]
    assert run_command(["label", "mine.yaml", *overrides]) == 0
    assert (shop / "mine" / "mine" / "labels" / "meta.json").is_file()


def test_other_commands_of_the_readme_name_things_that_exist() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    others = [words for words in commands() if words[0] not in ("distill", "make")]
    for words in others:
        if words[0] == "pip":
            extras = re.fullmatch(r"\.\[(.+)\]", words[2])
            assert extras is not None
            assert set(extras[1].split(",")) <= set(project["optional-dependencies"])
        else:
            from accelerate.commands.launch import launch_command_parser

            given = launch_command_parser().parse_args(words[2:])
            assert words[:2] == ["accelerate", "launch"]
            assert (given.training_script, given.num_processes, given.module) == ("distill", 2, True)
            assert given.training_script_args == ["run", "shop.yaml"]
    assert {words[0] for words in others} == {"pip", "accelerate"}


def test_every_command_in_the_table_is_one_and_every_command_is_in_it() -> None:
    table = README[README.index("| command | what") : README.index("## How data flows")]
    named = {word for cell in re.findall(r"`([^`]+)`", table) for word in cell.removeprefix("distill ").split()[:1]}
    assert named - {"BUNDLE"} == set(app.commands)


@pytest.mark.parametrize("block", blocks("yaml"), ids=lambda block: block.text.split("\n")[0][:30])
def test_every_config_of_the_readme_loads(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "shop.yaml"
    given = yaml.safe_load(block.text)
    rest = {} if "name" in given else {key: value for key, value in READY.items() if key not in given}
    path.write_text((yaml.safe_dump(rest) if rest else "") + block.text, encoding="utf-8")
    assert load_config(path).config.name == "shop"


def test_the_reference_shows_every_key_with_its_default() -> None:
    reference = next(given for block in blocks("yaml") if "name" in (given := yaml.safe_load(block.text)))
    defaults = dict(leaves(Config.model_validate(READY).model_dump(mode="json")))
    shown = dict(leaves(reference))
    assert sorted(shown) == sorted(defaults)
    assert {key: shown[key] for key in shown if key not in SHOWN_ONLY and shown[key] != defaults[key]} == {}


def leaves(tree: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted key and the value of every leaf."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def test_the_server_of_the_readme_answers_its_requests(shop: Path) -> None:
    served, *asked = [shlex.split(line) for block in blocks("console") for line in block.text.splitlines()]
    assert served[:2] == ["distill", "serve"]
    assert len(asked) == 2
    with local_server({"shop": shop / served[2]}) as server:
        for _, address, _, content in asked:
            answer = server.ask("POST", address.partition(served[-1])[2], content.encode())
            assert (answer.status, len(answer.json) > 0) == (200, True)


def test_the_python_of_the_readme_runs(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python"):
        exec(compile(block.text, "README.md", "exec"), {})
    assert "delivery ('delivery',)" in capsys.readouterr().out


def test_the_files_and_overrides_that_the_readme_names_exist() -> None:
    paths = set(re.findall(r"`((?:teacher|student|distill|export)/\w+\.py)`", README))
    assert len(paths) > 15
    assert [path for path in paths if not (ROOT / path).is_file()] == []
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists()
    for override in re.findall(r"`((?:label|train|tune|export|student)\.\w+)=", README):
        section, key = override.split(".")
        annotation = Config.model_fields[section].annotation
        assert key in annotation.model_fields  # type: ignore[union-attr]
