"""Shared pieces of the suite: a real tiny transformer, a real tokenizer and a small corpus, made in seconds."""

import csv
import itertools
import os
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from export.bundle import Precision
    from teacher.paid import PaidAnswers
    from tests.fault_server import FaultServer, Serve

MakeBundle = Callable[..., Path]
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

LABELS = ("delivery", "payment", "size")
_SUBJECTS = {
    "delivery": ["my parcel", "the courier", "the package", "my order", "the box"],
    "payment": ["my card", "the invoice", "the charge", "my refund", "the bank"],
    "size": ["the shirt", "these shoes", "the jacket", "this dress", "the hat"],
}
_SAYINGS = {
    "delivery": ["has not arrived", "is late again", "was left outside", "never came", "is stuck somewhere"],
    "payment": ["was declined", "shows two amounts", "did not go through", "is wrong", "failed online"],
    "size": ["is too small", "does not fit", "feels too wide", "runs large", "is too tight"],
}
_OPENINGS = ["hello", "please help", "why is it that", "i think", "sorry but", "well"]


def corpus_rows() -> list[tuple[str, str]]:
    """Return 450 distinct (text, label) rows over three labels, in a fixed order."""
    return [
        (f"{opening} {subject} {saying}", label)
        for label in LABELS
        for opening, subject, saying in itertools.product(_OPENINGS, _SUBJECTS[label], _SAYINGS[label])
    ]


def write_csv(path: Path, header: list[str], rows: list[tuple[str, ...]]) -> Path:
    """Write `rows` under `header` and return the path."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def _vocabulary() -> list[str]:
    """Return 218 word pieces: the same at every call, where a trained vocabulary differs from run to run."""
    words = sorted({word for text, _ in corpus_rows() for word in text.split()} - {*string.ascii_lowercase})
    pairs = sorted({f"##{one}{other}" for word in words for one, other in itertools.pairwise(word[1:])})
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *words, *pairs]


def write_encoder(folder: Path, seed: int) -> Path:
    """Write a 4-layer BERT of about 12,000 parameters and a WordPiece tokenizer of the corpus to `folder`."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(_vocabulary()), encoding="utf-8")
    fast = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


def write_classifier(encoder: Path, folder: Path, seed: int) -> Path:
    """Write an encoder with an untrained head over LABELS to `folder`, as a standard checkpoint."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder,
        id2label=dict(enumerate(LABELS)),
        label2id={name: index for index, name in enumerate(LABELS)},
        problem_type="single_label_classification",
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a 4-layer BERT of about 12,000 parameters and a WordPiece tokenizer of the corpus."""
    return write_encoder(tmp_path_factory.mktemp("tiny-encoder"), seed=0)


@pytest.fixture(scope="session")
def tiny_classifier(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the tiny encoder and an untrained head over LABELS, as a standard checkpoint."""
    return write_classifier(tiny_encoder, tmp_path_factory.mktemp("tiny-classifier"), seed=1)


@pytest.fixture(scope="session")
def tiny_models(tiny_classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> "dict[Precision, Path]":
    """Return the tiny classifier as fp32 and int8 ONNX."""
    from export.graph import export_graph
    from export.quantize import quantize_int8

    folder = tmp_path_factory.mktemp("tiny-models")
    export_graph(tiny_classifier, folder / "fp32.onnx")
    quantize_int8(folder / "fp32.onnx", folder / "int8.onnx")
    return {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}


@pytest.fixture(scope="session")
def make_tiny_bundle(tiny_classifier: Path, tiny_models: "dict[Precision, Path]") -> "MakeBundle":
    """Return what writes `models` (None: both) as a bundle to a folder; keywords are fields of its manifest."""
    from export.bundle import BundleManifest, write_bundle

    def make(target: Path, models: "dict[Precision, Path] | None" = None, **changes: Any) -> Path:
        fields = {"name": "shop", "kind": "single_label", "labels": LABELS, "max_tokens": 32, "precision": "int8"}
        target.mkdir(parents=True)
        write_bundle(tiny_classifier, models or tiny_models, target, BundleManifest(**{**fields, **changes}), {})
        return target

    return make


@pytest.fixture(scope="session")
def tiny_bundle(make_tiny_bundle: "MakeBundle", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny classifier as a bundle called shop; tests only read it."""
    return make_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def showing_bundle(
    tiny_bundle: Path, tiny_classifier: Path, tiny_models: "dict[Precision, Path]", tmp_path_factory: Any
) -> Path:
    """Return the tiny bundle with three training texts in it, the second of them hostile to a page."""
    import numpy as np
    from msgspec.structs import replace

    from export.bundle import read_manifest, write_bundle
    from export.examples import EXAMPLES, spell_examples
    from export.runtime import Predictor

    folder: Path = tmp_path_factory.mktemp("showing")
    predictor = Predictor.load(tiny_bundle)
    texts = ["my parcel is late again", '<img src=x onerror="document.title=1"> my card', "the hat"]
    alone = [predictor.run(predictor.encode([text])).logits[0] for text in texts]  # as a server asks
    answers = spell_examples(texts, LABELS, np.stack(alone))
    manifest = replace(read_manifest(tiny_bundle), files={})
    write_bundle(tiny_classifier, tiny_models, folder, manifest, {}, {EXAMPLES: answers})
    return folder


@pytest.fixture
def write_corpus(tmp_path: Path) -> Callable[[], Path]:
    """Return a function that writes pool.csv, gold.csv, dev.csv and test.csv and returns their folder."""

    def write() -> Path:
        rows = corpus_rows()
        test, dev = rows[::5], rows[1::5]
        gold, pool = rows[2::15], [row for index, row in enumerate(rows) if index % 5 > 1]
        write_csv(tmp_path / "pool.csv", ["text"], [(text,) for text, _ in pool])
        for name, part in (("gold", gold), ("dev", dev), ("test", test)):
            write_csv(tmp_path / f"{name}.csv", ["text", "label"], [*part])
        return tmp_path

    return write


@pytest.fixture
def serve() -> "Iterator[Serve]":
    """Return what starts a fault server with some settings; it ends with the test."""
    from tests.fault_server import FaultServer

    servers: list[FaultServer] = []

    def start(**settings: Any) -> "FaultServer":
        servers.append(FaultServer(**settings).start())
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def paid(tmp_path: Path) -> "Iterator[PaidAnswers]":
    """Return an empty file of answers without a budget."""
    from teacher.paid import PaidAnswers

    with PaidAnswers(tmp_path / "paid.sqlite") as paid:
        yield paid
