"""runnerctl config: against the real control server, and without a daemon."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.fakes.runnerctl import runnerctl
from tests.kits.fakes.serving import Serving, serving


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


def test_config_show_asks_the_daemon(served: Serving) -> None:
    assert json.loads(runnerctl(served, "config", "show").out) == {"name": "build-07", "limits": {"runs": 10}}


def test_config_check_judges_users_as_the_daemon_does(served: Serving, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    (etc / "conf.d").mkdir(parents=True)
    drop_in = etc / "conf.d" / "a.yaml"
    drop_in.write_text("pools: [{name: a}]\n")
    listed = {"list": "nobody", "root": True, "owner": None}
    served.host.service = {
        "directory": str(etc),
        "api_url": "http://127.0.0.1:4200/api",
        "flow_user": "nobody",
        "users": listed,
    }
    good = runnerctl(served, "config", "check", str(etc), RUNNERD_FLOW_USERS="daemon", RUNNERD_FLOW_USER="daemon")
    assert (good.status, good.out, good.err) == (0, f"{etc}: 0 deployments, 1 pool, no problem\n", "")
    served.host.service["users"] = {**listed, "list": "daemon"}
    for path in (etc, drop_in):
        bad = runnerctl(served, "config", "check", str(path), RUNNERD_FLOW_USERS="nobody")
        assert (bad.status, "may not start runs as user nobody" in bad.out) == (1, True)
    document = json.loads(runnerctl(served, "config", "check", str(etc), "--json").out)
    assert document["judged_by"] == "daemon"
    served.host.service["directory"] = "/etc/runnerd"
    other = runnerctl(served, "config", "check", str(etc), "--json", PREFECT_API_URL="http://127.0.0.1:4200/api")
    assert json.loads(other.out)["judged_by"] == "environment", "these are not its files"


def test_config_schema_and_check_need_no_daemon(tmp_path: Path) -> None:
    assert "$schema" in json.loads(runnerctl(None, "config", "schema").out)
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "runnerd.yaml").write_text("api: {url: 'http://127.0.0.1:4200/api'}\n")
    good = runnerctl(None, "config", "check", str(tmp_path))
    assert (good.status, good.out) == (0, f"{tmp_path}: 0 deployments, no problem\n")
    (tmp_path / "conf.d" / "10-x.yaml").write_text("run: {user: nobody}\npools: [{name: a}, {name: b}]\n")
    good = runnerctl(None, "config", "check", str(tmp_path))
    assert (good.status, good.out) == (0, f"{tmp_path}: 0 deployments, 2 pools, no problem\n")
    (tmp_path / "conf.d" / "10-x.yaml").write_text("push: [{x.y: {}}]\n")
    vain = runnerctl(None, "config", "check", str(tmp_path))
    assert vain.status == 0
    assert vain.out.startswith(
        f"warning: {tmp_path}/conf.d/10-x.yaml:1:1: push: not run; runnerd takes code from this host"
    )
    document = json.loads(runnerctl(None, "config", "check", str(tmp_path), "--json").out)
    assert (document["ok"], document["problems"], document["warnings"][0]["line"]) == (True, [], 1)
    (tmp_path / "conf.d" / "10-x.yaml").write_text("deployements: []\n")
    bad = runnerctl(None, "config", "check", str(tmp_path))
    assert bad.status == 1
    assert f"{tmp_path}/conf.d/10-x.yaml:1:1: " in bad.out
    found = json.loads(runnerctl(None, "config", "check", str(tmp_path), "--json").out)
    assert found["ok"] is False
    assert (found["problems"][0]["line"], found["problems"][0]["column"]) == (1, 1)
