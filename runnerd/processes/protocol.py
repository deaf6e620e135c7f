"""Translate between the spawner's JSON and the daemon's types: LaunchSpec to JSON, JSON to Record and Hello.

The spawner does not import this module, because it does without dataclasses. There `io.messages.Launch` reads what
`spec_to_json` writes, and `runs.records.ProcessRecord.to_wire` writes what `record_from_json` reads. Unknown keys, from
a newer spawner, are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from runnerd.core.errors import SpawnerError
from runnerd.core.place import Json
from runnerd.core.prefect import StateType
from runnerd.core.process import Exit, Identity, LaunchSpec, Receipt, Start, Warm, WarmState
from runnerd.core.strict_json import read_json
from runnerd.spawner.child.users import AllowedUsers

Phase = Literal["starting", "running", "stopping", "killing", "exited"]

# More than a hello with all records, the longest message: the spawner disconnects a client with 8 MiB unread.
MAX_ANSWER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The spawner's first message on a connection.

    `limits` says what enforces memory_max, cpu_quota and tasks_max: "cgroup" (for the run as a whole), "rlimit" (for
    each process, or for all processes of the user), None (nothing); empty from an older spawner. `why` says why not all
    limits are enforced by cgroup, None where they are. `boot_id` is the boot id that the spawner sees, None from an
    older spawner. `users` are those as whom it starts processes, `build` is that of its code, both None from an older
    spawner. `forks`: it can start warm interpreters and fork runs of these; an older spawner ignores both fields of a
    launch spec, and starts each process cold. `stdin`: it gives a process a file as its standard input; `waits`:
    it executes a program when its launch spec says; an older spawner ignores these fields too.
    """

    version: str
    pid: int
    limits: Mapping[str, str | None]
    why: str | None
    boot_id: str | None = None
    users: AllowedUsers | None = None
    build: str | None = None
    forks: bool = False
    stdin: bool = False
    waits: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StartError:
    """Why a run could not start: the stage of its set-up and one sentence for an administrator."""

    stage: str
    errno: int | None
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The spawner's record of one run.

    `exit` is set once the phase is `exited`, except for a run that could not start: that one has an `error`.
    `identity` is None only for a run that could not be forked. `told`: the run acknowledged the intent before it was
    signalled. `receipt`: what its process said in its end, None from an older spawner or an older Prefect.

    `warm` is set for a process whose launch spec has `forks`, and each change of it comes as an event. `start` says how
    a process was started. `start_problem` is one sentence, set when its launch spec has `fork_of` and the process was
    started cold nevertheless.
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
    receipt: Receipt | None = None
    warm: Warm | None = None
    start: Start = "cold"
    start_problem: str | None = None


def spec_to_json(spec: LaunchSpec) -> dict[str, Json]:
    """Write a launch spec for the spawner."""
    return {
        "key": spec.key,
        "attempt": spec.attempt,
        "argv": list(spec.argv),
        "environment": dict(spec.environment),
        "working_directory": spec.working_directory,
        # A spawner too old for this key ignores the key, and the run fails because its directory does not exist.
        "make_directory": spec.make_directory,
        "output": spec.output,
        "stdin": spec.stdin,
        "result": spec.result,
        "user": spec.user,
        "own": spec.own,
        "group": spec.group,
        "umask": spec.umask,
        "nice": spec.nice,
        "rlimits": {name: list(pair) for name, pair in spec.rlimits.items()},
        "memory_max_bytes": spec.memory_max_bytes,
        "cpu_quota_percent": spec.cpu_quota_percent,
        "tasks_max": spec.tasks_max,
        "output_max_bytes": spec.output_max_bytes,
        "runtime_max_s": spec.runtime_max_s,
        "execute_at_s": spec.execute_at_s,
        "intents": spec.intents,
        "forks": spec.forks,
        "fork_of": None if spec.fork_of is None else {"key": spec.fork_of.key, "attempt": spec.fork_of.attempt},
        "stop_signal": spec.stop_signal,
        "stop_timeout_s": spec.stop_timeout_s,
    }


def hello_from_json(value: Json) -> Hello:
    """Read a hello. Raises SpawnerError when the value is not a hello."""
    try:
        limits = {str(name): None if by is None else str(by) for name, by in (value.get("limits") or {}).items()}
        why = value.get("why")
        return Hello(
            version=str(value["version"]),
            pid=int(value["pid"]),
            limits=limits,
            why=None if why is None else str(why),
            boot_id=value.get("boot_id"),
            users=AllowedUsers.from_wire(value["users"]) if value.get("users") is not None else None,
            build=None if value.get("build") is None else str(value["build"]),
            forks=bool(value.get("forks")),
            stdin=bool(value.get("stdin")),
            waits=bool(value.get("waits")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        message = f"cannot read the spawner's hello: {type(error).__name__}: {error}"
        raise SpawnerError(message) from error


def record_from_json(value: Json) -> Record:
    """Read a record. Raises SpawnerError when the value is not a record."""
    try:
        return _read_record(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        message = f"cannot read the spawner's record: {type(error).__name__}: {error}"
        raise SpawnerError(message) from error


def _read_record(value: Mapping[str, Json]) -> Record:
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
        stop_at=_read_time(stop.get("at")),
        told=bool(stop.get("told")),
        error=_read_error(value.get("error")),
        exit=_read_exit(value.get("exit")),
        receipt=_read_receipt(value.get("receipt")),
        warm=_read_warm(value.get("warm")),
        start="warm" if value.get("start") == "warm" else "cold",
        start_problem=_read_text(value.get("start_problem")),
    )


def _read_text(value: Json) -> str | None:
    return None if value is None else str(value)


def _read_warm(value: Json) -> Warm | None:
    if value is None:
        return None
    state, import_s = value["state"], value.get("import_s")
    if state not in get_args(WarmState):
        raise ValueError(f"there is no state {state!r} of a warm interpreter")
    return Warm(
        state=state,
        problem=_read_text(value.get("problem")),
        python=_read_text(value.get("python")),
        prefect=_read_text(value.get("prefect")),
        import_s=None if import_s is None else float(import_s),
    )


def _read_time(value: Json) -> datetime | None:
    return None if value is None else datetime.fromisoformat(value)


def _read_error(value: Json) -> StartError | None:
    if value is None:
        return None
    return StartError(stage=str(value["stage"]), errno=value.get("errno"), message=str(value["message"]))


def _read_exit(value: Json) -> Exit | None:
    if value is None:
        return None
    return Exit(
        code=value.get("code"),
        signal=value.get("signal"),
        oom=bool(value.get("oom")),
        cpu_s=value.get("cpu_s"),
        max_rss_bytes=value.get("max_rss_bytes"),
        at=_read_time(value.get("at")),
    )


def _read_receipt(value: Json) -> Receipt | None:
    """Read what a flow's process sent to the spawner, in whatever form; None for what is no receipt of Prefect's."""
    try:
        said = read_json(value)
        if said == {"disposition": "ORCHESTRATION_ABORTED"}:
            return Receipt()
        state, name = StateType(said["state_type"]), str(said["state_name"])
        reported = said["disposition"] == "STATE_REPORTED" and name.isprintable()
        return Receipt(state=state, name=name) if reported else None
    except (KeyError, TypeError, ValueError):
        return None


def boot_id() -> str:
    """Read the kernel's boot id; "unknown" where the file cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"
