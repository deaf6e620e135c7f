"""The nouns of runnerd: frozen values that every layer above speaks, and nothing that acts.

Units are in the names: `_s` is seconds, `_bytes` is bytes. Times are aware `datetime`s in UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

# What JSON can say. `Any` because mypy has no recursive alias that callers can narrow cheaply.
Json = Any


# --- where something was written, and what is wrong with it -----------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A position in a configuration file; line and column count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something an administrator has to mend: what is wrong, where, and what would be right.

    `deployment` names the deployment it concerns, None when it concerns a whole file or the host.
    """

    message: str
    place: Place | None = None
    deployment: str | None = None

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message


FOREVER_S = 100 * 365 * 86400.0  # what `infinity` is for a duration that is added to a point in time

# --- configuration, as checked and merged -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """One schedule of a deployment; exactly one of cron, interval_s and rrule is set."""

    cron: str | None = None
    day_or: bool = True
    interval_s: float | None = None
    anchor_date: str | None = None  # RFC 3339, with offset
    rrule: str | None = None
    timezone: str | None = None  # IANA name
    active: bool = True
    slug: str | None = None  # server 3.x only
    parameters: Mapping[str, Json] | None = None  # server 3.x only
    max_scheduled_runs: int | None = None


StartKind = Literal["cold", "warm", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """How the processes of a deployment's runs are started and bounded: its `run:` section over the host's."""

    python: str
    user: str | None = None  # None: whoever runs the spawner
    group: str | None = None  # None: the user's primary group
    working_directory: str
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_file: str | None = None
    limit: int | None = None  # concurrent runs of this deployment on this host
    runtime_max_s: float | None = None
    memory_max_bytes: int | None = None
    cpu_quota_percent: float | None = None
    tasks_max: int | None = None
    nice: int | None = None
    umask: int | None = None
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # "nofile" -> (soft, hard); -1 is infinity
    stop_signal: int = 15
    stop_timeout_s: float = 30.0
    hook_timeout_s: float = 60.0  # for all hooks of one ended run together
    output_max_bytes: int = 64 * 2**20
    start: StartKind = "cold"


InstallPolicy = Literal["always", "if-not-present", "never", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """A work pool that this host serves: its entry in `pools:`, over the host's own `run:`."""

    name: str
    queues: tuple[str, ...] = ()  # none, and no match: every queue of the pool
    match: tuple[str, ...] = ()  # every queue whose name starts with one of these
    type: str | None = None  # None: what the pool is, or process where it has to be created
    create: bool = True  # what is missing, the pool or one of its queues
    base_job_template: str | None = None  # a JSON file, for a pool that has to be created
    limit: int | None = None  # concurrent runs of this pool on this host
    prefetch_s: float = 10.0  # how early its runs are taken
    install_policy: InstallPolicy = "if-not-present"  # of Prefect's own worker, for types that need it
    run: RunSettings
    scratch: bool = True  # nobody said run.working_directory: each run gets a fresh one
    place: Place
    problem: str | None = None  # why this is the last good version: what its file says now is wrong


OnRemove = Literal["pause", "delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment as a drop-in asks for it. The flow's own name is learnt from its code (see Inspection)."""

    name: str
    entrypoint: str  # "path/to/file.py:function" or "package.module:function"
    flow_name: str | None = None  # as stated in the file; checked against the code
    schedules: tuple[Schedule, ...] = ()
    parameters: Mapping[str, Json] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str | None = None
    version: str | None = None
    enforce_parameter_schema: bool = True
    concurrency_limit: int | None = None
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] = "ENQUEUE"
    collision_grace_s: int | None = None  # server 3.x: how long a starting run may hold its place
    paused: bool = False
    on_remove: OnRemove = "pause"
    run: RunSettings
    place: Place
    problem: str | None = None  # why this is the last good version: what its file says now is wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidDeployment:
    """A deployment that its file asks for and that cannot be: there is no good version of it to fall back on."""

    name: str | None  # None when not even that can be read
    place: Place
    problem: str


StopThen = Literal["cancel", "crash", "reschedule"]
LatePolicy = Literal["run", "skip", "latest"]
Forwarding = Literal["auto", "never"]

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """How to reach Prefect. `url` ends in /api without a slash, or is EMBEDDED."""

    url: str
    key_file: str | None = None
    auth_string_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    poll_interval_s: float = 10.0
    prefetch_s: float = 10.0
    request_timeout_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    runs: int = 10
    start_rate_per_s: float = 10.0
    tags: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopSettings:
    drain_timeout_s: float = 30.0
    then: StopThen = "cancel"


@dataclass(frozen=True, slots=True, kw_only=True)
class LateSettings:
    after_s: float = 600.0
    policy: LatePolicy = "run"


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalSettings:
    keep_s: float = 30 * 86400.0
    max_runs: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """What becomes of the output of runs beyond its files; `journal` is systemd's, `auto` where it has our log too."""

    journal: Forwarding = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything of the host that is not a deployment."""

    name: str
    api: ApiSettings
    limits: LimitSettings = LimitSettings()
    stop: StopSettings = StopSettings()
    late: LateSettings = LateSettings()
    journal: JournalSettings = JournalSettings()
    output: OutputSettings = OutputSettings()
    http_listen: tuple[str, int] | None = None  # loopback address and port of health and metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """One reading of the configuration directory: what is good of it, and every problem of the rest."""

    settings: Settings
    deployments: tuple[Deployment, ...] = ()
    problems: tuple[Problem, ...] = ()
    files: tuple[str, ...] = ()  # every file read, in order
    invalid: tuple[InvalidDeployment, ...] = ()
    pools: tuple[PoolSettings, ...] = ()
    said: Mapping[str, Json] = field(default_factory=dict)  # per file, for the next load to fall back on


# --- what a flow's own interpreter says about it ------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What the flow's own interpreter told about one entrypoint."""

    flow_name: str
    description: str | None
    parameter_schema: Mapping[str, Json]  # as Prefect stores it: parameter_openapi_schema
    prefect_version: str
    file: str | None  # the file the flow came from, for the cache
    sha256: str | None = None  # of that file, taken before it was imported
    version: str | None = None  # the flow's own; a deployment without one registers this
    hooks: tuple[str, ...] | None = None  # those we might have to run (see machine.Hook); None: not asked yet


# --- Prefect's side -------------------------------------------------------------------------------------------


class StateType(StrEnum):
    """Prefect's state types (both majors). Names within a type vary and decide nothing here."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    CRASHED = "CRASHED"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"

    @property
    def terminal(self) -> bool:
        return self in (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiState:
    """A flow run's state as the API told it."""

    type: StateType
    name: str
    message: str | None = None
    transition_id: str | None = None
    scheduled_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowRun:
    """A flow run as the API told it."""

    id: str
    name: str
    flow_id: str
    deployment_id: str | None
    state: ApiState
    next_scheduled_start_time: datetime | None = None
    expected_start_time: datetime | None = None
    parameters: Mapping[str, Json] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    auto_scheduled: bool = False
    run_count: int = 0
    pool: str | None = None  # the work pool that offered it
    queue: str | None = None  # and the work queue's name in that pool
    job_variables: Mapping[str, Json] = field(default_factory=dict)  # the run's own, over its deployment's


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentInfo:
    """A deployment as the API told it."""

    id: str
    name: str
    flow_id: str
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A state we want the API to record."""

    type: StateType
    name: str | None = None  # None: the type's own name
    message: str | None = None
    scheduled_time: datetime | None = None  # for SCHEDULED only


class ApiCondition(StrEnum):
    """How things stand with the API: `degraded` answers but refuses us or errs, `unreachable` does not answer."""

    OK = "ok"
    DEGRADED = "degraded"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiHealth:
    condition: ApiCondition
    since: datetime
    detail: str


# --- processes ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Names one process for ever: pids are reused, (boot id, pid, start ticks) is not."""

    boot_id: str
    pid: int
    start_ticks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended. code and signal are both None when nobody could wait for it (an adopted process)."""

    code: int | None = None
    signal: int | None = None
    oom: bool = False
    cpu_s: float | None = None
    max_rss_bytes: int | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """All the spawner needs to start one process group; see spawner/protocol.py for its JSON."""

    key: str  # the flow run's id, or "inspect-..." / "server" for the daemon's own helpers
    attempt: int
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: str
    make_directory: bool = False  # it is made for this process alone, mode 0700, and must not be there
    output: str  # file for stdout and stderr
    result: str | None = None  # file opened as descriptor 3, for helpers that answer
    user: str | None = None
    group: str | None = None
    umask: int | None = None
    nice: int | None = None
    rlimits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    memory_max_bytes: int | None = None
    cpu_quota_percent: float | None = None
    tasks_max: int | None = None
    output_max_bytes: int | None = None
    runtime_max_s: float | None = None
    intents: bool = False  # it speaks Prefect 3's control channel: it can be told why it is ended
    stop_signal: int = 15
    stop_timeout_s: float = 30.0
