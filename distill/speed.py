"""The speed report of a bundle, alone or against another bundle or a PyTorch checkpoint.

Fresh processes measure (`speed_process`), this module joins what they found into speed.json, the raw samples and
speed.html.
"""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.contenders import check_contender, is_bundle
from distill.errors import InputError
from distill.progress import Reporter
from distill.speed_process import CONTROL, SpeedPlan
from distill.timing import is_answered
from export.bench import ColdStart, cold_start, paired_ratio, percentile_curve, run_fresh, summarise
from export.bundle import MODEL_FILES, read_manifest
from export.machine import machine
from export.runtime import Predictor
from export.scenarios import summarise_load
from export.speed_report import render_speed

REPORT, PAGE, SAMPLES = "speed.json", "speed.html", "samples.npz"
_RESTART_TIMEOUT_SECONDS = 3600.0
Samples = dict[str, NDArray[np.int64]]


def write_speed_report(
    bundle: Path, against: Path | None, texts: Sequence[str], plan: SpeedPlan, reporter: Reporter
) -> Path:
    """Measure `bundle`, and `against` beside it, on `texts`; return the page, speed/speed.html beside the bundle.

    Raises InputError when there are no texts, ExportError when a contender cannot answer.
    """
    predictor = Predictor.load(bundle)
    texts = [text for text in texts if is_answered(predictor, text)]
    if not texts:
        raise InputError("found no text to measure with; name a file with --input and its --column")
    paths = {"bundle": bundle} | ({"other": against} if against is not None else {})
    for path in paths.values():
        check_contender(path)
    before = machine()
    restarts = []
    with reporter.track("bench", plan.restarts) as update:
        for restart in range(plan.restarts):
            restarts.append(_measure(paths, texts, plan, restart))
            update(1)
    samples: Samples = {
        name: np.concatenate([np.array(one["samples"][name], np.int64) for one in restarts])
        for name in restarts[0]["samples"]
    }
    report = {
        "name": read_manifest(bundle).name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "plan": asdict(plan),
        "contenders": {name: _about(path) | restarts[0]["contenders"][name] for name, path in paths.items()},
        "texts": _about_texts(predictor, texts),
        "single_stream": {name: _single_stream(name, samples, restarts) for name in paths},
        "stages": {name: float(np.median(samples[name])) / 1e6 for name in samples if name not in {*paths, CONTROL}},
        "control": asdict(paired_ratio(samples[CONTROL], samples["bundle"])),
        "speedup": asdict(paired_ratio(samples["other"], samples["bundle"])) if "other" in paths else None,
        "offline": {name: _offline([one["loads"][name]["offline"] for one in restarts]) for name in paths},
        "server": {name: _server(name, restarts) for name in paths},
        "cold_start": {name: _cold(path, texts[0], plan) for name, path in paths.items() if is_bundle(path)},
        "machine": before,
        "load_after": machine()["load_average"],
    }
    folder = bundle.resolve().parent / "speed"
    folder.mkdir(exist_ok=True)
    np.savez_compressed(folder / SAMPLES, allow_pickle=False, **samples)
    (folder / REPORT).write_text(json.dumps(report, indent=2), encoding="utf-8")
    (folder / PAGE).write_text(render_speed(report), encoding="utf-8")
    return folder / PAGE


def _measure(paths: Mapping[str, Path], texts: Sequence[str], plan: SpeedPlan, restart: int) -> dict[str, Any]:
    wanted = {
        "paths": {name: str(path.resolve()) for name, path in paths.items()},
        "texts": list(texts),
        "plan": asdict(plan),
        "restart": restart,
    }
    written = run_fresh(["-m", "distill.speed_process"], json.dumps(wanted), paths["bundle"], _RESTART_TIMEOUT_SECONDS)
    found: dict[str, Any] = json.loads(written)
    return found


def _about(path: Path) -> dict[str, Any]:
    if not is_bundle(path):
        return {"path": str(path)}
    manifest = read_manifest(path)
    model = manifest.files[MODEL_FILES[manifest.precision]]
    return {"path": str(path), "precision": manifest.precision, "sha256": model.sha256, "bytes": model.bytes}


def _about_texts(predictor: Predictor, texts: Sequence[str]) -> dict[str, Any]:
    tokens = [answer.tokens for answer in predictor.predict(texts)]
    p50, p90 = np.percentile(tokens, [50, 90])
    return {"count": len(texts), "tokens_p50": float(p50), "tokens_p90": float(p90), "tokens_max": max(tokens)}


def _single_stream(name: str, samples: Samples, restarts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the percentiles over all restarts, and the medians of each; loadgen's own where it was asked."""
    taken = samples[name]
    load = asdict(summarise_load(taken, 1e9 / float(taken.mean())))
    load |= restarts[0]["loads"][name].get("single_stream", {})
    return load | {
        "p50_of_restarts_ms": [float(np.median(one["samples"][name])) / 1e6 for one in restarts],
        "curve": percentile_curve(taken),
        "p50_interleaved_ms": summarise(taken).p50_ms,
    }


def _offline(loads: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    rates = [load["per_second"] for load in loads]
    return {"per_second": statistics.median(rates), "of_restarts": rates, "queries": loads[0]["queries"]}


def _server(name: str, restarts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    points = sorted((point for one in restarts for point in one["loads"][name]["server"]), key=lambda one: one["rate"])
    met = [point["rate"] for point in points if point["meets_target"]]
    return {"points": points, "most_per_second": max(met, default=None)}


def _cold(path: Path, text: str, plan: SpeedPlan) -> dict[str, Any]:
    found: ColdStart = cold_start(path, text, plan.restarts)
    return asdict(found)
