"""regular.py: what is read, and what is refused at once."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerd.files.regular import read_regular, read_start
from tests.kits.nouns import make_sparse


def test_files_up_to_the_maximum(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_regular(str(path), max_bytes=10) == b"x" * 10
    assert read_start(str(path), max_bytes=4) == b"x" * 4
    with pytest.raises(OSError, match="larger than 0 KiB"):
        read_regular(str(path), max_bytes=9)


def test_a_file_without_a_size_is_bounded_by_what_is_read() -> None:
    assert os.stat("/proc/self/status").st_size == 0
    assert read_regular("/proc/self/status", max_bytes=2**20).startswith(b"Name:")
    with pytest.raises(OSError, match="larger than"):
        read_regular("/proc/self/status", max_bytes=8)


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "not a regular file"),
        (bind, "No such device or address"),
        (lambda path: os.symlink("/dev/zero", path), "not a regular file"),
        (lambda path: os.symlink("/dev/ptmx", path), "not a regular file"),
        (lambda path: os.symlink("absent", path), "No such file"),
        (lambda path: os.symlink(path, path), "Too many levels"),
        (make_sparse, "larger than 1 KiB"),
    ],
)
def test_what_is_refused(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    make(tmp_path / "it")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=why):
        read_regular(str(tmp_path / "it"), max_bytes=1024)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_start_of_a_sparse_file(tmp_path: Path) -> None:
    make_sparse(tmp_path / "it")
    assert read_start(str(tmp_path / "it"), max_bytes=1024) == bytes(1024)
