"""command.py: what a worker is started from is its key, and an interpreter is judged by what it answered."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from runnerd.core.place import Place
from runnerd.core.prefect import WorkerType
from runnerd.core.settings import PoolSettings, RunSettings
from runnerd.launch.spec import ApiAccess
from runnerd.pools.workers.command import (
    ProbedPython,
    WorkerPlan,
    install_key_prefix,
    install_spec,
    key_prefix,
    label,
    package_of,
    parse_probe,
    probe_spec,
    why_unsuited,
    worker_spec,
)
from runnerd.prefect_api.dialect import server_info
from runnerd.spawner.io.messages import Fields

RUN = RunSettings(
    python="/opt/py/bin/python", user="etl", group="data", working_directory="/srv", environment={"A": "1"}, limit=3,
    runtime_max_s=60.0, memory_max_bytes=2**30, nice=5, umask=0o27, stop_timeout_s=7.0,
)  # fmt: skip
POOL = PoolSettings(name="etl", run=RUN, place=Place("/etc/runnerd/runnerd.yaml"))
ACCESS = ApiAccess(url="http://p/api", environment={"PREFECT_API_KEY": "s3cret"})
GOOD = ProbedPython(python="/opt/py/bin/python", prefect="3.8.8", package="0.7.4", module=True, no_create=True)


def plan(**changes: Any) -> WorkerPlan:
    defaults: dict[str, Any] = {
        "settings": POOL,
        "type": "docker",
        "package": "prefect-docker",
        "server": server_info("3.8.8"),
        "queues": (),
        "name": "host-1",
        "environment": {"HOME": "/home/etl", "PATH": "/bin", "A": "1"},
        "access": ACCESS,
    }
    return WorkerPlan(**{**defaults, **changes})


def pool(**changes: Any) -> WorkerPlan:
    return plan(settings=replace(POOL, **changes))


def run(**changes: Any) -> WorkerPlan:
    return pool(run=replace(RUN, **changes))


OTHERS = {
    "type": plan(type="ecs"),
    "package": plan(package="prefect-aws"),
    "server": plan(server=server_info("3.9.0")),
    "queues": plan(queues=("a",)),
    "name": plan(name="host-2"),
    "environment": plan(environment={"HOME": "/home/etl", "PATH": "/bin", "A": "2"}),
    "url": plan(access=replace(ACCESS, url="http://q/api")),
    "api key": plan(access=replace(ACCESS, environment={"PREFECT_API_KEY": "other"})),
    "limit": pool(limit=1),
    "prefetch": pool(prefetch_s=30.0),
    "poll interval": pool(poll_interval_s=30.0),
    "user": run(user="other"),
    "python": run(python="/usr/bin/python3"),
    "memory": run(memory_max_bytes=2**20),
}
SAME = {
    "order": plan(environment={"A": "1", "PATH": "/bin", "HOME": "/home/etl"}),
    "place": pool(place=Place("/etc/runnerd/conf.d/x.yaml", 7)),
    "policy": pool(install_policy="never"),
    "limit of each deployment": run(limit=9),
    "runtime": run(runtime_max_s=None),
}


@pytest.mark.parametrize("what", OTHERS)
def test_what_it_is_started_from_is_in_its_key(what: str) -> None:
    assert OTHERS[what].key != plan().key
    assert OTHERS[what].key.startswith(key_prefix("etl"))


@pytest.mark.parametrize("what", SAME)
def test_what_is_of_no_concern_to_it_is_not(what: str) -> None:
    assert SAME[what].key == plan().key


@pytest.mark.parametrize(
    "name", ["etl", "etl.prod", "etl prod", "é", "x" * 300, "a/b", "..", "-", "etl-", "install-etl"]
)
def test_every_name_of_a_pool_makes_keys_and_file_names_of_its_own(name: str) -> None:
    one = pool(name=name)
    for key in (one.key, one.install_key):
        assert Fields({"key": key}, "it").key() == key  # or it is refused
    assert re.fullmatch(r"[\w-]{1,80}", label(name))
    others = {"etl", "etl_prod", "etl-prod", "x" * 60} - {name}
    assert not any(one.key.startswith(key_prefix(other)) for other in others)
    assert not any(one.install_key.startswith(install_key_prefix(other)) for other in others)


@pytest.mark.parametrize(
    ("version", "package", "requirements"),
    [
        ("3.8.8", "prefect-docker", ("prefect==3.8.8", "prefect-docker")),
        ("2.20.25", "prefect-aws", ("prefect==2.20.25", "prefect-aws")),
        ("3.9.0rc1", "prefect-gcp", ("prefect==3.*", "prefect-gcp")),
        ("3.8.8+12.gabcdef", None, ("prefect==3.*",)),
    ],
)
def test_what_pip_is_asked_for(version: str, package: str | None, requirements: tuple[str, ...]) -> None:
    assert plan(server=server_info(version), package=package).requirements == requirements


def test_an_environment_is_its_users_and_shared_where_it_is_the_same() -> None:
    one = plan()
    assert re.fullmatch(r"/home/etl/\.cache/runnerd/workers/docker-[0-9a-f]{12}", one.directory)
    assert pool(name="other", limit=4).directory == one.directory
    assert plan(environment={"HOME": "/h", "XDG_CACHE_HOME": "/c"}).directory.startswith("/c/runnerd/workers/docker-")
    assert len({one.directory, run(python="/x").directory, plan(server=server_info("3.9.0")).directory}) == 3


@pytest.mark.parametrize(
    ("answer", "package", "lacks"),
    [
        (GOOD, "prefect-docker", None),
        (replace(GOOD, package=None), "prefect-docker", "has no prefect-docker"),
        (replace(GOOD, package=None), None, None),
        (replace(GOOD, prefect=None), "prefect-docker", "has no Prefect"),
        (replace(GOOD, prefect="2.20.25"), "prefect-docker", "has Prefect 2.20.25, and the server is 3.8.8"),
        (replace(GOOD, prefect="mine"), "prefect-docker", None),
    ],
)
def test_an_interpreter_is_judged(answer: ProbedPython, package: str | None, lacks: str | None) -> None:
    assert why_unsuited(answer, plan(package=package)) == lacks


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"prefect": "3"}', "null"])
def test_an_answer_that_is_none_is_none(text: str) -> None:
    assert parse_probe("/p", text) is None


def test_the_worker_has_its_pools_limits_but_for_that_of_time() -> None:
    spec = worker_spec(plan(), GOOD, output="/o")
    assert (spec.user, spec.group, spec.nice, spec.umask, spec.memory_max_bytes) == ("etl", "data", 5, 0o27, 2**30)
    assert (spec.runtime_max_s, spec.intents, spec.stop_timeout_s) == (None, False, 7.0)
    assert spec.working_directory == "/"
    assert worker_spec(pool(scratch=False), GOOD, output="/o").working_directory == "/srv"
    assert "s3cret" not in " ".join(spec.argv) + spec.key + repr(plan())
    assert spec.environment["PREFECT_API_KEY"] == "s3cret"
    forced = plan(environment={"PREFECT_API_URL": "http://evil", "PREFECT_API_KEY": "mine"})
    given = worker_spec(forced, GOOD, output="/o").environment
    assert (given["PREFECT_API_URL"], given["PREFECT_API_KEY"]) == ("http://p/api", "mine")


def test_the_worker_polls_at_the_interval_of_its_pool() -> None:
    name = "PREFECT_WORKER_QUERY_SECONDS"
    assert name not in worker_spec(plan(), GOOD, output="/o").environment
    assert worker_spec(pool(poll_interval_s=2.5), GOOD, output="/o").environment[name] == "2.5"


def test_what_installs_and_asks_gets_no_access_to_prefect() -> None:
    install = install_spec(plan(), program="pass", upgrade=False, attempt=1, output="/o")
    probe = probe_spec(plan(), "/p", key="inspect-1", output="/o", result="/r")
    for spec in (install, probe):
        assert "s3cret" not in str(spec)
        assert spec.user == "etl"
        assert spec.runtime_max_s is not None
        assert spec.memory_max_bytes is None


def test_workers_that_come_with_prefect_need_no_package() -> None:
    assert package_of(WorkerType(type="x", package="prefect", template={})) is None
    assert package_of(WorkerType(type="x", package="prefect-x", template={})) == "prefect-x"
    assert package_of(None) is None
