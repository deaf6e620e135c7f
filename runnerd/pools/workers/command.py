"""Which process Prefect's own worker for a pool is: its key, its environment of Python, its command line. Pure.

Invariants: everything the process is started from is in its key, so that one with other settings has another; secrets
go by environment only, and into the key as part of a digest.
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
OUTDATED = 3  # how install_worker.py ends where it could only not upgrade
_BETWEEN_RUNS = {"limit", "runtime_max_s", "hook_timeout_s", "start", "environment_file"}  # of no concern to a worker

# Asked of an interpreter: it imports nothing but the standard library, and takes a tenth of a second.
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
class Interpreter:
    """What an interpreter answered: its versions, and which command line its Prefect understands."""

    python: str
    prefect: str | None
    package: str | None
    module: bool  # `python -m prefect` works, which it does not in 2.x
    no_create: bool  # it can be told not to create the pool


def read_answer(python: str, text: str) -> Interpreter | None:
    """What PROBE wrote; None where that is nothing or something else."""
    try:
        said = json.loads(text)
        return Interpreter(
            python=python,
            prefect=said["prefect"],
            package=said["package"],
            module=bool(said["module"]),
            no_create=bool(said["no_create"]),
        )
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A worker as it is wanted. `package` is None for a type that the server's list does not have."""

    settings: PoolSettings
    type: str
    package: str | None
    server: ServerInfo
    queues: tuple[str, ...]  # none: all of the pool's
    name: str
    environment: Mapping[str, str]  # what its user's processes get
    access: ApiAccess

    def __repr__(self) -> str:
        return f"Wish({self.settings.name}, {self.type})"

    @property
    def requirements(self) -> tuple[str, ...]:
        """What pip is asked for: Prefect as the server has it, because both must be of one major."""
        version = self.server.version
        pin = version if _RELEASE.fullmatch(version) else f"{self.server.major}.*"
        return (f"prefect=={pin}", *([self.package] if self.package else []))

    @property
    def directory(self) -> str:
        """Where an environment of our own making is: below its user's own cache, so that nobody else can change it."""
        home = self.environment.get("XDG_CACHE_HOME") or os.path.join(self.environment.get("HOME", "/"), ".cache")
        made_of = _digest([self.settings.run.python, *self.requirements])
        return os.path.join(home, "runnerd", "workers", f"{_slug(self.type)}-{made_of}")

    @property
    def install_key(self) -> str:
        return f"{install_family(self.settings.name)}{_digest(self.directory)}"

    @property
    def key(self) -> str:
        return family(self.settings.name) + _digest(
            {
                "run": {key: value for key, value in asdict(self.settings.run).items() if key not in _BETWEEN_RUNS},
                "options": [self.type, self.queues, self.settings.limit, self.settings.prefetch_s, self.name],
                "requirements": self.requirements,
                "environment": dict(self.environment),
                "api": [self.access.url, dict(self.access.environment)],
            }
        )


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _slug(name: str) -> str:
    return _UNSAFE.sub("_", name)[:60]


def family(pool: str) -> str:
    """What the key of every worker of this pool begins with, and of no other's."""
    return f"{KEY_PREFIX}{label(pool)}."


def install_family(pool: str) -> str:
    """The same of its installations."""
    return f"{INSTALL_PREFIX}{label(pool)}."


def label(pool: str) -> str:
    """The pool's name as it may stand in keys and file names; names that had to be changed stay apart."""
    slug = _slug(pool)
    return slug if slug == pool else f"{slug}-{_digest(pool)}"


def unsuited(answer: Interpreter, wish: Wish) -> str | None:
    """What keeps this interpreter from running the worker."""
    if answer.prefect is None:
        return "has no Prefect"
    version = version_of(answer.prefect)
    if version is not None and version[0] != wish.server.major:
        return f"has Prefect {answer.prefect}, and the server is {wish.server.version}"
    if wish.package is not None and answer.package is None:
        return f"has no {wish.package}"
    return None


def advice(wish: Wish) -> str:
    """The command that would mend that."""
    major = wish.server.major
    packages = " ".join([f"'prefect>={major},<{major + 1}'", *([wish.package] if wish.package else [])])
    return f"{wish.settings.run.python} -m pip install {packages}"


def package_of(kind: WorkerType | None) -> str | None:
    return kind.package if kind is not None and kind.package != "prefect" else None


# --- what to start ----------------------------------------------------------------------------------------------


def worker_spec(wish: Wish, python: Interpreter, *, output: str) -> LaunchSpec:
    """Prefect's worker; its keeper fills in key and attempt."""
    run = wish.settings.run
    place = {"PATH": f"{os.path.dirname(python.python)}:{wish.environment.get('PATH', '')}"}
    return bounded_spec(
        run,
        key=wish.key,
        attempt=0,
        argv=(python.python, *_program(python), *_options(wish, python)),
        environment={
            "COLUMNS": "400",  # else messages are broken into lines, and only the end of one is told
            **wish.access.environment,
            **wish.environment,
            **place,
            "PREFECT_API_URL": wish.access.url,
        },
        working_directory="/" if wish.settings.scratch else run.working_directory,
        output=output,
    )


def _program(python: Interpreter) -> tuple[str, ...]:
    return ("-m", "prefect") if python.module else ("-c", "from prefect.cli import app; app(prog_name='prefect')")


def _options(wish: Wish, python: Interpreter) -> list[str]:
    settings = wish.settings
    options = ["worker", "start", "--pool", settings.name, "--type", wish.type, "--name", wish.name]
    for queue in wish.queues:
        options += ["--work-queue", queue]
    if settings.limit is not None:
        options += ["--limit", str(settings.limit)]
    options += ["--prefetch-seconds", str(round(settings.prefetch_s)), "--install-policy", "never"]
    return options + (["--no-create-pool-if-not-found"] if python.no_create else [])


def probe_spec(wish: Wish, python: str, *, key: str, output: str, result: str) -> LaunchSpec:
    """Asks this interpreter what it has."""
    return LaunchSpec(
        key=key,
        attempt=1,
        argv=(python, "-c", PROBE, *([wish.package] if wish.package else [])),
        environment=wish.environment,
        working_directory="/",
        output=output,
        result=result,
        user=wish.settings.run.user,
        group=wish.settings.run.group,
        output_max_bytes=_OUTPUT_BYTES,
        runtime_max_s=60.0,
        stop_timeout_s=1.0,
    )


def install_spec(wish: Wish, *, program: str, upgrade: bool, attempt: int, output: str) -> LaunchSpec:
    """Makes `wish.directory`. Without the limits of the pool's runs: they are for what it runs, not for pip."""
    run = wish.settings.run
    work = {"directory": wish.directory, "requirements": list(wish.requirements), "upgrade": upgrade}
    return LaunchSpec(
        key=wish.install_key,
        attempt=attempt,
        argv=program_argv(run.python, "runnerd-install-worker"),
        environment={"PIP_NO_INPUT": "1", **wish.environment, PROGRAM: program, "RUNNERD_INSTALL": json.dumps(work)},
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
