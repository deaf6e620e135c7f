"""Both sides of the spawner's protocol: they understand each other, and nonsense only ever raises their own error."""

from __future__ import annotations

import contextlib
import json
import string
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runnerd.core.errors import SpawnerError
from runnerd.core.process import Exit, ForkOf, Identity, LaunchSpec, Warm
from runnerd.processes.protocol import Hello, Record, StartError, hello_from_json, record_from_json, spec_to_json
from runnerd.spawner.io.messages import Fields, Launch, RequestRefused, parse_object
from runnerd.spawner.proc.identity import Boot
from runnerd.spawner.runs.records import ProcessRecord

SOME = settings(deadline=None, max_examples=60)  # a busy machine is slow now and then

HERE = Boot(id="b" * 36, pid_namespace=4026531836)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)))
PATH = TEXT.map(lambda text: "/" + text)
NAME = st.text(string.ascii_letters + string.digits, min_size=1, max_size=20)
SECONDS = st.floats(0, 1e9)

SPECS = st.builds(
    LaunchSpec,
    key=NAME,
    attempt=st.integers(0, 10**9),
    argv=st.lists(TEXT.filter(bool), min_size=1, max_size=4).map(tuple),
    environment=st.dictionaries(TEXT.filter(lambda name: name and "=" not in name), TEXT, max_size=4),
    working_directory=PATH,
    make_directory=st.booleans(),
    output=PATH,
    stdin=st.none() | PATH,
    result=st.none() | PATH,
    fork_of=st.none() | st.builds(ForkOf, key=NAME, attempt=st.integers(0, 10**9)),
    user=st.none() | NAME,
    group=st.none() | NAME,
    umask=st.none() | st.integers(0, 0o777),
    nice=st.none() | st.integers(-20, 19),
    rlimits=st.dictionaries(
        st.sampled_from(["nofile", "nproc", "core", "as"]), st.tuples(st.integers(-1, 2**40), st.integers(-1, 2**40))
    ),
    memory_max_bytes=st.none() | st.integers(1, 2**60),
    cpu_quota_percent=st.none() | st.floats(0.01, 1e6),
    tasks_max=st.none() | st.integers(1, 2**40),
    output_max_bytes=st.none() | st.integers(0, 2**50),
    runtime_max_s=st.none() | SECONDS,
    stop_signal=st.sampled_from([1, 2, 15, 10]),
    stop_timeout_s=SECONDS,
).map(lambda spec: replace(spec, forks=spec.result is None and spec.attempt % 2 == 1))


def over_the_wire(value: object) -> object:
    return json.loads(json.dumps(value))


@SOME
@given(SPECS)
def test_spec_arrives_as_it_was_sent(spec: LaunchSpec) -> None:
    launch = Launch(Fields(over_the_wire(spec_to_json(spec)), "spec"))
    for name in LaunchSpec.__slots__:  # every field: one that is added and not sent fails here
        sent, got = getattr(spec, name), getattr(launch, name)
        if name == "rlimits":
            got = {limit: (soft, hard) for limit, _, soft, hard in got}
        if name == "fork_of" and sent is not None:
            sent = [sent.key, sent.attempt]
            got = list(got)
        assert got == (list(sent) if isinstance(sent, tuple) else sent), name


@SOME
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_line_raises_anything_but_refused(line: bytes) -> None:
    with contextlib.suppress(RequestRefused):
        parse_object(line)


@SOME
@given(SPECS, st.dictionaries(st.sampled_from(LaunchSpec.__slots__), JSON, min_size=1))
def test_no_spec_raises_anything_but_refused(spec: LaunchSpec, wrong: dict[str, object]) -> None:
    with contextlib.suppress(RequestRefused):
        Launch(Fields({**spec_to_json(spec), **wrong}, "spec"))


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"a": ' * 100_000, b"1" * 10_000, b'{"a": 1e999}', b"NaN"])
def test_hostile_json_is_refused(line: bytes) -> None:
    with pytest.raises(RequestRefused):
        parse_object(line).required_text("a")


def a_run(spec: LaunchSpec) -> ProcessRecord:
    run = ProcessRecord.of_launch(Launch(Fields(over_the_wire(spec_to_json(spec)), "spec")), HERE)
    run.pid, run.start_ticks = 4711, 123456
    run.phase = "stopping"
    run.stop = {"reason": "cancel", "at": "2026-11-22T01:02:03.004Z"}
    run.kill_at = 12.5
    run.warm = {"state": "failed", "problem": "cannot import pandas"}
    run.start, run.start_problem = "warm", "warm interpreter warm-1 attempt 1 does not run"
    run.receipt = '{"disposition":"ORCHESTRATION_ABORTED"}'
    return run


@SOME
@given(SPECS)
def test_record_file_reads_back_whole(spec: LaunchSpec) -> None:
    run = a_run(spec)
    again = ProcessRecord.from_file(Fields(over_the_wire({**run.to_wire(), "kept": run.to_keep()}), "record"))
    for name in ProcessRecord.__slots__:
        assert getattr(again, name) == getattr(run, name), name


@SOME
@given(SPECS, JSON, st.data())
def test_no_record_file_raises_anything_but_refused(spec: LaunchSpec, wrong: object, data: st.DataObject) -> None:
    run = a_run(spec)
    record = {**run.to_wire(), "kept": run.to_keep()}
    record[data.draw(st.sampled_from(sorted(record)))] = wrong
    with contextlib.suppress(RequestRefused):
        ProcessRecord.from_file(Fields(record, "record"))


def seen(**changes: object) -> dict[str, object]:
    return {
        "key": "run",
        "attempt": 2,
        "phase": "running",
        "boot_id": "b",
        "pid": 7,
        "start_ticks": 9,
        "pgid": 7,
        "user": "etl",
        "started_at": "2026-11-22T01:02:03.004Z",
        "stop": None,
        "error": None,
        "exit": None,
        "warm": None,
        "start": "cold",
        "start_problem": None,
        **changes,
    }


AT = datetime(2026, 11, 22, 1, 2, 3, 4000, tzinfo=UTC)


def test_record_of_a_live_run() -> None:
    assert record_from_json(seen(of_a_newer_spawner=[1])) == Record(
        key="run",
        attempt=2,
        phase="running",
        identity=Identity(boot_id="b", pid=7, start_ticks=9),
        pgid=7,
        user="etl",
        started_at=AT,
    )


def test_record_of_an_ended_run() -> None:
    at = "2026-11-22T01:02:03.004Z"
    record = record_from_json(
        seen(
            phase="exited",
            stop={"reason": "cancel", "at": at, "more": 1},
            exit={"code": None, "signal": 9, "oom": True, "cpu_s": 1.5, "max_rss_bytes": 2**20, "at": at, "more": 1},
        )
    )
    assert (record.stop_reason, record.stop_at) == ("cancel", AT)
    assert record.exit == Exit(signal=9, oom=True, cpu_s=1.5, max_rss_bytes=2**20, at=AT)


def test_record_of_a_run_that_could_not_be_forked() -> None:
    error = {"stage": "fork", "errno": 11, "message": "cannot start: cannot fork"}
    record = record_from_json(seen(phase="exited", pid=None, start_ticks=None, error=error))
    assert record.identity is None
    assert record.error == StartError(stage="fork", errno=11, message="cannot start: cannot fork")


def test_record_of_a_warm_interpreter() -> None:
    said = {"state": "ready", "python": "3.11.7", "prefect": "3.9.1", "import_s": 2, "more": []}
    assert record_from_json(seen(warm=said)).warm == Warm(state="ready", python="3.11.7", prefect="3.9.1", import_s=2.0)
    failed = record_from_json(seen(warm={"state": "failed", "problem": "cannot import pandas"})).warm
    assert failed == Warm(state="failed", problem="cannot import pandas")
    with pytest.raises(SpawnerError):
        record_from_json(seen(warm={"state": "lukewarm"}))


def test_hello() -> None:
    limits = {"memory_max": "cgroup", "cpu_quota": None, "tasks_max": "rlimit"}
    told = {"event": "hello", "version": "1.2", "pid": 7, "limits": limits, "why": "no controller", "more": []}
    assert hello_from_json(told) == Hello(version="1.2", pid=7, limits=limits, why="no controller")


def test_hello_of_an_older_spawner() -> None:
    assert hello_from_json({"version": "1", "pid": 7}) == Hello(version="1", pid=7, limits={}, why=None)


@SOME
@given(st.sampled_from(["version", "pid", "limits", "why"]), JSON)
def test_no_hello_raises_anything_but_spawner_error(name: str, value: object) -> None:
    with contextlib.suppress(SpawnerError):
        hello_from_json({"version": "1", "pid": 7, name: value})


@SOME
@given(SPECS)
def test_the_daemon_understands_every_record(spec: LaunchSpec) -> None:
    run = a_run(spec)
    record = record_from_json(over_the_wire(run.to_wire()))
    assert (record.key, record.attempt, record.user) == (spec.key, spec.attempt, spec.user)
    assert record.identity == Identity(boot_id=HERE.id, pid=4711, start_ticks=123456)
    assert record.warm == Warm(state="failed", problem="cannot import pandas")
    assert (record.start, record.start_problem) == ("warm", "warm interpreter warm-1 attempt 1 does not run")


@SOME
@given(JSON)
def test_no_record_raises_anything_but_spawner_error(value: object) -> None:
    with pytest.raises(SpawnerError):
        record_from_json(value)


@SOME
@given(st.sampled_from(sorted(seen())), JSON)
def test_no_wrong_field_raises_anything_but_spawner_error(name: str, value: object) -> None:
    with contextlib.suppress(SpawnerError):
        record_from_json(seen(**{name: value}))
