"""The loop back: serve, capture, collect, relabel, retrain; every step through the real command or the real server."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from export.bundle import read_manifest
from teacher.corpus import iterate_part
from teacher.soft_labels import read_store
from tests.e2e.conftest import Outcome, Project
from tests.serving import local_server

SUBJECTS = ("parcel", "invoice", "shirt", "bank", "box")
SAYINGS = ("is late", "is too small", "was declined", "is wrong")
# Half of each text says one thing and half another, so that even a student without a doubt about its corpus has some.
NEW = [f"the {one} and the {other} {saying}" for one in SUBJECTS for other in SUBJECTS for saying in SAYINGS]


@pytest.mark.usefixtures("quick_cold_start")
def test_what_a_server_doubts_teaches_the_next_student(finished: tuple[Project, Outcome], tmp_path: Path) -> None:
    served = finished[0].run / "bundle"
    doubt = tmp_path / "doubt.yaml"
    doubt.write_text(yaml.safe_dump({"below": "answer", "threshold": 1.0, "capture": {"folder": "captured"}}))
    with local_server({"shop": served}, doubt=doubt) as client:
        answers = client.predict(NEW, details=True).json
    pairs = zip(NEW, answers, strict=True)
    doubtful = {text for text, answer in pairs if answer["certainty"] < 1.0 or answer["in_scope"] is False}
    assert doubtful

    pool = tmp_path / "captured.parquet"
    collected = Project.call("collect", str(tmp_path / "captured"), str(pool))
    assert collected.code == 0, collected.err
    assert set(pq.read_table(pool)["text"].to_pylist()) == doubtful

    again = finished[0].copy(tmp_path / "runs")
    outcome = again.distill("export", f"data.unlabeled=[pool.csv, {pool}]")
    assert outcome.code == 0, outcome.err
    texts = {example.text: example.id for chunk in iterate_part(again.run / "corpus", "pool") for example in chunk}
    assert doubtful <= set(texts)
    assert read_store(again.run / "labels").answered([texts[text] for text in doubtful]).all()
    assert read_manifest(again.run / "bundle").digest != read_manifest(served).digest
