"""Runs that wait in their process for its next try: taken up by no other host, and settled when the process is dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import pytest

from tests.kits.daemon import Host, eventually
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, new_pool, pools_of

pytestmark = pytest.mark.server

TWICE = """
import os
from prefect import flow

@flow(retries=1, retry_delay_seconds=8)
def twice():
    with open(os.environ["MARKS"], "a") as marks:
        marks.write(f"{os.getpid()}\\n")
    raise ValueError("never works")
"""
DROP_IN = 'deployments: [{{name: twice, entrypoint: "twice.py:twice", run: {{working_directory: "{code}"}}}}]'


def two_hosts(prefect: PrefectServer, code: Path, stack: contextlib.ExitStack) -> list[Host]:
    """Two hosts with the same drop-in."""
    code.mkdir()
    (code / "twice.py").write_text(TWICE)
    hosts = []
    for _ in range(2):
        host = Host(url=prefect.url, python=prefect.python)
        stack.callback(host.close)
        environment = f"{{PREFECT_HOME: '{host.root}/prefect-home', MARKS: '{code}/marks'}}"
        run = f"{{python: '{prefect.python}', environment: {environment}}}"
        host.write_main(f"api: {{url: '{prefect.url}', poll_interval: 1s}}\nrun: {run}\n")
        host.drop_in("10-twice.yaml", DROP_IN.format(code=code))
        host.start()
        host.registered("twice")
        hosts.append(host)
    return hosts


def test_no_other_host_takes_it_up(prefect: PrefectServer, tmp_path: Path) -> None:
    code = tmp_path / "code"
    with contextlib.ExitStack() as stack:
        one, two = two_hosts(prefect, code, stack)
        run_id = one.run_now("twice")

        def over() -> bool:
            return one.api.state(run_id) == "FAILED"

        eventually(over, f"both tries to fail:\n{one.said()}\n{two.said()}")
        history = ["SCHEDULED", "PENDING", "RUNNING", "SCHEDULED", "RUNNING", "FAILED"]
        assert one.api.history(run_id) == history
        first, second = (code / "marks").read_text().split()
        assert first == second, "both tries are of one process"

        def done() -> bool:
            # The other host may have a record too for a moment, until its reading before a claim has told it no.
            said = [host.ctl("status", run_id, "--json") for host in (one, two)]
            return any(json.loads(one.stdout)["phase"] == "done" for one in said if one.returncode == 0)

        eventually(done, "its host to be done")
        assert one.api.history(run_id) == history


def test_one_of_a_pool_whose_process_is_killed(prefect: PrefectServer) -> None:
    host, pool = PoolHost(prefect), new_pool()
    with pools_of(host, f"pools: [{{name: {pool}}}]", pool):
        host.serves(pool)
        run_id = host.create_run(host.deploy(pool, "retries", entrypoint="hook_flows.py:retries"))
        eventually(lambda: host.api.run(run_id)["state"]["name"] == "AwaitingRetry", f"it to wait:\n{host.said()}")
        os.kill(host.document(run_id)["pid"], signal.SIGKILL)
        state = host.ends(run_id, "CRASHED")["state"]
        assert "killed by SIGKILL" in state["message"]
        host.ended(run_id)
        marks = [line.split()[:3] for line in host.marks.read_text().splitlines() if run_id in line]
        assert marks == [[hook, run_id, "CRASHED"] for hook in ("on_crashed", "on_crashed_async")]
