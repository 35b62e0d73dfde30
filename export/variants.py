"""The ways in which one student may run on a CPU, each a file: which there are and how each is built.

Knows nothing of speed or quality; what is built is timed by `plan.py` and judged by `gate.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from transformers import AutoConfig, AutoTokenizer

from export.coverage import Coverage
from export.errors import ExportError
from export.graph import export_graph
from export.quantize import Feed, quantize_int8, quantize_static_int8, quantize_weights, quiet
from export.sessions import open_session
from export.smoothing import smooth_inputs
from export.surgery import MAX_CHANGE, Rewrite
from export.tokens import TextTokenizer

PRESET = "dynamic_int8"  # the fastest on the VNNI processor of LOG.md at every length
EVEN_INPUTS = "even_inputs"
_CALIBRATION_TEXTS = 128
_SMOOTHING_TEXTS = 48


@dataclass(frozen=True, slots=True)
class Material:
    """What a variant is built from: `graph` is the fp32 file after surgery, `texts` calibrate activations.

    `source` answers as `graph` does and is what int8 is made from; `evened` says how it differs.
    """

    checkpoint: Path
    graph: Path
    texts: Sequence[str]
    source: Path
    evened: Rewrite


@dataclass(frozen=True, slots=True)
class Variant:
    """One built file; `coverage` is None for fp32."""

    name: str
    path: Path
    coverage: Coverage | None


def plain_material(checkpoint: Path, graph: Path, texts: Sequence[str]) -> Material:
    """Return the material of a student as it was exported."""
    return Material(checkpoint, graph, texts, graph, Rewrite(EVEN_INPUTS, False, None, "int8 decides as fp32 does"))


def even_material(given: Material) -> Material:
    """Return the material whose int8 products read even inputs: proved on texts, written beside the graph."""
    even, feeds = given.graph.with_suffix(".even"), _feeds(given.checkpoint, given.texts[:_SMOOTHING_TEXTS])
    left = smooth_inputs(given.graph, even, feeds)
    sessions = [open_session(path.read_bytes(), threads=1) for path in (given.graph, even)]
    answers = [[session.run(["logits"], dict(feed))[0] for feed in feeds] for session in sessions]
    change = max((float(np.abs(one - other).max()) for one, other in zip(*answers, strict=True)), default=0.0)
    if left and change < MAX_CHANGE:
        named = ", ".join(f"{name.strip('/').removesuffix('/MatMul')} {share:.0%}" for name, share in left.items())
        return replace(given, source=even, evened=Rewrite(EVEN_INPUTS, True, change, f"int8 error left: {named}"))
    reason = f"changes a logit by {change:.2g}" if left else "no product would gain enough"
    return replace(given, evened=Rewrite(EVEN_INPUTS, False, change, reason))


def build_variants(
    material: Material, folder: Path, names: Sequence[str] | None = None
) -> tuple[list[Variant], dict[str, str]]:
    """Build the named variants (None: all) into `folder`; return them, and the reason for each that failed."""
    built, failed = [], {}
    for name in names or VARIANTS:
        target = folder / f"{name}.onnx"
        try:
            built.append(Variant(name, target, VARIANTS[name](material, target)))
        except ExportError as error:
            failed[name] = str(error)
    return built, failed


def _dynamic(material: Material, target: Path) -> Coverage:
    return quantize_int8(material.source, target)


def _float_tables(material: Material, target: Path) -> Coverage:
    return quantize_int8(material.source, target, embeddings=False)


def _fused(material: Material, target: Path) -> Coverage:
    """Fuse the plain graph with onnxruntime.transformers first: attention becomes QAttention."""
    plain, fused = target.with_suffix(".plain"), target.with_suffix(".fused")
    export_graph(material.checkpoint, plain, plain=True)
    config = AutoConfig.from_pretrained(material.checkpoint)
    with quiet():
        try:
            from onnxruntime.transformers.optimizer import optimize_model

            model = optimize_model(
                str(plain), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0
            )
            model.save_model_to_file(str(fused))
        except Exception as error:  # it raises whatever a graph that it does not know makes it raise
            raise ExportError(f"{plain}: onnxruntime.transformers does not fuse it ({error})") from error
    return quantize_int8(fused, target)


def _static(material: Material, target: Path) -> Coverage:
    feeds = _feeds(material.checkpoint, material.texts[:_CALIBRATION_TEXTS])
    return quantize_static_int8(material.source, target, feeds)


def _blocks(material: Material, target: Path) -> Coverage:
    return quantize_weights(material.source, target)


def _fp32(material: Material, target: Path) -> None:
    target.write_bytes(material.graph.read_bytes())


VARIANTS: Mapping[str, Callable[[Material, Path], Coverage | None]] = {
    PRESET: _dynamic,
    "dynamic_int8_float_tables": _float_tables,
    "fused_dynamic_int8": _fused,
    "static_int8": _static,
    "block_int8": _blocks,
    "fp32": _fp32,
}


def _feeds(checkpoint: Path, texts: Sequence[str]) -> list[Feed]:
    longest = int(AutoTokenizer.from_pretrained(checkpoint).model_max_length)
    tokenizer = TextTokenizer((checkpoint / "tokenizer.json").read_bytes(), longest)
    ids = [encoding.ids[None] for encoding in tokenizer.encode_many(texts)]
    return [{"input_ids": row, "attention_mask": np.ones_like(row)} for row in ids if row.size]
