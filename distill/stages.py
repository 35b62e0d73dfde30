"""Stages talk through directories: keys that say when one is stale, and a way to build one that is never half read.

A stage directory is built under a hidden name beside its target, synced, and renamed; its lineage, the file
`lineage/<directory>.json` beside it, is written last. It stands outside because a bundle holds nothing that its
manifest does not list. Knows nothing of what a stage does.
"""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from distill import __version__
from teacher.files import write_atomically

_KEY = ".key"
# What safetensors and tokenizers say, and torch.save, which notices only that its file is too short.
_FULL_DISK_SIGNS = ("No space left on device", "inline_container.cc", "iostream error")


class Lineage(BaseModel):
    """What a finished stage directory was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    key: str
    version: str
    section: dict[str, Any]
    inputs: dict[str, str]
    seconds: float
    created: str


@dataclass(frozen=True, slots=True)
class StageStatus:
    """One stage of a run: `done`, `stale` or `missing`, and for a stale one what changed."""

    name: str
    state: str
    reason: str = ""


def stage_key(stage: str, section: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 over a stage's name, resolved section, code version and the keys of its inputs."""
    identity = json.dumps([stage, __version__, section, dict(inputs)], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def read_lineage(directory: Path) -> Lineage | None:
    """Return the lineage of a finished stage directory; None when it is missing, unfinished or damaged."""
    try:
        lineage = Lineage.model_validate_json(lineage_path(directory).read_text(encoding="utf-8"))
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    return lineage if directory.is_dir() else None


def lineage_path(directory: Path) -> Path:
    """Return where the lineage of a stage directory stands."""
    return directory.parent / "lineage" / f"{directory.name}.json"


def stage_status(stage: str, directory: Path, section: Mapping[str, Any], inputs: Mapping[str, str]) -> StageStatus:
    """Compare a stage directory with what the config wants of it now."""
    lineage = read_lineage(directory)
    if lineage is None:
        return StageStatus(stage, "missing")
    if lineage.key == stage_key(stage, section, inputs):
        return StageStatus(stage, "done")
    reasons = [f"{path} changed" for path in _differences(lineage.section, json.loads(json.dumps(section)))]
    reasons += [f"{name} is newer" for name, key in inputs.items() if lineage.inputs.get(name) != key]
    if lineage.version != __version__:
        reasons.append(f"made by version {lineage.version}")
    return StageStatus(stage, "stale", ", ".join(reasons) or "made differently")


@contextmanager
def building(stage: str, target: Path, section: Mapping[str, Any], inputs: Mapping[str, str]) -> Iterator[Path]:
    """Give a directory to fill; put it in the place of `target`, whole, when the block ends well.

    What an interrupted build of the same key left there is kept, so that a stage can go on from it.
    """
    key = stage_key(stage, section, inputs)
    partial = partial_directory(target)
    started = time.monotonic()
    try:
        prepare_partial(partial, key)
        yield partial
    except Exception as error:
        _name_full_disk(error, partial)
        raise
    lineage = Lineage(
        stage=stage,
        key=key,
        version=__version__,
        section=dict(section),
        inputs=dict(inputs),
        seconds=round(time.monotonic() - started, 2),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    _sync(partial)
    (partial / _KEY).unlink()  # not before: with it, a build that a full disk kept from being synced goes on
    _sync_path(partial)
    lineage_path(target).unlink(missing_ok=True)
    _replace(partial, target)
    lineage_path(target).parent.mkdir(exist_ok=True)
    write_atomically(
        lineage_path(target), lambda path: path.write_text(lineage.model_dump_json(indent=2), encoding="utf-8")
    )


def partial_directory(target: Path) -> Path:
    """Return the hidden directory in which `target` is built."""
    return target.with_name(f".{target.name}.partial")


def prepare_partial(partial: Path, key: str) -> None:
    """Make an empty build directory for `key`, or keep the one that an interrupted build of it left."""
    marker = partial / _KEY
    if not (marker.is_file() and marker.read_text(encoding="utf-8") == key):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        marker.write_text(key, encoding="utf-8")


def _name_full_disk(error: Exception, partial: Path) -> None:
    """Raise OSError with the path when `error` is how some library, or a write without a name, tells of a full disk."""
    if getattr(error, "errno", None) == errno.ENOSPC or any(sign in str(error) for sign in _FULL_DISK_SIGNS):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error


def _replace(source: Path, target: Path) -> None:
    """Rename `source` to `target`; an older target steps aside first and is removed last."""
    older = target.with_name(f".{target.name}.older")
    shutil.rmtree(older, ignore_errors=True)
    if target.exists():
        target.rename(older)
    source.rename(target)
    _sync_path(target.parent)
    shutil.rmtree(older, ignore_errors=True)


def _sync(directory: Path) -> None:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            _sync_path(path)
    _sync_path(directory)


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _differences(before: Any, after: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            found
            for name in sorted({*before, *after})
            for found in _differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
        ]
    return [] if before == after else [path]
