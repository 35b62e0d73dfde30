"""The command line: exit codes, the last line on stderr, and what goes to stdout."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.cli import run
from distill.errors import GateError
from teacher.errors import CorpusError, StoreError

LABELS = ("delivery", "payment", "size")
MINIMAL = "name: shop\ndata: {gold: gold.csv}\nteacher: {kind: encoder, model: owner/name}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return a valid config file."""
    path = tmp_path / "shop.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def bundle(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a real bundle of the tiny classifier that refuses long texts."""
    from export.bundle import BundleManifest, write_bundle
    from export.graph import export_graph

    folder = tmp_path_factory.mktemp("bundle")
    export_graph(tiny_classifier, folder / "model.onnx")
    manifest = BundleManifest(
        name="tiny", kind="single_label", labels=LABELS, max_tokens=16, precision="fp32", too_long="refuse"
    )
    write_bundle(tiny_classifier, {"fp32": folder / "model.onnx"}, folder / "bundle", manifest, {})
    return folder / "bundle"


def last_line(capsys: pytest.CaptureFixture[str]) -> str:
    """Return the last line on stderr."""
    return capsys.readouterr().err.splitlines()[-1]


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let the conductor raise `error`."""

    def raise_error(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("distill.pipeline.run_pipeline", raise_error)


def recorded_calls(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Keep the conductor from working; return the list that its calls go to."""
    calls: list[object] = []

    def record(
        loaded: object, *, runs: Path, until: str | None, reporter: object, budget_usd: float | None = None
    ) -> Path:
        calls.append((runs, until, getattr(loaded, "config").train.epochs, budget_usd))  # noqa: B009
        return runs / "shop"

    monkeypatch.setattr("distill.pipeline.run_pipeline", record)
    return calls


@pytest.mark.parametrize(
    "arguments", [[], ["runn"], ["run"], ["check", "--fast"], ["run", "x.yaml", "--log-format", "xml"]]
)
def test_wrong_arguments_exit_2_in_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    commands = "run label prompt train tune export bench report status init check schema predict verify doctor"
    assert [name for name in commands.split() if f"\n  {name} " not in shown] == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateError("int8 lost 3 points"), 1),
        (StoreError("labels/ is damaged"), 1),
        (CorpusError("gold.csv has no column 'text'"), 2),
    ],
)
def test_an_error_is_one_line_with_its_exit_code(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    code: int,
) -> None:
    fail_with(monkeypatch, error)
    assert run(["run", str(config)]) == code
    assert capsys.readouterr().err == f"error: {error}\n"


def test_an_unexpected_error_shows_its_traceback_only_with_debug(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, RuntimeError("odd\nthing"))
    assert run(["run", str(config)]) == 1
    assert "unexpected RuntimeError: odd thing" in last_line(capsys)
    assert run(["run", str(config), "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_exits_130_with_the_command_that_resumes(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert run(["run", str(config), "train.epochs=4", "task.labels=[a, b]"]) == 130
    assert last_line(capsys).endswith(f"resume with: distill run {config} train.epochs=4 'task.labels=[a, b]'")


def test_a_full_disk_names_the_path_and_the_bytes_left(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = config.parent / "labels" / "part-00000.parquet"
    fail_with(monkeypatch, OSError(errno.ENOSPC, "No space left on device", str(path)))
    assert run(["run", str(config)]) == 1
    line = last_line(capsys)
    assert line.startswith(f"error: {path}: the disk is full, ")
    assert " bytes free" in line


def test_a_missing_optional_package_names_its_extra(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert run(["run", str(config)]) == 1
    assert last_line(capsys) == "error: torch is not installed; pip install 'potstill[train]'"


@pytest.mark.parametrize(
    ("command", "stage"), [("run", None), ("label", "label"), ("train", "train"), ("bench", "bench")]
)
def test_a_stage_command_hands_its_stage_to_the_conductor(
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    stage: str | None,
) -> None:
    calls = recorded_calls(monkeypatch)
    assert run([command, str(config), "train.epochs=4", "--runs", "elsewhere"]) == 0
    assert calls == [(Path("elsewhere"), stage, 4.0, None)]
    assert capsys.readouterr().out == f"{Path('elsewhere', 'shop')}\n"


@pytest.mark.parametrize("command", ["run", "label", "report"])
def test_a_budget_reaches_the_conductor(config: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    calls = recorded_calls(monkeypatch)
    assert run([command, str(config), "--budget-usd", "1.5"]) == 0
    assert [call[-1] for call in calls] == [1.5]  # type: ignore[index]


def test_a_budget_below_zero_is_wrong_use(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", str(config), "--budget-usd", "-1"]) == 2
    assert "--budget-usd" in last_line(capsys)


def test_check_reports_every_bad_config_and_still_names_the_good_ones(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (config.parent / "bad.yaml").write_text("name: [\n", encoding="utf-8")
    (config.parent / "worse.yaml").write_text("nmae: x\n", encoding="utf-8")
    assert run(["check", str(config.parent)]) == 2
    captured = capsys.readouterr()
    assert captured.out == f"{config}: ok\n"
    assert "bad.yaml" in captured.err
    assert "did you mean 'name'?" in captured.err


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert "teacher" in json.loads(capsys.readouterr().out)["properties"]


def test_doctor_shows_the_machine_and_the_disk(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "cores" in shown
    assert "disk free gib" in shown


def test_init_writes_a_config_that_check_accepts(
    write_corpus: Callable[[], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_corpus()
    assert run(["init", str(folder / "gold.csv")]) == 0
    assert f"wrote {folder / 'gold.yaml'}" in capsys.readouterr().out
    assert run(["check", str(folder / "gold.yaml")]) == 0


def test_predict_answers_each_text_as_a_json_line(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(bundle), "my parcel is late", "the shirt is too small"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in answers] == ["my parcel is late", "the shirt is too small"]
    assert {answer["label"] for answer in answers} <= set(LABELS)


def test_predict_keeps_every_row_of_a_file_and_names_those_without_an_answer(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = ["my card was declined", None, "  ", "late " * 40, 7, "the hat is wide"]
    rows = [json.dumps({"said": text}) for text in texts] + ["{}", '{"said": "bad \\udc80 byte"}']
    source.write_text("\n".join(rows), encoding="utf-8")
    arguments = ["predict", str(bundle), "--input", str(source), "--column", "said", "--output", str(output)]
    assert run(arguments) == 1
    answers = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [answer.get("error", "")[:10] for answer in answers] == [
        "", "found no t", "found no t", "text 0 has", "found no t", "", "found no t", "found byte",
    ]  # fmt: skip
    assert "6 texts have no answer" in last_line(capsys)
    assert list(tmp_path.glob(".*")) == []


def test_predict_leaves_the_old_output_when_the_input_is_wrong(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.jsonl"
    source.write_text("text,id\na b,1\n", encoding="utf-8")
    output.write_text("old", encoding="utf-8")
    arguments = ["predict", str(bundle), "--input", str(source), "--column", "body", "--output", str(output)]
    assert run(arguments) == 2
    assert last_line(capsys).endswith("found no column 'body'; the columns are: text, id")
    assert output.read_text(encoding="utf-8") == "old"


def test_verify_accepts_a_sound_bundle_and_names_a_changed_byte(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    assert run(["verify", str(bundle)]) == 0
    broken = shutil.copytree(bundle, tmp_path / "broken")
    (broken / "tokenizer.json").write_bytes((broken / "tokenizer.json").read_bytes()[:-1])
    assert run(["verify", str(broken)]) == 1
    assert "tokenizer.json" in capsys.readouterr().err


def test_bench_of_a_bundle_prints_its_latency_as_json(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", str(bundle)]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["latency"]["p50_ms"] > 0
    assert (measured["texts"], measured["too_long"]) == (2, 4)
    assert measured["latency"]["p99_ms"] is None
    assert measured["cold_start"]["restarts"] == 5


def test_a_bench_of_a_config_does_not_buy_answers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "paid.yaml"
    config.write_text(
        "name: paid\ndata: {gold: gold.csv}\nteacher: {kind: llm_api, base_url: 'http://127.0.0.1:9/v1', model: m}\n"
        "student: {init: scratch}\n"
    )
    (tmp_path / "gold.csv").write_text("text,label\nlate,delivery\n")
    assert run(["bench", str(config), "--runs", str(tmp_path / "runs")]) == 2
    assert "run distill label" in capsys.readouterr().err
