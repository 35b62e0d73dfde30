"""A bundle answers the same through clients that nobody here wrote: transformers.js, Optimum, onnxruntime, Triton.

What npm and pip install for them is kept in .cache/ between sessions; without a registry those tests are skipped.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tokenizers import Tokenizer

from export.bundle import MODEL_FILES, Precision, read_manifest
from export.runtime import Predictor
from tests.conftest import corpus_rows
from tests.e2e.conftest import Outcome, Project

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = Path(__file__).parent / "clients"
CACHE = ROOT / ".cache"
TEXTS = [text for text, _ in corpus_rows()][::2]
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1"}
Answers = list[tuple[str, float]]
DTYPES: dict[Precision, str] = {"fp32": "fp32", "int8": "q8"}  # as transformers.js calls them


@pytest.fixture(scope="session")
def bundle(finished: tuple[Project, Outcome]) -> Path:
    """Return the bundle of a finished run."""
    return finished[0].run / "bundle"


@pytest.fixture(scope="session")
def node_client() -> Path:
    """Return classify.mjs in a folder where its pinned package is installed; skip without Node or a registry."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("found no node and npm on the PATH")
    package = (CLIENTS / "package.json").read_text(encoding="utf-8")
    folder = CACHE / "node"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(CLIENTS / "classify.mjs", folder)
    installed = folder / "node_modules" / ".installed"
    if not (installed.is_file() and installed.read_text(encoding="utf-8") == package):
        (folder / "package.json").write_text(package, encoding="utf-8")
        npm = ["npm", "install", "--no-audit", "--no-fund", "--fetch-retries=1"]
        environment = os.environ | {"ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"}  # half a gigabyte of CUDA otherwise
        done = subprocess.run(npm, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"npm could not install transformers.js: {done.stderr.strip().splitlines()[-1:]}")
        installed.write_text(package, encoding="utf-8")
    return folder / "classify.mjs"


@pytest.fixture(scope="session")
def optimum_python() -> Path:
    """Return the interpreter of Optimum's own environment, made at first; skip without a registry."""
    make = [sys.executable, str(ROOT / "benchmarks" / "rival.py")]
    done = subprocess.run(make, capture_output=True, text=True, check=False)
    if "No matching distribution found" in done.stderr:
        pytest.skip(f"pip could not install Optimum: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return CACHE / "optimum" / "bin" / "python"


def ours(bundle: Path, precision: Precision) -> Answers:
    """Return our answers, one text at a time."""
    predictor = Predictor.load(bundle, precision)
    found = [predictor.predict(text)[0] for text in TEXTS]
    return [(answer.label or "", answer.probability) for answer in found]


def theirs(*command: str) -> list[Answers]:
    """Return what a client that reads texts writes: lines of [label, probability] rows."""
    done = subprocess.run(command, input=json.dumps(TEXTS), env=OFFLINE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [[(label, probability) for label, probability in json.loads(line)] for line in done.stdout.splitlines()]


def assert_same(found: Answers, wanted: Answers, precision: Precision) -> None:
    """fp32: the same labels, probabilities within 1e-4. int8: the same label on 99.5 % of the texts."""
    same = np.mean([one == other for (one, _), (other, _) in zip(found, wanted, strict=True)])
    if precision == "fp32":
        assert same == 1
        assert [p for _, p in found] == pytest.approx([p for _, p in wanted], abs=1e-4)
    assert same >= 0.995


def test_transformers_js_answers_as_we_do(bundle: Path, node_client: Path) -> None:
    found = theirs("node", str(node_client), str(bundle), *DTYPES.values())
    for precision, answers in zip(DTYPES, found, strict=True):
        assert_same(answers, ours(bundle, precision), precision)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_plain_onnxruntime_answers_as_we_do(bundle: Path, precision: Precision) -> None:
    name = Path(MODEL_FILES[precision]).name
    [found] = theirs(sys.executable, str(CLIENTS / "classify_onnxruntime.py"), str(bundle), name)
    assert_same(found, ours(bundle, precision), precision)


def test_optimum_answers_as_we_do(bundle: Path, optimum_python: Path) -> None:
    names = [Path(name).name for name in MODEL_FILES.values()]
    found = theirs(str(optimum_python), str(CLIENTS / "classify_optimum.py"), str(bundle), *names)
    for precision, answers in zip(MODEL_FILES, found, strict=True):
        assert_same(answers, ours(bundle, precision), precision)


@pytest.fixture(scope="session")
def model_config() -> Any:
    """Return NVIDIA's own ModelConfig message; tritonclient would import it only together with gRPC."""
    try:
        paths = [path for path in files("tritonclient") or () if path.parts[-2:] == ("grpc", "model_config_pb2.py")]
    except PackageNotFoundError:
        pytest.skip("tritonclient, which carries model_config.proto, is not installed")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(paths[0].locate()))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


@pytest.fixture(scope="session")
def triton(finished: tuple[Project, Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the model's folder in the repository that `distill export --layout triton` writes."""
    project = finished[0].copy(
        tmp_path_factory.mktemp("triton"), "corpus", "teacher", "labels", "student", "tuned", "bundle"
    )
    done = project.distill("export", "--layout", "triton")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == str(project.run / "triton" / "shop")
    return project.run / "triton" / "shop"


def test_tritons_own_schema_accepts_the_config_and_its_names_run_the_model(
    triton: Path, model_config: Any, bundle: Path
) -> None:
    config = text_format.Parse((triton / "config.pbtxt").read_text(encoding="utf-8"), model_config())
    assert (config.name, config.backend) == (triton.name, "onnxruntime")
    assert not config.HasField("dynamic_batching")  # an int8 answer would hang on who else is asking
    session = onnxruntime.InferenceSession(str(triton / "1" / "model.onnx"))
    tokenizer = Tokenizer.from_file(str(triton / "tokenizer.json"))
    labels = (triton / config.output[0].label_filename).read_text(encoding="utf-8").splitlines()
    for text, (label, _) in zip(TEXTS, ours(bundle, read_manifest(bundle).precision), strict=True):
        ids = np.array([tokenizer.encode(text).ids])
        given = dict(zip([one.name for one in config.input], (ids, np.ones_like(ids)), strict=True))
        logits = session.run([config.output[0].name], given)[0]
        assert list(config.output[0].dims) == [logits.shape[1]] == [len(labels)]
        assert labels[logits.argmax()] == label


def test_a_finished_bundle_gets_a_triton_layout_without_its_config(bundle: Path, triton: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bundle")
    done = Project.call("export", str(tmp_path / "bundle"), "--layout", "triton")
    assert done.code == 0, done.err
    written = tmp_path / "triton" / "shop"
    assert {path.name: path.read_bytes() for path in _files(written)} == {
        path.name: path.read_bytes() for path in _files(triton)
    }


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
