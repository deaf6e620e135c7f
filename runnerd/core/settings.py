"""The configuration, as checked and merged.

Units are in the names: `_s` is seconds, `_bytes` is bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from runnerd.core.place import Json, Place, Problem

FOREVER_S = 100 * 365 * 86400.0  # what `infinity` is for a duration that is added to a point in time


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
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] | None = None  # None: not stated; ENQUEUE to the server
    collision_grace_s: int | None = None  # server 3.x: how long a starting run may hold its place
    paused: bool = False
    on_remove: OnRemove = "pause"
    work_pool: str | None = None  # in which the deployment is; its workers start the runs
    work_queue: str | None = None  # of that pool; None: its default queue
    job_variables: Mapping[str, Json] = field(default_factory=dict)  # of that pool, with the worker's placeholders
    pull_steps: tuple[Json, ...] | None = None  # for that pool's workers; None: set_working_directory
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
    warnings: tuple[Problem, ...] = ()  # what has no effect; nothing is refused because of it
    files: tuple[str, ...] = ()  # every file read, in order
    invalid: tuple[InvalidDeployment, ...] = ()
    pools: tuple[PoolSettings, ...] = ()
    said: Mapping[str, Json] = field(default_factory=dict)  # per file, for the next load to fall back on
