"""What this machine is: processor, instruction sets, limits, load and library versions.

Reads /proc, /sys and package metadata; imports none of the libraries it names, and never fails: what the
system does not tell is None.
"""

import contextlib
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Instruction sets that decide how fast int8 and bfloat16 run, as Linux spells them on x86 and Arm.
_ISA_FLAGS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16",
    "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
_LIBRARIES = ("numpy", "onnxruntime", "tokenizers", "torch", "transformers")
_GIB = 1024**3


def machine(root: Path = Path("/")) -> dict[str, Any]:
    """Return the machine as JSON values: sizes in GiB, CPU quota in cores, a missing library as None.

    `root` is the folder that holds `proc` and `sys`.
    """
    cpu, flags = _processor(root)
    memory = _memory_kib(root)
    return {
        "cpu": cpu,
        "isa": [flag for flag in _ISA_FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(root),
        "quota_cores": cpu_quota(root),
        "load_average": _load_average(),
        "memory_gib": _gib(memory.get("MemTotal"), 1024),
        "memory_available_gib": _gib(memory.get("MemAvailable"), 1024),
        "memory_limit_gib": _gib(_memory_limit(root), 1),
        "platform": platform.platform(terse=True),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _LIBRARIES},
    }


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many threads can really run at once: affinity and cgroup quota, at least 1.

    onnxruntime sizes its pool by the cores of the machine and so oversubscribes a container.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = cpu_quota(root)
    return affinity if quota is None else max(1, min(affinity, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU quota of this process in cores from cgroup v2 or v1; None when there is no limit."""
    limits = [_quota_v2(folder / "cpu.max") for folder in _cgroup_folders(root, "")]
    limits += [_quota_v1(folder) for folder in _cgroup_folders(root, "cpu")]
    return min((limit for limit in limits if limit is not None), default=None)


def _quota_v2(path: Path) -> float | None:
    quota, _, period = _read(path).partition(" ")
    return _number(quota) / _number(period) if quota.isdigit() and _number(period) > 0 else None


def _quota_v1(folder: Path) -> float | None:
    quota, period = (_number(_read(folder / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return quota / period if quota > 0 and period > 0 else None  # -1 means unlimited


def _memory_limit(root: Path) -> int | None:
    files = [folder / "memory.max" for folder in _cgroup_folders(root, "")]
    files += [folder / "memory.limit_in_bytes" for folder in _cgroup_folders(root, "memory")]
    limits = [int(text) for text in map(_read, files) if text.isdigit()]
    real = [limit for limit in limits if limit < 2**60]  # v1 writes a huge number for "unlimited"
    return min(real, default=None)


def _cgroup_folders(root: Path, controller: str) -> list[Path]:
    """Return this process's cgroup folder and all its parents; `controller` "" is version 2."""
    top = root / "sys/fs/cgroup" / controller
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            inner = top / path.lstrip("/")
            return [folder for folder in (inner, *inner.parents) if folder.is_relative_to(top)]
    return [top]


def _processor(root: Path) -> tuple[str | None, frozenset[str]]:
    fields: dict[str, str] = {}
    for line in _read(root / "proc/cpuinfo").splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags") or fields.get("Features") or ""
    return fields.get("model name") or platform.processor() or None, frozenset(flags.split())


def _memory_kib(root: Path) -> dict[str, int]:
    lines = (line.split() for line in _read(root / "proc/meminfo").splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _load_average() -> list[float] | None:
    with contextlib.suppress(OSError, AttributeError):
        return [round(load, 2) for load in os.getloadavg()]
    return None


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _gib(amount: int | None, unit: int) -> float | None:
    return None if amount is None else round(amount * unit / _GIB, 1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
