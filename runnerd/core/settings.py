"""Holds the configuration after it is checked and merged. Units are in the names: `_s` seconds, `_bytes` bytes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from runnerd.core.commands import Command
from runnerd.core.notices import Notices
from runnerd.core.place import Json, Place, Problem
from runnerd.core.source import Source, Tree

UNBOUNDED_BYTES = 2**63 - 1  # replaces `infinity` in a size of files
FOREVER_S = 100 * 365 * 86400.0  # replaces `infinity` in a duration that is added to a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """Holds one schedule of a deployment; exactly one of cron, interval_s and rrule is set."""

    cron: str | None = None
    day_or: bool = True
    interval_s: float | None = None
    anchor_date: str | None = None  # RFC 3339, with offset
    rrule: str | None = None
    timezone: str | None = None  # IANA name
    active: bool | None = None  # None: not stated, so as it is in Prefect; a new one is active
    slug: str | None = None  # server 3.x only
    parameters: Mapping[str, Json] | None = None  # server 3.x only
    max_scheduled_runs: int | None = None


StartKind = Literal["cold", "warm", "auto"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """Holds how a deployment's runs are started and limited: its `run:` section merged over the host's."""

    python: str
    user: str | None = None  # None: the user of the spawner
    group: str | None = None  # None: the user's primary group
    working_directory: str
    environment: Mapping[str, str] = field(default_factory=dict)
    environment_file: str | None = None
    limit: int | None = None  # concurrent runs of this deployment on this host
    limit_group: str | None = None  # `limit` counts the runs of all deployments of this group
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
    before: tuple[tuple[str, ...], ...] = ()  # commands before each start
    before_timeout_s: float = 60.0  # for each of them
    after: tuple[tuple[str, ...], ...] = ()  # commands after each end
    after_timeout_s: float = 60.0
    output_max_bytes: int = 64 * 2**20
    start: StartKind = "auto"
    preload: tuple[str, ...] = ()  # modules that a warm interpreter imports besides Prefect


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRunSettings:
    """Holds the host's own `run:`, by which a run of no deployment or pool of this host is started.

    `scratch`: no working_directory is set, so each run gets a scratch directory.
    """

    run: RunSettings
    scratch: bool


InstallPolicy = Literal["always", "if-not-present", "never", "prompt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolSettings:
    """Holds a work pool that this host serves: its entry in `pools:`, merged over the host's `run:`."""

    name: str
    queues: tuple[str, ...] = ()  # empty, and no match: every queue of the pool
    match: tuple[str, ...] = ()  # every queue whose name starts with one of these
    type: str | None = None  # None: the pool's type; `process` for a pool that has to be created
    create: bool = True  # create the pool and its queues if they are missing
    base_job_template: str | None = None  # a JSON file, for a pool that has to be created
    limit: int | None = None  # concurrent runs of this pool on this host
    prefetch_s: float = 10.0  # how early its runs are claimed
    poll_interval_s: float | None = None  # None: the host's
    install_policy: InstallPolicy = "if-not-present"  # of Prefect's own worker, for types that need it
    run: RunSettings
    scratch: bool = True  # run.working_directory is not set: each run gets a scratch directory
    place: Place
    problem: str | None = None  # why the last good version is in force: the error in the file


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptSettings:
    """Holds a script that serves flows, whose deployments this host serves instead: an entry of `scripts:`.

    `said` are the values of its `run:`, merged over the host's, by the fields of RunSettings; `run` has the defaults.
    """

    path: str  # relative to run.working_directory, or absolute
    run: RunSettings
    said: Mapping[str, Json] = field(default_factory=dict)
    place: Place
    problem: str | None = None  # why the last good version is in force: the error in the file

    @property
    def name(self) -> str:
        return self.path

    @property
    def file(self) -> str:
        """The absolute path of the script, which is the file of its deployments' places."""
        return os.path.normpath(os.path.join(self.run.working_directory, self.path))


OnRemove = Literal["pause", "delete"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """Holds a deployment as its drop-in declares it. The flow's name comes from its code (see Inspection)."""

    name: str
    entrypoint: str = ""  # "path/to/file.py:function" or "package.module:function"; empty where there is a command
    command: Command | None = None
    flow_name: str | None = None  # as stated in the file; checked against the code
    schedules: tuple[Schedule, ...] = ()
    parameters: Mapping[str, Json] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    description: str | None = None
    version: str | None = None
    enforce_parameter_schema: bool = True
    concurrency_limit: int | None = None
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"] | None = None  # None: not stated; ENQUEUE to the server
    collision_grace_s: int | None = None  # server 3.x: how long a starting run may hold its slot
    paused: bool | None = None  # None: not stated, so as it is in Prefect; a new one is not paused
    pause_on_shutdown: bool | None = None  # None: as stop.pause_schedules of the host
    on_remove: OnRemove = "pause"
    work_pool: str | None = None  # in which the deployment is; its workers start the runs
    work_queue: str | None = None  # of that pool; None: its default queue
    job_variables: Mapping[str, Json] = field(default_factory=dict)  # of that pool, with the worker's placeholders
    pull_steps: tuple[Json, ...] | None = None  # run by that pool's workers, or here at each start; None: only a cd
    scratch: bool = False  # its pull steps are run in a directory that is made for each run
    source: Source | None = None  # None: the code is in run.working_directory
    tree: Tree | None = None  # what is checked out of a source that is pulled; it is run.working_directory then
    triggers: tuple[Json, ...] = ()  # each with every key of its kind: see config/triggers.py
    notices: Notices = field(default_factory=dict)  # besides those of the host
    run: RunSettings
    place: Place
    # By `parameters.x` and `schedules[0].parameters.x`; edits above them are no change of the deployment.
    parameter_places: Mapping[str, Place] = field(default_factory=dict, compare=False)
    problem: str | None = None  # why the last good version is in force: the error in the file

    @property
    def awaits_tree(self) -> bool:
        """Whether its code has not been pulled yet, so that nothing of it can be run."""
        return self.source is not None and self.source.is_pulled and self.tree is None

    @property
    def runs_pull_steps(self) -> bool:
        """Whether each run here begins with its pull steps."""
        return self.pull_steps is not None and self.work_pool is None


DeclaredKey = tuple[str, ...]


def key_of(deployment: Deployment) -> DeclaredKey:
    """Return the key of a declaration: its name, and everything the name of its flow may depend on.

    To the API a deployment is (flow, name), but the flow's name is known only once its code was inspected. Until then
    two declarations are the same only if they have the same code, directory, interpreter and environment. The version
    that is checked out of a source changes nothing.
    """
    if deployment.command is not None:  # the name of its flow depends on nothing else
        return ("", deployment.name, "command", deployment.flow_name or deployment.name)
    run, source = deployment.run, deployment.source
    environment = "\n".join(f"{name}={value!r}" for name, value in sorted(run.environment.items()))
    directory = (
        f"{source.kind} {source.describe()}" if source is not None and source.is_pulled else run.working_directory
    )
    where = (directory, run.python, run.environment_file or "", environment)
    return (deployment.entrypoint, deployment.name, *where)


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidDeployment:
    """Holds a declared deployment that is invalid and has no last good version."""

    name: str | None  # None when the name cannot be read
    place: Place
    problem: str


StopThen = Literal["cancel", "crash", "reschedule"]
LatePolicy = Literal["run", "skip", "latest"]
Forwarding = Literal["auto", "never"]
EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """Holds how to reach Prefect. `url` ends in /api without a slash, or is EMBEDDED."""

    url: str
    key_file: str | None = None
    auth_string_file: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    poll_interval_s: float = 10.0
    poll_burst_per_s: float = 2.0
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
    pause_schedules: bool = False


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
    """Holds where output of runs goes besides its files. `journal`: systemd's; `auto`: if our log goes there too."""

    journal: Forwarding = "auto"
    max_total_bytes: int = 20 * 2**30  # of all output files together; UNBOUNDED_BYTES for infinity


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmSettings:
    """Holds the bounds of warm interpreters: see warm/table.py."""

    idle_s: float = 600.0  # after the last run, or FOREVER_S
    interpreters: int = 4
    min_free_memory_bytes: int = 512 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """Which groups may do what over the control socket; without any list, everybody who can open it may do all."""

    admins: tuple[str, ...] | None = None
    operators: tuple[str, ...] | None = None
    readers: tuple[str, ...] | None = None

    @property
    def narrowed(self) -> bool:
        """Whether there is a list, which may be empty: then it permits nothing to anybody."""
        return any(groups is not None for groups in (self.admins, self.operators, self.readers))

    def lists(self) -> dict[str, tuple[str, ...]]:
        """Return the groups of each key."""
        return {"admins": self.admins or (), "operators": self.operators or (), "readers": self.readers or ()}


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """Holds the web server: see control/public_port.py. An address other than loopback has a token file."""

    listen: tuple[str, int] | None = None  # address and port
    token_file: str | None = None
    certificate: str | None = None  # None: no TLS
    key: str | None = None  # None: in the file of the certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Holds all settings of the host except deployments and pools."""

    name: str
    api: ApiSettings
    limits: LimitSettings = LimitSettings()
    stop: StopSettings = StopSettings()
    late: LateSettings = LateSettings()
    journal: JournalSettings = JournalSettings()
    output: OutputSettings = OutputSettings()
    warm: WarmSettings = WarmSettings()
    control: ControlSettings = ControlSettings()
    http: HttpSettings = HttpSettings()
    automations: Mapping[str, Json] = field(default_factory=dict)  # by name, as Prefect takes them
    notices: Notices = field(default_factory=dict)  # of all runs of this host


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Holds the result of reading the configuration directory: all valid parts, and the problems of the others."""

    settings: Settings
    deployments: tuple[Deployment, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()  # what has no effect; nothing is refused because of it
    files: tuple[str, ...] = ()  # every file read, in order
    invalid: tuple[InvalidDeployment, ...] = ()
    pools: tuple[PoolSettings, ...] = ()
    scripts: tuple[ScriptSettings, ...] = ()
    said: Mapping[str, Json] = field(default_factory=dict)  # valid content by file, for the next load to fall back on
    places: Mapping[str, Place] = field(default_factory=dict)  # of the host's keys in the files, as `api.key_file`
    host_run: HostRunSettings | None = None
