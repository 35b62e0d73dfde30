"""The ways in which one student may run on a CPU, each a file: which there are and how each is built.

Knows nothing of speed or quality; what is built is timed by `plan.py` and judged by `gate.py`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from transformers import AutoConfig

from export.coverage import Coverage
from export.errors import ExportError
from export.graph import export_graph
from export.quantize import Feed, quantize_int8, quantize_static_int8, quantize_weights, quiet

PRESET = "dynamic_int8"  # the fastest on the VNNI processor of LOG.md at every length
_CALIBRATION_TEXTS = 128


@dataclass(frozen=True, slots=True)
class Material:
    """What a variant is built from: `graph` is the fp32 file after surgery, `texts` calibrate activations."""

    checkpoint: Path
    graph: Path
    texts: Sequence[str]


@dataclass(frozen=True, slots=True)
class Variant:
    """One built file; `coverage` is None for fp32."""

    name: str
    path: Path
    coverage: Coverage | None


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
    return quantize_int8(material.graph, target)


def _float_tables(material: Material, target: Path) -> Coverage:
    return quantize_int8(material.graph, target, embeddings=False)


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
    return quantize_static_int8(material.graph, target, _feeds(material))


def _blocks(material: Material, target: Path) -> Coverage:
    return quantize_weights(material.graph, target)


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


def _feeds(material: Material) -> Iterator[Feed]:
    tokenizer = Tokenizer.from_file(str(material.checkpoint / "tokenizer.json"))
    tokenizer.no_padding()
    for encoding in tokenizer.encode_batch_fast(list(material.texts[:_CALIBRATION_TEXTS])):
        if len(encoding):
            ids = np.array([encoding.ids], np.int64)
            yield {"input_ids": ids, "attention_mask": np.ones_like(ids)}
