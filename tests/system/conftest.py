"""Machines to install the package on: one of each Debian a session, and fresh ones for tests that use one up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.kits.machines.commanded import HERE
from tests.kits.machines.host_on_machine import MachineHost
from tests.kits.machines.machine import Machine, why_not
from tests.kits.machines.trees import machine_of, package

TIME_LIMIT_S = 600.0  # of a test that may boot a machine and start a server on it
SUITES = ("bookworm", "trixie")  # systemd 252 and 257


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.time_limit(TIME_LIMIT_S))


@pytest.fixture(scope="session", params=SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    why = why_not()
    if why is not None:
        pytest.skip(why)
    name: str = request.param
    return name


@contextmanager
def _booted(suite: str, name: str) -> Iterator[MachineHost]:
    machine: Machine = machine_of(suite, name)
    host = MachineHost(machine=machine, suite=suite)
    try:
        machine.boot()
        yield host
    finally:
        machine.close()


@pytest.fixture(scope="session")
def host(suite: str) -> Iterator[MachineHost]:
    """The package, a Prefect server beside it, and the flows of `machine_flows.py`."""
    with _booted(suite, f"host-{suite}") as host:
        host.install(package())
        host.serve_prefect()
        host.configure()
        yield host


@pytest.fixture
def bare(suite: str) -> Iterator[MachineHost]:
    """A machine with nothing on it."""
    with _booted(suite, f"bare-{suite}") as host:
        yield host


@pytest.fixture(autouse=True)
def _last_words(request: pytest.FixtureRequest) -> Iterator[None]:
    """What the machine's journal said goes with a failure."""
    yield
    if "host" in request.fixturenames and getattr(request.node, "failed", False):
        sys.stderr.write(request.getfixturevalue("host").last_words())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed  # type: ignore[attr-defined, union-attr]
    return report
