"""codec.py: what the journal keeps comes back the same, also from an older and a newer runnerd."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.core.codec import Decoder, to_json
from runnerd.core.commands import CommandRules
from runnerd.core.guests import Guest
from runnerd.core.machine import Hook, Intent, Phase, RunRecord
from runnerd.core.place import Place, Problem
from runnerd.core.prefect import Inspection, StateType
from runnerd.core.process import Exit, Identity, Receipt
from runnerd.core.settings import ApiSettings, Config, HttpSettings, InvalidDeployment, Schedule, Settings
from runnerd.journal.journal import Registration
from tests.kits.nouns import NOON, a_deployment, a_record

T = TypeVar("T")
EAST = timezone(timedelta(hours=5, minutes=30))
FULL = a_record(
    tags=("gpu", "ünïcode"),
    phase=Phase.REPORTING,
    intent=Intent.TIMEOUT,
    run_created_at=NOON - timedelta(hours=1),
    due_at=NOON,
    ready_s=1.5,
    command=CommandRules(success_exit_codes=(0, 3), retries=2, retry_delay_s=1.5),
    attempt=3,
    respawned=True,
    identity=Identity(boot_id="b", pid=7, start_ticks=99),
    pgid=7,
    user="etl",
    output="/var/log/x.log",
    runtime_max_s=2.5,
    stop_timeout_s=7.5,
    unread=True,
    started_at=datetime(2025, 1, 2, 3, 4, 5, 678901, tzinfo=EAST),
    ended_at=datetime(2025, 1, 2, 3, 4, 6, tzinfo=UTC),
    exit=Exit(code=None, signal=9, oom=True, cpu_s=1.25, max_rss_bytes=5, at=datetime(2025, 1, 2, tzinfo=UTC)),
    receipt=Receipt(state=StateType.COMPLETED, name="Completed"),
    failure="no such user",
    words="killed: out of memory",
    api_state=StateType.CRASHED,
    api_state_name="Crashed",
    api_state_message="Flow run infrastructure exited",
    boot_id="b",
    memory_max_bytes=2 * 2**30,
    verdict_id="v",
    hook=Hook.ON_CRASHED,
    hook_of_child=True,
    hook_boot="b",
    before_index=1,
    step="run.before: /bin/check",
    after=(("/bin/report", "{{ run.name }}"),),
    after_timeout_s=2.5,
    after_due=True,
    after_boot="b",
    guest=Guest(deployment="d", flow="f", user="etl", entrypoint="/x.py:f"),
    pool="etl",
    queue="high",
    scratch="/tmp/runnerd-1",
    process_name="nightly-7",
    labels={"team": "data"},
    leased=True,
    stream_output=False,
    waiting="disk space",
    source={"kind": "git", "commit": "a" * 40, "pulled_at": None},
    output_removed="output.max_total",
    start_problem="the warm interpreter was not ready in time",
)


def again(kind: type[T], value: T) -> T:
    return Decoder().decode(kind, json.loads(json.dumps(to_json(value))))


def test_a_record_with_everything_in_it() -> None:
    for field in dataclasses.fields(FULL):
        default = field.default if field.default is not dataclasses.MISSING else None
        assert getattr(FULL, field.name) != default or field.name == "start", f"{field.name} is not tried"
    assert again(RunRecord, FULL) == FULL


def test_a_record_with_nothing_in_it() -> None:
    record = a_record()
    assert again(RunRecord, record) == record


def test_a_registration_with_its_deployment() -> None:
    deployment = a_deployment(
        run={"rlimits": {"nofile": (1024, -1)}, "environment": {"A": "1"}, "memory_max_bytes": 2**31, "start": "warm"},
        schedules=(Schedule(cron="0 2 * * *", parameters={"x": [1, None]}), Schedule(interval_s=3600.0, active=False)),
        parameters={"nested": {"list": [1, "two", None, {"three": 3.0}]}, "none": None},
        tags=("a", "b"),
        place=Place("conf.d/ä.yaml", 3, 5),
        on_remove="delete",
    )
    registration = Registration(
        url="u", flow="f", name="n", deployment_id="d", fingerprint="p", major=3, deployment=deployment
    )
    assert again(Registration, registration) == registration


def test_an_inspection() -> None:
    inspection = Inspection(
        flow_name="etl",
        description=None,
        parameter_schema={"type": "object", "properties": {"x": {"type": "integer", "default": None}}},
        prefect_version="3.8.8",
        file="/srv/etl.py",
    )
    assert again(Inspection, inspection) == inspection


def test_a_configuration() -> None:
    config = Config(
        settings=Settings(
            name="h", api=ApiSettings(url="u", headers={"X": "1"}), http=HttpSettings(listen=("127.0.0.1", 9464))
        ),
        deployments=(a_deployment(),),
        problems=(Problem(message="m", place=Place("f", 1, 2), deployment="d"),),
        files=("a", "b"),
        invalid=(InvalidDeployment(name=None, place=Place("f"), problem="p"),),
        said={"f": {"run": {"user": "etl"}}},
    )
    assert again(Config, config) == config


def test_keys_of_a_newer_version_are_ignored() -> None:
    document = {**to_json(FULL), "cgroup": "/x", "exit": {**to_json(FULL.exit), "ooms": 3}}
    assert Decoder().decode(RunRecord, document) == FULL


def test_keys_an_older_version_did_not_have_take_their_default() -> None:
    document = to_json(a_record("r-1", attempt=2))
    for name in ("respawned", "start", "words", "runtime_max_s", "memory_max_bytes", "tags"):
        del document[name]
    assert Decoder().decode(RunRecord, document) == a_record("r-1", attempt=2)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "levitating"},
        {"created_at": "yesterday"},
        {"created_at": 5},
        {"identity": {"boot_id": "b"}},
        {"tags": 5},
        {"identity": 5},
        {"exit": [1]},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Decoder().decode(RunRecord, {**to_json(FULL), **change})


def test_a_record_without_its_id_is_refused() -> None:
    document = to_json(FULL)
    del document["id"]
    with pytest.raises(TypeError):
        Decoder().decode(RunRecord, document)


@given(
    tags=st.lists(st.text(), max_size=3),
    name=st.text(),
    intent=st.sampled_from([None, *Intent]),
    exit=st.none() | st.builds(Exit, code=st.none() | st.integers(), oom=st.booleans()),
    at=st.none() | st.datetimes(timezones=st.just(UTC)),
)
def test_any_record(tags: list[str], name: str, intent: Intent | None, exit: Exit | None, at: datetime | None) -> None:
    record = a_record("r", tags=tuple(tags), name=name, intent=intent, exit=exit, started_at=at)
    assert again(RunRecord, record) == record
