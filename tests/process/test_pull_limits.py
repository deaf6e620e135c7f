"""pulling.py on a real spawner: what a server that never answers costs, and what is left of the pull."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.problems import Problems
from runnerd.core.source import Source
from runnerd.deployments.sources.credentials import Login
from runnerd.deployments.sources.pulling import Pulled, Puller, Wanted
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.processes.client import SpawnerClient
from runnerd.processes.link import SpawnerLink
from tests.kits.daemon import eventually
from tests.kits.git_server import Repository, serving_git
from tests.kits.links import running_link
from tests.kits.nouns import LogLines, a_deployment, log_to
from tests.kits.sources import a_source
from tests.kits.spawner import OWN_USER, SpawnerUnderTest

Json = Any
RUN = a_deployment("etl", run={"python": sys.executable, "user": OWN_USER, "working_directory": "/"}).run
SECRET = "s3cr3t-pa55word"


def link_of(spawner: SpawnerUnderTest) -> SpawnerLink:
    def connect(on_record: Callable[..., None], on_lost: Callable[[], None]) -> SpawnerClient:
        return SpawnerClient(socket_path=spawner.socket, on_record=on_record, on_lost=on_lost)

    async def start() -> None: ...

    return SpawnerLink(make_client=connect, start_spawner=start, problems=Problems(), log=log_to(LogLines()))


def processes_of(url: str) -> list[str]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if url.encode() in command:
            found.append(pid)
    return found


@pytest.mark.time_limit(300)
async def test_a_server_that_never_answers_costs_the_time_limit(spawner: SpawnerUnderTest) -> None:
    repository = Repository(spawner.home / "srv")
    commit = repository.commit({"etl.py": "one\n"})
    place, work = spawner.home / "sources", spawner.home / "work"
    place.mkdir()
    work.mkdir()
    link = link_of(spawner)
    environments = Environments(environ={"PATH": os.environ["PATH"]}, calls=BoundedCalls())
    puller = Puller(link=link, environments=environments, work_dir=str(work), place=str(place), token="tok")
    with serving_git(repository.path.parent) as server:

        def hang(request: BaseHTTPRequestHandler) -> bool:
            server.released.wait()
            return True

        server.answer = hang
        source: Source = a_source(url=server.url(), time_limit_s=5.0)
        wanted = Wanted(source=source, run=RUN, login=Login("ada", SECRET), entrypoints=["etl.py"])
        async with running_link(link):
            assert await puller.pull(wanted) == "pulling it took longer than 5s; see time_limit"
            eventually(lambda: not processes_of(server.url()), "git to be ended too")
            server.answer = lambda request: False
            found = await puller.pull(replace(wanted, source=replace(source, time_limit_s=200.0)))
            assert isinstance(found, Pulled), found
            assert found.tree.commit == commit
            assert (link.records(), os.listdir(work)) == ([], []), "nothing is left of either"
    stored = [path for path in spawner.home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert stored == [], "no file of the spawner, of the daemon or of git has the secret"
