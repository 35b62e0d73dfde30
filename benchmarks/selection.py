"""What choosing texts to label costs: seconds and peak memory for each strategy on a pool of made-up texts.

python benchmarks/selection.py 1000000 --strategy random --budget 10000
python benchmarks/selection.py 100000 --strategy both --budget 2000
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from teacher.example import Example, content_id
from teacher.parts import CorpusMeta, PartWriter, write_meta
from teacher.select import select_pool
from teacher.spec import SelectSpec
from teacher.task import Task, TaskKind

_LABELS = tuple(f"label {number}" for number in range(20))
_GOLD_ROWS, _CHUNK = 400, 10_000
_WORDS, _LENGTH = 5_000, 12


def main() -> None:
    """Write a corpus, choose from it, and print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=int)
    parser.add_argument("--strategy", default="both")
    parser.add_argument("--budget", type=int, default=1000)
    arguments = parser.parse_args()
    spec = SelectSpec(strategy=arguments.strategy, budget_rows=arguments.budget)
    with tempfile.TemporaryDirectory() as folder:
        _write_corpus(Path(folder), arguments.texts)
        before, started = _peak_mb(), time.perf_counter()
        chosen = select_pool(spec, Path(folder), Task(TaskKind.SINGLE_LABEL, _LABELS), seed=0)
        seconds = time.perf_counter() - started
    print(
        f"{spec.strategy}: {len(chosen.ids):,} of {chosen.pool:,} texts, {chosen.candidates:,} compared, "
        f"{seconds:.1f} s, peak memory {_peak_mb():,.0f} MB ({before:,.0f} MB before)"
    )


def _write_corpus(folder: Path, texts: int) -> None:
    generator = np.random.default_rng(0)
    rows = {}
    for part, wanted in (("pool", texts), ("gold", _GOLD_ROWS)):
        with PartWriter(folder, part) as writer:
            for chunk in _examples(generator, wanted, labelled=part == "gold"):
                writer.write(chunk)
        rows[part] = wanted
    empty: dict[str, dict[str, int]] = {}
    write_meta(
        folder,
        CorpusMeta(
            labels=list(_LABELS),
            kind=TaskKind.SINGLE_LABEL,
            rows=rows,
            unlabeled=texts,
            dropped=empty,
            flagged=empty,
            quarantined={},
            class_counts={},
            leaks=[],
            digest="made up",
        ),
    )


def _examples(generator: np.random.Generator, rows: int, *, labelled: bool) -> Iterator[list[Example]]:
    """Yield texts whose words lean to those of their label, in chunks."""
    for start in range(0, rows, _CHUNK):
        chunk = []
        for row in range(start, min(start + _CHUNK, rows)):
            label = row % len(_LABELS)
            words = generator.zipf(1.3, _LENGTH) % _WORDS + label * (generator.random(_LENGTH) < 0.4) * _WORDS
            text = " ".join(f"w{word}" for word in words) + f" {row} {labelled}"
            chunk.append(Example(content_id(text), text, (_LABELS[label],) if labelled else None))
        yield chunk


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
