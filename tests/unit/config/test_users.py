"""As whom flows may be started, who may use the control socket, and whose name a deployment without one gets."""

from __future__ import annotations

import getpass
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config import describe_config, find_defaults
from runnerd.core.settings import ControlSettings
from runnerd.spawner.child.users import AllowedUsers
from runnerd.system.service_environment import parse_environments
from tests.kits.config import DEFAULTS, MAIN, ConfigDir, names

A = "deployments:\n  - name: a\n    entrypoint: flows/etl.py:nightly\n    run: {nice: 5}\n"
AS_ROOT = A.replace("nice: 5", "user: root")
ROOT = replace(DEFAULTS, users=AllowedUsers(None, root=True, owner=0))


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


# --- users ----------------------------------------------------------------------------------------------------


def test_a_root_daemon_starts_no_flow_whose_user_is_not_written(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A)
    etc.write("conf.d/b.yaml", "pools: [{name: p}]\n")
    config = etc.load(defaults=ROOT)
    assert (names(config), config.pools) == ([], ())
    why = (
        "run.user: no user is named, and runs may not use the spawner's own; set run.user or RUNNERD_FLOW_USER;"
        " for root write run.user: root, and add root to RUNNERD_FLOW_USERS (systemctl edit runnerd-spawner;"
        " without systemd: the environment of runnerd)"
    )
    assert etc.words(config.problems) == [f"conf.d/a.yaml:3:17: {why}", f"conf.d/b.yaml:1:9: {why}"]
    assert names(etc.load()) == ["a"]  # where as whom the spawner starts flows is unknown, or the daemon's own user


def test_root_has_to_be_written_in_two_places(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", AS_ROOT)
    (problem,) = etc.words(etc.load(defaults=ROOT).problems)
    assert problem.startswith("conf.d/a.yaml:4:17: run.user root: the spawner may not start runs as user root; add")
    listed = replace(DEFAULTS, users=AllowedUsers("root", root=True, owner=0))
    assert names(etc.load(defaults=listed)) == ["a"]
    etc.write("conf.d/a.yaml", A)
    assert names(etc.load(defaults=listed)) == []
    assert names(etc.load(defaults=replace(listed, flow_user="root"))) == ["a"]


def test_the_star_is_not_for_system_accounts(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", AS_ROOT.replace("root", "daemon"))
    star = replace(DEFAULTS, users=AllowedUsers("*", root=True))
    (problem,) = etc.words(etc.load(defaults=star).problems)
    assert "run.user daemon: the spawner may not start runs as a system account that is not named, daemon;" in problem
    assert names(etc.load(defaults=ROOT)) == ["a"]


@pytest.mark.parametrize(
    ("environ", "root", "refused"),
    [
        ({}, False, None),
        ({}, True, {"root": True, None: True, "daemon": False}),
        ({"RUNNERD_FLOW_USERS": "root"}, True, {"root": False, None: True, "daemon": True}),
        ({"RUNNERD_FLOW_USERS": "root"}, False, None),
        # Under systemd the list is the spawner's, and whoever checks may be anybody.
        ({"RUNNERD_SPAWNER_SOCKET": "/s"}, True, None),
        ({"RUNNERD_SPAWNER_SOCKET": "/s", "RUNNERD_FLOW_USERS": "daemon"}, False, {"root": True, "daemon": False}),
    ],
)
def test_where_the_list_comes_from(environ: dict[str, str], root: bool, refused: dict[str | None, bool] | None) -> None:
    users = find_defaults(environ, root=root).users
    if refused is None:
        assert users is None
        return
    assert users is not None
    assert {user: users.refuse_name(user) is not None for user in refused} == refused


def test_the_environment_of_the_units() -> None:
    shown = 'LoadState=loaded\nEnvironment=A=1 "B=x y"\n\nLoadState=loaded\nEnvironment=RUNNERD_FLOW_USERS=etl,*\n'
    assert parse_environments(shown) == {"A": "1", "B": "x y", "RUNNERD_FLOW_USERS": "etl,*"}
    assert parse_environments(shown.replace("LoadState=loaded", "LoadState=not-found", 1)) == {}
    assert parse_environments("") == {}


# --- control --------------------------------------------------------------------------------------------------


def test_control(etc: ConfigDir) -> None:
    assert etc.load().settings.control == ControlSettings()
    assert not etc.load().settings.control.narrowed
    etc.write("runnerd.yaml", MAIN + "control: {admins: [ops, root], readers: []}\n")
    config = etc.load()
    assert config.settings.control == ControlSettings(admins=("ops", "root"), readers=())
    assert describe_config(config)["control"] == {"admins": ["ops", "root"], "operators": None, "readers": []}


def test_a_group_of_control_that_does_not_exist(etc: ConfigDir) -> None:
    """No problem, with which the daemon would not start: a directory service may have the group later."""
    etc.write("runnerd.yaml", MAIN + "control:\n  admins: [root, grp-x]\n  operators: []\n  readers:\n    - grp-y\n")
    config = etc.load()
    assert (config.problems, config.settings.control.admins) == ((), ("root", "grp-x"))
    why = "on this host, so this permits nothing to anybody; create the group (groupadd), or correct the name"
    assert etc.words(config.warnings) == [
        f"runnerd.yaml:3:18: control.admins[1]: there is no group 'grp-x' {why}",
        f"runnerd.yaml:6:7: control.readers[0]: there is no group 'grp-y' {why}",
    ]


@pytest.mark.parametrize("control", ["{admin: [ops]}", "{admins: ops}", "{admins: [1]}", "{admins: ['']}"])
def test_a_wrong_control_is_fatal(etc: ConfigDir, control: str) -> None:
    """A host must not open up by a mistake."""
    etc.write("runnerd.yaml", MAIN + f"control: {control}\n")
    (problem,) = etc.fatal()
    assert problem.startswith("runnerd.yaml:2:")


def test_control_is_not_for_drop_ins(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A + "control: {admins: [users]}\n")
    config = etc.load()
    assert etc.words(config.problems) == ["conf.d/a.yaml:5:1: control is read only from runnerd.yaml; move it there"]
    assert config.settings.control == ControlSettings()
    assert names(config) == ["a"]


def test_who_tests_is_no_stranger(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", AS_ROOT.replace("root", getpass.getuser()))
    listed = replace(DEFAULTS, users=AllowedUsers(getpass.getuser(), root=True))
    assert names(etc.load(defaults=listed)) == ["a"]


# --- the name -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "name: null, "])
def test_a_deployment_without_a_name_has_the_hosts(etc: ConfigDir, name: str) -> None:
    """As Prefect's runner names one."""
    text = f"deployments:\n  - {{{name}entrypoint: 'flows/etl.py:nightly'}}\n"
    assert etc.one(text).name == "host-1"
    assert etc.one(text, main=f"{MAIN}name: build-07\n").name == "build-07"


def test_a_deployment_without_a_name_keeps_its_last_good_version(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "deployments:\n  - {entrypoint: 'flows/etl.py:nightly', description: first}\n")
    last_good = etc.load()
    etc.write("conf.d/a.yaml", "deployments:\n  - {entrypoint: 'flows/etl.py:nightly', descripton: second}\n")
    (kept,) = etc.load(last_good=last_good).deployments
    assert (kept.name, kept.description) == ("host-1", "first")
    (invalid,) = etc.load().invalid
    assert invalid.name is None, "it may be a misspelt name as well"
