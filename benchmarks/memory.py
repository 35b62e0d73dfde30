"""Resident memory of the corpus and label stages on a large synthetic csv, read from outside the process.

The model is a random BERT of about 12,000 parameters: what is measured is what the stages hold, not a model.
Reads /proc, so it needs Linux.
"""

import csv
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from growth import growth
from lines import MeasureError
from numpy.typing import NDArray
from runs import environment
from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertModel, BertTokenizerFast

_SAMPLE_SECONDS = 0.25
_WORDS = 20_000
_BLOCK = 10_000
_LABELS = ("delivery", "payment", "size")
_PARTS = {"gold": 600, "dev": 300, "test": 300}
_CONSONANTS, _VOWELS = "bdfgklmnprstvzß", "aeiouéy"
_ENDINGS = ("", "", "", ".", "?", "!", "...", " :)", ", thanks")
_CONFIG = """\
name: memory
data: {unlabeled: [pool.csv], gold: gold.csv, dev: dev.csv, test: test.csv}
teacher: {kind: encoder, model: tiny-encoder, epochs: 1, max_tokens: 64}
label: {weak_teacher: warn}
"""
Sample = tuple[str, float]  # stage, resident bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident bytes of the process, growth of each stage (see `growth`), rows and seconds."""

    peak_bytes: float
    growth: dict[str, float]
    rows: int
    parameters: int
    seconds: float


def measure_memory(folder: Path, rows: int = 1_000_000) -> Memory:
    """Write the csv and the model to `folder`, label it with `distill label` in a process, and watch its memory."""
    parameters = write_input(folder, rows)
    command = [sys.executable, "-m", "distill", "label", "memory.yaml", "--runs", "runs", "--log-format", "plain"]
    run, started = folder / "runs" / "memory", time.perf_counter()
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment(), stdout=log, stderr=log)
        samples, peak = _watch(process, run)
    if process.returncode != 0:
        last = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise MeasureError(f"`distill label` ended with {process.returncode}: {''.join(last)}")
    stages = {name: [size for stage, size in samples if stage == name] for name in ("corpus", "label")}
    return Memory(
        peak_bytes=peak,
        growth={name: growth(sizes) for name, sizes in stages.items()},
        rows=rows,
        parameters=parameters,
        seconds=time.perf_counter() - started,
    )


def write_input(folder: Path, rows: int) -> int:
    """Write memory.yaml, its four csv files and tiny-encoder/; return the model's parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.yaml").write_text(_CONFIG, encoding="utf-8")
    for seed, (part, count) in enumerate(_PARTS.items(), start=1):
        labels = (_LABELS[index % len(_LABELS)] for index in range(count))
        _write_csv(folder / f"{part}.csv", ["text", "label"], zip(synthetic_texts(count, seed), labels, strict=True))
    _write_csv(folder / "pool.csv", ["text"], ((text,) for text in synthetic_texts(rows, 0)))
    return write_encoder(folder / "tiny-encoder")


def synthetic_texts(count: int, seed: int) -> Iterator[str]:
    """Yield texts of 1 to 80 invented words, their frequencies Zipf's and lengths log-normal; 1 in 100 is a repeat."""
    words = _invent_words()
    generator = np.random.default_rng(seed)
    shares = np.cumsum(1 / np.arange(1, len(words) + 1))
    shares /= shares[-1]
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        lengths = np.clip(generator.lognormal(2.3, 0.7, size), 1, 80).astype(int)
        ranks = np.searchsorted(shares, generator.random(int(lengths.sum())))
        endings = generator.integers(0, len(_ENDINGS), size)
        repeats = generator.random(size) < 0.01
        yield from _sentences(words, np.split(ranks, np.cumsum(lengths)[:-1]), endings, repeats)


def _sentences(
    words: list[str], texts: list[NDArray[np.intp]], endings: NDArray[np.int64], repeats: NDArray[np.bool_]
) -> Iterator[str]:
    last = ""
    for ranks, ending, is_repeat in zip(texts, endings, repeats, strict=True):
        if not (is_repeat and last):
            text = " ".join([words[rank] for rank in ranks]) + _ENDINGS[ending]
            last = text.capitalize() if ranks[0] % 2 else text
        yield last


def _invent_words() -> list[str]:
    generator = np.random.default_rng(0)
    syllables = [consonant + vowel for consonant in _CONSONANTS for vowel in _VOWELS]
    words: dict[str, None] = {}
    while len(words) < _WORDS:
        count = int(generator.integers(1, 5))
        words["".join(syllables[index] for index in generator.integers(0, len(syllables), count))] = None
    return list(words)


def _write_csv(path: Path, header: list[str], rows: Iterator[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def write_encoder(folder: Path) -> int:
    """Write a tiny random BERT and a tokenizer of the synthetic texts to `folder`; return its parameters."""
    folder.mkdir(exist_ok=True)
    tokenizer = BertWordPieceTokenizer(lowercase=True)
    tokenizer.train_from_iterator(synthetic_texts(5_000, 4), vocab_size=240, show_progress=False)
    tokenizer.save_model(str(folder))
    fast = BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=64)
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    model = BertModel(config)
    model.save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def _watch(process: subprocess.Popen[bytes], run: Path) -> tuple[list[Sample], float]:
    """Return the samples of a process until it ends, and its peak in bytes."""
    samples: list[Sample] = []
    peak = 0.0
    while process.poll() is None:
        sizes = _resident_bytes(process.pid)
        if sizes:
            samples.append((_stage(run), sizes["VmRSS"]))
            peak = max(peak, sizes["VmHWM"])
        time.sleep(_SAMPLE_SECONDS)
    return samples, peak


def _stage(run: Path) -> str:
    """Return which stage runs; its predecessors have written their lineage."""
    if (run / "lineage" / "teacher.json").is_file():
        return "label"
    return "teacher" if (run / "lineage" / "corpus.json").is_file() else "corpus"


def _resident_bytes(pid: int) -> dict[str, float]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:  # it just ended
        return {}
    found = {name: rest for name, _, rest in (line.partition(":") for line in lines) if name in ("VmRSS", "VmHWM")}
    return {name: int(rest.split()[0]) * 1024 for name, rest in found.items()}
