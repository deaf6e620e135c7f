"""Keep the record of each run, in memory and as one file per run.

A file is never half-written: written under another name, synced, renamed, directory synced. The file holds what a later
spawner needs to adopt the run, its deadlines included, and never the run's environment, which may contain secrets.
Deadlines are in seconds of the monotonic clock, which all processes of one boot share; a record of another boot is of a
run that is gone.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator

from runnerd.spawner.io.log import log
from runnerd.spawner.io.messages import Fields, Launch, RequestRefused
from runnerd.spawner.proc.identity import Boot

PHASES = ("starting", "running", "stopping", "killing", "exited")
_MAX_MONOTONIC_S = 1e10


def utc_now() -> str:
    """Return the time in UTC as RFC 3339, to the millisecond."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


class ProcessRecord:
    """The record of one run. `to_wire()` is the part that clients get."""

    __slots__ = (
        "attempt",
        "boot",
        "error",
        "exit",
        "kernel_log_from",
        "key",
        "kill_at",
        "output",
        "output_max_bytes",
        "phase",
        "pid",
        "receipt",
        "result",
        "runtime_at",
        "signal_to_send",
        "start",
        "start_problem",
        "start_ticks",
        "started_at",
        "stop",
        "stop_signal",
        "stop_timeout_s",
        "user",
        "warm",
    )

    def __init__(self, *, key: str, attempt: int, boot: Boot, output: str, stop_timeout_s: float) -> None:
        self.key = key
        self.attempt = attempt
        self.boot = boot
        self.phase = "starting"
        self.pid: int | None = None
        self.start_ticks: int | None = None
        self.user: str | None = None
        self.started_at = utc_now()
        self.stop: dict[str, object] | None = None
        self.error: dict[str, object] | None = None
        self.exit: dict[str, object] | None = None
        self.receipt: str | None = None  # what the run's process said of its end, as it was sent
        self.warm: dict[str, object] | None = None  # of a warm interpreter: its state, and what it said of itself
        self.start = "cold"
        self.start_problem: str | None = None  # why a run that was to be forked was started cold
        self.stop_signal = 15
        self.stop_timeout_s = stop_timeout_s
        self.output = output
        self.output_max_bytes: int | None = None
        self.result: str | None = None  # the file for a helper's answer
        self.runtime_at: float | None = None
        self.kill_at: float | None = None
        self.kernel_log_from: int | None = None  # the first line of the kernel's log that can be about this run
        self.signal_to_send: int | None = None  # set while a stop waits for the acknowledgement of its intent

    @property
    def id(self) -> tuple[str, int]:
        return (self.key, self.attempt)

    @property
    def name(self) -> str:
        """The run's key and attempt, for the log."""
        return f"key={self.key} attempt={self.attempt}"

    @classmethod
    def of_launch(cls, launch: Launch, boot: Boot) -> ProcessRecord:
        """Make the record of a run that is to be started."""
        run = cls(
            key=launch.key,
            attempt=launch.attempt,
            boot=boot,
            output=launch.output,
            stop_timeout_s=launch.stop_timeout_s,
        )
        run.user = launch.user
        run.stop_signal = launch.stop_signal
        run.output_max_bytes = launch.output_max_bytes
        run.result = launch.result
        if launch.forks:
            run.warm = {"state": "importing"}
        if launch.runtime_max_s is not None:
            run.runtime_at = time.monotonic() + launch.runtime_max_s
        return run

    @classmethod
    def from_file(cls, record: Fields) -> ProcessRecord:
        """Read a record from the contents of its file. Raises RequestRefused when a field is missing or wrong."""
        kept = record.inner("kept")
        timeout_s = kept.seconds("stop_timeout_s")
        run = cls(
            key=record.key(),
            attempt=record.attempt(),
            boot=Boot(
                id=record.required_text("boot_id"), pid_namespace=kept.required_integer("pid_namespace", 0, 2**62)
            ),
            output=kept.required_path("output"),
            stop_timeout_s=30.0 if timeout_s is None else timeout_s,
        )
        run.phase = record.required_text("phase")
        if run.phase not in PHASES:
            raise RequestRefused("bad-record", f"there is no phase {run.phase!r}")
        run.pid = record.integer("pid", 1, 2**31)
        run.start_ticks = record.integer("start_ticks", 0, 2**62)
        run.user = record.text("user")
        run.started_at = record.required_text("started_at")
        run.stop, run.error, run.exit = (record.object_or_none(name) for name in ("stop", "error", "exit"))
        run.receipt = record.text("receipt")
        run.warm, run.start_problem = record.object_or_none("warm"), record.text("start_problem")
        run.start = "warm" if record.text("start") == "warm" else "cold"
        run.stop_signal = kept.signal("stop_signal") or 15
        run.output_max_bytes = kept.integer("output_max_bytes", 0, 2**62)
        run.result = kept.path("result")
        run.runtime_at = kept.seconds("runtime_at", _MAX_MONOTONIC_S)
        run.kill_at = kept.seconds("kill_at", _MAX_MONOTONIC_S)
        run.signal_to_send = kept.signal("signal_to_send")
        run.kernel_log_from = kept.integer("kernel_log_from", 0, 2**63)
        return run

    def to_wire(self) -> dict[str, object]:
        """Return what clients get; runnerd.processes.protocol.record_from_json reads it."""
        return {
            "key": self.key,
            "attempt": self.attempt,
            "phase": self.phase,
            "boot_id": self.boot.id,
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "pgid": self.pid,
            "user": self.user,
            "started_at": self.started_at,
            "stop": self.stop,
            "error": self.error,
            "exit": self.exit,
            "receipt": self.receipt,
            "warm": self.warm,
            "start": self.start,
            "start_problem": self.start_problem,
        }

    def to_keep(self) -> dict[str, object]:
        """Return what a later spawner needs besides, to adopt the run."""
        return {
            "pid_namespace": self.boot.pid_namespace,
            "stop_signal": self.stop_signal,
            "stop_timeout_s": self.stop_timeout_s,
            "output": self.output,
            "output_max_bytes": self.output_max_bytes,
            "result": self.result,
            "runtime_at": self.runtime_at,
            "kill_at": self.kill_at,
            "signal_to_send": self.signal_to_send,
            "kernel_log_from": self.kernel_log_from,
        }


class RecordStore:
    """Writes and reads the record files in a directory."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def make_directory(self) -> None:
        """Make the directory, readable for the spawner's user only. Raises OSError."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)

    def _path(self, run: ProcessRecord) -> str:
        return os.path.join(self._directory, f"{run.key}.{run.attempt}.json")

    def write(self, run: ProcessRecord) -> None:
        """Write the record to disk, durably. Raises OSError, and the previous record then stays."""
        path = self._path(run)
        content = json.dumps({**run.to_wire(), "kept": run.to_keep()}).encode()
        new_file = os.open(path + ".tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            if os.write(new_file, content) != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(new_file)
        finally:
            os.close(new_file)
        os.rename(path + ".tmp", path)
        self._sync_directory()

    def remove(self, run: ProcessRecord) -> None:
        """Delete the run's record, if there is one. Raises OSError."""
        try:
            os.unlink(self._path(run))
        except FileNotFoundError:
            return
        self._sync_directory()

    def load(self) -> Iterator[ProcessRecord]:
        """Read all records. A file that cannot be read is logged and renamed, and does not stop the spawner."""
        for name in sorted(os.listdir(self._directory)):
            path = os.path.join(self._directory, name)
            if name.endswith(".tmp"):
                os.unlink(path)
            elif name.endswith(".json"):
                try:
                    yield _read(path)
                except (OSError, ValueError, RecursionError, RequestRefused) as error:
                    log(f"cannot read record {path}: {error}; renamed to {name}.corrupt")
                    os.rename(path, path + ".corrupt")

    def _sync_directory(self) -> None:
        directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _read(path: str) -> ProcessRecord:
    with open(path, "rb") as file:
        return ProcessRecord.from_file(Fields(json.loads(file.read()), "the record"))
