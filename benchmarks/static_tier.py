"""The lines of students without layers: quality with size and time of training, and texts a second in bulk.

Rows of `quality.py`; the run's own interleaved benchmark has the time of one text.
"""

import statistics
import time

import numpy as np
from lines import Line
from runs import FinishedRun
from seeds import Seeded, over_seeds

from export.bundle import MODEL_FILES
from export.runtime import OnnxClassifier
from export.tokens import TextTokenizer
from teacher.corpus import read_part

ROUNDS = 30
_LEAST_ACCURACY = {"banking77_static": 0.930, "clinc150_static": 0.955}
_MOST_BYTES, _MOST_TRAIN_SECONDS, _LEAST_TEXTS_A_SECOND = 5_000_000, 240.0, 50_000.0
_THREADS, _ROUND_TEXTS = 2, 20_000


def quality(found: Seeded) -> Line:
    """Look at the int8 students on test, the bytes that ship, and how long the slowest of them trained."""
    run, mean = found.runs[0], float(np.mean(found.scores))
    seconds = max(one.read("lineage/student.json")["seconds"] for one in found.runs)
    least = _LEAST_ACCURACY[run.directory.name]
    return Line(
        run.directory.name,
        f"int8 {over_seeds(found.scores)}, teacher {found.teacher_score:.2%}, {run.shipped_bytes / 1e6:.2f} MB, "
        f"trained in {seconds:.0f} s at most ({run.origin})",
        f"int8 >= {least:.1%}, <= {_MOST_BYTES / 1e6:g} MB, trained in <= {_MOST_TRAIN_SECONDS:.0f} s",
        mean >= least and run.shipped_bytes <= _MOST_BYTES and seconds <= _MOST_TRAIN_SECONDS,
    )


def throughput(run: FinishedRun, rounds: int) -> Line:
    """Answer pool texts in bulk, tokenization included; the median over rounds counts.

    A tokenizer remembers words, so each round begins with one that has seen none.
    """
    bundle = run.directory / "bundle"
    max_tokens = int(run.read("bundle/potstill.json")["max_tokens"])
    classifier = OnnxClassifier(bundle / MODEL_FILES["int8"], bundle / "tokenizer.json", max_tokens, _THREADS)
    content = (bundle / "tokenizer.json").read_bytes()
    pool = [example.text for example in read_part(run.directory / "corpus", "pool")]
    texts = (pool * (_ROUND_TEXTS // len(pool) + 1))[:_ROUND_TEXTS]
    classifier.logits(texts)
    rates = []
    for _ in range(rounds):
        classifier.tokenizer = TextTokenizer(content, max_tokens, _THREADS)
        started = time.perf_counter()
        classifier.logits(texts)
        rates.append(len(texts) / (time.perf_counter() - started))
    median = statistics.median(rates)
    return Line(
        f"{run.directory.name}_throughput",
        f"{median:,.0f} texts/s (rounds {min(rates):,.0f} to {max(rates):,.0f}) on {_THREADS} threads",
        f">= {_LEAST_TEXTS_A_SECOND:,.0f} texts/s, text in to logits out",
        median >= _LEAST_TEXTS_A_SECOND,
    )
