"""embedded.py: the server keeps its port, its end is logged, and `stop` ends it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.problems import Problems
from runnerd.daemon.embedded import KEY, STOP_TIMEOUT_S, EmbeddedServer
from runnerd.daemon.stopping import Stop, stop_in_order
from runnerd.processes.link import SpawnerLink
from runnerd.processes.upgrading import SpawnerUpgrade, WantedSpawner
from runnerd.runs.drain import EXIT_S
from runnerd.system.paths import Paths
from tests.kits.engine_parts import NoSpares
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import LogLines, log_to


def a_link(spawner: FakeSpawner, lines: LogLines) -> SpawnerLink:
    return SpawnerLink(
        make_client=spawner.make_client, start_spawner=spawner.start_spawner, problems=Problems(), log=log_to(lines)
    )


def a_server(link: SpawnerLink, lines: LogLines, folder: Path) -> EmbeddedServer:
    return EmbeddedServer(
        link=link,
        url="http://127.0.0.1:4200/api",
        paths=Paths("/etc", "/run", str(folder), "/log", None),
        problems=Problems(),
        log=log_to(lines),
    )


async def test_it_is_kept_through_daemons_and_stopped(tmp_path: Path) -> None:
    spawner, lines = FakeSpawner(), LogLines()

    async def daemon(*, last: bool) -> None:
        link = a_link(spawner, lines)
        server = a_server(link, lines, tmp_path)
        tasks = [asyncio.create_task(link.run()), asyncio.create_task(server.run())]
        await link.wait_until_connected()
        while spawner.live() != [KEY]:
            await asyncio.sleep(0.1)
        if last:
            spawner.exit(KEY, code=3)
            while len(spawner.started) < 2:
                await asyncio.sleep(0.1)
            assert server.problem == "the embedded Prefect server exited 3; see /log/prefect-server.log"
            await server.stop()
            await asyncio.wait(tasks[1:])
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await link.close()

    await daemon(last=False)
    assert (spawner.live(), len(spawner.started)) == ([KEY], 1)
    await daemon(last=True)
    assert spawner.records == {}
    first = spawner.started[0]
    assert first.argv[1:] == ("-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", "4200")
    assert first.environment["PREFECT_HOME"] == str(tmp_path / "prefect-server")
    assert [spec.attempt for spec in spawner.started] == [1, 2]
    (told,) = [line for line in lines.all() if line["level"] == "error"]
    assert told["event"] == "the embedded Prefect server ended"


async def test_a_stop_does_not_wait_for_ever_where_there_is_no_spawner(tmp_path: Path) -> None:
    spawner, lines, loop = FakeSpawner(), LogLines(), asyncio.get_running_loop()
    link = a_link(spawner, lines)
    server = a_server(link, lines, tmp_path)
    tasks = [asyncio.create_task(link.run()), asyncio.create_task(server.run())]
    while spawner.live() != [KEY]:
        await asyncio.sleep(0.1)
    spawner.down = True
    spawner.lose()
    began, extended = loop.time(), 0

    def extend() -> None:
        nonlocal extended
        extended += 1

    stop = Stop(what="embedded server", make=server.stop, timeout_s=STOP_TIMEOUT_S)
    assert await stop_in_order([stop, stop], hurry=asyncio.Queue(), extend=extend) == ["embedded server"] * 2
    assert loop.time() - began == pytest.approx(2 * (STOP_TIMEOUT_S + EXIT_S), abs=0.2)
    assert extended >= 2 * (STOP_TIMEOUT_S + EXIT_S) / 5.0
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await link.close()


@pytest.mark.parametrize("retires", [True, False])
async def test_it_makes_room_for_another_spawner_in_an_idle_moment(tmp_path: Path, retires: bool) -> None:
    """It is the spawner's child and always there: with it, no spawner of older code would ever be replaced."""
    spawner, lines, runs = FakeSpawner(), LogLines(), ["r-1"]
    spawner.may_retire = retires
    spawner.hello = replace(spawner.hello, version="0.0.1")
    spawner.successor = replace(spawner.hello, version="0.0.2")
    link = a_link(spawner, lines)
    server = a_server(link, lines, tmp_path)
    wanted = WantedSpawner(version="0.0.2", build=None, users=None)
    upgrade = SpawnerUpgrade(
        link=link,
        wanted=wanted,
        server=server,
        spares=NoSpares(),
        has_runs=lambda: bool(runs),
        log=log_to(lines),
    )
    tasks = [asyncio.create_task(one.run()) for one in (link, server, upgrade)]
    await asyncio.sleep(600)
    assert (spawner.live(), len(spawner.started), spawner.stops) == ([KEY], 1, []), "a run needs it"
    runs.clear()
    await asyncio.sleep(600)
    assert (spawner.live(), len(spawner.started)) == ([KEY], 2)
    assert spawner.retired == retires
    assert link.hello is not None and link.hello.version == ("0.0.2" if retires else "0.0.1")
    await asyncio.sleep(600)
    assert len(spawner.started) == 2, "once, or an hour apart where the spawner does not end"
    assert lines.events("error", "warning") == (
        ["the connection to the spawner is lost; its runs go on"] if retires else []
    )
    assert server.problem is None
    assert not [task for task in tasks if task.done()]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await link.close()
