import hashlib
from pathlib import Path

import pytest

from teacher.files import file_digest, write_atomically


def test_a_written_file_stands_alone_under_its_name(tmp_path: Path) -> None:
    write_atomically(tmp_path / "answer", lambda path: path.write_text("new"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("answer", "new")]


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    seen = []

    def write(path: Path) -> None:
        path.write_text("half")
        seen.append((tmp_path / "answer").exists())

    write_atomically(tmp_path / "answer", write)
    assert seen == [False]


def test_a_failing_writer_leaves_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "answer").write_text("old")

    def write(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "answer", write)
    assert (tmp_path / "answer").read_text() == "old"


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_at_the_sync_leaves_the_older_file(tmp_path: Path) -> None:
    (tmp_path / "answer").write_text("old")
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "answer", lambda path: path.write_text("new"))
    assert (tmp_path / "answer").read_text() == "old"


def test_what_a_failed_write_left_does_not_disturb_the_next(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("a long half-written answer")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomically(tmp_path / "answer", write)
    write_atomically(tmp_path / "answer", lambda path: path.write_text("new"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("answer", "new")]


def test_a_digest_is_the_sha256_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"potstill")
    assert file_digest(tmp_path / "file") == hashlib.sha256(b"potstill").hexdigest()
