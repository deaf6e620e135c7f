"""Real Prefect servers: `prefect2`, `prefect3`, and `prefect`, which is both in turn.

One server of each major per test session, on a free loopback port, with a home directory and a database of its own.
Their environments are made by tests/envs/make.sh from lock files: a Prefect whose dependencies move on may not start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.async_tests import run_on_loop
from tests.kits.contract import Server
from tests.kits.fakes.fake_prefect import VERSIONS, FakePrefect
from tests.kits.prefect_servers import PrefectServer, running_server

TEST_LIMIT_S = 600.0  # the first test of a session pays for the start of its server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("time_limit"):
            item.add_marker(pytest.mark.time_limit(TEST_LIMIT_S))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    run_on_loop(pyfuncitem, asyncio.run)


@pytest.fixture(scope="session")
def prefect2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Prefect 2.20."""
    with running_server(2, tmp_path_factory.mktemp("prefect2")) as server:
        yield server


@pytest.fixture(scope="session")
def prefect3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Prefect 3."""
    with running_server(3, tmp_path_factory.mktemp("prefect3")) as server:
        yield server


@pytest.fixture(params=["prefect2", "prefect3"])
def prefect(request: pytest.FixtureRequest) -> PrefectServer:
    """Each server in turn."""
    server: PrefectServer = request.getfixturevalue(request.param)
    return server


@pytest.fixture(
    params=[
        "fake2",
        "fake3",
        pytest.param("prefect2", marks=pytest.mark.server),
        pytest.param("prefect3", marks=pytest.mark.server),
    ]
)
def server(request: pytest.FixtureRequest) -> Server:
    """Each of them in turn, and the fakes that stand for them."""
    if request.param.startswith("fake"):
        major = int(request.param[-1])
        fake = FakePrefect(major=major)
        return Server(url="http://fake.test/api", major=major, version=VERSIONS[major], fake=fake)
    real = request.getfixturevalue(request.param)
    return Server(url=real.url, major=real.major, version=real.version)
