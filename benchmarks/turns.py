"""Processes that answer in turn: each times itself, one runs at a time, block by block in an order drawn anew."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from checkout import ROOT
from lines import MeasureError
from numpy.typing import NDArray

_BLOCK_TEXTS = 20  # as in export.bench, whose paired_ratio draws blocks of that many
_PROGRAM = Path(__file__).with_name("answering.py")


class Answerer:
    """One process of answering.py."""

    def __init__(self, kind: str, path: Path, threads: int, python: Path | None = None) -> None:
        """Start it in the environment of `python` (None: this one) and wait until it is ready."""
        command = [str(python or sys.executable), str(_PROGRAM), kind, str(path), str(threads)]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment.pop("OMP_NUM_THREADS", None)
        self._name = f"{kind} on {threads} threads"
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._read()

    def send(self, texts: Sequence[str], how: str, threads: int = 1) -> None:
        """Hand over texts without waiting."""
        assert self._process.stdin is not None
        print(json.dumps({"texts": list(texts), "how": how, "threads": threads}), file=self._process.stdin, flush=True)

    def receive(self) -> Any:
        """Wait for the nanoseconds of what was sent."""
        return json.loads(self._read())

    def ask(self, texts: Sequence[str], how: str, threads: int = 1) -> Any:
        """Return the nanoseconds that `texts` took."""
        self.send(texts, how, threads)
        return self.receive()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait(timeout=60)

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise MeasureError(f"{self._name} ended with {self._process.wait()}; run answering.py by hand to see why")
        return line


def take_turns(
    answerers: Mapping[str, Answerer], texts: Sequence[str], repeats: int, seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """Return nanoseconds (repeats, texts) of each, asked one text at a time; the first block is a warm-up."""
    samples = {name: np.zeros((repeats, len(texts)), np.int64) for name in answerers}
    shuffler, order = random.Random(seed), list(answerers)
    for name in order:
        answerers[name].ask(texts[:_BLOCK_TEXTS], "each")
    for repeat in range(repeats):
        for start in range(0, len(texts), _BLOCK_TEXTS):
            shuffler.shuffle(order)
            block = texts[start : start + _BLOCK_TEXTS]
            for name in order:
                samples[name][repeat, start : start + len(block)] = answerers[name].ask(block, "each")
    return samples


def texts_per_second(arrangement: Sequence[Answerer], texts: Sequence[str], how: str, threads: int = 1) -> float:
    """Return the rate of processes that share `texts` and run at once, each with so many Python threads."""
    started = time.perf_counter()
    for number, answerer in enumerate(arrangement):
        answerer.send(texts[number :: len(arrangement)], how, threads)
    for answerer in arrangement:
        answerer.receive()
    return len(texts) / (time.perf_counter() - started)
