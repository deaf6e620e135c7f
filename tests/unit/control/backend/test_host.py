"""host.py: the documents of a running daemon."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from runnerd.control.backend.documents import service_document
from runnerd.control.backend.host import DaemonHost
from runnerd.spawner.child.users import AllowedUsers
from runnerd.system.paths import Paths
from tests.kits.engine import running
from tests.kits.host import PEER, SERVICE, daemon
from tests.kits.pools import pool_settings, pooled, serve, with_pools


def checks(host: DaemonHost) -> dict[str, bool]:
    ok, document = host.health()
    found = {check["name"]: check["ok"] for check in document["checks"]}
    assert ok is document["ok"] is all(found.values())
    return found


# --- documents --------------------------------------------------------------------------------------------------


async def test_status(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=5, tags={"gpu": 2}) as one:
        run_id = await one.start(tags=["gpu"])
        status = one.host.status()
        assert (status["name"], status["pid"], status["draining"], status["drain"]) == (
            "host-1",
            os.getpid(),
            False,
            None,
        )
        assert status["api"]["state"] == "ok"
        assert status["limits"] == {"runs": {"used": 1, "max": 5}, "tags": {"gpu": {"used": 1, "max": 2}}}
        assert [run["id"] for run in status["runs"]] == [run_id]
        assert [(its["name"], its["running"]) for its in status["deployments"]] == [("nightly", 1)]
        assert [problem["message"] for problem in status["problems"]] == ["mend me"]


async def test_a_run_that_is_started_ahead_is_held_until_it_is_due(tmp_path: Path) -> None:
    """It has its slot, and counts as running for scripts, as before; `held` says how many of these only wait."""
    async with daemon(tmp_path, prefect=with_pools(etl={}), runs=5) as one:
        engine = one.engine
        own = engine.add_run(engine.deploy(), in_s=8.0)
        serve(engine.pools, engine.prefect, pool_settings())
        of_pool = engine.add_run(pooled(engine), in_s=8.0)
        await engine.poller.poll_once()
        await engine.until(lambda: running(engine, own) and running(engine, of_pool))
        for held in (True, False):
            status = one.host.status()
            assert {run["id"]: (run["phase"], run["held"]) for run in status["runs"]} == {
                own: ("running", held),
                of_pool: ("running", held),
            }
            assert status["limits"]["runs"]["used"] == 2
            assert [(its["running"], its["held"]) for its in status["deployments"]] == [(1, int(held))]
            assert one.host.runs.document(own) == next(run for run in status["runs"] if run["id"] == own)
            assert [(its["running"], its["held"]) for its in status["pools"]] == [(1, int(held))]
            await asyncio.sleep(9)


async def test_status_answers_with_the_api_away(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        await one.start()
        one.engine.prefect.down = True
        await asyncio.gather(one.engine.poller.poll_once(), return_exceptions=True)
        asked = len(one.engine.prefect.asked)
        assert one.host.status()["api"]["state"] == "unreachable"
        assert checks(one.host)["api"] is False
        assert len(one.engine.prefect.asked) == asked


async def test_health_says_what_is_wrong(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        await one.start()
        assert checks(one.host) == {"loops": True, "spawner": True, "journal": True, "api": True}
        one.engine.pulse.beat("poll", within_s=1)
        await asyncio.sleep(2)
        assert checks(one.host)["loops"] is False
        one.engine.pulse.beat("poll", within_s=1e9)
        one.spawner.down = True
        one.spawner.lose()
        await asyncio.sleep(1)
        assert checks(one.host) == {"loops": True, "spawner": False, "journal": True, "api": True}
        one.engine.journal.problem = "disk full"
        assert checks(one.host)["journal"] is False


async def test_metrics(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=5) as one:
        await one.start()
        await one.engine.poller.poll_once()
        lines = (await one.host.metrics()).splitlines()
        values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        assert values['runnerd_runs{phase="running"}'] == "1"
        assert values['runnerd_deployments{state="ready"}'] == "1"
        assert (values["runnerd_runs_max"], values["runnerd_api_up"]) == ("5", "1")
        assert float(values["runnerd_last_poll_seconds"]) == one.engine.now().timestamp()


async def test_the_documents_hold_the_configuration_in_force(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=5) as one:
        assert one.host.config()["limits"]["runs"] == 5
        assert one.host.config()["service"] == SERVICE
        assert await one.host.reload(inspect=False, peer=PEER) == {"ok": True}
        assert one.reloads == 1


# --- runs -------------------------------------------------------------------------------------------------------


async def test_live_runs_and_history(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        past, live = await one.start("a"), await one.start("b")
        one.engine.prefect.set_state(past, "COMPLETED")
        one.spawner.exit(past)
        await one.engine.until_done(past)
        assert [run["id"] for run in one.host.runs.listing(history=False)] == [live]
        assert [run["id"] for run in one.host.runs.listing(history=True)] == [past, live]
        document = one.host.runs.document(past)
        assert document is not None
        assert (document["phase"], document["exit"]["words"]) == ("done", "exited 0")
        assert one.host.runs.document("nobody") is None
        assert one.host.runs.output(past) == f"/var/log/{past}.1.log"
        assert one.host.runs.output(live) == f"/var/log/{live}.1.log"
        assert one.host.runs.output("nobody") is None


async def test_finding_runs(tmp_path: Path) -> None:
    async with daemon(tmp_path, runs=1) as one:
        live = await one.start(name="brave-fox")
        waiting = one.engine.add_run(one.engine.deploy("other"), name="shy-owl")
        await one.engine.poller.poll_once()
        for ref in (live, live[:8], "brave-fox"):
            assert [run["id"] for run in one.host.runs.find(ref)] == [live]
        for ref in (waiting, waiting[:8], "shy-owl"):
            (found,) = one.host.runs.find(ref)
            assert (found["id"], found["phase"], found["waiting"]) == (waiting, None, "limits.runs 1 is reached")
        assert one.host.runs.find("brave") == one.host.runs.find("%") == []


async def test_a_run_s_name_wins_over_the_start_of_another_s_id(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        other = await one.start("a")
        named = await one.start("b", name=other[:6])
        assert [run["id"] for run in one.host.runs.find(other[:6])] == [named]


async def test_changes_are_heard_of(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        heard: list[Any] = []
        unsubscribe = one.host.runs.subscribe(lambda document: heard.append(document["phase"]))
        run_id = await one.start()
        unsubscribe()
        await one.host.runs.cancel([run_id, "nobody"], now=False, peer=PEER)
        await one.engine.until_done(run_id)
        assert list(dict.fromkeys(heard)) == ["claiming", "starting", "running"]


async def test_a_held_run_is_heard_of_again_when_it_is_due(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        heard: list[Any] = []
        unsubscribe = one.host.runs.subscribe(lambda document: heard.append((document["phase"], document["held"])))
        ended = one.host.runs.subscribe(lambda document: heard.append("of another"))
        run_id = one.engine.add_run(one.engine.deploy(), in_s=8.0)
        await one.engine.poller.poll_once()
        await one.engine.until(lambda: running(one.engine, run_id))
        ended()
        before = [one for one in heard if one != "of another"]
        assert before[-1] == ("running", True) and ("running", False) not in before
        del heard[:]
        await asyncio.sleep(9)
        assert heard == [("running", False)]
        unsubscribe()


async def test_cancel_answers_with_what_is_known(tmp_path: Path) -> None:
    async with daemon(tmp_path) as one:
        run_id = await one.start()
        (document,) = await one.host.runs.cancel([run_id, "nobody"], now=True, peer=PEER)
        assert (document["id"], document["intent"]) == (run_id, "cancel")
        await one.engine.until_done(run_id)
        assert [stop.timeout_s for stop in one.spawner.stops] == [0.0]


def test_what_the_daemon_has_besides_its_files() -> None:
    paths = Paths("/etc/runnerd", "/run/runnerd", "/var/lib/runnerd", "/var/log/runnerd", None)
    environ = {"PREFECT_API_URL": "http://a/api", "RUNNERD_FLOW_USER": "", "PREFECT_API_KEY": "secret"}
    found = service_document(paths, environ, AllowedUsers("etl", root=True, owner=7))
    listed = {"list": "etl", "root": True, "owner": 7}
    assert found == {"directory": "/etc/runnerd", "api_url": "http://a/api", "flow_user": None, "users": listed}
    assert service_document(paths, environ, None)["users"] is None
