"""The daemon's side of the spawner's protocol: LaunchSpec to JSON, JSON to Record.

The spawner itself does not import this (it does without dataclasses); `request.Launch` reads what `spec_to_json` writes
and `records.Run.seen` writes what `record_from_json` reads. Keys from a newer spawner are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from runnerd.core.errors import SpawnerError
from runnerd.core.place import Json
from runnerd.core.process import Exit, Identity, LaunchSpec

Phase = Literal["starting", "running", "stopping", "killing", "exited"]

# A hello carries every record the spawner has; it drops a client with more than 8 MiB unread.
MAX_ANSWER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a spawner says of itself.

    `limits` tells by what it keeps a run to its memory_max, cpu_quota and tasks_max: "cgroup" (the run as a whole),
    "rlimit" (each process by itself, or the user's together), None (not at all); empty from one that does not say.
    `why` is why not all of them are kept by cgroup, None where they are. `boot_id` is the boot that it sees, None from
    one that does not say.
    """

    version: str
    pid: int
    limits: Mapping[str, str | None]
    why: str | None
    boot_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartError:
    """Why a run could not start: the stage of its set-up and one sentence for an administrator."""

    stage: str
    errno: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the spawner knows of one run.

    `exit` is set once the phase is `exited`, except for a run that could not start: that has `error`.
    `identity` is None only for a run that could not even be forked. `told`: before it was signalled it has acknowledged
    why it is to end.
    """

    key: str
    attempt: int
    phase: Phase
    identity: Identity | None
    pgid: int | None
    user: str | None
    started_at: datetime
    stop_reason: str | None = None
    stop_at: datetime | None = None
    told: bool = False
    error: StartError | None = None
    exit: Exit | None = None


def spec_to_json(spec: LaunchSpec) -> dict[str, Json]:
    return {
        "key": spec.key,
        "attempt": spec.attempt,
        "argv": list(spec.argv),
        "environment": dict(spec.environment),
        "working_directory": spec.working_directory,
        # A spawner that is too old for this one ignores it, and the run fails for want of its directory.
        "make_directory": spec.make_directory,
        "output": spec.output,
        "result": spec.result,
        "user": spec.user,
        "group": spec.group,
        "umask": spec.umask,
        "nice": spec.nice,
        "rlimits": {name: list(pair) for name, pair in spec.rlimits.items()},
        "memory_max_bytes": spec.memory_max_bytes,
        "cpu_quota_percent": spec.cpu_quota_percent,
        "tasks_max": spec.tasks_max,
        "output_max_bytes": spec.output_max_bytes,
        "runtime_max_s": spec.runtime_max_s,
        "intents": spec.intents,
        "stop_signal": spec.stop_signal,
        "stop_timeout_s": spec.stop_timeout_s,
    }


def hello_from_json(value: Json) -> Hello:
    """Raises SpawnerError when it is none. An older spawner says nothing of limits."""
    try:
        limits = {str(name): None if by is None else str(by) for name, by in (value.get("limits") or {}).items()}
        why = value.get("why")
        return Hello(
            version=str(value["version"]),
            pid=int(value["pid"]),
            limits=limits,
            why=None if why is None else str(why),
            boot_id=value.get("boot_id"),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        message = f"cannot read the spawner's hello: {type(error).__name__}: {error}"
        raise SpawnerError(message) from error


def record_from_json(value: Json) -> Record:
    """Raises SpawnerError when it is no record."""
    try:
        return _record(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        message = f"cannot read the spawner's record: {type(error).__name__}: {error}"
        raise SpawnerError(message) from error


def _record(value: Mapping[str, Json]) -> Record:
    if value["phase"] not in get_args(Phase):
        raise ValueError(f"there is no phase {value['phase']!r}")
    pid, ticks = value["pid"], value["start_ticks"]
    known = pid is not None and ticks is not None
    stop = value.get("stop") or {}
    return Record(
        key=str(value["key"]),
        attempt=int(value["attempt"]),
        phase=value["phase"],
        identity=Identity(boot_id=str(value["boot_id"]), pid=int(pid), start_ticks=int(ticks)) if known else None,
        pgid=value.get("pgid"),
        user=value.get("user"),
        started_at=datetime.fromisoformat(value["started_at"]),
        stop_reason=stop.get("reason"),
        stop_at=_time(stop.get("at")),
        told=bool(stop.get("told")),
        error=_error(value.get("error")),
        exit=_exit(value.get("exit")),
    )


def _time(value: Json) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _error(value: Json) -> StartError | None:
    if value is None:
        return None
    return StartError(stage=str(value["stage"]), errno=value.get("errno"), message=str(value["message"]))


def _exit(value: Json) -> Exit | None:
    if value is None:
        return None
    return Exit(
        code=value.get("code"),
        signal=value.get("signal"),
        oom=bool(value.get("oom")),
        cpu_s=value.get("cpu_s"),
        max_rss_bytes=value.get("max_rss_bytes"),
        at=_time(value.get("at")),
    )


def boot_id() -> str:
    """This boot's id; "unknown" where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
