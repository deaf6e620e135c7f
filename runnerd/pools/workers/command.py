"""Plans the process of a Prefect worker for a pool: its key, its Python environment, its command line. Pure.

Invariants: the key covers everything that the process is started from, so a worker with other settings has another key;
secrets go by environment variables only, and into the key as part of a digest.
"""

from __future__ import annotations

import hashlib
import json
import os.path
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from runnerd.core.place import Json
from runnerd.core.prefect import WorkerType
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import PoolSettings
from runnerd.launch.spec import PROGRAM, ApiAccess, bounded_spec, program_argv
from runnerd.prefect_api.answers import ServerInfo
from runnerd.prefect_api.dialect import version_of

KEY_PREFIX = "worker-"
INSTALL_PREFIX = "install-"
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_RELEASE = re.compile(r"\d+\.\d+\.\d+")
_OUTPUT_BYTES = 2**20
INSTALL_LIMIT_S = 600.0
OUTDATED = 3  # exit status of install_worker.py when only the upgrade of an existing environment failed
# Keys of run: that concern no worker.
_NOT_FOR_WORKERS = {"limit", "runtime_max_s", "hook_timeout_s", "start", "preload", "environment_file"}

# Run by an interpreter: imports nothing but the standard library, and takes a tenth of a second.
PROBE = """\
import importlib.util, json, os, sys
from importlib import metadata
def version(name):
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
found = importlib.util.find_spec("prefect")
place = os.path.dirname(found.origin) if found and found.origin else None
says = ""
if place:
    try:
        with open(os.path.join(place, "cli", "worker.py"), encoding="utf-8") as file:
            says = file.read()
    except OSError:
        pass
answer = {
    "prefect": version("prefect") if place else None,
    "package": version(sys.argv[1]) if sys.argv[1:] else None,
    "module": bool(place) and os.path.exists(os.path.join(place, "__main__.py")),
    "no_create": "create_pool_if_not_found" in says,
}
os.write(3, (json.dumps(answer) + "\\n").encode())
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedPython:
    """What PROBE found in an interpreter: its versions, and which command line its Prefect understands."""

    python: str
    prefect: str | None
    package: str | None
    module: bool  # `python -m prefect` works, which it does not in 2.x
    no_create: bool  # `prefect worker start` has an option not to create the pool


def parse_probe(python: str, text: str) -> ProbedPython | None:
    """Parse what PROBE wrote; None where that is nothing or something else."""
    try:
        said = json.loads(text)
        return ProbedPython(
            python=python,
            prefect=said["prefect"],
            package=said["package"],
            module=bool(said["module"]),
            no_create=bool(said["no_create"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """Everything a worker is started from. `package` is None for a type that the server does not list."""

    settings: PoolSettings
    type: str
    package: str | None
    server: ServerInfo
    queues: tuple[str, ...]  # empty: all queues of the pool
    name: str
    environment: Mapping[str, str]  # of the pool's user
    access: ApiAccess

    def __repr__(self) -> str:
        return f"WorkerPlan({self.settings.name}, {self.type})"

    @property
    def requirements(self) -> tuple[str, ...]:
        """The requirements for pip: Prefect in the server's version, because both must have the same major version."""
        version = self.server.version
        pin = version if _RELEASE.fullmatch(version) else f"{self.server.major}.*"
        return (f"prefect=={pin}", *([self.package] if self.package else []))

    @property
    def directory(self) -> str:
        """Where runnerd makes a Python environment: in the user's own cache, so that no other user can change it."""
        home = self.environment.get("XDG_CACHE_HOME") or os.path.join(self.environment.get("HOME", "/"), ".cache")
        made_of = _digest([self.settings.run.python, *self.requirements])
        return os.path.join(home, "runnerd", "workers", f"{_slug(self.type)}-{made_of}")

    @property
    def install_key(self) -> str:
        """The spawner's key of the process that makes `directory`."""
        return f"{install_key_prefix(self.settings.name)}{_digest(self.directory)}"

    @property
    def key(self) -> str:
        """The spawner's key of the worker."""
        return key_prefix(self.settings.name) + _digest(
            {
                "run": {key: value for key, value in asdict(self.settings.run).items() if key not in _NOT_FOR_WORKERS},
                "options": [
                    *(self.type, self.queues, self.settings.limit, self.settings.prefetch_s, self.name),
                    *([] if self.settings.poll_interval_s is None else [self.settings.poll_interval_s]),
                ],
                "requirements": self.requirements,
                "environment": dict(self.environment),
                "api": [self.access.url, dict(self.access.environment)],
            }
        )


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _slug(name: str) -> str:
    return _UNSAFE.sub("_", name)[:60]


def key_prefix(pool: str) -> str:
    """Return the prefix of the keys of this pool's workers, and of no other pool's."""
    return f"{KEY_PREFIX}{label(pool)}."


def install_key_prefix(pool: str) -> str:
    """Return the prefix of the keys of this pool's installations, and of no other pool's."""
    return f"{INSTALL_PREFIX}{label(pool)}."


def label(pool: str) -> str:
    """Return the pool's name in a form safe for keys and file names; different names stay different."""
    slug = _slug(pool)
    return slug if slug == pool else f"{slug}-{_digest(pool)}"


def why_unsuited(probed: ProbedPython, plan: WorkerPlan) -> str | None:
    """Say why this interpreter cannot run the worker; None when it can."""
    if probed.prefect is None:
        return "has no Prefect"
    version = version_of(probed.prefect)
    if version is not None and version[0] != plan.server.major:
        return f"has Prefect {probed.prefect}, and the server is {plan.server.version}"
    if plan.package is not None and probed.package is None:
        return f"has no {plan.package}"
    return None


def install_advice(plan: WorkerPlan) -> str:
    """Return the command that installs what the interpreter lacks."""
    major = plan.server.major
    packages = " ".join([f"'prefect>={major},<{major + 1}'", *([plan.package] if plan.package else [])])
    return f"{plan.settings.run.python} -m pip install {packages}"


def package_of(kind: WorkerType | None) -> str | None:
    """Return the package that pip installs beside Prefect for this type; None where there is none."""
    return kind.package if kind is not None and kind.package != "prefect" else None


# --- what to start ----------------------------------------------------------------------------------------------


def worker_spec(plan: WorkerPlan, python: ProbedPython, *, output: str) -> LaunchSpec:
    """Return the launch spec of the worker; the caller replaces key and attempt."""
    run = plan.settings.run
    interval_s = plan.settings.poll_interval_s
    interval = {} if interval_s is None else {"PREFECT_WORKER_QUERY_SECONDS": f"{interval_s:g}"}
    place = {"PATH": f"{os.path.dirname(python.python)}:{plan.environment.get('PATH', '')}"}
    return bounded_spec(
        run,
        key=plan.key,
        attempt=0,
        argv=(python.python, *_program(python), *_options(plan, python)),
        environment={
            "COLUMNS": "400",  # else Prefect breaks messages into lines, and `status` shows only the last line
            **plan.access.environment,
            **interval,
            **plan.environment,
            **place,
            "PREFECT_API_URL": plan.access.url,
        },
        working_directory="/" if plan.settings.scratch else run.working_directory,
        output=output,
    )


def _program(python: ProbedPython) -> tuple[str, ...]:
    return ("-m", "prefect") if python.module else ("-c", "from prefect.cli import app; app(prog_name='prefect')")


def _options(plan: WorkerPlan, python: ProbedPython) -> list[str]:
    settings = plan.settings
    options = ["worker", "start", "--pool", settings.name, "--type", plan.type, "--name", plan.name]
    for queue in plan.queues:
        options += ["--work-queue", queue]
    if settings.limit is not None:
        options += ["--limit", str(settings.limit)]
    options += ["--prefetch-seconds", str(round(settings.prefetch_s)), "--install-policy", "never"]
    return options + (["--no-create-pool-if-not-found"] if python.no_create else [])


def probe_spec(plan: WorkerPlan, python: str, *, key: str, output: str, result: str) -> LaunchSpec:
    """Return the launch spec that runs PROBE with this interpreter."""
    return LaunchSpec(
        key=key,
        attempt=1,
        argv=(python, "-c", PROBE, *([plan.package] if plan.package else [])),
        environment=plan.environment,
        working_directory="/",
        output=output,
        result=result,
        user=plan.settings.run.user,
        group=plan.settings.run.group,
        output_max_bytes=_OUTPUT_BYTES,
        runtime_max_s=60.0,
        stop_timeout_s=1.0,
    )


def install_spec(plan: WorkerPlan, *, program: str, upgrade: bool, attempt: int, output: str) -> LaunchSpec:
    """Return the launch spec that makes `plan.directory`. The limits of the pool's runs do not apply to pip."""
    run = plan.settings.run
    work = {"directory": plan.directory, "requirements": list(plan.requirements), "upgrade": upgrade}
    return LaunchSpec(
        key=plan.install_key,
        attempt=attempt,
        argv=program_argv(run.python, "runnerd-install-worker"),
        environment={"PIP_NO_INPUT": "1", **plan.environment, PROGRAM: program, "RUNNERD_INSTALL": json.dumps(work)},
        working_directory="/",
        output=output,
        user=run.user,
        group=run.group,
        umask=run.umask,
        nice=run.nice,
        output_max_bytes=16 * _OUTPUT_BYTES,
        runtime_max_s=INSTALL_LIMIT_S,
        stop_timeout_s=5.0,
    )
