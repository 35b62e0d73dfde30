"""A teacher that costs money is asked by one of two processes, and both learn what it said."""

import socket
from pathlib import Path

from teacher.corpus import read_part
from tests.e2e.conftest import MakeProject
from tests.fault_server import Serve
from tests.labeller import mock_spec
from tests.processes import DISTILL, start


def run_twice(words: list[str], folder: Path) -> None:
    """Run `distill` in two processes with the environment that a launcher gives them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": ""}
    children = [
        start(DISTILL, words, folder / f"log-{rank}", shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    assert [child.end() for child in children] == [0, 0], [child.said() for child in children]


def test_two_processes_pay_a_first_teacher_once_and_learn_the_same_from_it(
    make_project: MakeProject, serve: Serve, tmp_path: Path
) -> None:
    server = serve(latency=0.02, faults=0.3, kinds=["outside the label set"])
    first = mock_spec(server.url, tmp_path, answers="votes", samples=1).model_dump(mode="json")
    teacher = {"kind": "self_training", "model": "encoder", "teacher": first, "rounds": 1, "epochs": 1}
    project = make_project(tmp_path / "project", teacher=teacher)
    run_twice(project.words("label"), tmp_path)
    assert project.distill("status").out.split()[1:6:2] == ["done"] * 3
    asked = {row.id for part in ("dev", "pool") for row in read_part(project.run / "corpus", part)}
    asked -= {row.id for row in read_part(project.run / "corpus", "gold")}
    counts = server.counts()
    assert (counts["paid"], counts["most_paid"]) == (len(asked), 1)
