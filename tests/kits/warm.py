"""Warm interpreters for tests: of a Prefect that is only a few lines, or of a real one, below a spawner under test."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from runnerd.core.process import ForkOf, LaunchSpec, Warm
from runnerd.launch.warm_interpreter import warm_argv, warm_environment
from runnerd.processes.protocol import Record
from tests.kits.spawner import SYSTEM_PYTHON, Link, SpawnerUnderTest

WARM = "warm-1"
FORK_OF = ForkOf(key=WARM, attempt=0)
# The engine of this Prefect executes the file that FLOW names, in __main__ as the real one runs a flow.
ENGINE = """
import os
if __name__ == "__main__":
    with open(os.environ["FLOW"]) as file:
        exec(compile(file.read(), "flow", "exec"), globals())
"""


def make_prefect(spawner: SpawnerUnderTest, *, init: str = "", engine: str = ENGINE) -> Path:
    """Make the directory for PYTHONPATH; modules to preload may be put there too."""
    library = spawner.home / "library"
    (library / "prefect").mkdir(parents=True)
    (library / "prefect" / "__init__.py").write_text(f"import logging\n__version__ = '0.0'\n{init}")
    (library / "prefect" / "engine.py").write_text(engine)
    return library


def base_environment(spawner: SpawnerUnderTest) -> dict[str, str]:
    """What an interpreter and the runs that are forked of it have in common."""
    library = {"PYTHONPATH": str(spawner.home / "library"), "PYTHONDONTWRITEBYTECODE": "1"}
    return {"PATH": "/usr/bin:/bin", "HOME": str(spawner.home), **library}


def warm_spec(
    spawner: SpawnerUnderTest,
    *,
    python: str = "",
    environment: Mapping[str, str] | None = None,
    preload: Sequence[str] = (),
    key: str = WARM,
    **settings: object,
) -> LaunchSpec:
    """An interpreter, of the spawner's own user unless a user is given."""
    python = python or python_of(settings)
    base = base_environment(spawner) if environment is None else environment
    return spawner.spec(
        key, *warm_argv(python), environment={**base, **warm_environment(preload)}, forks=True, **settings
    )


def flow_spec(
    spawner: SpawnerUnderTest,
    key: str,
    flow: str,
    *,
    fork_of: ForkOf | None = FORK_OF,
    python: str = "",
    **settings: object,
) -> LaunchSpec:
    """A run of this text; warm unless `fork_of` is None."""
    path = spawner.home / f"{key}.py"
    path.write_text(flow)
    environment = {**base_environment(spawner), "FLOW": str(path), "RUNNERD_RUN_ID": key}
    defaults: dict[str, object] = {"environment": environment, "fork_of": fork_of}
    argv = (python or python_of(settings), "-m", "prefect.engine")
    return spawner.spec(key, *argv, **{**defaults, **settings})


def python_of(settings: Mapping[str, object]) -> str:
    """One that the user may execute."""
    return SYSTEM_PYTHON if settings.get("user") else sys.executable


async def until_warm(link: Link, state: str = "ready", key: str = WARM) -> Record:
    """The first record heard of the interpreter in this state."""
    return await link.until_record(
        lambda record: record.key == key and record.warm is not None and record.warm.state == state
    )


async def start_warm(link: Link, spec: LaunchSpec) -> Record:
    """Start an interpreter and wait until it is ready."""
    await link.client.spawn(spec)
    record = await link.until_record(
        lambda record: record.key == spec.key and (record.warm != Warm(state="importing") or record.exit is not None)
    )
    assert record.warm is not None and record.warm.state == "ready", record
    return record


async def run_to_end(link: Link, spec: LaunchSpec) -> Record:
    """Start a run and wait for its end."""
    await link.client.spawn(spec)
    return await link.until(spec.key, "exited")
