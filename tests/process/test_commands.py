"""Commands in a whole runnerd: what they do to their output and their input holds up nothing, and loses no line."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator

import pytest

from runnerd.output.api_batches import RUN_MAX_BYTES, TAIL_BYTES
from tests.kits.daemon import Host, eventually, host_at
from tests.kits.fakes.fake_prefect import FakePrefect

pytestmark = pytest.mark.time_limit(600)
DEPLOYMENTS = """
deployments:
  - {name: flood, shell: true, command: "yes 0123456789abcdef | head -c {{ bytes }}; echo; echo the last line",
     parameters: {bytes: 0}, run: {output_max: 1M}}
  - {name: unread, command: [sleep, "0.1"], stdin: parameters, parameters: {text: ""}}
  - {name: binary, command: [head, -c, "100000", /dev/urandom]}
  - {name: counting, shell: true, command: "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; sleep 0.03; done"}
  - {name: around, command: [/bin/sh, -c, "echo on $PARAM_DISK"], parameters: {disk: /mnt/a},
     run: {before: [/bin/sh, -c, "echo before $PARAM_DISK"], after: [/bin/sh, -c, "sleep 5; echo after $PARAM_DISK"]}}
"""
NAMES = ("flood", "unread", "binary", "counting", "around")


@pytest.fixture(scope="module")
def prefect() -> FakePrefect:
    return FakePrefect(major=3)


@pytest.fixture(scope="module")
def host(prefect: FakePrefect) -> Iterator[Host]:
    with host_at(prefect) as host:
        host.drop_in("10-test.yaml", DEPLOYMENTS)
        host.start()
        host.registered(*NAMES)
        yield host


def settled(host: Host, prefect: FakePrefect, run_id: str) -> list[str]:
    """The lines in Prefect's log once all is sent: then no file but the output is left."""
    runs = host.root / "log" / "runs"
    eventually(lambda: not list(runs.glob(f"{run_id}*.sent")), "the output to be sent", log=host.said)
    assert {path.suffix for path in runs.iterdir() if path.name.startswith(run_id)} == {".log"}
    found: list[str] = prefect.logs.of(run_id)
    return found


def test_a_flood_is_cut_and_keeps_its_end(host: Host, prefect: FakePrefect) -> None:
    run_id = host.run_now("flood", bytes=200 * 2**20)
    assert host.ended(run_id)["api_state"] == "COMPLETED"
    lines = settled(host, prefect, run_id)
    assert lines[-1] == "the last line"
    assert sum(map(len, lines)) < 2 * RUN_MAX_BYTES + TAIL_BYTES
    assert any(line.startswith("runnerd left out ") for line in lines)


def test_a_stdin_that_nobody_reads_holds_up_nothing(host: Host, prefect: FakePrefect) -> None:
    run_id = host.run_now("unread", text="x" * 100_000)
    assert host.ended(run_id)["exit"]["words"] == "exited 0"
    assert settled(host, prefect, run_id) == []


def test_binary_output_is_readable(host: Host, prefect: FakePrefect) -> None:
    run_id = host.run_now("binary")
    host.ended(run_id)
    lines = settled(host, prefect, run_id)
    assert lines and not [line for line in lines if re.search("[\0-\x08\n-\x1f\x7f-\x9f]", line)]


def test_a_daemon_that_is_killed_again_and_again_loses_no_line(host: Host, prefect: FakePrefect) -> None:
    run_id = host.run_now("counting")
    for _ in range(3):
        before = len(prefect.logs.of(run_id))
        eventually(lambda before=before: len(prefect.logs.of(run_id)) > before, "lines", log=host.said)
        host.kill()
        host.start()
    assert host.ended(run_id)["exit"]["words"] == "exited 0"
    assert settled(host, prefect, run_id) == [str(number) for number in range(1, 301)]
    assert prefect.history[run_id] == ["Scheduled", "Pending", "Running", "Completed"]


def test_a_lost_answer_repeats_no_line(host: Host, prefect: FakePrefect) -> None:
    prefect.trouble("POST /logs/", after=True, times=2)
    run_id = host.run_now("counting")
    assert host.ended(run_id)["exit"]["words"] == "exited 0"
    assert settled(host, prefect, run_id) == [str(number) for number in range(1, 301)]


def test_what_is_around_it_has_its_parameters_and_is_in_its_log(host: Host, prefect: FakePrefect) -> None:
    run_id = host.run_now("around")
    assert host.ended(run_id)["exit"]["words"] == "exited 0"
    assert settled(host, prefect, run_id) == ["before /mnt/a", "on /mnt/a", "after /mnt/a"]


def test_a_cancel_ends_all_of_its_processes(host: Host) -> None:
    run_id = host.run_now("counting")
    pid = host.running(run_id)["pid"]
    assert host.ctl("cancel", run_id).returncode == 0
    assert host.ended(run_id)["api_state"] == "CANCELLED"
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
