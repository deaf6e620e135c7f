"""machine.py: D-Bus, users, directories, files and credentials of the host."""

from __future__ import annotations

import os
import pwd
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.place import Place
from runnerd.core.settings import ControlSettings, RunSettings
from runnerd.doctor.checks import Check, check_directory
from runnerd.doctor.machine import (
    check_config_files,
    check_control_groups,
    check_credentials,
    check_dbus,
    check_directories,
    check_users,
)
from runnerd.doctor.subject import Source
from runnerd.spawner.child.users import AllowedUsers
from runnerd.system.paths import Paths
from runnerd.system.run_program import ProgramResult
from tests.kits.checks import state_and_words
from tests.kits.config import DEFAULTS, ConfigDir
from tests.kits.doctor import practice

ME = pwd.getpwuid(os.geteuid()).pw_name
NAMELESS = "deployments:\n  - name: NAME\n    entrypoint: flows/etl.py:nightly\n"
needs_no_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


def source(name: str, user: str | None, group: str | None = None) -> Source:
    run = RunSettings(python="python3", working_directory="/", user=user, group=group)
    return Source(name=name, run=run, place=Place("/etc/runnerd/conf.d/a.yaml", 3, 5))


async def dbus(ran: ProgramResult, unit: str | None = "runnerd.service") -> Check:
    async def run(*argv: str) -> ProgramResult:
        assert argv[:2] == ("systemctl", "list-jobs")
        return ran

    return await check_dbus(run, unit=unit)


async def test_dbus() -> None:
    state_and_words(await dbus(ProgramResult(0, "", "")), "ok", "list-jobs answers")
    failed = await dbus(ProgramResult(1, "", "Failed to connect to bus: No such file or directory\nmore"))
    state_and_words(
        failed, "error", "(Failed to connect to bus: No such file or directory)", "handled as a restart", "dbus"
    )
    state_and_words(await dbus(ProgramResult(4, "", "")), "error", "(exit status 4)")
    state_and_words(
        await dbus(ProgramResult(None, "", "systemctl did not answer within 5s")), "error", "did not answer"
    )
    state_and_words(
        await dbus(ProgramResult(0, "", ""), unit=None), "error", "in no unit's cgroup", "systemctl start runnerd"
    )


def test_users() -> None:
    state_and_words(check_users([], None, None), "ok", "the spawner's user")
    state_and_words(check_users([source("a", ME)], ME, None), "ok", f"flows run as {ME}")
    absent = check_users([source("a", "etl-x"), source("b", "etl-x"), source("c", ME, "grp-x")], "runner-x", None)
    state_and_words(absent, "error", "no user etl-x (run.user of a, b)", "no group grp-x (run.group of c)", "useradd")
    assert "no user runner-x (RUNNERD_FLOW_USER" in absent.detail


def test_users_that_the_spawner_does_not_start_runs_as() -> None:
    anyone = AllowedUsers(None, root=True)
    nameless = check_users([source("a", None)], None, anyone)
    state_and_words(nameless, "error", "a (/etc/runnerd/conf.d/a.yaml:3:5)", "no user is named", "run.user: root")
    rooted = check_users([source("a", "root")], None, anyone)
    state_and_words(rooted, "error", "may not start runs as user root", "RUNNERD_FLOW_USERS")
    state_and_words(check_users([source("a", "root")], None, AllowedUsers("root", root=True)), "ok", "root")
    people = AllowedUsers("*", root=True)
    state_and_words(check_users([source("a", "daemon")], None, people), "error", "system account", "daemon")
    state_and_words(check_users([source("a", None)], None, AllowedUsers(None, root=False)), "ok", "spawner's user")


@pytest.mark.real_io
async def test_deployments_that_the_configuration_refuses_for_their_users(tmp_path: Path) -> None:
    """A root daemon without systemd knows the list itself, and then such deployments are in no registry."""
    etc = ConfigDir(tmp_path / "files")
    etc.write("conf.d/a.yaml", NAMELESS.replace("NAME", "a"))
    etc.write("conf.d/b.yaml", NAMELESS.replace("NAME", "b") + "    run: {group: grp-x}\n")
    etc.write("conf.d/c.yaml", "pools: [{name: p, nice: 3}]\n")
    async with practice(tmp_path) as one:
        assert (await one.examine())["users"]["state"] == "ok"
        one.config.current = etc.load(defaults=replace(DEFAULTS, users=AllowedUsers(None, root=True, owner=0)))
        check = Check(**(await one.examine())["users"])
        state_and_words(check, "error", f"{etc.etc}/conf.d/a.yaml:3:17: run.user: no user is named", "and 3 more")
        assert check.remedy is not None
        assert check.remedy.startswith("set run.user or RUNNERD_FLOW_USER; for root write run.user: root")
        one.config.current = etc.load(defaults=replace(DEFAULTS, flow_user=ME))
        check = Check(**(await one.examine())["users"])
        state_and_words(check, "error", "conf.d/b.yaml:4:18: run.group grp-x: no such group on this host", "groupadd")


@pytest.mark.real_io
async def test_the_daemons_own_list_counts_until_the_spawner_has_sent_its_list(tmp_path: Path) -> None:
    async with practice(tmp_path, users=AllowedUsers("etl", root=True)) as one:
        one.engine.deploy("nightly", run={"user": ME})
        one.spawner.down = True
        one.spawner.lose()
        check = Check(**(await one.examine())["users"])
        state_and_words(check, "error", f"may not start runs as user {ME}")


def test_flows_that_run_as_root_although_others_could_be_used() -> None:
    words = ("warning", "flows of a run as root: their code may change anything", "set run.user")
    both = [source("a", "root"), source("b", "nobody")]
    state_and_words(check_users(both, None, AllowedUsers("root,nobody", root=True)), *words)
    state_and_words(check_users(both[:1], "root", AllowedUsers("root,*", root=True)), *words)
    assert check_users(both[:1], None, AllowedUsers("root", root=True)).state == "ok", "no other may be used"
    assert check_users([source("a", None)], None, AllowedUsers(None, root=False)).state == "ok", "nor can be"


def test_control_groups() -> None:
    state_and_words(check_control_groups(ControlSettings()), "ok", "every user who can open the control socket")
    state_and_words(check_control_groups(ControlSettings(admins=("root",))), "ok", "as control: in runnerd.yaml")
    absent = check_control_groups(ControlSettings(admins=("root",), readers=("grp-x",)))
    state_and_words(absent, "warning", "no group grp-x (control.readers)", "groupadd")


def test_directories(tmp_path: Path) -> None:
    paths = Paths(*(str(tmp_path / name) for name in ("etc", "run", "state", "log")), None)
    Path(paths.state).mkdir()
    Path(paths.runtime).write_text("in the way")
    state, log, runtime = check_directories(paths, "runnerd")
    state_and_words(state, "ok", paths.state)
    state_and_words(log, "error", f"{paths.log}/runs does not exist", "create it for runnerd")
    state_and_words(runtime, "error", "is not a directory")
    state_and_words(check_directory("x", f"{paths.runtime}/y", user="u", write=True), "error", "Not a directory")
    if os.path.isdir("/sys/class"):  # where nobody may write, root or not
        state_and_words(check_directory("x", "/sys/class", user="u", write=False), "ok", "is readable")


@needs_no_root
def test_directories_of_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    state_and_words(
        check_directory("x", str(tmp_path), user=ME, write=True), "error", f"user {ME} cannot write to", "chown"
    )
    tmp_path.chmod(0o300)
    state_and_words(check_directory("x", str(tmp_path), user=ME, write=False), "error", f"user {ME} cannot read")
    tmp_path.chmod(0o700)


def test_configuration_files(tmp_path: Path) -> None:
    state_and_words(check_config_files(str(tmp_path / "absent"), ME), "error", "does not exist")
    state_and_words(check_config_files(str(tmp_path), ME), "ok", "can read 0 files in")
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "runnerd.yaml").write_text("")
    (tmp_path / "conf.d" / "10-a.yaml").write_text("")
    state_and_words(check_config_files(str(tmp_path), ME), "ok", "can read 2 files in")
    (tmp_path / "conf.d" / "10-a.yaml").unlink()
    (tmp_path / "conf.d").rmdir()
    (tmp_path / "conf.d").write_text("")
    state_and_words(check_config_files(str(tmp_path), ME), "error", "conf.d is not a directory")


@needs_no_root
def test_a_drop_in_that_the_daemon_may_not_read(tmp_path: Path) -> None:
    drop_in = tmp_path / "conf.d" / "10-a.yaml"
    drop_in.parent.mkdir()
    drop_in.write_text("")
    drop_in.chmod(0)
    state_and_words(check_config_files(str(tmp_path), ME), "error", f"user {ME} cannot read {drop_in}", "chgrp")


def test_credentials(tmp_path: Path) -> None:
    key = tmp_path / "key"
    state_and_words(
        check_credentials([str(key)], ME), "error", f"user {ME} cannot read {key}: No such file", "namei -l"
    )
    key.write_text("secret")
    key.chmod(0o600)
    state_and_words(check_credentials([str(key)], ME), "ok", str(key))
    key.chmod(0o644)
    state_and_words(check_credentials([str(key)], ME), "warning", "every user of this host", f"chmod o-rwx {key}")
    assert stat.S_IMODE(key.stat().st_mode) == 0o644  # a check changes nothing
