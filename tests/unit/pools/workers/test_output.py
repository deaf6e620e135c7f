"""output.py: what went wrong is found in what Prefect's workers and pip print."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runnerd.pools.workers.output import Findings, WorkerOutput

# As prefect-docker 0.7.4 and prefect-kubernetes 0.7 say it; frames left out.
DOCKER = """\
Worker 'me' started!
11:39:48.330 | INFO    | prefect.flow_runs.worker - Worker 'me' submitting flow run '7aa0f00b'
fatal: not a git repository (or any of the parent directories): .git
11:39:48.490 | ERROR   | prefect.flow_runs.worker - Failed to submit flow run 'puzzling-eel' to infrastructure.
Traceback (most recent call last):
  File "connectionpool.py", line 793, in urlopen
    response = self._make_request(
FileNotFoundError: [Errno 2] No such file or directory

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "worker.py", line 736, in _get_client
    docker_client = docker.from_env(timeout=timeout)
                    ^^^^^^^^^^^^^^^
docker.errors.DockerException: Error while fetching server API version: ('Connection aborted.')

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "worker.py", line 739, in _get_client
    raise RuntimeError("Could not connect to Docker.") from exc
RuntimeError: Could not connect to Docker.
11:39:48.531 | INFO    | prefect.flow_runs.worker - Reported flow run '7aa0f00b' as crashed: Failed to submit
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "worker.py", line 1, in start
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "services.py", line 9, in critical_service_loop
    |     raise RuntimeError("Service exceeded error threshold.")
    | RuntimeError: Service exceeded error threshold.
    +------------------------------------
An exception occurred.
"""
STOPPED = "Received SIGTERM. Sending SIGINT to the docker worker (PID 7)...\nWorker 'me' stopped!\n"
THREAD = "11:51:48.053 | ERROR   | GlobalEventLoopThread | prefect._internal.concurrency - Service failed\n"
KOPF = "11:54:45.848 | ERROR   | kopf._core.reactor.running - Resource observer has failed: Ran out of credentials.\n"
NO_TYPE = "Could not find a package for worker type 'foo'.\nUnable to start worker. Please ensure you have it.\n"
PIP = """\
Collecting prefect==3.8.8
  Using cached prefect-3.8.8-py3-none-any.whl
ERROR: Could not find a version that satisfies the requirement prefect-dcoker (from versions: none)
ERROR: No matching distribution found for prefect-dcoker
[notice] A new release of pip is available: 23.2.1 -> 26.0
WARNING: There was an error checking the latest version of pip.
"""


def found(text: str) -> Findings:
    findings = Findings()
    for line in text.splitlines():
        findings.read_line(line)
    return findings


@pytest.mark.parametrize(
    ("text", "errors", "error", "last"),
    [
        ("", 0, None, None),
        ("Worker 'me' started!\n" + STOPPED, 0, None, None),
        (
            DOCKER + STOPPED,
            1,
            "Failed to submit flow run 'puzzling-eel' to infrastructure: RuntimeError: Could not connect to Docker.",
            "Failed to submit flow run 'puzzling-eel' to infrastructure: RuntimeError: Could not connect to Docker.",
        ),
        (DOCKER + THREAD, 2, "Service failed", "Service failed"),
        (
            KOPF,
            1,
            "Resource observer has failed: Ran out of credentials.",
            "Resource observer has failed: Ran out of credentials.",
        ),
        (GROUP, 0, None, "RuntimeError: Service exceeded error threshold."),
        (NO_TYPE, 0, None, "Unable to start worker. Please ensure you have it."),
        (PIP, 0, None, "No matching distribution found for prefect-dcoker"),
        ("Traceback (most recent call last):\n  File\nKeyError\n", 0, None, "KeyError"),
        ("11:00:00.000 | WARNING | x - careful\n", 0, None, None),
        ("11:00:00.000 | CRITICAL | nothing else\n", 1, "nothing else", "nothing else"),
    ],
)
def test_what_matters_is_found(text: str, errors: int, error: str | None, last: str | None) -> None:
    findings = found(text)
    assert (findings.errors, findings.error, findings.last) == (errors, error, last)


def test_long_lines_are_told_in_part() -> None:
    assert found("x" * 10_000).last == "x" * 300


class Clock:
    now = 5.0


async def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    path, clock = tmp_path / "out", Clock()
    path.write_text(KOPF)
    output = WorkerOutput(path=str(path), clock=lambda: clock.now)
    output.begin()
    await output.read_new()
    assert (output.findings.errors, output.error_at, output.last_words()) == (0, None, None)
    with path.open("a") as file:
        file.write(THREAD[:30])
        file.flush()
        await output.read_new()
        assert output.findings.errors == 0, "half a line is none"
        file.write(THREAD[30:])
        file.flush()
        clock.now = 7.0
        await output.read_new()
        assert (output.findings.error, output.error_at) == ("Service failed", 7.0)
        clock.now = 9.0
        await output.read_new()
        assert output.error_at == 7.0
        file.write("its last words")
    assert output.last_words() == "Service failed", "what was logged as an error says more"
    output.begin(fresh=False)
    await output.read_new()
    assert output.findings.errors == 2, "of one that was found running, what it said before counts"


def test_words_without_an_end_of_line_are_words(tmp_path: Path) -> None:
    path = tmp_path / "out"
    output = WorkerOutput(path=str(path), clock=lambda: 0.0)
    output.begin()
    assert output.last_words() is None, "there is no file yet"
    path.write_text("cannot go on")
    assert output.last_words() == "cannot go on"


async def test_a_lot_of_output_is_read_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "out"
    output = WorkerOutput(path=str(path), clock=lambda: 0.0)
    path.write_text(("y" * 200 + "\n") * 30_000 + THREAD)
    await output.read_new()
    assert output.findings.errors == 0, "not all of it at once: everybody else waits"
    await output.read_new()
    assert output.findings.errors == 1


async def test_everybody_else_has_a_turn_while_output_is_read(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("\n" * 3_000_000)
    output = WorkerOutput(path=str(path), clock=lambda: 0.0)
    reading = asyncio.create_task(output.read_new())
    turns = 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 3_000_000 // (64 * 2**10)


def test_the_last_words_of_one_that_has_written_a_lot_are_its_last(tmp_path: Path) -> None:
    path = tmp_path / "out"
    output = WorkerOutput(path=str(path), clock=lambda: 0.0)
    output.begin()
    path.write_text(("y" * 200 + "\n") * 30_000 + THREAD)
    assert output.last_words() == "Service failed"


def test_a_file_that_cannot_be_read_tells_nothing(tmp_path: Path) -> None:
    output = WorkerOutput(path=str(tmp_path), clock=lambda: 0.0)
    output.begin()
    assert output.last_words() is None
