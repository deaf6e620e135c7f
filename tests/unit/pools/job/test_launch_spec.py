"""launch_spec.py: what a work pool's run is started with, and what its job cannot change."""

from __future__ import annotations

from typing import Any

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.launch.client_defaults import CERTIFICATE_FILE
from runnerd.launch.spec import ApiAccess, launch_spec
from runnerd.pools.job.launch_spec import Attribution, pool_launch_spec
from runnerd.pools.job.process_job import ProcessJob
from tests.kits.nouns import a_deployment, a_record

Json = Any
ID = "11111111-1111-4111-8111-111111111111"
ACCESS = ApiAccess(url="http://p/api", environment={"PREFECT_API_KEY": "pnu_secret"})
WHOSE = Attribution(worker="host-1", deployment_id="d-1", deployment="nightly", flow_id="f-1", flow="etl")
RUN = {"python": "/opt/etl/bin/python", "working_directory": "/opt/etl"}
LAST = {
    "PREFECT__FLOW_RUN_ID": ID,
    "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
    "RUNNERD_RUN_ID": ID,
    "RUNNERD_DEPLOYMENT": "nightly",
    "RUNNERD_POOL": "P",
}
NAMES = {
    "PREFECT__WORKER_NAME": "host-1",
    "PREFECT__DEPLOYMENT_ID": "d-1",
    "PREFECT__DEPLOYMENT_NAME": "nightly",
    "PREFECT__FLOW_ID": "f-1",
    "PREFECT__FLOW_NAME": "etl",
}


def spec(job: ProcessJob | None = None, *, run: Json = None, **changes: Json) -> LaunchSpec:
    given: Json = {"base": {}, "file_environment": {}, "output": "/o", "scratch": None, **changes}
    settings = a_deployment(run={**RUN, **(run or {})}).run
    record = a_record(ID, attempt=2, pool="P")
    return pool_launch_spec(record, job or ProcessJob(), run=settings, access=ACCESS, attribution=WHOSE, **given)


def test_a_run_of_a_pool_is_told_what_it_is() -> None:
    api = {"PREFECT_API_KEY": "pnu_secret", "PREFECT_API_URL": "http://p/api"}
    assert spec().environment == {**api, **NAMES, **LAST}


def test_later_environments_win() -> None:
    given = spec(
        ProcessJob(env={"E": "job", "PREFECT__WORKER_NAME": "other", "PREFECT_API_URL": "http://job/api"}),
        base={**dict.fromkeys("ABCDE", "base"), "PREFECT_API_KEY": "base"},
        file_environment={**dict.fromkeys("BCDE", "file"), "PREFECT_API_URL": "http://file/api"},
        run={"environment": {**dict.fromkeys("CDE", "run"), "PREFECT_API_URL": "http://run/api"}},
    ).environment
    assert [given[key] for key in "ABCDE"] == ["base", "file", "run", "run", "job"]
    assert (given["PREFECT_API_KEY"], given["PREFECT_API_URL"]) == ("pnu_secret", "http://job/api")
    assert given["PREFECT__WORKER_NAME"] == "other"


def test_the_clients_settings_do_not_go_to_another_api_nor_to_another_command() -> None:
    base = {CERTIFICATE_FILE: "/one.pem"}
    assert spec(base=base).environment[CERTIFICATE_FILE] == "/one.pem"
    for job in (
        ProcessJob(env={"PREFECT_API_URL": "https://job/api"}),
        ProcessJob(removed=frozenset({"PREFECT_API_URL"})),
        ProcessJob(removed=frozenset({CERTIFICATE_FILE})),
        ProcessJob(command=("docker", "run")),
    ):
        assert CERTIFICATE_FILE not in spec(job, base=base).environment


def test_only_the_job_overrides_the_apis_url() -> None:
    assert spec(run={"environment": {"PREFECT_API_URL": "x"}}).environment["PREFECT_API_URL"] == "http://p/api"


def test_null_takes_a_variable_away() -> None:
    job = ProcessJob(removed=frozenset({"A", "B", "PREFECT__FLOW_ID", "NOBODY_SET_IT"}))
    given = spec(job, base={"A": "1"}, run={"environment": {"B": "1", "C": "1"}}).environment
    assert given.keys() & {"A", "B", "C", "PREFECT__FLOW_ID"} == {"C"}


@pytest.mark.parametrize(
    "job", [ProcessJob(env=dict.fromkeys(LAST, "mine")), ProcessJob(removed=frozenset(LAST))], ids=["set", "removed"]
)
def test_no_job_changes_which_run_it_is(job: ProcessJob) -> None:
    given = spec(job, base=dict.fromkeys(LAST, "base")).environment
    assert {key: given[key] for key in LAST} == LAST


def test_the_engine_fetches_the_code_itself() -> None:
    assert "PREFECT__FLOW_ENTRYPOINT" not in spec().environment


def test_the_command() -> None:
    assert spec().argv == ("/opt/etl/bin/python", "-m", "prefect.engine")
    assert spec(ProcessJob(command=("sh", "-c", "x"))).argv == ("sh", "-c", "x")


@pytest.mark.parametrize(
    ("working_dir", "scratch", "expected"),
    [
        (None, None, ("/opt/etl", False)),
        (None, "/tmp/one", ("/tmp/one", True)),
        ("/srv/x", None, ("/srv/x", False)),
        ("/srv/x", "/tmp/one", ("/srv/x", False)),
        ("x/y", "/tmp/one", ("/opt/etl/x/y", False)),
    ],
)
def test_where_it_starts(working_dir: str | None, scratch: str | None, expected: tuple[str, bool]) -> None:
    given = spec(ProcessJob(working_dir=working_dir), scratch=scratch)
    assert (given.working_directory, given.make_directory) == expected


def test_how_long_it_may_take_to_end() -> None:
    assert spec(run={"stop_timeout_s": 7.0}).stop_timeout_s == 7.0
    assert spec(ProcessJob(grace_period_s=0.5), run={"stop_timeout_s": 7.0}).stop_timeout_s == 0.5


def test_the_grace_of_a_job_is_never_above_the_host_s_own() -> None:
    """A host whose `stop_timeout` is 3 s stops in 3 s, whatever a pool's jobs ask for."""
    assert spec(ProcessJob(grace_period_s=900_000_000.0), run={"stop_timeout_s": 3.0}).stop_timeout_s == 3.0
    assert spec(ProcessJob(grace_period_s=5.0), run={"stop_timeout_s": 0.0}).stop_timeout_s == 0.0


def test_everything_else_is_as_for_the_hosts_own_deployments() -> None:
    settings = {
        **RUN,
        "user": "etl",
        "group": "data",
        "umask": 0o027,
        "nice": 5,
        "rlimits": {"nofile": (1, 2)},
        "memory_max_bytes": 3,
        "cpu_quota_percent": 4.0,
        "tasks_max": 5,
        "output_max_bytes": 6,
        "runtime_max_s": 7.0,
        "stop_signal": 2,
        "stop_timeout_s": 8.0,
    }
    deployment = a_deployment(run=settings)
    given = {"access": ACCESS, "worker": "build-07", "output": "/o"}
    own = launch_spec(a_record(ID, attempt=2), deployment, base={}, file_environment={}, **given)  # type: ignore[arg-type]
    pools = spec(run=settings)
    differing = {name for name in LaunchSpec.__slots__ if getattr(own, name) != getattr(pools, name)}
    assert differing == {"argv", "environment"}  # a pool's command is that of its worker
    assert pools.user == "etl"
