"""programs/pull_remote.py with a real fsspec, on files of this host: what is downloaded, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.kits.prefect_servers import ENVS
from tests.kits.sources import Program

Json = Any
PYTHON = ENVS / "prefect3" / "bin" / "python"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "flows").mkdir(parents=True)
    (folder / "flows" / "etl.py").write_text("one\n")
    (folder / "README").write_text("hello\n")
    return folder


@pytest.fixture
def program(code: Path, tmp_path: Path) -> Program:
    if not PYTHON.exists():
        pytest.fail(f"there is no {PYTHON}: run `make test` once, or tests/envs/make.sh prefect3")
    place = tmp_path / "place"
    place.mkdir()
    return Program(place, f"local://{code}", name="pull_remote", python=str(PYTHON))


def files(tree: str) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text() for path in Path(tree).rglob("*") if path.is_file()}


def test_a_version_is_a_hash_of_what_is_there(program: Program, code: Path) -> None:
    first = program.pull()
    assert files(first["directory"]) == {"flows/etl.py": "one\n", "README": "hello\n"}
    inode = os.stat(first["directory"]).st_ino
    assert program.pull() == first
    assert os.stat(first["directory"]).st_ino == inode
    (code / "flows" / "etl.py").write_text("two, longer\n")
    second = program.pull(keep=[os.path.basename(first["directory"])])
    assert second["commit"] != first["commit"]
    assert files(second["directory"])["flows/etl.py"] == "two, longer\n"
    assert files(first["directory"])["flows/etl.py"] == "one\n", "a tree in use does not change"
    (code / "flows" / "etl.py").write_text("one\n")
    again = program.pull()
    assert again["commit"] == first["commit"], "the same content"
    assert not os.path.exists(second["directory"]), "what is not in use is dropped"


def test_the_version_before_can_be_held(program: Program, code: Path) -> None:
    first = program.pull()
    (code / "README").write_text("changed\n")
    second = program.pull(history=[first["commit"]])
    held = program.pull(commit=first["commit"], history=[first["commit"]])
    assert held["directory"] == first["directory"] and files(held["directory"])["README"] == "hello\n"
    assert "is not here any more" in program.pull(commit="0" * 40)
    assert second["commit"] != held["commit"]


def test_what_is_refused(program: Program, code: Path) -> None:
    assert "too large" in program.pull(size_max=6)
    program.url = f"local://{code}/nothing"
    assert program.pull() == "there are no files in it"
    program.url = "nosuch://bucket/x"
    assert "fsspec has no way to it" in program.pull()


def test_entrypoints_that_are_links(program: Program, code: Path) -> None:
    """A link is downloaded as what it leads to: what is in the tree is a file."""
    (code / "out.py").symlink_to("/etc/hostname")
    assert program.pull(entrypoints=["out.py", "flows/etl.py"])["outside"] == []
