"""directories.py, access.py and usage.py: what the daemon finds and keeps on its host."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied, RunnerdError
from runnerd.core.process import Identity
from runnerd.core.settings import ApiSettings, Config, Settings
from runnerd.launch.api_access import access_reader, credentials_reader
from runnerd.prefect_api.credentials import Credentials
from runnerd.processes.protocol import boot_id
from runnerd.spawner.proc.identity import read_start_ticks
from runnerd.system.directories import journal_path, lock_state, make_directories, runs_dir, work_dir
from runnerd.system.paths import Paths
from runnerd.system.usage import Usage, usage_of


def paths(home: Path) -> Paths:
    return Paths(
        config=str(home / "etc"),
        runtime=str(home / "run"),
        state=str(home / "lib"),
        log=str(home / "log"),
        credentials=None,
    )


# --- directories ------------------------------------------------------------------------------------------------


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


# --- access -----------------------------------------------------------------------------------------------------

API = ApiSettings(url="http://p/api")


def in_force(api: ApiSettings) -> ConfigInForce:
    return ConfigInForce(Config(settings=Settings(name="h", api=api)))


def test_files_win_over_everything(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "prefect-api-key").write_text("from-systemd")
    settings = replace(API, key_file=str(tmp_path / "key"))
    read = credentials_reader(in_force(settings), environ={"PREFECT_API_KEY": "env"}, directory=str(tmp_path))
    assert read() == Credentials(key="from-file")
    (tmp_path / "key").write_text("rotated\n")
    assert read() == Credentials(key="rotated")


def test_systemd_s_credential_wins_over_the_environment(tmp_path: Path) -> None:
    environ = {"PREFECT_API_KEY": "env", "PREFECT_API_AUTH_STRING": "u:p"}
    read = credentials_reader(in_force(API), environ=environ, directory=str(tmp_path))
    assert read() == Credentials(key="env", auth_string="u:p")
    (tmp_path / "prefect-api-key").write_text("from-systemd")
    assert read() == Credentials(key="from-systemd")


def test_no_credentials_at_all() -> None:
    assert credentials_reader(in_force(API), environ={"PREFECT_API_KEY": ""}, directory=None)() == Credentials()


def test_flows_get_the_same_access() -> None:
    found = Credentials(key="k", auth_string="u:p")
    access = access_reader("http://p/api", in_force(replace(API, headers={"X-A": "1"})), lambda: found)()
    assert access.url == "http://p/api"
    assert dict(access.environment) == {
        "PREFECT_API_KEY": "k",
        "PREFECT_API_AUTH_STRING": "u:p",
        "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-A": "1"}',
    }


def test_credentials_that_cannot_be_read_keep_no_flow_from_starting(tmp_path: Path) -> None:
    settings = replace(API, key_file=str(tmp_path / "none"))
    read = credentials_reader(in_force(settings), environ={}, directory=None)
    with pytest.raises(ApiDenied):
        read()
    assert dict(access_reader("u", in_force(settings), read)().environment) == {}


# --- usage ------------------------------------------------------------------------------------------------------


def identity(pid: int) -> Identity:
    ticks = read_start_ticks(pid)
    assert ticks is not None
    return Identity(boot_id=boot_id(), pid=pid, start_ticks=ticks)


def used_by(identity: Identity) -> Usage | None:
    return usage_of(identity, boot_id=boot_id())


def test_what_a_process_and_its_children_use() -> None:
    script = "sleep 100 & echo $!; wait"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True) as leader:
        assert leader.stdout is not None
        child = int(leader.stdout.readline())
        part, whole = used_by(identity(child)), used_by(identity(leader.pid))
        leader.kill()
        os.kill(child, 9)
    assert whole is not None
    assert part is not None
    assert whole.memory_bytes > part.memory_bytes > 0


def test_our_own_usage() -> None:
    used = used_by(identity(os.getpid()))
    assert used is not None
    assert used.memory_bytes > 2**20
    assert used.cpu_s > 0


def test_a_pid_alone_is_not_believed() -> None:
    ours = identity(os.getpid())
    assert used_by(replace(ours, boot_id="another boot")) is None
    assert used_by(replace(ours, start_ticks=ours.start_ticks + 10_000)) is None


def test_a_process_that_is_gone_uses_nothing() -> None:
    with subprocess.Popen(["sleep", "100"]) as process:
        gone = identity(process.pid)
        process.kill()
    assert used_by(gone) is None
