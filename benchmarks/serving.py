"""What the serving benchmarks share: bundles of random weights, the load generator's process, resident memory."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from checkout import ROOT
from lines import MeasureError
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from distill.conductor import silence_libraries
from export.bundle import BundleManifest, Precision, write_bundle
from export.graph import export_graph
from export.head import finish_head
from export.quantize import quantize_int8


@dataclass(frozen=True, slots=True)
class Load:
    """What became of a load: requests by outcome, and milliseconds of those answered (scheduled, and from sending)."""

    seconds: float
    outcomes: dict[str, int]
    latencies: Sequence[float]
    from_send: Sequence[float]
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.outcomes.get("200", 0) / self.seconds

    @property
    def failed(self) -> int:
        """How many requests had another outcome than an answer."""
        return sum(count for outcome, count in self.outcomes.items() if outcome != "200")


class RunningLoad:
    """The load generator in a process of its own; what it prints goes to a file, which cannot fill up like a pipe."""

    def __init__(self, port: int, rate: float, seconds: float, connections: int, texts: Path) -> None:
        """Start it; `texts` is a JSON list."""
        self._output = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the generator
        words = map(str, (ROOT / "benchmarks" / "open_loop.py", port, rate, seconds, connections, texts))
        self._process = subprocess.Popen([sys.executable, *words], stdout=self._output)

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def finish(self) -> Load:
        """Wait for its end and return what it counted."""
        if self._process.wait() != 0:
            raise MeasureError(f"the load generator ended with {self._process.returncode}")
        with self._output:
            self._output.seek(0)
            found: dict[str, Any] = json.load(self._output)
        found["outcomes"] = {outcome: count for outcome, count in found["outcomes"].items() if count}
        return Load(**found)


def run_load(port: int, rate: float, seconds: float, connections: int, texts: Path) -> Load:
    """Run the load generator to its end."""
    return RunningLoad(port, rate, seconds, connections, texts).finish()


def percentile(milliseconds: Sequence[float], percent: float) -> float:
    """Return a percentile, NaN where nothing was answered."""
    return float(np.percentile(milliseconds, percent)) if milliseconds else float("nan")


def random_bundle(target: Path, checkpoint: Path, labels: Sequence[str], layers: int, width: int) -> Path:
    """Write an int8 bundle of random weights with the architecture and tokenizer of `checkpoint`: speed, no sense."""
    silence_libraries()
    config = AutoConfig.from_pretrained(checkpoint)
    shape = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 4 * width}
    heads = {"num_attention_heads": max(2, width // 32), "problem_type": "single_label_classification"}
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: index for index, label in enumerate(labels)}}
    config.update({**shape, **heads, **names})
    folder = target.with_name(f"{target.name}-checkpoint")
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    models: dict[Precision, Path] = {"fp32": folder / "fp32.onnx", "int8": folder / "int8.onnx"}
    export_graph(folder, models["fp32"])
    quantize_int8(models["fp32"], models["int8"])
    for path in models.values():
        finish_head(path, "single_label", 1.0)
    manifest = BundleManifest(
        name=target.name,
        kind="single_label",
        labels=tuple(labels),
        max_tokens=min(config.max_position_embeddings, 80),
        precision="int8",
    )
    write_bundle(folder, models, target, manifest, {})
    return target


def resident_megabytes(processes: Sequence[int]) -> float:
    """Return the resident memory of some processes together."""
    lines = [Path(f"/proc/{each}/status").read_text(encoding="ascii").splitlines() for each in processes]
    sizes = [int(line.split()[1]) for status in lines for line in status if line.startswith("VmRSS")]
    return sum(sizes) * 1024 / 1e6
