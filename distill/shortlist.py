"""Choose the file that ships: the fastest variant whose gates pass, if need be with its worst layers in fp32.

Builds, times and judges through `export`; writes no bundle.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.trial import Examined, Trial, probabilities
from export.bundle import Precision
from export.errors import ExportError
from export.fallback import layers_of, worst_first
from export.gate import Gate
from export.head import finish_head
from export.metrics import Floats, decode
from export.plan import Timing, texts_at_quantiles, time_variants
from export.quantize import quantize_int8
from export.spec import ExportSpec
from export.surgery import Rewrite
from export.variants import PRESET, Material, Variant, build_variants, even_material
from teacher.task import TaskKind

_SENSITIVITY_TEXTS = 200
_ENOUGH_AGREEMENT = 0.99  # of the texts; with less, even inputs are worth the 2 % of an answer that they take
_FP32 = "fp32"


@dataclass(frozen=True, slots=True)
class Choice:
    """The file that ships, its gates, and how it was chosen, for the manifest and the report."""

    precision: Precision
    shipped: Examined
    gates: tuple[Gate, ...]
    kept_fp32: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)


class Shortlist:
    """The variants of one student, from its fp32 graph after surgery to the choice."""

    def __init__(self, trial: Trial, material: Material, folder: Path, kind: TaskKind) -> None:
        """Examine the fp32 file, with which every other one is compared; `folder` takes what is built."""
        self._trial, self._material, self._folder, self._kind = trial, material, folder, kind
        self.fp32 = trial.examine(Path(shutil.copyfile(material.graph, folder / "examined.onnx")))
        self._rows: dict[str, dict[str, Any]] = {}
        self._timing: dict[str, Any] = {}

    def choose(self, spec: ExportSpec) -> Choice:
        """Return the choice as `spec` wants it; raise ExportError when the preset cannot be built."""
        if spec.precision == _FP32:
            return self._ship_fp32(())
        rejected: list[Gate] = []
        choice = self._first_passing(spec, rejected)
        if choice is None or self._agreement(choice.shipped) < _ENOUGH_AGREEMENT:
            choice = self._even_out(spec, choice, rejected)
        if choice is None and rejected:
            choice = self._fall_back(rejected)
        return choice or self._ship_fp32(rejected)

    @property
    def evened(self) -> Rewrite:
        """What was done to even the inputs of int8 products, or why nothing was."""
        return self._material.evened

    def _even_out(self, spec: ExportSpec, choice: Choice | None, rejected: list[Gate]) -> Choice | None:
        """Return the choice among files with even inputs, or `choice` where they cannot be had or do not pass."""
        plain, self._material = self._material, even_material(self._material)
        if not self.evened.applied:
            return choice
        self._folder = self._folder / "even"  # the file of `choice` may yet ship
        self._folder.mkdir()
        better = self._first_passing(spec, rejected)
        if choice and not better:
            told = replace(self.evened, applied=False, reason="fails a gate, and without it the file passes")
            self._material = replace(plain, evened=told)
        return better or choice

    def _first_passing(self, spec: ExportSpec, rejected: list[Gate]) -> Choice | None:
        """Return the choice of the first variant that passes, the fastest first where they are timed."""
        measured = spec.plan == "measured"
        variants, failed = build_variants(self._material, self._folder, None if measured else (PRESET,))
        if PRESET in failed:
            raise ExportError(failed[PRESET])
        self._rows = {name: {"name": name, "reason": reason} for name, reason in failed.items()}
        for variant in self._by_speed(variants) if measured else variants:
            if variant.coverage is None:  # whatever follows is slower than the fp32 file
                break
            if choice := self._try(variant, (), rejected):
                return choice
        return None

    def _agreement(self, int8: Examined) -> float:
        """Return on which part of dev and pool a file decides as fp32 does, both by the thresholds that ship."""
        sides = [np.concatenate([side.dev, side.pool]) for side in (self.fp32, int8)]
        decided = [decode(self._kind.value, probs, int8.thresholds) for probs in sides]
        return float((decided[0] == decided[1]).all(axis=1).mean())

    def _by_speed(self, variants: Sequence[Variant]) -> list[Variant]:
        """Time all files in turns, note the figures, and return the variants in the order of the ranking."""
        opened = {variant.name: self._trial.open(variant.path) for variant in variants}
        chosen = texts_at_quantiles(opened[PRESET], [*self._trial.texts, *self._trial.pool])
        ranking = time_variants(opened, [text for _, text in chosen], PRESET)
        self._timing = {"timing": {"is_sound": ranking.is_sound, "control": asdict(ranking.control)}}
        by_name = {variant.name: variant for variant in variants}
        for timing in ranking.timings:
            self._rows[timing.name] = self._timed_row(timing, [tokens for tokens, _ in chosen])
            self._rows[timing.name]["bytes"] = by_name[timing.name].path.stat().st_size
        return [by_name[timing.name] for timing in ranking.timings]

    @staticmethod
    def _timed_row(timing: Timing, tokens: Sequence[int]) -> dict[str, Any]:
        return {
            "name": timing.name,
            "mean_ms": round(timing.mean, 4),
            "ratio": asdict(timing.ratio),
            "tokens": list(tokens),
            "p50_ms": [round(value, 4) for value in timing.milliseconds],
        }

    def _try(self, variant: Variant, kept: Sequence[str], rejected: list[Gate]) -> Choice | None:
        """Return the choice of `variant` when its gates pass; else add to `rejected` the gates of the first failure."""
        assert variant.coverage is not None
        examined = self._trial.examine(variant.path)
        gates = self._trial.judge(self.fp32, examined, variant.coverage, kept)
        failures = [gate.name for gate in gates if not gate.passed]
        row = self._rows.setdefault(variant.name, {"name": variant.name})
        row |= {"passed": not failures, "reason": ", ".join(failures)}
        if not failures:
            return Choice("int8", examined, tuple(gates), tuple(kept), self._about(variant.name))
        if not rejected:
            rejected += gates
        return None

    def _fall_back(self, rejected: list[Gate]) -> Choice | None:
        """Keep one layer after another in fp32, worst first, until the gates pass or a single one is left."""
        layers = layers_of(self._material.graph)
        reference = self.fp32.pool if self._trial.pool else self.fp32.dev
        ranked = worst_first(layers, self._answer_keeping, reference[:_SENSITIVITY_TEXTS], self._kind.value)
        for count in range(1, len(ranked)):
            kept = ranked[:count]
            name = f"{PRESET}, {', '.join(kept)} in fp32"
            path = self._folder / "kept.onnx"
            coverage = quantize_int8(self._material.source, path, [node for layer in kept for node in layers[layer]])
            if choice := self._try(Variant(name, path, coverage), kept, rejected):
                return choice
        return None

    def _answer_keeping(self, nodes: Sequence[str]) -> Floats:
        path = self._folder / "sensitivity.onnx"
        quantize_int8(self._material.source, path, nodes)
        finish_head(path, self._kind.value, self.fp32.temperature)
        return probabilities(self._trial.open(path), (self._trial.pool or self._trial.texts)[:_SENSITIVITY_TEXTS])

    def _ship_fp32(self, rejected: Sequence[Gate]) -> Choice:
        gates = rejected or self._trial.judge_company(self.fp32)
        return Choice("fp32", self.fp32, tuple(gates), about=self._about(_FP32))

    def _about(self, name: str) -> dict[str, Any]:
        return {"variant": name, "variants": list(self._rows.values()), **self._timing}
