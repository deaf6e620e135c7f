"""A doctor and its patient: an engine between fakes, with directories of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runnerd import __version__
from runnerd.config.in_force import ConfigInForce
from runnerd.core.place import Problem
from runnerd.core.settings import Config
from runnerd.doctor.check_runner import CheckGroup
from runnerd.doctor.doctor import Doctor
from runnerd.doctor.subject import Subject
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.environment import Environments
from runnerd.processes.upgrading import WantedSpawner
from runnerd.spawner.child.users import AllowedUsers
from runnerd.system.directories import runs_dir, work_dir
from runnerd.system.paths import Paths
from runnerd.system.systemd import Systemd
from tests.kits.engine import Engine, fake_engine
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.nouns import Json, log_to
from tests.kits.pools import a_keeper

PYTHON = "/opt/etl/bin/python"


@dataclass
class Practice:
    """`problems` and `config` are what the patient has of them."""

    doctor: Doctor
    engine: Engine
    spawner: FakeSpawner
    paths: Paths
    config: ConfigInForce

    async def examine(self) -> dict[str, Json]:
        """Its checks by their names."""
        found = await self.doctor.examine()
        checks = {check["name"]: check for check in found["checks"]}
        assert len(checks) == len(found["checks"]), "two checks have one name"
        assert found["ok"] is all(check["state"] != "error" for check in found["checks"])
        return checks


class Nowhere:
    """Where notifications go without systemd."""

    def notify(self, state: str) -> None: ...


@asynccontextmanager
async def practice(
    folder: Path,
    *,
    environ: Mapping[str, str] | None = None,
    more: Sequence[CheckGroup] = (),
    held_drops: Sequence[Problem] = (),
    warm: Sequence[Problem] = (),
    notices: Sequence[Problem] = (),
    users: AllowedUsers | None = None,
    **changes: Json,
) -> AsyncIterator[Practice]:
    """Its spawner's processes end only when told to, or cannot start where its `start_error` is set."""
    paths = Paths(*(str(folder / name) for name in ("etc", "run", "state", "log")), None)
    for path in (paths.config, paths.runtime, paths.state, work_dir(paths), runs_dir(paths)):
        os.makedirs(path, exist_ok=True)
    Path(paths.config, "runnerd.yaml").write_text("limits: {runs: 2}\n")
    async with fake_engine(folder, **changes) as (engine, spawner):
        config = ConfigInForce(Config(settings=engine.settings, files=("runnerd.yaml",)))
        subject = Subject(
            api=engine.api,
            config=config,
            embedded=lambda: None,
            registry=engine.registry,
            held_drops=lambda: held_drops,
            warm=lambda: warm,
            notices=lambda: notices,
            pools=a_keeper(engine),
            abandoned=engine.abandoned,
            deadlocked=engine.blocked.deadlocked,
            environments=Environments(environ={}, calls=BoundedCalls()),
            journal=engine.journal,
            link=engine.link,
            wanted_spawner=WantedSpawner(version=__version__, build=spawner.hello.build, users=users),
            pulse=engine.pulse,
            systemd=Systemd(environ=environ or {}, pid=os.getpid(), notifier=Nowhere()),
            paths=paths,
            environ=environ or {},
        )
        doctor = Doctor(subject=subject, log=log_to(engine.lines), more=more)
        yield Practice(doctor, engine, spawner, paths, config)


def python_of(user: str | None = None) -> str:
    """What the check of this test's own interpreter is called."""
    return f"python {sys.executable}" + (f" as {user}" if user else "")
