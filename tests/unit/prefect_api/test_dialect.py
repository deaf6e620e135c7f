"""Bodies, key by key, and what their fingerprint depends on."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from runnerd.core.place import Place, Problem
from runnerd.core.prefect import Inspection, StateType, Verdict
from runnerd.core.settings import Deployment, RunSettings, Schedule
from runnerd.prefect_api.answers import DeploymentBody
from runnerd.prefect_api.dialect import deployment_body, deployment_fingerprint, server_info, state_body

URL = "http://prefect.test/api"
INSPECTION = Inspection(
    flow_name="nightly",
    description="What the code says.",
    parameter_schema={"type": "object"},
    prefect_version="3.8.8",
    file=None,
)
PLAIN = Deployment(
    name="n",
    entrypoint="flows/etl.py:nightly",
    run=RunSettings(python="/usr/bin/python3", working_directory="/opt/etl"),
    place=Place("a.yaml", 3, 1),
)
KEYS_OF_BOTH = {
    *("name", "entrypoint", "path", "pull_steps", "version", "description", "tags", "parameters"),
    *("parameter_openapi_schema", "enforce_parameter_schema", "paused", "schedules"),
    *("work_pool_name", "work_queue_name", "job_variables"),
}


def body_of(major: int = 3, **changes: Any) -> DeploymentBody:
    body = deployment_body(replace(PLAIN, **changes), INSPECTION, major=major)
    assert isinstance(body, DeploymentBody)
    return body


def schedule_of(schedule: Schedule, major: int = 3) -> Any:
    (body,) = body_of(major, schedules=(schedule,)).json["schedules"]
    return body


# --- deployments ------------------------------------------------------------------------------------------------


def test_each_major_gets_its_own_keys() -> None:
    assert set(body_of(2, concurrency_limit=1).json) == KEYS_OF_BOTH
    assert set(body_of(3).json) == KEYS_OF_BOTH | {"concurrency_limit", "concurrency_options"}


def test_a_limit_comes_with_what_happens_beyond_it() -> None:
    limited = body_of(concurrency_limit=2, collision_strategy="CANCEL_NEW").json
    assert limited["concurrency_limit"] == 2
    assert limited["concurrency_options"] == {"collision_strategy": "CANCEL_NEW"}
    assert body_of().json["concurrency_limit"] is None and body_of().json["concurrency_options"] is None


def test_a_starting_run_gives_its_slot_back_after_the_grace_period() -> None:
    limited = body_of(concurrency_limit=2, collision_grace_s=120).json
    assert limited["concurrency_options"] == {"collision_strategy": "ENQUEUE", "grace_period_seconds": 120}


@pytest.mark.parametrize("major", [2, 3])
def test_the_version_is_the_files_or_the_flows(major: int) -> None:
    inspection = replace(INSPECTION, version="0123456789abcdef")
    bodies = [deployment_body(replace(PLAIN, version=said), inspection, major=major) for said in (None, "2.1")]
    assert [body.json["version"] for body in bodies if isinstance(body, DeploymentBody)] == ["0123456789abcdef", "2.1"]


@pytest.mark.parametrize("major", [2, 3])
def test_a_deployment_stays_in_its_pool(major: int) -> None:
    jobs = {"image": "etl:3", "env": {"A": "{{ $A }}"}}
    body = body_of(major, work_pool="etl", work_queue="high", job_variables=jobs).json
    assert (body["work_pool_name"], body["work_queue_name"], body["job_variables"]) == ("etl", "high", jobs)
    step = {"prefect.deployments.steps.set_working_directory": {"directory": "/opt/etl"}}
    assert (body["path"], body["pull_steps"]) == (None, [step])
    clone = {"prefect.deployments.steps.git_clone": {"repository": "r"}}
    assert body_of(major, work_pool="etl", pull_steps=(clone,)).json["pull_steps"] == [clone]
    own = body_of(major).json
    assert (own["work_pool_name"], own["path"], own["pull_steps"]) == (None, "/opt/etl", [step])


def test_the_code_describes_what_the_file_does_not() -> None:
    assert body_of().json["description"] == "What the code says."
    assert body_of(description="The file's.").json["description"] == "The file's."


@pytest.mark.parametrize("extra", [{"slug": "night"}, {"parameters": {}}], ids=["slug", "parameters"])
def test_what_2_cannot_do_is_a_problem_with_its_place(extra: dict[str, Any]) -> None:
    wanted = replace(PLAIN, schedules=(Schedule(cron="0 2 * * *"), Schedule(cron="0 3 * * *", **extra)))
    problem = deployment_body(wanted, INSPECTION, major=2)
    assert isinstance(problem, Problem)
    assert (problem.place, problem.deployment) == (PLAIN.place, "n")
    assert isinstance(deployment_body(wanted, INSPECTION, major=3), DeploymentBody)


@pytest.mark.parametrize(
    ("schedule", "rule"),
    [
        (Schedule(cron="0 2 * * *"), {"cron": "0 2 * * *", "day_or": True}),
        (
            Schedule(cron="0 2 1 * 1", day_or=False, timezone="Europe/Berlin"),
            {"cron": "0 2 1 * 1", "day_or": False, "timezone": "Europe/Berlin"},
        ),
        (Schedule(rrule="FREQ=DAILY"), {"rrule": "FREQ=DAILY"}),
        (
            Schedule(interval_s=90.5, anchor_date="2024-03-01T06:00:00+02:00", timezone="UTC"),
            {"interval": 90.5, "anchor_date": "2024-03-01T06:00:00+02:00", "timezone": "UTC"},
        ),
        (Schedule(interval_s=60), {"interval": 60, "anchor_date": "2020-01-01T00:00:00+00:00"}),
        (
            Schedule(interval_s=86400, timezone="Europe/Berlin"),
            {"interval": 86400, "anchor_date": "2020-01-01T00:00:00+01:00", "timezone": "Europe/Berlin"},
        ),
        (
            Schedule(interval_s=60, timezone="Mars/Olympus"),  # the server's to refuse
            {"interval": 60, "anchor_date": "2020-01-01T00:00:00+00:00", "timezone": "Mars/Olympus"},
        ),
    ],
)
def test_a_schedules_rule(schedule: Schedule, rule: dict[str, Any]) -> None:
    assert schedule_of(schedule)["schedule"] == rule
    assert schedule_of(schedule, 2)["schedule"] == rule


def test_a_schedules_other_keys() -> None:
    plain = {"schedule", "active", "max_scheduled_runs"}
    assert set(schedule_of(Schedule(cron="* * * * *"), 2)) == plain
    assert set(schedule_of(Schedule(cron="* * * * *"), 3)) == {*plain, "slug", "parameters"}
    full = schedule_of(Schedule(cron="* * * * *", active=False, slug="s", parameters={"x": 1}, max_scheduled_runs=4))
    del full["schedule"]
    assert full == {"active": False, "slug": "s", "parameters": {"x": 1}, "max_scheduled_runs": 4}


# --- fingerprints -------------------------------------------------------------------------------------------------


def test_the_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    one = body_of(parameters={"a": 1, "b": {"c": 2, "d": 3}})
    other = body_of(parameters={"b": {"d": 3, "c": 2}, "a": 1})
    assert deployment_fingerprint(one, URL) == deployment_fingerprint(other, URL)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "m"},
        {"parameters": {"a": 1}},
        {"tags": ("t",)},
        {"paused": True},
        {"schedules": (Schedule(cron="0 2 * * *"),)},
        {"concurrency_limit": 1},
        {"run": replace(PLAIN.run, working_directory="/opt/other")},
    ],
)
def test_the_fingerprint_changes_with_what_the_server_is_told(changes: dict[str, Any]) -> None:
    assert deployment_fingerprint(body_of(**changes), URL) != deployment_fingerprint(body_of(), URL)


def test_the_fingerprint_does_not_change_with_what_stays_on_this_host() -> None:
    local = replace(PLAIN.run, memory_max_bytes=1, stop_timeout_s=1.0, environment={"A": "b"})
    assert deployment_fingerprint(body_of(run=local), URL) == deployment_fingerprint(body_of(), URL)


def test_the_fingerprint_belongs_to_one_server_one_major_and_one_flow() -> None:
    renamed = replace(body_of(), flow_name="renamed")
    bodies = [(body_of(), URL), (body_of(), "http://other.test/api"), (body_of(2), URL), (renamed, URL)]
    assert len({deployment_fingerprint(*each) for each in bodies}) == 4


# --- states and versions ------------------------------------------------------------------------------------------


def test_a_state_is_told_without_force_and_without_keys_that_3_refuses() -> None:
    body = state_body("run", Verdict(type=StateType.CRASHED, message="killed by SIGSEGV"), "mine")
    assert body == {
        "state": {
            "type": "CRASHED",
            "name": "Crashed",
            "message": "killed by SIGSEGV",
            "state_details": {"flow_run_id": "run", "transition_id": "mine"},
        },
        "force": False,
    }


def test_only_a_scheduled_state_carries_a_time() -> None:
    at = datetime(2026, 11, 22, 12, 0, tzinfo=timezone(timedelta(hours=1)))
    again = state_body("run", Verdict(type=StateType.SCHEDULED, name="AwaitingRetry", scheduled_time=at), "mine")
    assert again["state"]["name"] == "AwaitingRetry"
    assert again["state"]["state_details"]["scheduled_time"] == "2026-11-22T12:00:00+01:00"
    failed = state_body("run", Verdict(type=StateType.FAILED, scheduled_time=at.astimezone(UTC)), "mine")
    assert "scheduled_time" not in failed["state"]["state_details"]


@pytest.mark.parametrize(
    ("version", "major", "supported"),
    [
        ("2.14.20", 2, False),
        ("2.14.21", 2, True),
        ("2.20.25", 2, True),
        ("2.20.25+3.gabc123", 2, True),
        ("3.0", 3, True),
        ("3.1.0rc1", 3, True),
        ("3.8.8.dev2", 3, True),
        ("4.0.0", 3, False),
        ("1.4.1", 2, False),
        ("latest", 3, False),
    ],
)
def test_versions(version: str, major: int, supported: bool) -> None:
    info = server_info(version)
    assert (info.version, info.major, info.supported) == (version, major, supported)
    assert (info.why is None) is supported
    assert supported or version in str(info.why)
