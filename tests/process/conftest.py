"""Fixtures of the tests that run real processes."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.async_tests import run_on_loop
from tests.kits.cgroup import bounded_cgroup, skip_without_kernel_log
from tests.kits.spawner import SpawnerUnderTest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    run_on_loop(pyfuncitem, asyncio.run)


@pytest.fixture
def idle_spawner() -> Iterator[SpawnerUnderTest]:
    """A directory for a spawner that is not started. Not under pytest's own, which other users cannot enter."""
    home = Path(tempfile.mkdtemp(prefix="spawner-test-"))
    home.chmod(0o755)
    shutil.copy(Path(__file__).with_name("child.py"), home)
    spawner = SpawnerUnderTest(home)
    try:
        yield spawner
    finally:
        spawner.clear()
        shutil.rmtree(home)


@pytest.fixture
def spawner(idle_spawner: SpawnerUnderTest) -> SpawnerUnderTest:
    idle_spawner.start()
    return idle_spawner


@pytest.fixture
def bounded() -> Iterator[Path]:
    """A cgroup in which the kernel kills for want of memory, and it can be read that it did."""
    skip_without_kernel_log()
    with bounded_cgroup() as directory:
        yield directory
