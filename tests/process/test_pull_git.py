"""programs/pull_git.py against real repositories behind a real server: what is checked out, and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import eventually
from tests.kits.git_server import GitServer, Repository, git, serving_git
from tests.kits.sources import Program

Json = Any
SECRET = "ada:s3cr3t-pa55word"


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


def files(tree: str) -> dict[str, str]:
    return {str(path.relative_to(tree)): path.read_text() for path in Path(tree).rglob("*") if path.is_file()}


def trees(done: Json) -> list[str]:
    return sorted(os.listdir(os.path.dirname(done["directory"])))


# --- what is checked out ------------------------------------------------------------------------------------------


def test_a_branch_is_checked_out_once_for_each_commit(program: Program, repository: Repository) -> None:
    first = program.pull(branch="main")
    assert first["commit"] == git(repository.work, "rev-parse", "HEAD")
    assert files(first["directory"]) == {"flows/etl.py": "one\n", "other/big.py": "x\n", "README": "hello\n"}
    stamp = os.stat(first["directory"]).st_ino
    assert program.pull(branch="main") == first
    assert os.stat(first["directory"]).st_ino == stamp, "not once more"
    commit = repository.commit({"flows/etl.py": "two\n"})
    second = program.pull(branch="main", keep=[os.path.basename(first["directory"])])
    assert second["commit"] == commit
    assert files(second["directory"])["flows/etl.py"] == "two\n"
    assert files(first["directory"])["flows/etl.py"] == "one\n", "a tree in use does not change"
    program.pull(branch="main")
    assert trees(second) == [os.path.basename(second["directory"])], "one that is not in use is dropped"


def test_the_default_branch_a_tag_and_a_commit(program: Program, repository: Repository) -> None:
    old = git(repository.work, "rev-parse", "HEAD")
    git(repository.work, "tag", "--annotate", "--message", "t", "v1")
    git(repository.work, "push", "--quiet", "origin", "v1")
    new = repository.commit({"flows/etl.py": "two\n"})
    assert program.pull()["commit"] == new
    assert program.pull(tag="v1")["commit"] == old
    assert files(program.pull(commit=old)["directory"])["flows/etl.py"] == "one\n"


def test_a_commit_that_is_known_needs_no_server(program: Program, repository: Repository, server: GitServer) -> None:
    old = program.pull(branch="main")["commit"]
    repository.commit({"flows/etl.py": "two\n"})
    program.pull(branch="main", history=[old])
    asked = len(server.asked)
    again = program.pull(commit=old, history=[old])
    assert files(again["directory"])["flows/etl.py"] == "one\n", "its objects were kept, its tree was not"
    assert len(server.asked) == asked


def test_only_the_directories_that_are_named(program: Program, repository: Repository) -> None:
    repository.commit({"flows/deep/a.py": "a\n", "flows/deep/er/b.py": "b\n", "flows/beside.py": "c\n"})
    sparse = program.pull(branch="main", directories=["flows/deep"])
    assert set(files(sparse["directory"])) == {
        *("README", "flows/etl.py", "flows/beside.py", "flows/deep/a.py", "flows/deep/er/b.py"),
    }
    assert program.pull(branch="main")["directory"] != sparse["directory"], "another tree of the same commit"


def test_submodules_are_fetched_from_their_own_repositories(
    program: Program, repository: Repository, server: GitServer
) -> None:
    library = Repository(repository.path.parent, "lib.git")
    pinned = library.commit({"lib.py": "lib\n"})
    library.commit({"lib.py": "newer\n"})
    repository.write({".gitmodules": '[submodule "lib"]\n\tpath = vendor/lib\n\turl = ../lib.git\n'})
    git(repository.work, "update-index", "--add", "--cacheinfo", f"160000,{pinned},vendor/lib")
    git(repository.work, "add", ".gitmodules")
    git(repository.work, "commit", "--quiet", "--message", "module")
    git(repository.work, "push", "--quiet", "origin", "HEAD:main")
    assert "vendor/lib/lib.py" not in files(program.pull(branch="main")["directory"])
    whole = program.pull(branch="main", submodules=True)
    assert files(whole["directory"])["vendor/lib/lib.py"] == "lib\n"


def test_a_tree_in_which_a_process_is_stays(program: Program, repository: Repository) -> None:
    first = program.pull(branch="main")
    with subprocess.Popen(["sleep", "600"], cwd=os.path.join(first["directory"], "flows")) as process:
        repository.commit({"flows/etl.py": "two\n"})
        program.pull(branch="main")
        assert files(first["directory"])["flows/etl.py"] == "one\n"
        process.kill()
    program.pull(branch="main")
    assert not os.path.exists(first["directory"])


# --- credentials --------------------------------------------------------------------------------------------------


def test_a_password_reaches_the_server_and_nothing_else(
    program: Program, repository: Repository, server: GitServer
) -> None:
    server.login = SECRET
    seen: list[str] = []

    def note(request: BaseHTTPRequestHandler) -> bool:
        seen.extend(everything_of_processes(program))
        return False

    server.answer = note
    done = program.pull(branch="main", secret=SECRET.split(":"))
    assert done["commit"] == git(repository.work, "rev-parse", "HEAD")
    assert SECRET in server.logins
    password = SECRET.partition(":")[2]
    assert seen, "processes were seen while git asked"
    assert not [text for text in seen if password in text], "no argument and no variable of a process has it"
    stored = subprocess.run(["grep", "-rl", password, str(program.place)], capture_output=True, check=False)
    assert stored.stdout == b"", "no file has it"


def everything_of_processes(program: Program) -> list[str]:
    """The command lines and environments of all processes of this user that pull."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"git" in command or b"RUNNERD_PROGRAM" in command:
                found.append((command + Path(f"/proc/{pid}/environ").read_bytes()).decode(errors="replace"))
        except OSError:
            continue
    return [text for text in found if str(program.place) in text or "git-remote" in text or "RUNNERD" in text]


def test_without_a_password_nothing_prompts(program: Program, server: GitServer) -> None:
    server.login = SECRET
    assert program.pull(branch="main") == "the repository needs a password; set credentials_file"
    wrong = program.pull(branch="main", secret=["ada", "wrong"])
    assert wrong == "the repository does not accept the credentials"


def test_another_server_does_not_get_the_password(
    program: Program, repository: Repository, server: GitServer, tmp_path: Path
) -> None:
    library = Repository(tmp_path / "elsewhere", "lib.git")
    pinned = library.commit({"lib.py": "lib\n"})
    with serving_git(library.path.parent) as other:
        other.login = SECRET
        repository.write({".gitmodules": f'[submodule "lib"]\n\tpath = lib\n\turl = {other.url("lib.git")}\n'})
        git(repository.work, "update-index", "--add", "--cacheinfo", f"160000,{pinned},lib")
        git(repository.work, "add", ".gitmodules")
        git(repository.work, "commit", "--quiet", "--message", "module")
        git(repository.work, "push", "--quiet", "origin", "HEAD:main")
        said = program.pull(branch="main", submodules=True, secret=SECRET.split(":"))
        assert isinstance(said, str)
        assert "password" in said or "credentials" in said
        assert other.logins == []


# --- hostile repositories -----------------------------------------------------------------------------------------


def test_what_is_not_there(program: Program, server: GitServer, tmp_path: Path) -> None:
    program.pull(branch="main")
    assert program.pull(branch="gone") == "branch gone is not in the repository (any more)"
    assert program.pull(tag="gone") == "tag gone is not in the repository (any more)"
    assert program.pull(commit="1" * 40) == f"commit {'1' * 40} is not in the repository (any more)"
    program.url = server.url("nothing.git")
    assert program.pull(branch="main") == "there is no such repository, or it needs other credentials"
    program.url = "http://127.0.0.1:1/etl.git"
    assert "127.0.0.1" in program.pull(branch="main")


@pytest.mark.parametrize(
    "url",
    ["ext::sh -c 'touch /tmp/x'", "file://localhost/etc", "/srv/etl.git", "--upload-pack=touch x", "-u", "git://h/x"],
)
def test_other_transports_are_refused(program: Program, url: str) -> None:
    program.url = url
    said = program.pull(branch="main")
    assert "is neither an http, https nor ssh URL" in said


def test_transports_of_submodules_are_refused(program: Program, repository: Repository) -> None:
    marker = program.place / "ran"
    url = f"ext::sh -c touch% {marker}"
    repository.write({".gitmodules": f'[submodule "m"]\n\tpath = m\n\turl = "{url}"\n'})
    git(repository.work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},m")
    git(repository.work, "add", ".gitmodules")
    git(repository.work, "commit", "--quiet", "--message", "module")
    git(repository.work, "push", "--quiet", "origin", "HEAD:main")
    said = program.pull(branch="main", submodules=True)
    assert "is neither an http, https nor ssh URL" in said
    assert not marker.exists()


def test_nothing_of_the_repository_is_run(program: Program, repository: Repository, tmp_path: Path) -> None:
    """Its filter is named by .gitattributes, and a configuration of the user's defines it."""
    marker = tmp_path / "ran"
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[filter "bad"]\n\tsmudge = touch {marker}\n\trequired = true\n[core]\n\tfsmonitor = touch {marker}\n'
        f"[init]\n\ttemplateDir = {tmp_path}/template\n"
    )
    hooks = tmp_path / "template" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {marker}\n")
        (hooks / name).chmod(0o755)
    program.environment = {"HOME": str(home), "GIT_TEMPLATE_DIR": str(tmp_path / "template"), "GIT_EXEC_PATH": "/bad"}
    repository.commit({".gitattributes": "* filter=bad\n", "flows/etl.py": "raw\n"})
    done = program.pull(branch="main")
    assert files(done["directory"])["flows/etl.py"] == "raw\n"
    assert not marker.exists()


def test_an_entrypoint_that_leads_out_of_the_tree(program: Program, repository: Repository) -> None:
    (repository.work / "flows" / "out.py").symlink_to("/etc/passwd")
    (repository.work / "flows" / "in.py").symlink_to("etl.py")
    (repository.work / "away").symlink_to("/etc")
    repository.commit()
    done = program.pull(branch="main", entrypoints=["flows/out.py", "flows/in.py", "flows/etl.py", "away/passwd"])
    assert done["outside"] == ["flows/out.py", "away/passwd"]


def test_one_that_is_too_large_is_not_fetched(program: Program, repository: Repository) -> None:
    first = program.pull(branch="main")
    (repository.work / "big").write_bytes(os.urandom(3 * 2**20))
    repository.commit()
    said = program.pull(branch="main", size_max=2**20, keep=[os.path.basename(first["directory"])])
    assert "too large" in said
    assert files(first["directory"])["flows/etl.py"] == "one\n"
    repository.work.joinpath("big").unlink()
    repository.commit()
    done = program.pull(branch="main", size_max=2**20)
    assert isinstance(done, dict), done
    assert done["commit"] == git(repository.work, "rev-parse", "HEAD")


def test_a_tree_that_is_large_only_when_it_is_written(program: Program, repository: Repository) -> None:
    """Much smaller in the repository: one object with a thousand names."""
    (repository.work / "zeros").write_bytes(bytes(2**20))
    blob = git(repository.work, "hash-object", "-w", "zeros")
    entries = "".join(f"100644 {blob}\tzeros-{number}\n" for number in range(1000))
    git(repository.work, "update-index", "--index-info", given=entries.encode())
    git(repository.work, "commit", "--quiet", "--message", "many")
    git(repository.work, "push", "--quiet", "origin", "HEAD:main")
    said = program.pull(branch="main", size_max=64 * 2**20)
    assert said.startswith("its tree is too large: 100")


def test_a_server_that_never_answers_is_left_to_the_time_limit(program: Program, server: GitServer) -> None:
    """The spawner ends it, with git below it; what is left disturbs no later pull."""

    def hang(request: BaseHTTPRequestHandler) -> bool:
        server.released.wait()
        return True

    server.answer = hang
    process = program.start(branch="main")
    eventually(lambda: server.asked, "git to ask")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    server.answer = lambda request: False
    for pid in [int(pid) for pid in os.listdir("/proc") if pid.isdigit()]:
        if is_of(pid, program):
            os.kill(pid, signal.SIGKILL)
    assert "commit" in program.pull(branch="main")


def is_of(pid: int, program: Program) -> bool:
    try:
        return program.url.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_folder_of_another_user_is_refused(program: Program) -> None:
    own = program.place / f"{os.geteuid()}-t0"
    own.symlink_to("/etc")
    assert "is not a directory of this user alone" in program.pull(branch="main")
    own.unlink()
    own.mkdir(mode=0o777)
    own.chmod(0o777)
    assert "is not a directory of this user alone" in program.pull(branch="main")


def test_what_a_killed_pull_has_left_is_removed(program: Program, repository: Repository) -> None:
    first = program.pull(branch="main")
    folder = Path(first["directory"]).parent
    (folder / ".new-x").mkdir()
    (folder.parent / "git" / "shallow.lock").touch()
    packs = folder.parent / "git" / "objects" / "pack"
    (packs / "tmp_pack_x").write_text("x")
    repository.commit()
    done = program.pull(branch="main")
    assert trees(done) == [os.path.basename(done["directory"])]
    assert not (packs / "tmp_pack_x").exists()
