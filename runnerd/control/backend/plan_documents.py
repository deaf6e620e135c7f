"""Builds the plan document: how a run would be started. Pure.

Invariants: no value of a variable is in the document; what a command has from a block, or from a variable whose name
sounds secret, is hidden.

  kind         deployment or run. `id`, `name`: of that.
  served       whether this host starts such a run by itself. Where it does not, the plan is that of runnerctl execute.
  user, group  as whom: null for the group means the user's own.
  command      the words of the command, without the texts of programs, which are passed in the environment.
  entrypoint   the flow that the command imports; null where its deployment in Prefect names it, and for commands.
  directory    in which; with `scratch` a new directory below this one, which is removed after the run.
  environment  `name` and `source` of each variable.
  source       what its code is of; null for a directory of the host.
  before, after  the administrator's commands before the start and after the end, with their placeholders.
  limits       of the process as in `run:` (durations in seconds, sizes in bytes, null for none; absent with a problem),
               and `concurrency`: the limits that hold up claims, `name`, `used` and `max` each.
  start        `kind`: cold or warm, and `why`.
  due_at       when the run is due; null for a deployment. `next`: its next starts by schedules, at most five.
  problem      why it could not be started; null if it could. Then user to start are null.
  held_by      what would hold it up now.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from runnerd.config.show import HIDDEN, sounds_secret
from runnerd.core.limits import Caps, Claimant
from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import RunSettings
from runnerd.deployments.sources.documents import run_source_document
from runnerd.launch.client_defaults import CERTIFICATE_FILE, VERSION_CHECK
from runnerd.launch.guests import ENTRYPOINT
from runnerd.launch.prepared import Prepared

_ACCOUNT = frozenset(("HOME", "LOGNAME", "SHELL", "USER"))
_LIMITS = (
    ("runtime_max", "runtime_max_s"),
    ("memory_max", "memory_max_bytes"),
    ("cpu_quota_percent", "cpu_quota_percent"),
    ("tasks_max", "tasks_max"),
    ("nice", "nice"),
    ("output_max", "output_max_bytes"),
    ("stop_signal", "stop_signal"),
    ("stop_timeout", "stop_timeout_s"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings by which a run is started: `run`, where they are written, the host's variables, and the pool."""

    run: RunSettings
    where: str
    host: Mapping[str, str]
    pool: str | None = None


def launch_fields(prepared: Prepared, settings: Settings | None, *, start: Json) -> dict[str, Json]:
    """Return the fields that say what is started; all null, and the problem, where nothing can be."""
    spec = prepared.start
    if not isinstance(spec, LaunchSpec) or settings is None:
        absent = dict.fromkeys(
            ("user", "group", "command", "entrypoint", "directory", "environment", "start", "source")
        )
        return {**absent, "scratch": False, "before": [], "after": [], "limits": {}, "problem": str(spec)}
    hide = _Hiding(spec, prepared.secrets)
    entrypoint = spec.environment.get(ENTRYPOINT)
    directory = spec.working_directory.rpartition("/")[0] or "/" if spec.make_directory else spec.working_directory
    return {
        "user": prepared.user,
        "group": spec.group,
        "command": [hide(word) for word in spec.argv],
        "entrypoint": hide(entrypoint) if entrypoint is not None else None,
        "directory": hide(directory),
        "scratch": spec.make_directory,
        "source": run_source_document(prepared.record_fields.get("source")),
        "before": [[hide(word) for word in command] for command in prepared.before],
        "after": [[hide(word) for word in command] for command in prepared.after],
        "environment": [
            {"name": name, "source": source} for name, source in sorted(_sources(spec, prepared, settings))
        ],
        "limits": {
            **{key: getattr(spec, field) for key, field in _LIMITS},
            "umask": None if spec.umask is None else f"{spec.umask:04o}",
            "rlimits": {name: list(limits) for name, limits in spec.rlimits.items()},
        },
        "start": start,
        "problem": None,
    }


def concurrency(run: Claimant, live: Sequence[Claimant], caps: Caps) -> list[Json]:
    """Return the limits of claims that concern this run, each with how many slots are taken."""

    def count(name: str, most: int | None, taken: Sequence[Claimant]) -> Iterator[Json]:
        if most is not None:
            yield {"name": name, "used": len(taken), "max": most}

    of_deployment = [one for one in live if one.deployment_id == run.deployment_id]
    of_pool = [one for one in live if one.pool == run.pool]
    found = list(count("limits.runs", caps.runs, live))
    found += count("deployment", caps.deployments.get(run.deployment_id or ""), of_deployment)
    for tag in dict.fromkeys(run.tags):
        found += count(f"limits.tags {tag}", caps.tags.get(tag), [one for one in live if tag in one.tags])
    pool = caps.pools.get(run.pool or "")
    if pool is not None:
        found += count(f"pool {run.pool}", pool.runs, of_pool)
        found += count(f"pool {run.pool}, each deployment", pool.each_deployment, of_deployment)
        of_queue = [one for one in of_pool if one.queue == run.queue]
        found += count(f"queue {run.pool}/{run.queue}", pool.queues.get(run.queue or ""), of_queue)
    return found


def _sources(spec: LaunchSpec, prepared: Prepared, settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each variable and what sets it: the last layer with its value."""
    for name, value in spec.environment.items():
        layers = [layer for layer, its in prepared.layers.items() if its.get(name) == value]
        yield name, _describe_source(layers[-1] if layers else "", name, value, prepared, settings)


def _describe_source(layer: str, name: str, value: str, prepared: Prepared, settings: Settings) -> str:
    match layer:
        case "base" if name in _ACCOUNT:
            return f"account {prepared.user}"
        case "base" if name in (CERTIFICATE_FILE, VERSION_CHECK):
            return "runnerd's setting of Prefect's client"
        case "base" if name in ("LANG", "TZ") or name.startswith("LC_"):
            return "locale of runnerd"
        case "api":
            return "runnerd's access to the API"
        case "file":
            return f"environment_file {settings.run.environment_file}"
        case "run":
            of_host = settings.host.get(name) == value
            return "run.environment of the host" if of_host else f"run.environment, {settings.where}"
        case "job":
            return f"job of work pool {settings.pool}"
    return "parameters of the run" if not layer and name.startswith("PARAM_") else "runnerd"


class _Hiding:
    """Hides secrets in texts that are shown."""

    def __init__(self, spec: LaunchSpec, secrets: Sequence[str]) -> None:
        named = (value for name, value in spec.environment.items() if sounds_secret(name))
        self._secrets = sorted({*named, *secrets} - {""}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        return text
