"""Files that are whole or absent, and their digests."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name beside `path`, sync it, and rename it over `path`."""
    temporary = path.with_name(f".{path.name}.partial")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_digest(path: Path) -> str:
    """Return the SHA-256 of a file, or over the relative names and digests of all files of a folder, as hex."""
    if path.is_file():
        return file_digest(path)
    lines = [
        f"{one.relative_to(path).as_posix()} {file_digest(one)}" for one in sorted(path.rglob("*")) if one.is_file()
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
