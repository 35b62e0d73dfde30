"""Our student and its strongest rivals on the same gold, pool, test and machine: accuracy beside wall-clock.

    python benchmarks/rivals.py DATASETS_FOLDER --dataset banking77_10shot [--only RIVAL ...] [--run DIR] [--share S]

A dataset is the name of a config. A run of it gives the splits, the soft labels and our row: --run as it is, or the one
under --runs, made when it is missing. SetFit, sentence-transformers and model2vec run in .cache/rivals, made on demand
from pinned versions; all start from the encoder of the local package. What a rival has answered is kept in the run
(rivals/) and asked again only with --again. --share trains everybody on a part of the data, to see that it works.
Exit 1 when a rival is ahead of us.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from environments import Environment
from lines import Line, MeasureError, show
from rival_material import Material, encoder, read_material
from rival_models import RIVALS
from runs import FinishedRun, Runs
from small import QUICK, shrink

from distill.conductor import silence_libraries
from distill.config import load_config
from distill.tfidf import TfidfClassifier
from distill.train import TrainInputs, train_gold_only
from export.errors import ExportError
from export.machine import machine
from export.runtime import Predictor
from teacher.encoder import load_tokenizer
from teacher.scorer import TextScorer

_ENVIRONMENT = Environment(
    "rivals",
    ("setfit==1.1.3", "sentence-transformers==5.1.2", "transformers==4.57.6", "model2vec[train,distill]==0.9.0"),
    shared=("torch", "numpy", "scipy", "scikit-learn"),
)
_PACKAGES = ("setfit", "sentence-transformers", "transformers", "model2vec", "scikit-learn", "torch")
_OURS = ("corpus", "teacher", "labels", "student", "tuned", "bundle")  # what our row took, stage by stage


def ours(material: Material) -> tuple[list[str], float]:
    """Return the answers of the run's int8 student, one text at a time, and the seconds of all its stages."""
    predictor = Predictor.load(material.run.directory / "bundle", "int8", deterministic=True)
    answers = predictor.predict([example.text for example in material.test])
    seconds = sum(material.run.read(f"lineage/{stage}.json")["seconds"] for stage in _OURS)
    return [answer.label or "" for answer in answers], seconds


def tfidf_on_gold(material: Material) -> tuple[list[str], float]:
    """TF-IDF and LinearSVC on gold."""
    labels = [(example.labels or ("",))[0] for example in material.gold]
    return _tfidf(material, [example.text for example in material.gold], labels)


def tfidf_on_answers(material: Material) -> tuple[list[str], float]:
    """TF-IDF and LinearSVC on the pool as our teacher answers it; the teacher's own time is not in it."""
    return _tfidf(material, material.pool, material.answered)


def fine_tuned(material: Material) -> tuple[list[str], float]:
    """The same student from the same encoder, fine-tuned on the same gold, as `gold_only` of the report is."""
    run, started = material.run.directory, time.perf_counter()
    silence_libraries()
    config = load_config(run / "config.yaml").config
    folder = material.folder / "fine_tuned"
    inputs = TrainInputs(run / "corpus", run / "labels", material.task)
    train_gold_only(inputs, str(encoder()), config.student, config.train, folder)
    seconds = time.perf_counter() - started
    from transformers import AutoModelForSequenceClassification

    tokenizer, model = load_tokenizer(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    logits = TextScorer(model, tokenizer, tokenizer.model_max_length).logits([one.text for one in material.test])
    return [material.task.labels[column] for column in logits.argmax(axis=1)], seconds


def _tfidf(material: Material, texts: list[str], labels: list[str]) -> tuple[list[str], float]:
    started = time.perf_counter()
    model = TfidfClassifier(material.task.kind).fit(texts, material.task.targets([(label,) for label in labels]))
    seconds = time.perf_counter() - started
    best = model.logits([example.text for example in material.test]).argmax(axis=1)
    return [material.task.labels[column] for column in best], seconds


def foreign(name: str) -> Callable[[Material], tuple[list[str], float]]:
    """Return what trains and asks one of the rivals that have an environment of their own."""

    def measure(material: Material) -> tuple[list[str], float]:
        script = Path(__file__).with_name("rival_models.py")
        _ENVIRONMENT.run(str(script), name, str(material.folder), str(encoder()))
        found = json.loads((material.folder / f"{name}.json").read_text(encoding="utf-8"))
        return found["labels"], found["train_s"]

    return measure


ROWS: Mapping[str, Callable[[Material], tuple[list[str], float]]] = {
    **{row.__name__: row for row in (tfidf_on_gold, tfidf_on_answers, fine_tuned)},
    **{rival.__name__: foreign(rival.__name__) for rival in RIVALS},
}


def measure(name: str, material: Material, again: bool = False) -> tuple[float, float]:
    """Return the accuracy of a rival on test and its seconds of training; kept in the run, and read from there."""
    kept = material.folder / f"{name}.result.json"
    if again or not kept.is_file():
        labels, seconds = ROWS[name](material)
        if name == "setfit_distilled":  # its teacher belongs to it
            seconds += measure("setfit_teacher", material)[1]
        kept.write_text(json.dumps([material.right(labels), seconds]), encoding="utf-8")
    accuracy, seconds = json.loads(kept.read_text(encoding="utf-8"))
    return accuracy, seconds


def main() -> int:
    """Measure the wanted rivals, print each as soon as it is known, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure our student beside its rivals.")
    parser.add_argument("datasets", type=Path, metavar="DATASETS_FOLDER", help="holds banking77/ and clinc150/")
    parser.add_argument("--dataset", default="banking77_10shot", help="the name of a config")
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), help=str([*ROWS]))
    parser.add_argument("--run", type=Path, help="a finished run of the dataset, taken as it is")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="finished runs are reused")
    parser.add_argument("--share", type=float, default=1.0, help="of the data, for a trial with runs made elsewhere")
    parser.add_argument("--again", action="store_true", help="train rivals that have answered before")
    wanted, about = parser.parse_args(), machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    print(f"# rivals: {_ENVIRONMENT.versions(*_PACKAGES)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rivals-") as scratch:
        runs = trial_or_real(wanted.datasets, wanted.runs, Path(scratch), wanted.share)
        try:
            run = FinishedRun(wanted.run, "as it is") if wanted.run else runs.seeded(wanted.dataset, 0, "export")
            material = read_material(run)
            answers, seconds = ours(material)
        except (MeasureError, ExportError, OSError) as error:
            print(Line(wanted.dataset, str(error), "can be measured", False))
            return 1
        least = material.right(answers)
        print(f"ours: {least:.2%}, {seconds:.0f} s of all stages ({run.origin}); {len(material.gold)} gold rows")
        lines = [show(name, partial(_line, name, material, least, wanted.again)) for name in wanted.only]
    return 0 if all(lines) else 1


def trial_or_real(datasets: Path, runs: Path, scratch: Path, share: float) -> Runs:
    """Return the runs of the real data, or with `share` below 1 those of a part of it in `scratch`."""
    if share >= 1:
        return Runs(datasets, runs, scratch)
    return Runs(shrink(datasets, scratch / "data", share), scratch / "runs", scratch, QUICK)


def _line(name: str, material: Material, least: float, again: bool) -> Line:
    accuracy, seconds = measure(name, material, again)
    return Line(name, f"{accuracy:.2%}, {seconds:.0f} s", f"behind our {least:.2%}", accuracy < least)


if __name__ == "__main__":
    sys.exit(main())
