"""A warm run sees what a cold one sees, aspect by aspect; the interpreter has other settings than its runs.

As another user, and under every Python that this machine has and flows may run under.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.processes.protocol import Record
from tests.kits.pythons import pythons
from tests.kits.spawner import SYSTEM_PYTHON, SpawnerUnderTest
from tests.kits.warm import FORK_OF, flow_spec, make_prefect, python_of, run_to_end, start_warm, warm_spec
from tests.kits.warm_compare import DIFFERENT, SAME, list_of_aspects, seen_by

KEYS = ("run-cold", "run-warm", "run-also-warm")
FLOW = "import sys\nsys.path.append({here!r})\nimport warm_facts\nwarm_facts.write({facts!r})\n"
OTHER_USER = "daemon" if os.geteuid() == 0 and os.access(SYSTEM_PYTHON, os.X_OK) else None

Seen = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Who:
    """As whom, and by which interpreter; "" for those of the kits."""

    user: str | None = None
    python: str = ""


@pytest.fixture(scope="module", params=[pytest.param(None, id="another user"), *pythons()])
def who(request: pytest.FixtureRequest) -> Who:
    return Who(user=OTHER_USER) if request.param is None else Who(python=request.param)


@pytest.fixture(scope="module")
def seen(who: Who) -> Iterator[Seen]:
    """What each of the runs has seen, by its key."""
    home = Path(tempfile.mkdtemp(prefix="warm-sees-"))
    home.chmod(0o755)
    (home / "facts").mkdir()
    (home / "facts").chmod(0o777)
    (home / "work").mkdir()
    shutil.copy(Path(__file__).with_name("warm_facts.py"), home)
    spawner = SpawnerUnderTest(home)
    make_prefect(spawner)
    spawner.start()
    try:
        records = asyncio.run(start_all(spawner, who))
        assert [record.start for record in records] == ["cold", "warm", "warm"], records
        assert all(record.exit is not None and record.exit.code == 0 for record in records), spawner.output(KEYS[1])
        yield {key: json.loads((home / "facts" / key).read_text()) for key in KEYS}
    finally:
        spawner.clear()
        shutil.rmtree(home)


async def start_all(spawner: SpawnerUnderTest, who: Who) -> list[Record]:
    files, core = (resource.getrlimit(number)[1] for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE))
    others: dict[str, Any] = {"nice": 7, "umask": 0o077, "rlimits": {"nofile": (200, files), "core": (0, core)}}
    others |= {"user": who.user, "python": who.python, "working_directory": str(spawner.home)}
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner, **others))
        return [await run_to_end(link, seeing_spec(spawner, key, who)) for key in KEYS]


def seeing_spec(spawner: SpawnerUnderTest, key: str, who: Who) -> LaunchSpec:
    # Copied under one name, so that only the run's own key differs.
    flow = FLOW.format(here=str(spawner.home), facts=str(spawner.home / "facts" / key))
    return flow_spec(
        spawner,
        key,
        flow,
        fork_of=None if key == KEYS[0] else FORK_OF,
        user=who.user,
        python=who.python,
        working_directory=str(spawner.home / "work"),
        nice=9 if who.user else 7,
        umask=0o027,
        rlimits={"nofile": (300, 400), "stack": (2**23, 2**24)},
        intents=True,
    )


@pytest.mark.parametrize("aspect", SAME)
def test_a_warm_run_sees_the_same(seen: Seen, aspect: str) -> None:
    cold, warm, again = (seen_by(seen[key], aspect, key) for key in KEYS)
    assert warm == cold
    assert again == cold


@pytest.mark.parametrize("aspect", DIFFERENT)
def test_each_run_has_its_own(seen: Seen, aspect: str) -> None:
    assert len({str(seen[key][aspect]) for key in KEYS}) == 3


def test_nothing_is_left_out(seen: Seen) -> None:
    assert list_of_aspects(seen[KEYS[0]]) == {*SAME, *DIFFERENT}


def test_a_cold_run_sees_what_was_set(seen: Seen, who: Who) -> None:
    """Or the comparison would be of nothing."""
    cold = seen[KEYS[0]]
    assert cold["nice"] == (9 if who.user else 7)
    assert cold["command"][0] == (who.python or python_of({"user": who.user}))
    assert cold["umask"] == ["Umask:\t0027"]
    assert cold["rlimits"]["RLIMIT_NOFILE"] == [300, 400]
    assert cold["session and group"] == [True, True]
    assert cold["command"][1:] == ["-m", "prefect.engine"]
    assert cold["run in /proc/PID/environ"] == ["RUNNERD_RUN_ID=run-cold"]
    assert "PREFECT__CONTROL_TOKEN" in cold["environment"]
    assert len(cold["descriptors"]) == 5, "the standard three, the file of the flow, and the one with the facts"


def test_a_warm_run_has_imported_more(seen: Seen) -> None:
    assert set(seen[KEYS[0]]["modules"]) - set(seen[KEYS[1]]["modules"]) == set()
