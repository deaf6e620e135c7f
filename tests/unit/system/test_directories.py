"""directories.py: what the daemon finds and makes on its host."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runnerd.core.errors import RunnerdError
from runnerd.system.directories import (
    clear_work_dir,
    journal_path,
    lock_state,
    make_directories,
    own_folders,
    runs_dir,
    work_dir,
)
from runnerd.system.paths import Paths


def paths(home: Path) -> Paths:
    return Paths(
        config=str(home / "etc"),
        runtime=str(home / "run"),
        state=str(home / "lib"),
        log=str(home / "log"),
        credentials=None,
    )


def test_its_own_folders_are_those_of_its_files_and_of_the_spawner(tmp_path: Path) -> None:
    ours = paths(tmp_path)._replace(config="etc", managed_spawner="/run/other/spawner.sock")
    folders = {os.path.abspath("etc"), ours.runtime, ours.state, ours.log, runs_dir(ours), "/run/other"}
    assert set(own_folders(ours)) == folders
    assert ours._replace(managed_spawner=None).spawner_dir in own_folders(paths(tmp_path))


def test_what_is_missing_is_made(tmp_path: Path) -> None:
    ours = paths(tmp_path / "new")
    make_directories(ours)
    make_directories(ours)
    for path in (ours.runtime, ours.spawner_dir, ours.state, ours.log, runs_dir(ours), work_dir(ours)):
        assert os.path.isdir(path), path
    assert os.path.dirname(journal_path(ours)) == ours.state
    assert not os.path.exists(ours.config)
    private = {path: os.stat(path).st_mode & 0o077 for path in (ours.state, work_dir(ours))}
    assert set(private.values()) == {0}


def test_what_inspections_of_a_killed_daemon_left_is_removed(tmp_path: Path) -> None:
    ours = paths(tmp_path)
    make_directories(ours)
    for name in ("inspect-1.log", "inspect-1.result"):
        Path(work_dir(ours), name).write_text("x")
    clear_work_dir(ours)
    assert os.listdir(work_dir(ours)) == []


def test_inspections_do_not_write_into_memory(tmp_path: Path) -> None:
    assert not work_dir(paths(tmp_path)).startswith(paths(tmp_path).runtime)


def test_a_directory_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunnerdError, match=r"cannot make the directory .*/file/run: .*--\*-dir"):
        make_directories(paths(tmp_path / "file"))


def test_one_daemon_a_state_directory(tmp_path: Path) -> None:
    ours = paths(tmp_path)
    make_directories(ours)
    held = lock_state(ours)
    with pytest.raises(RunnerdError, match=rf"another runnerd \(pid {os.getpid()}\) uses "):
        lock_state(ours)
    held.close()
    lock_state(ours).close()
