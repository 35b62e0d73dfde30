"""May the int8 file replace the fp32 student? One gate a way in which quantization is known to do harm.

Judges arrays of probabilities only; knows nothing of files, models or texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from export.errors import ExportError
from export.metrics import (
    Floats,
    Interval,
    Kind,
    calibration_error,
    decode,
    macro_f1,
    mean_kl,
    paired_bootstrap,
    row_scores,
)

if TYPE_CHECKING:
    from export.spec import ExportSpec

_FEWEST_LOST_ROWS = 3  # a class that lost fewer may have lost them to chance


@dataclass(frozen=True, slots=True)
class Gate:
    """One verdict: `value` may be at most `limit`; `detail` says what was compared, for a person."""

    name: str
    value: float
    limit: float
    passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Probabilities (N, C) of both files on the same texts: dev with its 0/1 targets, and pool without.

    The thresholds (C,) of each file decide its multi-label answers; None means 0.5.
    """

    kind: Kind
    labels: Sequence[str]
    targets: Floats
    fp32: Floats
    int8: Floats
    pool_fp32: Floats
    pool_int8: Floats
    fp32_thresholds: Floats | None = None
    int8_thresholds: Floats | None = None

    def decided(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return what fp32 and int8 decide on dev, each (N, C)."""
        return (
            decode(self.kind, self.fp32, self.fp32_thresholds),
            decode(self.kind, self.int8, self.int8_thresholds),
        )


def judge_int8(comparison: Comparison, spec: "ExportSpec") -> list[Gate]:
    """Return a gate each for quality, divergence, the worst class and calibration, all on the given rows.

    Quality is accuracy, or macro-F1 for multi-label. Its drop fails when even the low end of the paired 95 %
    interval is above `max_drop`, or when the drop itself is above the larger of 5 x `max_drop` and two rows. A rise of
    the calibration error fails when the low end of its interval is above `max_calibration_rise`.
    Recall counts against a class only when it lost at least three rows net. An answer that is no number
    fails alone, because nothing else can be judged then. Raises ExportError on arrays that do not fit.
    """
    _check_shapes(comparison)
    broken = _finite_gate(comparison)
    if not broken.passed:
        return [broken]
    return [
        broken,
        _quality_gate(comparison, spec.max_drop),
        _divergence_gate(comparison, spec.max_kl),
        _worst_class_gate(comparison, spec.max_class_drop),
        _calibration_gate(comparison, spec.max_calibration_rise),
    ]


def at_most(name: str, value: float, limit: float, detail: str) -> Gate:
    """Return a gate that passes when `value` is at most `limit`."""
    return Gate(name, value, limit, bool(value <= limit), detail)


def _finite_gate(given: Comparison) -> Gate:
    answers = (given.fp32, given.int8, given.pool_fp32, given.pool_int8)
    rows = sum(int((~np.isfinite(probs)).any(axis=1).sum()) for probs in answers)
    return at_most("not_a_number", rows, 0, f"{rows} answers hold a value that is not a finite number")


def _quality_gate(given: Comparison, max_drop: float) -> Gate:
    measure, drop = _drop(given)
    limit = max(5 * max_drop, 2 / len(given.targets))
    detail = (
        f"{measure} on {len(given.targets)} dev rows fell by {drop.estimate:.4f} "
        f"[{drop.low:.4f}, {drop.high:.4f}]; at most {max_drop:g} beyond noise and {limit:.4f} in all"
    )
    return Gate("quality_drop", drop.estimate, limit, drop.low <= max_drop and drop.estimate <= limit, detail)


def _drop(given: Comparison) -> tuple[str, Interval]:
    before, after = given.decided()
    scores_before, scores_after = (row_scores(decided, given.targets) for decided in (before, after))
    if given.kind == "single_label":
        return "accuracy", paired_bootstrap(scores_before, scores_after)

    def macro_f1_drop(rows: NDArray[np.intp]) -> float:
        truth = given.targets[rows]
        return macro_f1(before[rows], truth) - macro_f1(after[rows], truth)

    return "macro-F1", paired_bootstrap(scores_before, scores_after, macro_f1_drop)


def _divergence_gate(given: Comparison, max_kl: float) -> Gate:
    before = np.concatenate([given.fp32, given.pool_fp32])
    after = np.concatenate([given.int8, given.pool_int8])
    value = mean_kl(given.kind, before, after)
    return at_most("kl_divergence", value, max_kl, f"mean KL(fp32 || int8) in nats over {len(before)} texts")


def _worst_class_gate(given: Comparison, max_class_drop: float) -> Gate:
    truth = given.targets.astype(bool)
    before, after = ((decided & truth).sum(axis=0) for decided in given.decided())
    present = truth.sum(axis=0)
    lost = before - after
    drops = np.where(lost >= _FEWEST_LOST_ROWS, lost / np.maximum(present, 1), 0.0)
    worst = int(drops.argmax())
    detail = f"no class lost {_FEWEST_LOST_ROWS} rows or more"
    if drops[worst] > 0:
        detail = f"{given.labels[worst]!r} lost {lost[worst]} of its {present[worst]} dev rows"
    return at_most("worst_class_drop", float(drops[worst]), max_class_drop, detail)


def _calibration_gate(given: Comparison, max_rise: float) -> Gate:
    def rise(rows: NDArray[np.intp] | slice) -> float:
        truth = given.targets[rows]
        before, after = (calibration_error(given.kind, probs[rows], truth) for probs in (given.fp32, given.int8))
        return after - before

    value, low = rise(slice(None)), -np.inf
    if value > max_rise:  # else nobody needs to know how much of it is noise
        low = paired_bootstrap(given.targets, given.targets, rise, samples=500).low
    detail = (
        f"calibration error on {len(given.targets)} dev rows rose by {value:.4f}; at most {max_rise:g} beyond noise"
    )
    return Gate("calibration_rise", value, max_rise, bool(value <= max_rise or low <= max_rise), detail)


def _check_shapes(given: Comparison) -> None:
    rows, pool, labels = len(given.targets), len(given.pool_fp32), len(given.labels)
    wanted = {"targets": rows, "fp32": rows, "int8": rows, "pool_fp32": pool, "pool_int8": pool}
    for name, count in wanted.items():
        shape = getattr(given, name).shape
        if shape != (count, labels):
            raise ExportError(f"gate: {name} has shape {shape}, wanted {(count, labels)}; pass the same texts")
    if not rows:
        raise ExportError("gate: no dev row to judge int8 on; set data.dev or raise data.dev_share")
