"""environment.py: environment files that others own."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerd.config.environment_file import ENVIRONMENT_FILE_MAX_BYTES
from runnerd.core.settings import RunSettings
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from tests.kits.nouns import make_sparse


async def build(path: Path, calls: BoundedCalls | None = None) -> dict[str, str] | str:
    run = RunSettings(python="python3", working_directory="/", environment_file=str(path))
    return await Environments(environ={}, calls=calls or BoundedCalls()).build(run)


async def test_an_environment_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(b"A=1\r\nB='two\r\nlines'\r\n")
    built = await build(tmp_path / "env")
    assert isinstance(built, dict)
    assert (built["A"], built["B"]) == ("1", "two\nlines")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (os.mkfifo, "not a regular file"),  # opening one without a writer would hold up everybody
        (os.mkdir, "not a regular file"),
        (lambda path: os.symlink("/dev/zero", path), "not a regular file"),
        (lambda path: os.symlink("absent", path), "No such file or directory"),
        (make_sparse, f"larger than {ENVIRONMENT_FILE_MAX_BYTES // 1024} KiB"),
        (lambda path: path.write_bytes(b"A=\xff"), "it is not UTF-8"),
    ],
)
async def test_what_is_no_environment_file_is_refused(tmp_path: Path, make: Callable[[Path], object], why: str) -> None:
    make(tmp_path / "env")
    assert await build(tmp_path / "env") == f"environment_file {tmp_path}/env: {why}"
