"""Holds what identifies a process, how a process ended, and what the spawner needs to start one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from runnerd.core.prefect import StateType


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Names one process for ever: pids are reused, (boot id, pid, start ticks) is not."""

    boot_id: str
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """Describes how a process ended. `code` and `signal` are None when it was adopted: only its parent learns them."""

    code: int | None = None
    signal: int | None = None
    oom: bool = False
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Holds what a process of Prefect 3.9 said in its end: the state it has reported, or that the API aborted its run.

    Only hearsay: it has no id of a flow run, and a file that runs a flow while it is imported sends that flow's.
    """

    state: StateType | None = None  # None: the run was aborted
    name: str | None = None


WarmState = Literal["importing", "ready", "failed"]
Start = Literal["cold", "warm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """Describes a warm interpreter: only one that is ready forks runs, and one that has failed ends.

    `problem` is one sentence, set when it has failed. `python` and `prefect` are versions as the interpreter said them,
    and `import_s` is how long its imports took; None until it is ready. All of it is hearsay: the interpreter has
    imported code of the deployment's user.
    """

    state: WarmState
    problem: str | None = None
    python: str | None = None
    prefect: str | None = None
    import_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkOf:
    """Names the warm interpreter of which a run is to be forked: its key and attempt in the spawner's table."""

    key: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """Holds all that the spawner needs to start one process group; see processes/protocol.py for its JSON."""

    key: str  # the flow run's id, or "inspect-..." / "server" for the daemon's own helpers
    attempt: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: str
    make_directory: bool = False  # make working_directory for this process only, mode 0700; it must not exist
    output: str  # file for stdout and stderr
    stdin: str | None = None  # file that the process reads as its standard input; None: nothing
    result: str | None = None  # file opened as descriptor 3, for helpers that answer
    user: str | None = None
    group: str | None = None
    execute_at_s: float | None = None  # Unix time: a cold process that is started before waits for it, up to 1 s
    own: bool = False  # a process of the daemon's own, not of a flow: runs as the daemon's user, which a list may lack
    umask: int | None = None
    nice: int | None = None
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    memory_max_bytes: int | None = None
    cpu_quota_percent: float | None = None
    tasks_max: int | None = None
    output_max_bytes: int | None = None
    runtime_max_s: float | None = None
    # A warm interpreter (argv and environment: launch/warm_interpreter.py). Descriptor 3 is its socket to the spawner,
    # so it has no `result`. It is to have no limits that its runs do not have: a fork may be unable to undo these.
    forks: bool = False
    fork_of: ForkOf | None = None  # start warm, as a fork of this interpreter; cold where that is not possible
    intents: bool = False  # the process reads Prefect 3's control channel: send it the intent before a stop
    stop_signal: int = 15
    stop_timeout_s: float = 30.0
