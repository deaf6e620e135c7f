"""The parts that pull code: the programs run as the spawner would, and a keeper around a puller with set answers."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runnerd.core.problems import Problems
from runnerd.core.source import Source, Tree
from runnerd.deployments.sources.credentials import Login, SourceCredentials
from runnerd.deployments.sources.keeper import SourceKeeper
from runnerd.deployments.sources.pulling import Pulled, Wanted
from runnerd.deployments.sources.state import SourceState
from runnerd.deployments.sources.table import SourceTable, store_name
from runnerd.launch.spec import PROGRAM, program_argv, program_text
from runnerd.system.ambient import Ambient
from tests.kits.engine import an_ambient
from tests.kits.nouns import NOON, LogLines

Json = Any
URL = "https://git.example/etl.git"
LIMIT_S = 120.0


def a_source(**changes: Json) -> Source:
    return Source(**{"kind": "git", "url": URL, "branch": "main", **changes})


def a_tree(letter: str) -> Tree:
    return Tree(commit=letter * 40, directory=f"/0-t/{store_name(a_source())}/trees/{letter * 40}-00000000")


@dataclass
class FakePuller:
    """Answers with what `answer` is; remembers what was wanted. While `hold` is set, nothing is answered."""

    answer: Pulled | str = "not there yet"
    wanted: list[Wanted] = field(default_factory=list)
    hold: asyncio.Event | None = None
    by_commit: Mapping[str, Pulled] = field(default_factory=dict)

    async def pull(self, wanted: Wanted) -> Pulled | str:
        self.wanted.append(wanted)
        if self.hold is not None:
            await self.hold.wait()
        await asyncio.sleep(0)
        if wanted.commit is not None:
            return self.by_commit.get(wanted.commit, f"there is no commit {wanted.commit}")
        return self.answer


@dataclass
class FakeCredentials:
    """Every source has this login, or a sentence why not."""

    login: Login | str | None = None

    async def read(self, source: Source) -> Login | str | None:
        return self.login


def a_keeper(
    puller: FakePuller,
    *,
    path: Path | str = "/dev/null/sources.json",
    credentials: FakeCredentials | SourceCredentials | None = None,
    in_use: Callable[[], Collection[str]] = lambda: (),
    problems: Problems | None = None,
    ambient: Ambient | None = None,
) -> SourceKeeper:
    return SourceKeeper(
        table=SourceTable(SourceState(str(path))),
        puller=puller,  # type: ignore[arg-type]
        credentials=credentials or FakeCredentials(),  # type: ignore[arg-type]
        in_use=in_use,
        problems=problems or Problems(),
        ambient=ambient or an_ambient(LogLines(), now=lambda: NOON, clock=lambda: asyncio.get_running_loop().time()),
    )


def no_sources() -> SourceKeeper:
    """The keeper of a host whose deployments have no source."""
    return a_keeper(FakePuller())


# --- the programs -------------------------------------------------------------------------------------------------


@dataclass
class Program:
    """Runs a program of runnerd/programs for one user's folder `place`, as the spawner does."""

    place: Path
    url: str
    name: str = "pull_git"
    python: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)
    answer_file: str = ""

    def start(self, **work: Json) -> subprocess.Popen[bytes]:
        whole = {
            "url": self.url, "branch": None, "tag": None, "commit": None, "submodules": False, "directories": [],
            "size_max": 2**30, "secret": None, "place": str(self.place), "token": "t0", "entrypoints": [], "keep": [],
            "history": [], "stores": [], **work,
        }  # fmt: skip
        program = {PROGRAM: program_text(self.name), "RUNNERD_PULL": json.dumps(whole)}
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": "/nonexistent",
            **self.environment,
            **program,
        }
        descriptor, self.answer_file = tempfile.mkstemp(dir=self.place)
        os.close(descriptor)
        return subprocess.Popen(
            ["sh", "-c", 'exec 3>"$0"; exec "$@"', self.answer_file, *program_argv(self.python, "pull")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment,
        )

    def pull(self, **work: Json) -> Json:
        """Return what it answered: the `ok` document, or the text of the error."""
        process = self.start(**work)
        said, _ = process.communicate(timeout=LIMIT_S)
        text = Path(self.answer_file).read_text()
        assert text, f"it answered nothing: {said.decode()}"
        answer = json.loads(text)
        return answer["ok"] if "ok" in answer else answer["error"]
