"""Runs that are forked from warm interpreters, on whole daemons: what is seen of them, and when interpreters go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.daemon import KILL, TERM, Host, alive, eventually
from tests.kits.prefect_servers import PrefectServer
from tests.kits.served_pool import PoolHost, new_pool, pools_of

DROP_IN = """
deployments:
  - {{name: greet, entrypoint: "flows.py:greet", run: {{start: warm, {env}}}}}
  - {{name: sleep, entrypoint: "flows.py:sleep", parameters: {{seconds: 600}}, run: {{start: warm, {env}}}}}
  - {{name: who, entrypoint: "flows.py:who", run: {{start: warm, {env}}}}}
"""
SECRET = "hush-7f3a"

Make = Callable[..., Host]


@pytest.fixture
def make() -> Iterator[Make]:
    """Hosts that are gone at the end of the test."""
    hosts: list[Host] = []

    def one(server: PrefectServer, *, python: str = "", env: str = "environment: {}", **environ: str) -> Host:
        host = Host(url=server.url, python=python or server.python, environ=environ)
        hosts.append(host)
        host.drop_in("10-test.yaml", DROP_IN.format(env=env))
        host.start()
        host.registered("greet", "sleep", "who")
        return host

    yield one
    for host in hosts:
        host.close()


def interpreters(host: Host) -> list[Any]:
    return [one for one in host.json("status")["warm"] if one["state"] != "failed"]


def the_interpreter(host: Host) -> Any:
    """The one that is ready."""

    def ready() -> Any:
        found = host.json("status")
        assert not found["problems"], found["problems"]
        return next((one for one in found["warm"] if one["state"] == "ready"), None)

    return eventually(ready, "a warm interpreter", log=host.said)


def warm_up(host: Host) -> Any:
    """The interpreter that the first run has had started; that run itself may have been cold on a busy machine."""
    assert host.ended(host.run_now("greet"))["api_state"] == "COMPLETED"
    return the_interpreter(host)


def environ_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode()


def test_a_run_is_forked(prefect: PrefectServer, make: Make) -> None:
    host = make(prefect)
    interpreter = warm_up(host)
    run = host.ended(host.run_now("greet", name="you"))
    assert (run["start"], run["start_problem"], run["api_state"]) == ("warm", None, "COMPLETED")
    assert run["exit"]["code"] == 0
    assert "hello you" in host.ctl("logs", run["id"]).stdout
    assert "Start: warm" in " ".join(host.ctl("status", run["id"]).stdout.split())
    after = the_interpreter(host)
    assert (after["pid"], after["runs"] - interpreter["runs"]) == (interpreter["pid"], 1)
    assert after["memory_bytes"] > 2**20
    assert host.json("status")["limits"]["runs"]["used"] == 0, "an interpreter holds no slot"
    assert host.json("runs") == [], "and is no run"


def test_five_runs_at_once(prefect: PrefectServer, make: Make) -> None:
    host = make(prefect)
    warm_up(host)
    ids = [host.run_now("greet", name=f"you-{n}") for n in range(5)]
    runs = [host.ended(run_id) for run_id in ids]
    assert [(run["start"], run["api_state"]) for run in runs] == [("warm", "COMPLETED")] * 5
    for n, run_id in enumerate(ids):
        assert f"hello you-{n}" in host.ctl("logs", run_id).stdout
    assert len(interpreters(host)) == 1


def test_no_secret_is_in_an_interpreter_and_each_run_has_its_own(prefect: PrefectServer, make: Make) -> None:
    host = make(prefect, env=f"environment: {{DB_PASSWORD: {SECRET}-1}}", PREFECT_API_KEY=f"{SECRET}-key")
    interpreter = warm_up(host)
    inside = environ_of(interpreter["pid"])
    assert SECRET not in inside
    assert "PREFECT_API_KEY" not in inside
    run = host.running(host.run_now("sleep"))
    assert run["start"] == "warm"
    logs = host.ended(host.run_now("who"))
    assert logs["start"] == "warm"
    names = host.ctl("logs", logs["id"]).stdout
    assert "DB_PASSWORD" in names
    assert "PREFECT_API_KEY" in names
    assert the_interpreter(host)["pid"] == interpreter["pid"]


def test_a_rotated_key_reaches_the_next_run(prefect3: PrefectServer, make: Make, tmp_path: Path) -> None:
    key, seen = tmp_path / "key", tmp_path / "seen"
    key.write_text(f"{SECRET}-1\n")
    flow = "import os\nfrom prefect import flow\n\n@flow\ndef show(path: str) -> None:\n"
    flow += "    with open(path, 'a') as file:\n        file.write(os.environ['PREFECT_API_KEY'] + '\\n')\n"
    host = make(prefect3)
    (host.config / "show.py").write_text(flow)
    main = (host.config / "runnerd.yaml").read_text().replace("api: {", f"api: {{key_file: '{key}', ")
    host.write_main(main)
    host.drop_in("20-show.yaml", 'deployments: [{name: show, entrypoint: "show.py:show", run: {start: warm}}]')
    assert host.json("reload")["applied"]
    host.registered("show")
    warm_up(host)
    first = host.ended(host.run_now("show", path=str(seen)))
    key.write_text(f"{SECRET}-2\n")
    second = host.ended(host.run_now("show", path=str(seen)))
    assert [run["start"] for run in (first, second)] == ["warm", "warm"]
    assert seen.read_text().split() == [f"{SECRET}-1", f"{SECRET}-2"]


def test_it_is_replaced_when_a_pth_file_appears(prefect3: PrefectServer, make: Make, tmp_path: Path) -> None:
    """In a virtual environment of its own, which sees the packages of the locked one."""
    real = Path(prefect3.python)
    packages = next((real.parents[1] / "lib").glob("python3*/site-packages"))
    venv = tmp_path / "venv"
    own = venv / "lib" / packages.parent.name / "site-packages"
    own.mkdir(parents=True)
    (venv / "bin").mkdir()
    (venv / "bin" / "python").symlink_to(os.path.realpath(real))
    shutil.copy(real.parents[1] / "pyvenv.cfg", venv / "pyvenv.cfg")
    (own / "locked.pth").write_text(f"{packages}\n")
    tmp_path.chmod(0o755)
    host = make(prefect3, python=str(venv / "bin" / "python"))
    first = warm_up(host)
    (own / "more.pth").write_text(f"{tmp_path}\n")
    host.ended(host.run_now("greet"))
    second = the_interpreter(host)
    assert second["pid"] != first["pid"]
    eventually(lambda: not alive(first["pid"]), "the outdated one to end")
    assert host.ended(host.run_now("greet"))["start"] == "warm"


def test_a_cancel(prefect: PrefectServer, make: Make) -> None:
    host = make(prefect)
    interpreter = warm_up(host)
    run = host.running(host.run_now("sleep"))
    assert run["start"] == "warm"
    assert host.ctl("cancel", run["id"], "--wait").returncode == 0
    assert host.ended(run["id"])["api_state"] == "CANCELLED"
    assert not alive(run["pid"])
    assert the_interpreter(host)["pid"] == interpreter["pid"]


def test_a_run_outlives_its_daemon_and_its_interpreter(prefect: PrefectServer, make: Make) -> None:
    host = make(prefect)
    interpreter = warm_up(host)
    run = host.running(host.run_now("sleep", seconds=5))
    assert run["start"] == "warm"
    os.kill(interpreter["pid"], KILL)
    host.kill()
    host.start()
    eventually(lambda: not alive(interpreter["pid"]), "the interpreter to be gone")
    ended = host.ended(run["id"])
    assert (ended["start"], ended["api_state"], ended["exit"]["code"]) == ("warm", "COMPLETED", 0)
    assert ended["pid"] == run["pid"]


def test_what_a_killed_daemon_leaves_is_ended_by_the_next(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    interpreter = warm_up(host)
    run = host.running(host.run_now("sleep"))
    host.kill()
    assert alive(interpreter["pid"])
    host.start()
    eventually(lambda: not alive(interpreter["pid"]), "the interpreter that is left to be ended")
    assert alive(run["pid"]), "its run is not"
    assert host.document(run["id"])["phase"] == "running"


def test_a_daemon_that_stops_leaves_none(prefect3: PrefectServer, make: Make) -> None:
    host = make(prefect3)
    interpreter = warm_up(host)
    host.signal(TERM)
    assert host.wait() == 0
    assert not alive(interpreter["pid"])
    eventually(lambda: not host.left(), "the spawner to leave")


def test_runs_of_a_pool_share_one_with_other_deployments_and_commands_of_their_own_do_not(
    prefect: PrefectServer,
) -> None:
    host, pool = PoolHost(prefect), new_pool()
    host.drop_in("20-own.yaml", 'deployments: [{name: own, entrypoint: "flows.py:greet", run: {start: warm}}]')
    with pools_of(host, f"pools: [{{name: {pool}, run: {{start: warm}}}}]", pool):
        host.serves(pool)
        host.registered("own")
        host.ended(host.run_now("own"))
        interpreter = the_interpreter(host)
        run_id = host.create_run(host.deploy(pool, "pulled"), parameters={"name": "pool"})
        host.ends(run_id, "COMPLETED")
        assert host.ended(run_id)["start"] == "warm"
        assert "hello pool" in host.ctl("logs", run_id).stdout
        other = host.create_run(host.deploy(pool, "other", job_variables={"command": host.tiny()}))
        eventually(lambda: other in host.marked(), "the command to run")
        run = host.ended(other)
        assert run["start"] == "cold"
        assert "command" in run["start_problem"]
        assert [one["pid"] for one in interpreters(host)] == [interpreter["pid"]]
