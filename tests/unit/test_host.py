"""host.py: the documents of a running daemon, and the changes people may ask for."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jumploop
import pytest
from engine_kit import Engine, fake_engine, start
from fakes.fake_spawner import FakeSpawner
from nouns_kit import NOON, URL, Json, a_deployment
from registrar_kit import FakeInspector

from runnerd.backoff import Backoff
from runnerd.control.host import Host, Peer, Refused
from runnerd.host import DaemonHost, Feed
from runnerd.model import Config, Place, Problem
from runnerd.refresher import Refresher
from runnerd.registrar import Registrar
from runnerd.registry import Entry

PEER = Peer(uid=0, gid=0, pid=1)
_IS_A_HOST: type[Host] = DaemonHost


@dataclass
class Daemon:
    """A DaemonHost over an engine; `reloads` counts, `problems` are shown."""

    host: DaemonHost
    engine: Engine
    spawner: FakeSpawner
    feed: Feed
    reloads: int = 0

    async def start(self, deployment: str = "nightly", **more: object) -> str:
        return await start(self.engine, self.engine.deploy(deployment), **more)

    def id_of(self, name: str) -> str:
        (found,) = self.host.find_deployments(name)
        return str(found["id"])


@asynccontextmanager
async def daemon(folder: Path, **changes: Json) -> AsyncIterator[Daemon]:
    async with fake_engine(folder, **changes) as (engine, spawner):
        feed = Feed()
        engine.heard.append(feed.tell)
        backoff = lambda: Backoff(first_s=0.5, uniform=lambda: 1.0)  # noqa: E731
        registrar = Registrar(
            api=engine.api,
            inspector=FakeInspector(),  # type: ignore[arg-type]
            journal=engine.journal,
            registry=engine.registry,
            url=URL,
            log=engine.tools.log,
            pulse=engine.pulse,
            backoff=backoff,
            registered=lambda: None,
        )
        made: Daemon

        async def reload() -> Json:
            made.reloads += 1
            return {"ok": True}

        host = DaemonHost(
            url=URL,
            api=engine.api,
            supervisor=engine.supervisor,
            poller=engine.poller,
            registry=engine.registry,
            refresher=Refresher(
                api=engine.api, registry=engine.registry, registrar=registrar, pulse=engine.pulse, now=engine.now
            ),
            journal=engine.journal,
            link=engine.link,
            drain=engine.drain,
            pulse=engine.pulse,
            feed=feed,
            config=lambda: Config(settings=engine.settings),
            reload=reload,
            problems=lambda: [Problem(message="mend me", place=Place("f", 1, 2))],
            backoff=backoff,
            started_at=NOON,
        )
        made = Daemon(host, engine, spawner, feed)
        yield made


def checks(host: DaemonHost) -> dict[str, bool]:
    ok, document = host.health()
    found = {check["name"]: check["ok"] for check in document["checks"]}
    assert ok is document["ok"] is all(found.values())
    return found


# --- documents --------------------------------------------------------------------------------------------------


def test_status(tmp_path: Path) -> None:
    async def go() -> None:
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

    jumploop.run(go())


def test_status_answers_with_the_api_away(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            await one.start()
            one.engine.prefect.down = True
            await asyncio.gather(one.engine.poller.poll_once(), return_exceptions=True)
            asked = len(one.engine.prefect.asked)
            assert one.host.status()["api"]["state"] == "unreachable"
            assert checks(one.host)["api"] is False
            assert len(one.engine.prefect.asked) == asked

    jumploop.run(go())


def test_health_says_what_is_wrong(tmp_path: Path) -> None:
    async def go() -> None:
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
            one.engine.supervisor.journal_problem = "disk full"
            assert checks(one.host)["journal"] is False

    jumploop.run(go())


def test_metrics(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path, runs=5) as one:
            await one.start()
            await one.engine.poller.poll_once()
            lines = (await one.host.metrics()).splitlines()
            values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
            assert values['runnerd_runs{phase="running"}'] == "1"
            assert values['runnerd_deployments{state="ready"}'] == "1"
            assert (values["runnerd_runs_max"], values["runnerd_api_up"]) == ("5", "1")
            assert float(values["runnerd_last_poll_seconds"]) == one.engine.now().timestamp()

    jumploop.run(go())


def test_the_documents_hold_the_configuration_in_force(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path, runs=5) as one:
            assert one.host.config()["limits"]["runs"] == 5
            assert await one.host.reload(peer=PEER) == {"ok": True}
            assert one.reloads == 1

    jumploop.run(go())


# --- runs -------------------------------------------------------------------------------------------------------


def test_live_runs_and_history(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            past, live = await one.start("a"), await one.start("b")
            one.engine.prefect.set_state(past, "COMPLETED")
            one.spawner.exit(past)
            await one.engine.until_done(past)
            assert [run["id"] for run in one.host.runs(history=False)] == [live]
            assert [run["id"] for run in one.host.runs(history=True)] == [past, live]
            document = one.host.run_document(past)
            assert document is not None
            assert (document["phase"], document["exit"]["words"]) == ("done", "exited 0")
            assert one.host.run_document("nobody") is None
            assert one.host.output(past) == f"/var/log/{past}.1.log"
            assert one.host.output(live) == f"/var/log/{live}.1.log"
            assert one.host.output("nobody") is None

    jumploop.run(go())


def test_finding_runs(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path, runs=1) as one:
            live = await one.start(name="brave-fox")
            waiting = one.engine.add_run(one.engine.deploy("other"), name="shy-owl")
            await one.engine.poller.poll_once()
            for ref in (live, live[:8], "brave-fox"):
                assert [run["id"] for run in one.host.find_runs(ref)] == [live]
            for ref in (waiting, waiting[:8], "shy-owl"):
                (found,) = one.host.find_runs(ref)
                assert (found["id"], found["phase"], found["waiting"]) == (waiting, None, "limits.runs 1 is reached")
            assert one.host.find_runs("brave") == one.host.find_runs("%") == []

    jumploop.run(go())


def test_a_run_s_name_wins_over_the_start_of_another_s_id(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            other = await one.start("a")
            named = await one.start("b", name=other[:6])
            assert [run["id"] for run in one.host.find_runs(other[:6])] == [named]

    jumploop.run(go())


def test_changes_are_heard_of(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            heard: list[Any] = []
            unsubscribe = one.host.subscribe(lambda document: heard.append(document["phase"]))
            run_id = await one.start()
            unsubscribe()
            await one.host.cancel([run_id, "nobody"], now=False, peer=PEER)
            assert list(dict.fromkeys(heard)) == ["claiming", "starting", "running"]
            assert one.feed.listeners == []

    jumploop.run(go())


def test_cancel_answers_with_what_is_known(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            run_id = await one.start()
            (document,) = await one.host.cancel([run_id, "nobody"], now=True, peer=PEER)
            assert (document["id"], document["intent"]) == (run_id, "cancel")
            await one.engine.until_done(run_id)
            assert [stop.timeout_s for stop in one.spawner.stops] == [0.0]

    jumploop.run(go())


# --- making and executing runs ------------------------------------------------------------------------------------


async def make(one: Daemon, deployment_id: str, **changes: Json) -> Json | Refused:
    given: dict[str, Json] = {"parameters": {"x": 1}, "name": "mine", "tags": ["t"], **changes}
    return await one.host.create_run(deployment_id, peer=PEER, **given)


def test_a_run_that_is_made_here_starts_without_a_poll(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            one.engine.deploy()
            polling = asyncio.create_task(one.engine.poller.poll())
            document = await make(one, one.id_of("nightly"))
            assert isinstance(document, dict)
            assert (document["name"], document["deployment"], document["tags"]) == ("mine", "nightly", ["t"])
            # Its time is the server's own clock, which is years ahead of the test's.
            assert document["id"] in one.engine.poller.on_offer.runs
            polling.cancel()
            await asyncio.wait([polling])

    jumploop.run(go())


def test_a_busy_server_is_asked_again_and_makes_one_run(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            one.engine.deploy()
            one.engine.prefect.trouble("create_flow_run", status=503, after=True, times=3)
            assert isinstance(await make(one, one.id_of("nightly")), dict)
            assert len(one.engine.prefect.runs) == 1

    jumploop.run(go())


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        ({"status": 503, "times": 99}, 503),
        ({"times": 1}, 503),
        ({"status": 401}, 503),
        ({"status": 403}, 503),
        ({"status": 409, "body": {"detail": "Error creating flow run: x is not an integer"}}, 422),
        ({"status": 400}, 422),
    ],
)
def test_a_run_that_cannot_be_made(tmp_path: Path, trouble: dict[str, Json], status: int) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            one.engine.deploy()
            one.engine.prefect.trouble("create_flow_run", **trouble)
            refused = await make(one, one.id_of("nightly"))
            assert isinstance(refused, Refused)
            assert refused.status == status
            assert refused.detail

    jumploop.run(go())


def test_what_is_not_registered_can_neither_run_nor_be_paused(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            one.engine.registry.put(Entry(deployment=a_deployment("new")))
            for answer in (await make(one, ""), await one.host.set_paused("", True, peer=PEER)):
                assert isinstance(answer, Refused)
                assert answer.status == 409

    jumploop.run(go())


def test_executing_a_given_run_here_and_now(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path, runs=0) as one:
            run_id = one.engine.add_run(one.engine.deploy(), in_s=86400.0)
            document = await one.host.execute(run_id, peer=PEER)
            assert isinstance(document, dict)
            assert document["id"] == run_id
            again = await one.host.execute(run_id, peer=PEER)
            assert isinstance(again, Refused)
            assert (again.status, "under way" in again.detail) == (409, True)
            await one.engine.until(lambda: one.engine.phase(run_id) == "running")

    jumploop.run(go())


def test_what_cannot_be_executed_here(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            missing = await one.host.execute(str(uuid.uuid4()), peer=PEER)
            assert isinstance(missing, Refused)
            assert missing.status == 404
            run_id = one.engine.add_run(one.engine.deploy())
            one.engine.registry.remove(("nightly.py:flow", "nightly"))
            elsewhere = await one.host.execute(run_id, peer=PEER)
            assert isinstance(elsewhere, Refused)
            assert elsewhere.status == 409

    jumploop.run(go())


# --- deployments and draining -------------------------------------------------------------------------------------


def test_pausing_and_resuming(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            deployment_id = one.engine.deploy()
            for paused, state in ((True, "paused"), (False, "ready")):
                document = await one.host.set_paused(deployment_id, paused, peer=PEER)
                assert isinstance(document, dict)
                assert document["state"] == state
                assert one.engine.prefect.deployments[deployment_id]["paused"] is paused
                assert one.host.deployments()[0]["state"] == state

    jumploop.run(go())


def test_pausing_what_was_deleted(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            deployment_id = one.engine.deploy()
            one.engine.prefect.deployments.clear()
            refused = await one.host.set_paused(deployment_id, True, peer=PEER)
            assert isinstance(refused, Refused)
            assert refused.status == 404

    jumploop.run(go())


def test_draining_and_undraining(tmp_path: Path) -> None:
    async def go() -> None:
        async with daemon(tmp_path) as one:
            run_id = one.engine.add_run(one.engine.deploy())
            status = one.host.drain(timeout_s=None, reason=None, peer=PEER)
            assert (status["draining"], status["drain"]["reason"], status["drain"]["until"]) == (
                True,
                "asked by an operator",
                None,
            )
            polling = asyncio.create_task(one.engine.poller.poll())
            await asyncio.sleep(60)
            assert one.engine.supervisor.records() == []
            assert one.host.undrain(peer=PEER)["draining"] is False
            await one.engine.until(lambda: one.engine.phase(run_id) == "running")
            polling.cancel()
            await asyncio.wait([polling])

    jumploop.run(go())
