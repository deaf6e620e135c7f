"""Plans warm interpreters: which one a run needs, or why the run starts cold. Pure.

Invariants: an interpreter has only those of a run's variables that Python, its libraries or Prefect read when they are
started or imported, and none that sounds secret; two runs share an interpreter only where all of these are the same,
and one that has preloaded modules belongs to one deployment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runnerd.config.show import sounds_secret
from runnerd.core.process import LaunchSpec
from runnerd.launch.prepared import WarmWish
from runnerd.launch.warm_interpreter import warm_argv, warm_environment
from runnerd.spawner.warm.commands import FORKED_COMMANDS
from runnerd.spawner.warm.fixed_at_start import fixed_at_start

WARM_PREFIX = "warm-"  # of the spawner's keys of warm interpreters
MAX_AGE_S = 6 * 3600.0  # and then replaced; none outlives this where no daemon comes back
# Not fixed for Python, but what is imported may ask: for programs in PATH, for the home of a user, for a terminal.
_ALSO = frozenset(
    "COLORTERM COLUMNS FORCE_COLOR LINES LOGNAME OPENSSL_CONF OPENSSL_MODULES PATH SHELL TEMP TERM TMP TMPDIR TZDIR"
    " USER XDG_CACHE_HOME XDG_CONFIG_HOME XDG_DATA_HOME XDG_STATE_HOME".split()
)
# Read by decorators of Prefect and by libraries when they are imported: only where modules are preloaded.
_FOR_PRELOAD = (
    "ARROW_",
    "CUDA_",
    "KMP_",
    "MPL",
    "NPY_",
    "NUMBA_",
    "PREFECT_DEFAULT_",
    "PREFECT_FLOW",
    "PREFECT_LOGGING_",
    "PREFECT_RESULTS_",
    "PREFECT_TASK",
    "POLARS_",
    "TF_",
    "TORCH_",
)
# They change how Python itself works, mostly to find a fault: such a run is not the place for anything new.
_DOUBTFUL = frozenset(
    "COVERAGE_PROCESS_CONFIG COVERAGE_PROCESS_START LD_AUDIT LD_DEBUG LD_PRELOAD LD_PROFILE MALLOC_CHECK_ MALLOC_TRACE"
    " PYTHONASYNCIODEBUG PYTHONDEBUG PYTHONDEVMODE PYTHONDUMPREFS PYTHONHOME PYTHONINSPECT PYTHONMALLOC"
    " PYTHONMALLOCSTATS PYTHONPROFILEIMPORTTIME PYTHONTRACEMALLOC PYTHONVERBOSE PYTHONWARNDEFAULTENCODING".split()
)
_OUTPUT_MAX_BYTES = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Describes a warm interpreter; runs with equal plans may be forked from the same one.

    `owner`: the deployment that it belongs to, None where it has preloaded nothing. The limits are those of the runs
    where it has: what they bound in a run that imports a module must not be free of them here. Not that of tasks, which
    forks that wait for their release would reach.
    """

    python: str
    user: str | None
    group: str | None
    preload: tuple[str, ...]
    owner: str | None
    environment: tuple[tuple[str, str], ...]
    working_directory: str
    memory_max_bytes: int | None
    cpu_quota_percent: float | None

    def variable(self, name: str) -> str | None:
        """Return one of the interpreter's variables."""
        return dict(self.environment).get(name)

    def describe(self) -> str:
        """Name the interpreter in a message."""
        more = f" with {', '.join(self.preload)}" if self.preload else ""
        return f"{self.python}{more}" + (f" as {self.user}" if self.user else "")


def make_plan(spec: LaunchSpec, wish: WarmWish) -> Plan | str:
    """Plan the interpreter from which a run with this launch spec can be forked; or say why it has to start cold."""
    environment = dict(_shared(spec.environment, preload=bool(wish.preload)))
    cold = next(_reasons(spec, wish, environment), None)
    if cold is not None:
        return cold
    relative = _is_relative(environment.get("PYTHONPATH"))
    if relative and spec.make_directory:
        return "PYTHONPATH has a relative path, and each run has a directory of its own"
    in_place = (relative or bool(wish.preload)) and not spec.make_directory
    return Plan(
        python=spec.argv[0],
        user=spec.user,
        group=spec.group,
        preload=wish.preload,
        owner=wish.owner if wish.preload else None,
        environment=tuple(sorted(environment.items())),
        working_directory=spec.working_directory if in_place else "/",
        memory_max_bytes=spec.memory_max_bytes if wish.preload else None,
        cpu_quota_percent=spec.cpu_quota_percent if wish.preload else None,
    )


def interpreter_spec(plan: Plan, *, key: str, output: str) -> LaunchSpec:
    """Make the launch spec of the interpreter; the other limits of a run are set when the run is forked."""
    return LaunchSpec(
        key=key,
        attempt=1,
        argv=warm_argv(plan.python),
        environment={**dict(plan.environment), **warm_environment(plan.preload)},
        working_directory=plan.working_directory,
        output=output,
        user=plan.user,
        group=plan.group,
        forks=True,
        memory_max_bytes=plan.memory_max_bytes,
        cpu_quota_percent=plan.cpu_quota_percent,
        output_max_bytes=_OUTPUT_MAX_BYTES,
        runtime_max_s=MAX_AGE_S,
        stop_timeout_s=1.0,
    )


def _shared(environment: Mapping[str, str], *, preload: bool) -> Iterator[tuple[str, str]]:
    fixed = fixed_at_start(environment)
    for name, value in environment.items():
        if name in fixed:
            yield name, value
        elif (name in _ALSO or (preload and name.startswith(_FOR_PRELOAD))) and not _may_be_secret(name):
            yield name, value


def _reasons(spec: LaunchSpec, wish: WarmWish, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield why the run has to start cold."""
    python, *command = spec.argv
    if command not in FORKED_COMMANDS:
        yield "its command is not python -m prefect.engine"
    if not os.path.isabs(python):
        yield f"its interpreter {python} is not named by an absolute path; set run.python to one"
    version = wish.prefect_version
    if version is not None and not version.startswith(("2.20.", "3.")):
        yield f"Prefect {version} is neither 2.20 nor 3"
    for name in environment:
        if _may_be_secret(name):
            yield f"the variable {name} is read when Prefect is imported, and may be a secret"
    if wish.start == "auto":
        for name in sorted(_DOUBTFUL & spec.environment.keys()):
            yield f"the variable {name} changes how Python works; set run.start to warm to fork the run nevertheless"


def _may_be_secret(name: str) -> bool:
    """Whether the value may be one that no process but the run should have: OTEL_EXPORTER_OTLP_HEADERS, FSSPEC_S3."""
    return sounds_secret(name) or "HEADERS" in name or name.startswith("FSSPEC_")


def _is_relative(python_path: str | None) -> bool:
    return any(not os.path.isabs(path) for path in (python_path or "/").split(os.pathsep))
