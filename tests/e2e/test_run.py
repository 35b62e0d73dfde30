"""One whole run: every stage directory, its report, what it costs to run again, and the bundle in other hands."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from export.runtime import Predictor
from tests.conftest import LABELS
from tests.e2e.conftest import Outcome, Project

Finished = tuple[Project, Outcome]
STAGES = ("corpus", "teacher", "label", "train", "tune", "export", "baselines", "audit", "bench", "report")
FILES = {
    "corpus": ("pool.parquet", "gold.parquet", "dev.parquet", "test.parquet", "quarantine.csv", "meta.json"),
    "teacher": ("model.safetensors", "teacher.json", "dev_scores.json"),
    "labels": ("part-00000.parquet", "meta.json"),
    "student": ("config.json", "model.safetensors", "tokenizer.json", "metrics.json"),
    "tuned": ("config.json", "model.safetensors", "tokenizer.json", "metrics.json"),
    "bundle": ("config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model_quantized.onnx", "potstill.json"),
    "baselines": ("gold_only/model.safetensors", "answers.npz"),
    "audit": ("gold_probabilities.npz",),
    "bench": ("latency.json", "samples.npz"),
    "report": ("report.json", "report.md", "report.html", "label_errors.csv"),
}
MEASURES = {"accuracy", "macro_f1", "ece", "n"}
REPORT_KEYS = {
    "gap": {"estimate", "low", "high"},
    "gold": {"teacher", "student", "dev", "pool", "share"},
    "size": {"teacher_parameters", "student_parameters", "model_bytes", "bundle_bytes", "ratio"},
    "cost": {"teacher_usd", "per_million_usd", "break_even"},
    "latency": {"student_int8", "student_fp32", "teacher", "speedup_p50"},
}
CONTENDERS = ("teacher", "student_fp32", "student_int8", "gold_only", "tfidf_gold", "tfidf_soft")


def stage_files(project: Project) -> dict[str, int]:
    """Return each file of the stage directories and their lineages with the time it was written, in nanoseconds."""
    folders = (*FILES, "lineage")
    return {
        str(path.relative_to(project.run)): path.stat().st_mtime_ns
        for folder in folders
        for path in (project.run / folder).rglob("*")
        if path.is_file()
    }


def states(outcome: Outcome) -> dict[str, str]:
    """Return what `distill status` says of each stage."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in outcome.out.splitlines()}


def test_a_run_ends_well_and_prints_its_directory(finished: Finished) -> None:
    project, outcome = finished
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == str(project.run)


@pytest.mark.parametrize("folder", FILES)
def test_a_stage_directory_is_filled(finished: Finished, folder: str) -> None:
    project, _ = finished
    assert [name for name in FILES[folder] if not (project.run / folder / name).is_file()] == []
    assert (project.run / "lineage" / f"{folder}.json").is_file()


def test_nothing_unfinished_is_left_behind(finished: Finished) -> None:
    project, _ = finished
    assert [
        path.name for path in project.run.rglob("*") if path.name.startswith(".") or "checkpoint" in path.name
    ] == []


def test_the_resolved_config_in_the_run_directory_has_every_section(finished: Finished) -> None:
    project, _ = finished
    resolved = yaml.safe_load((project.run / "config.yaml").read_text(encoding="utf-8"))
    assert resolved["train"]["batch_size"] == 16
    assert resolved["export"]["precision"] == "int8"


def test_report_json_has_the_stable_keys(finished: Finished) -> None:
    project, _ = finished
    report = json.loads((project.run / "report.json").read_text(encoding="utf-8"))
    assert [name for name in CONTENDERS if MEASURES - report["quality"][name].keys()] == []
    assert [part for part, keys in REPORT_KEYS.items() if keys - report[part].keys()] == []
    assert {"p50_ms", "p90_ms", "p99_ms", "n", "threads"} <= report["latency"]["student_int8"].keys()
    assert all({"name", "value", "limit", "passed"} <= gate.keys() for gate in report["gates"])
    assert report["gates"]
    assert report["lineage"]


def test_the_gold_that_is_reported_is_the_gold_that_was_used(finished: Finished) -> None:
    project, _ = finished
    report = json.loads((project.run / "report.json").read_text(encoding="utf-8"))
    assert report["gold"]["teacher"] == report["gold"]["student"] == 60 + 60
    assert report["gold"]["dev"] == 60
    assert report["quality"]["student_int8"]["n"] == 90


class _Loads(HTMLParser):
    """Collects what a browser would fetch: sources, stylesheets, and links of SVG that are not inside the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in ("src", "srcset", "data", "poster", "background") or (name == "href" and tag != "a")
            loads = loads or (name == "xlink:href" and tag != "a")
            if loads and not (value or "").startswith(("#", "data:")):
                self.found.append(f"<{tag} {name}={value}>")


def test_the_page_is_one_small_file_that_loads_nothing(finished: Finished) -> None:
    project, _ = finished
    page = (project.run / "report.html").read_text(encoding="utf-8")
    parser = _Loads()
    parser.feed(page)
    assert parser.found == []
    assert "@import" not in page
    assert "<script" not in page
    assert "url(http" not in page.replace('"', "").replace("'", "")
    assert len(page.encode()) < 2_000_000


def test_the_page_says_when_a_baseline_beats_or_equals_the_student(finished: Finished) -> None:
    project, _ = finished
    report = json.loads((project.run / "report.json").read_text(encoding="utf-8"))
    assert report["quality"]["tfidf_gold"]["accuracy"] >= report["quality"]["student_int8"]["accuracy"]
    assert "TF-IDF" in (project.run / "report.md").read_text(encoding="utf-8")


def test_verify_passes_the_bundle_of_a_run(finished: Finished) -> None:
    project, _ = finished
    outcome = project.call("verify", str(project.run / "bundle"))
    assert (outcome.code, outcome.err) == (0, "")


def test_predict_answers_a_text(finished: Finished) -> None:
    project, _ = finished
    outcome = project.call("predict", str(project.run / "bundle"), "my parcel never came", "the invoice is wrong")
    answers = [json.loads(line) for line in outcome.out.splitlines()]
    assert outcome.code == 0
    assert [answer["label"] for answer in answers] == ["delivery", "payment"]


def test_predict_answers_every_row_of_a_file(finished: Finished, tmp_path: Path) -> None:
    project, _ = finished
    target = tmp_path / "answers.jsonl"
    test = str(project.folder / "test.csv")
    outcome = project.call("predict", str(project.run / "bundle"), "--input", test, "--output", str(target))
    answers = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert outcome.code == 0
    assert len(answers) == 90
    assert {answer["label"] for answer in answers} == set(LABELS)


def test_bench_times_the_bundle_of_a_run(finished: Finished) -> None:
    project, _ = finished
    outcome = project.call("bench", str(project.run / "bundle"), "--input", str(project.folder / "dev.csv"))
    assert outcome.code == 0
    assert json.loads(outcome.out)["latency"]["n"] == 3 * 60


def test_status_says_done_of_every_stage(finished: Finished) -> None:
    project, _ = finished
    assert states(project.distill("status")) == dict.fromkeys(STAGES, "done")


def test_a_second_run_builds_nothing(finished: Finished) -> None:
    project, _ = finished
    before = stage_files(project)
    outcome = project.distill("run")
    assert outcome.code == 0
    assert stage_files(project) == before


def test_an_override_names_its_field_and_makes_only_later_stages_stale(finished: Finished) -> None:
    project, _ = finished
    found = states(project.distill("status", "tune.learning_rate=0.0003"))
    assert found["tune"] == "stale tune.learning_rate changed"
    assert found["export"] == "stale tune is newer"
    done = [name for name in STAGES if found[name] == "done"]
    assert done == ["corpus", "teacher", "label", "train", "baselines", "audit"]


def test_an_override_builds_only_the_stages_it_touches(finished: Finished, tmp_path: Path) -> None:
    project, _ = finished
    copy = project.copy(tmp_path, *FILES)
    before = stage_files(copy)
    outcome = copy.distill("export", "tune=null")
    after = stage_files(copy)
    built = {path.split("/")[0] for path in after if after[path] != before.get(path)} - {"lineage"}
    assert outcome.code == 0, outcome.err
    assert built == {"tuned", "bundle"}


def test_a_changed_source_file_makes_the_corpus_stale(finished: Finished, tmp_path: Path) -> None:
    project, _ = finished
    for part in ("gold", "dev", "test", "pool"):
        text = (project.folder / f"{part}.csv").read_text(encoding="utf-8")
        (tmp_path / f"{part}.csv").write_text(text + ("one more\n" if part == "pool" else ""), encoding="utf-8")
    found = states(project.distill("status", f"data.root={tmp_path}"))
    assert found["corpus"] == "stale data.root changed, sources changed"


def test_the_bundle_carries_the_keys_of_the_stages_it_came_from(finished: Finished) -> None:
    project, _ = finished
    manifest = json.loads((project.run / "bundle" / "potstill.json").read_text(encoding="utf-8"))
    lineage = {
        stage: json.loads((project.run / "lineage" / f"{folder}.json").read_text(encoding="utf-8"))["key"]
        for stage, folder in (("corpus", "corpus"), ("teacher", "teacher"), ("label", "labels"), ("tune", "tuned"))
    }
    assert {stage: manifest["lineage"][stage] for stage in lineage} == lineage


def test_the_predictor_answers_where_torch_is_not_installed(finished: Finished) -> None:
    project, _ = finished
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('torch', 'transformers', 'datasets', 'sklearn')))\n"  # importing one fails
        "from export.runtime import Predictor\n"
        "print(Predictor.load(sys.argv[1]).predict('my parcel never came')[0].label)\n"
    )
    command = [sys.executable, "-c", program, str(project.run / "bundle")]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout.strip()) == (0, "delivery"), child.stderr


def test_transformers_opens_the_tuned_checkpoint_and_agrees_with_the_fp32_bundle(finished: Finished) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    project, _ = finished
    texts = [line.rsplit(",", 1)[0] for line in (project.folder / "test.csv").read_text().splitlines()[1:]]
    tokenizer = AutoTokenizer.from_pretrained(project.run / "tuned")
    model = AutoModelForSequenceClassification.from_pretrained(project.run / "tuned").eval()
    with torch.no_grad():
        logits = model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).logits
    theirs = [model.config.id2label[row] for row in logits.argmax(dim=1).tolist()]
    ours = [answer.label for answer in Predictor.load(project.run / "bundle", "fp32").predict(texts)]
    assert len(set(theirs)) == len(LABELS)
    assert ours == theirs
