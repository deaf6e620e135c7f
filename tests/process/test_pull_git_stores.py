"""programs/pull_git.py against what servers can send that git would not make, over ssh, and with stores of no use any
more; test_pull_git.py has the rest."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.git_server import GitServer, Repository, git, serving_git
from tests.kits.sources import Program


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / "srv")
    repository.commit({"flows/etl.py": "one\n", "other/big.py": "x\n", "README": "hello\n"})
    return repository


@pytest.fixture
def server(repository: Repository) -> Iterator[GitServer]:
    with serving_git(repository.path.parent) as server:
        yield server


@pytest.fixture
def program(server: GitServer, tmp_path: Path) -> Program:
    place = tmp_path / "place"
    place.mkdir()
    return Program(place, server.url())


def test_submodules_count_for_the_size_of_the_tree(program: Program, repository: Repository) -> None:
    library = Repository(repository.path.parent, "lib.git")
    (library.work / "zeros").write_bytes(bytes(2**20))
    pinned = library.commit()
    names = [f"m{number}" for number in range(8)]
    repository.write(
        {".gitmodules": "".join(f'[submodule "{one}"]\n\tpath = {one}\n\turl = ../lib.git\n' for one in names)}
    )
    for one in names:
        git(repository.work, "update-index", "--add", "--cacheinfo", f"160000,{pinned},{one}")
    git(repository.work, "add", ".gitmodules")
    git(repository.work, "commit", "--quiet", "--message", "modules")
    git(repository.work, "push", "--quiet", "origin", "HEAD:main")
    said = program.pull(branch="main", submodules=True, size_max=4 * 2**20)
    assert isinstance(said, str) and said.startswith("its tree is too large: "), said
    assert "commit" in program.pull(branch="main", submodules=True, size_max=9 * 2**20)


@pytest.mark.parametrize("name", ["..", ".git", ".GIT", "link"])
def test_a_submodule_that_leads_out_of_the_tree(
    program: Program, repository: Repository, name: str, tmp_path: Path
) -> None:
    """Trees that git makes none of, and that a server can send; the link has the name of the submodule beside it."""
    library = Repository(repository.path.parent, "lib.git")
    pinned = library.commit({"planted": "x\n"})
    away = tmp_path / "away"
    away.mkdir()
    modules = git(
        repository.work, "hash-object", "-w", "--stdin",
        given=f'[submodule "m"]\n\tpath = {name}\n\turl = ../lib.git\n'.encode(),
    )  # fmt: skip
    entries = [(b"100644", b".gitmodules", modules), (b"160000", name.encode(), pinned)]
    if name == "link":
        target = git(repository.work, "hash-object", "-w", "--stdin", given=bytes(away))
        entries.insert(1, (b"120000", b"link", target))
    raw = b"".join(b"%s %s\0%s" % (mode, path, bytes.fromhex(sha)) for mode, path, sha in entries)
    tree = git(repository.work, "hash-object", "-t", "tree", "-w", "--stdin", "--literally", given=raw)
    commit = git(repository.work, "commit-tree", "-m", "hostile", tree)
    git(repository.work, "push", "--quiet", "--force", "origin", f"{commit}:refs/heads/main")
    said = program.pull(branch="main", submodules=True)
    assert said == f"the submodule {name} is outside the tree"
    assert not [path for path in (*program.place.rglob("planted"), *away.iterdir()) if path]


def test_an_address_of_ssh(program: Program, repository: Repository, tmp_path: Path) -> None:
    """With a stand-in for ssh on PATH, which says how it was called: in batch mode, and with nothing of the user's."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\nfor last; do :; done\nexec sh -c "$last"\n')
    (tools / "ssh").chmod(0o755)
    program.environment = {"PATH": f"{tools}:{os.environ['PATH']}", "GIT_SSH_COMMAND": "/bad", "GIT_SSH": "/bad"}
    for url in (f"ssh://git@host.example{repository.path}", f"git@host.example:{repository.path}"):
        program.url = url
        assert program.pull(branch="main")["commit"] == git(repository.work, "rev-parse", "HEAD")
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked and all("-oBatchMode=yes" in line and "git@host.example" in line for line in asked)
    (tools / "ssh").write_text("#!/bin/sh\necho 'git@host.example: Permission denied (publickey).' >&2\nexit 255\n")
    assert "Permission denied (publickey)" in program.pull(branch="main")


def age(store: Path) -> None:
    os.utime(store / "lock", times=(0, 0))


def test_a_store_that_no_deployment_has_is_dropped_after_a_week(
    program: Program, repository: Repository, server: GitServer, tmp_path: Path
) -> None:
    old = Path(program.pull(branch="main")["directory"]).parents[1]
    Repository(repository.path.parent, "new.git").commit({"a.py": "a\n"})
    program.url = server.url("new.git")
    program.pull(branch="main")
    assert old.exists(), "it was pulled a moment ago"
    age(old)
    program.pull(branch="main", stores=[old.name])
    program.pull(branch="main", stores=None)
    assert old.exists(), "a deployment has it, or too many have one"
    (tree,) = (old / "trees").iterdir()
    with subprocess.Popen(["sleep", "600"], cwd=tree / "flows") as process:
        program.pull(branch="main")
        process.kill()
    assert old.exists(), "a process is in it"
    (tmp_path / "other" / "trees").mkdir(parents=True)
    (tmp_path / "other" / "lock").touch()
    age(tmp_path / "other")
    (old.parent / "0123456789abcdef").symlink_to(tmp_path / "other")
    (old.parent / "notes").mkdir()
    (old.parent / "notes" / "lock").touch()
    age(old.parent / "notes")
    (tree / "flows").chmod(0o555)
    (tree / "away").symlink_to(tmp_path / "other")
    program.pull(branch="main")
    assert not old.exists()
    assert (tmp_path / "other" / "trees").exists(), "no link is followed"
    assert (old.parent / "notes").exists(), "runnerd made no folder of that name"
