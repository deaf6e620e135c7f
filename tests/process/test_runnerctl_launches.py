"""runnerctl plan, retry, execute --entrypoint and add against the real control server."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.control.contract import Refused
from tests.kits.fakes.runnerctl import runnerctl
from tests.kits.fakes.serving import Serving, serving

RUN = "aaaa1111-0000-4000-8000-000000000001"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


def test_retry(served: Serving) -> None:
    served.call(served.host.runs.put, RUN, name="fast-owl", phase="done")
    done = runnerctl(served, "retry", "fast-owl")
    assert (done.status, done.out) == (0, f"retrying run given-run ({RUN})\n")
    assert json.loads(runnerctl(served, "retry", RUN, "--json").out)["id"] == RUN
    assert runnerctl(served, "retry", "slow-owl").status == 4
    served.host.refusal = Refused(status=409, detail="cannot retry run fast-owl: the run is Running")
    refused = runnerctl(served, "retry", RUN)
    assert (refused.status, refused.err) == (1, "runnerctl: cannot retry run fast-owl: the run is Running\n")


def test_a_plan_of_nothing(served: Serving) -> None:
    missing = runnerctl(served, "plan", "none")
    assert (missing.status, missing.err.count("\n")) == (4, 1)
    assert "there is no deployment or run 'none'" in missing.err


def test_the_file_of_an_entrypoint_is_named_from_the_root(served: Serving, tmp_path: Path) -> None:
    done = runnerctl(served, "execute", RUN, "--entrypoint", "flows/etl.py:nightly")
    assert done.status == 0, done.err
    assert runnerctl(served, "execute", RUN, "--entrypoint", "jobs.etl:nightly").status == 0
    assert [verb for verb, _ in served.host.asked] == [
        f"execute {os.path.abspath('flows/etl.py')}:nightly", "execute jobs.etl:nightly",
    ]  # fmt: skip
    wrong = runnerctl(served, "execute", RUN, "--entrypoint", "flows.py")
    assert (wrong.status, "write FILE.py:FLOW" in wrong.err) == (2, True)


def test_add_has_the_daemon_register_it(served: Serving, tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "runnerd.yaml").write_text("api: {url: 'http://127.0.0.1:4200/api'}\n")
    listed = {"list": None, "root": False, "owner": None}
    served.host.service = {"directory": str(etc), "api_url": None, "flow_user": "nobody", "users": listed}
    file = tmp_path / "etl.py"
    file.write_text("def nightly(): ...\n")
    served.call(served.host.deployments.put, "d-1", "nightly", state="ready", problem=None)
    done = runnerctl(served, "add", f"{file}:nightly")
    assert done.status == 0, done.err
    assert "next: runnerctl run nightly --watch" in done.out
    assert (etc / "conf.d" / "nightly.yaml").exists(), "the directory is that of the daemon"
    assert [verb for verb, _ in served.host.asked] == ["reload"]
    served.call(served.host.deployments.put, "d-2", "other", state="unregistered", problem="no module named pandas")
    failed = runnerctl(served, "add", f"{file}:nightly", "--name", "other", "--json")
    document = json.loads(failed.out)
    assert (failed.status, document["ok"], document["written"]) == (1, False, True)
    assert (document["state"], document["why"]) == ("unregistered", "no module named pandas")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "runnerd.yaml").write_text("api: {url: 'http://127.0.0.1:4200/api'}\n")
    served.host.asked.clear()
    apart = runnerctl(served, "add", f"{file}:nightly", "--config", str(elsewhere), RUNNERD_FLOW_USER="nobody")
    assert (apart.status, served.host.asked) == (0, [])
    assert f"the running runnerd reads {etc}, and not this directory" in apart.err
