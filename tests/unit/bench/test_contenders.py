"""How the contenders are started: what is written for them is right, and the same for all."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from runnerd.config import load
from tests.bench.asking import Asker
from tests.bench.contenders import MARK, Contender, Setting
from tests.bench.line_up import make_contender
from tests.bench.rows import COLD, RUNNING, SERVE, WARM, WORKER
from tests.bench.waiting import Deadline
from tests.kits.config import DEFAULTS
from tests.kits.prefect_servers import PrefectServer

URL = "http://127.0.0.1:1/api"
SERVER = PrefectServer(url=URL, python=sys.executable, major=3, version="3.9.1", environment={"DO_NOT_TRACK": "1"})


@contextmanager
def contender(who: str, **setting: object) -> Iterator[Contender]:
    deadline = Deadline(60)
    found = make_contender(who, Setting(SERVER, URL, 8, **setting), Asker(URL, deadline), deadline)  # type: ignore[arg-type]
    try:
        yield found
    finally:
        found.close()
    assert not found.directory.exists()


@pytest.mark.parametrize("who", [COLD, WARM])
def test_the_configuration_of_runnerd_loads(who: str) -> None:
    with contender(who, poll_s=1.0, deployments=3) as host:
        host.prepare()
        config = load(str(host.directory / "etc"), defaults=DEFAULTS)
        assert config.problems == ()
        assert (config.settings.limits.runs, config.settings.api.poll_interval_s) == (8, 1.0)
        assert [one.name for one in config.deployments] == host.names()
        (run, *_) = [one.run for one in config.deployments]
        assert (run.start, run.stop_timeout_s, run.python) == (who, host.grace_s, sys.executable)
        assert run.environment[MARK] == host.mark


def test_defaults_are_left_alone() -> None:
    with contender(COLD) as host:
        host.prepare()
        assert load(str(host.directory / "etc"), defaults=DEFAULTS).settings.api.poll_interval_s == 10.0
    for who in (SERVE, WORKER):
        with contender(who) as other:
            assert not [name for name in other.environment() if "POLL" in name or "QUERY" in name]


def test_all_have_the_same_limit_and_polls() -> None:
    with contender(SERVE, poll_s=1.0) as serve, contender(WORKER, poll_s=1.0) as worker:
        assert serve.argv()[2] == worker.argv()[-1] == "8"
        assert serve.environment()["PREFECT_RUNNER_POLL_FREQUENCY"] == "1"
        assert worker.environment()["PREFECT_WORKER_QUERY_SECONDS"] == "1"


@pytest.mark.parametrize("who", RUNNING)
def test_whatever_is_started_carries_the_mark(who: str) -> None:
    with contender(who) as one, contender(who) as other:
        assert one.environment()[MARK] == one.mark != other.mark
        assert one.names() != other.names()
