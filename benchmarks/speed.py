"""Measure the lines that the exported student has to hold and print one row each; exit 1 when one is missed.

    python benchmarks/speed.py RUNS_FOLDER DATASETS_FOLDER [--only ROW ...] [--share S] [--static BUNDLE]

RUNS_FOLDER holds finished runs (banking77/, goemotions/, ...), DATASETS_FOLDER their test.csv files. The rivals run in
an environment of their own that is made on demand (rival.py). --share 0.05 makes a short trial whose figures say
little. Every comparison is made in turns on the same texts.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import rival
from contests import against_optimum, against_teacher, p50_words, rates_line, ratio_words, rounds
from lines import Line, MeasureError, show
from material import TEXTS, Bench
from turns import Answerer, texts_per_second

from export.bench import paired_ratio
from export.bundle import read_manifest
from export.machine import machine

_REPEATS, _ROUNDS, _BULK_TEXTS, _CALLS = 5, 5, 100_000, 1_000_000
_DATASETS = ("banking77", "clinc150", "goemotions", "snips", "demo")


def pipeline(bench: Bench) -> Line:
    """Compare our bundle with Optimum's model through transformers.pipeline at its best thread count."""
    samples, best, control = against_optimum(bench, "pipeline")
    one, two = (paired_ratio(samples[best], samples[f"ours {threads}"]) for threads in (1, 2))
    return Line(
        "pipeline",
        f"{ratio_words(one)} on 1 thread, {ratio_words(two)} on 2; {p50_words(samples, control)} ({rival.versions()})",
        "p50 >= 1.6x lower than its best on 1 thread, >= 2x on 2",
        one.estimate >= 1.6 and two.estimate >= 2.0,
    )


def bare(bench: Bench) -> Line:
    """Compare our bundle with Optimum's int8 graph called with onnxruntime and tokenizers, thread for thread."""
    samples, _, control = against_optimum(bench, "bare")
    one, two = (paired_ratio(samples[f"bare {threads}"], samples[f"ours {threads}"]) for threads in (1, 2))
    return Line(
        "bare",
        f"{ratio_words(one)} on 1 thread, {ratio_words(two)} on 2; {p50_words(samples, control)}",
        "p50 >= 1.3x lower, same thread count",
        min(one.estimate, two.estimate) >= 1.3,
    )


def both_cores(bench: Bench) -> Line:
    """Compare texts a second, answered one by one, with both cores busy."""
    texts, python = bench.texts(count=10 * TEXTS), rival.rival_python()
    folder = bench.classifier()
    with ExitStack() as stack:

        def start(kind: str, path: Path, threads: int, count: int) -> list[Answerer]:
            interpreter = None if kind == "ours" else python
            return [stack.enter_context(closing(Answerer(kind, path, threads, interpreter))) for _ in range(count)]

        bundle = bench.run("banking77") / "bundle"
        arrangements = {
            "ours, 2 processes": (start("ours", bundle, 1, 2), 1),
            "ours, 2 Python threads": (start("ours", bundle, 1, 1), 2),  # each call runs on its caller's thread
            "2 pipelines of 1 thread": (start("pipeline", folder, 1, 2), 1),
            "1 pipeline of 2 threads": (start("pipeline", folder, 2, 1), 1),
            "1 pipeline, 2 Python threads": (start("pipeline", folder, 1, 1), 2),
        }
        rates = rounds(
            {
                name: lambda arrangement=arrangement, threads=threads: texts_per_second(  # type: ignore[misc]
                    arrangement, texts, "stream", threads
                )
                for name, (arrangement, threads) in arrangements.items()
            }
        )
    return rates_line("both_cores", rates, 2.0)


def teacher(bench: Bench) -> Line:
    """Compare the 3-layer student with its PyTorch teacher at its best thread count."""
    return against_teacher(bench, "teacher", bench.run("banking77") / "bundle", 16.0)


def two_layers(bench: Bench) -> Line:
    """Compare a 2-layer, 128-wide student of random weights, whose values cost nothing, with the teacher."""
    from serving import random_bundle

    run = bench.run("banking77")
    bundle = random_bundle(bench.scratch / "small", run / "tuned", read_manifest(run / "bundle").labels, 2, 128)
    return against_teacher(bench, "two_layers", bundle, 45.0)


def static(bench: Bench) -> Line:
    """Compare the static tier with the teacher."""
    if bench.static is None:
        raise MeasureError("no static bundle was given; name one with --static")
    return against_teacher(bench, "static", bench.static, 100.0)


def bulk(bench: Bench) -> Line:
    """Compare bulk texts a second with sentence-transformers' int8 backend at the same encoder depth."""
    run, texts = bench.run("goemotions"), bench.texts("goemotions", _BULK_TEXTS)
    folder = rival.export_sentences(run / "tuned", bench.scratch / "sentences")
    with ExitStack() as stack:
        ours = [stack.enter_context(closing(Answerer("ours", run / "bundle", 1))) for _ in range(2)]
        threaded = [stack.enter_context(closing(Answerer("ours", run / "bundle", 2)))]
        one, two = (
            [stack.enter_context(closing(Answerer("sentences", folder, threads, rival.rival_python())))]
            for threads in (1, 2)
        )
        pair = [*one, stack.enter_context(closing(Answerer("sentences", folder, 1, rival.rival_python())))]
        rates = rounds(
            {
                "ours, 2 processes": lambda: texts_per_second(ours, texts, "bulk"),
                "ours, 2 threads": lambda: texts_per_second(threaded, texts, "bulk"),
                "sentence-transformers, 2 threads": lambda: texts_per_second(two, texts, "bulk"),
                "sentence-transformers, 2 processes": lambda: texts_per_second(pair, texts, "bulk"),
            },
            count=3,
        )
    return rates_line("bulk", rates, 2.0)


def over_model(bench: Bench) -> Line:
    """Compare an answer from text to label with the model's part of it."""
    from distill.contenders import open_contender
    from export.bench import measure_interleaved

    texts = bench.texts()
    contender = open_contender(bench.run("banking77") / "bundle", texts)
    timed = {"whole": contender.answer, **contender.stages}
    samples = measure_interleaved(timed, texts, _REPEATS, 20, seed=0)
    ratio = paired_ratio(samples["whole"], samples["model"])
    return Line("over_model", f"{ratio_words(ratio)}; {p50_words(samples)}", "<= 1.25x", ratio.estimate <= 1.25)


def generators(bench: Bench) -> Line:
    """Compare what our load generator and mlperf_loadgen measure of the same bundle."""
    from distill.contenders import open_contender
    from export.loadgen import LoadgenGenerator
    from export.scenarios import OwnGenerator, poisson_arrivals

    texts = bench.texts()
    contender = open_contender(bench.run("banking77") / "bundle", texts)
    queries = bench.count(6_636)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(_ROUNDS):
        for kind in (OwnGenerator, LoadgenGenerator) if seed % 2 else (LoadgenGenerator, OwnGenerator):
            generator = kind(seed + 1)
            stream = generator.single_stream(contender.answer, texts, queries)
            arrivals = poisson_arrivals(0.3 * stream.per_second, queries, seed + 1)
            server = generator.server(contender.answer, texts, arrivals, 10.0)
            offline = generator.offline(contender.answer_many, texts, queries)
            figures = {
                "SingleStream p50": stream.percentiles_ms["p50"],
                "Server p50": server.percentiles_ms["p50"],
                "Offline texts/s": offline.per_second,
            }
            for name, value in figures.items():
                found.setdefault(name, {}).setdefault(generator.name, []).append(value)
    ratios = {
        name: statistics.median(one / other for one, other in zip(sides["own"], sides["loadgen"], strict=True))
        for name, sides in found.items()
    }
    return Line(
        "generators",
        ", ".join(f"{name} {ratio:.3f}" for name, ratio in ratios.items())
        + f" (ours over loadgen's, {_ROUNDS} rounds)",
        "within 5 %",
        all(abs(ratio - 1) <= 0.05 for ratio in ratios.values()),
    )


def distance(bench: Bench) -> Line:
    """Compare the int8 multiply-accumulates per second of the run with a large int8 MatMul's."""
    try:
        from kernel import kernel_lines
    except ImportError as error:
        raise MeasureError(f"benchmarks/kernel.py cannot be imported ({error})") from error
    lines = kernel_lines(bench.run("banking77") / "bundle")
    measured, wanted = ("; ".join(getattr(line, part) for line in lines) for part in ("measured", "wanted"))
    return Line("distance", measured, wanted, all(line.holds for line in lines))


def int8(bench: Bench) -> Line:
    """Compare the int8 file with the fp32 file of each data set's bundle on its test part."""
    from precision import compare_precisions

    found, missing, holds = [], [], True
    for name in _DATASETS:
        try:
            loss, agreement = compare_precisions(bench.run(name), bench.share)
        except MeasureError:
            missing.append(name)
            continue
        found.append(f"{name} loses {100 * loss:+.2f} points, agrees {agreement:.2%}")
        holds = holds and loss <= 0.002 and agreement >= 0.99
    return Line(
        "int8",
        "; ".join(found) + (f"; missing: {', '.join(missing)}" if missing else ""),
        "five data sets: loss <= 0.2 point, agreement >= 99 %",
        holds and not missing,
    )


def serve(bench: Bench) -> Line:
    """Install the serve extra alone, time the first answer there, and look at its memory after a million calls."""
    from serve_install import measure_serve_install, resident_after

    bundle = bench.run("banking77") / "bundle"
    found = measure_serve_install(bundle, Path(tempfile.mkdtemp(prefix="serve-", dir=bench.scratch)))
    calls = bench.count(_CALLS)
    first, last = resident_after(found.python, bundle, bench.texts(), calls)
    return Line(
        "serve",
        f"{found.environment_megabytes:.0f} MB on disk, {found.installed_megabytes:.0f} of them added by the install; "
        f"first answer after {found.total_s:.3f} s; resident "
        f"{last:.0f} MB after {calls:,} calls ({first:.0f} after the first 1,000); "
        f"{' and '.join(found.training_packages) or 'no torch'}",
        "<= 250 MB on disk without torch; <= 0.4 s; <= 160 MB",
        not found.training_packages and found.environment_megabytes <= 250 and found.total_s <= 0.4 and last <= 160,
    )


ROWS: Mapping[str, Callable[[Bench], Line]] = {
    row.__name__: row
    for row in (
        pipeline, bare, both_cores, teacher, two_layers, static, bulk, over_model, generators, distance, int8, serve
    )
}  # fmt: skip


def main() -> int:
    """Measure the wanted rows, print each as soon as it is known, and return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the lines that the exported student has to hold.")
    parser.add_argument("runs", type=Path, metavar="RUNS_FOLDER")
    parser.add_argument("datasets", type=Path, metavar="DATASETS_FOLDER")
    parser.add_argument("--only", nargs="+", choices=tuple(ROWS), default=tuple(ROWS), metavar="ROW", help=str([*ROWS]))
    parser.add_argument("--share", type=float, default=1.0, help="of the texts and calls; below 1 for a trial")
    parser.add_argument("--static", type=Path, metavar="BUNDLE", help="a bundle of the static tier")
    wanted = parser.parse_args()
    about = machine()
    print(f"# {about['cpu']}, {about['usable_cores']} cores, load {about['load_average']}, {about['versions']}")
    with tempfile.TemporaryDirectory(prefix="speed-") as scratch:
        bench = Bench(wanted.runs, wanted.datasets, wanted.share, wanted.static, Path(scratch))
        lines = [show(name, partial(ROWS[name], bench)) for name in wanted.only]
    print(f"# load {machine()['load_average']}")
    return 0 if all(lines) else 1


if __name__ == "__main__":
    sys.exit(main())
