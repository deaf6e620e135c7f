"""Writes a Config as the JSON of `runnerctl config show`: the keys of the files, with every default.

Invariant: the JSON has no secrets. Files with keys are named; the values of headers, and of variables whose names
sound secret, are hidden.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from runnerd.config.notices import describe_notices
from runnerd.config.units import RLIMITS, UNLIMITED, format_percent, format_signal
from runnerd.core.commands import Command
from runnerd.core.place import Json
from runnerd.core.settings import (
    FOREVER_S,
    UNBOUNDED_BYTES,
    Config,
    Deployment,
    PoolSettings,
    RunSettings,
    Schedule,
    Settings,
)
from runnerd.core.source import Source, without_secrets
from runnerd.core.units import format_duration, format_size

HIDDEN = "***"
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)


def sounds_secret(name: str) -> bool:
    """Whether the value of a variable with this name is not to be shown."""
    return _SECRET.search(name) is not None


def describe_config(config: Config) -> Json:
    """Describe the configuration in force; durations, sizes and percentages are written as in the files."""
    return {
        **describe_settings(config.settings),
        "pools": [_pool(pool) for pool in config.pools],
        "deployments": [_deployment(deployment) for deployment in config.deployments],
        "invalid": [
            {"name": bad.name, "file": bad.place.file, "line": bad.place.line, "problem": bad.problem}
            for bad in config.invalid
        ],
        "files": list(config.files),
        "problems": [str(problem) for problem in config.problems],
    }


def describe_settings(settings: Settings) -> dict[str, Json]:
    """Describe the settings of the host: its name, and a map for each section."""
    api, limits = settings.api, settings.limits
    http = settings.http
    return {
        "name": settings.name,
        "api": {
            "url": api.url,
            "key_file": api.key_file,
            "auth_string_file": api.auth_string_file,
            "headers": dict.fromkeys(api.headers, HIDDEN),
            "poll_interval": format_duration(api.poll_interval_s),
            "poll_burst": f"{api.poll_burst_per_s:g}/s",
            "prefetch": format_duration(api.prefetch_s),
            "request_timeout": format_duration(api.request_timeout_s),
        },
        "limits": {"runs": limits.runs, "start_rate": f"{limits.start_rate_per_s:g}/s", "tags": dict(limits.tags)},
        "stop": {
            "drain_timeout": _duration(settings.stop.drain_timeout_s),
            "then": settings.stop.then,
            "pause_schedules": settings.stop.pause_schedules,
        },
        "late": {"after": _duration(settings.late.after_s), "policy": settings.late.policy},
        "journal": {"keep": _duration(settings.journal.keep_s), "max_runs": settings.journal.max_runs},
        "output": {"journal": settings.output.journal, "max_total": _total(settings.output.max_total_bytes)},
        "warm": {
            "idle": _duration(settings.warm.idle_s),
            "interpreters": settings.warm.interpreters,
            "min_free_memory": format_size(settings.warm.min_free_memory_bytes),
        },
        "control": {
            key: None if groups is None else list(groups)
            for key, groups in (
                ("admins", settings.control.admins),
                ("operators", settings.control.operators),
                ("readers", settings.control.readers),
            )
        },
        "http": {
            "listen": _address(*http.listen) if http.listen else None,
            "token_file": http.token_file,
            "certificate": http.certificate,
            "key": http.key,
        },
        "notices": describe_notices(settings.notices),
        "automations": list(settings.automations.values()),
    }


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _pool(pool: PoolSettings) -> dict[str, Json]:
    return {
        "name": pool.name,
        "queues": list(pool.queues) or None,
        "match": list(pool.match) or None,
        "type": pool.type,
        "create": pool.create,
        "base_job_template": pool.base_job_template,
        "limit": pool.limit,
        "prefetch": format_duration(pool.prefetch_s),
        "poll_interval": None if pool.poll_interval_s is None else format_duration(pool.poll_interval_s),
        "install_policy": pool.install_policy,
        "run": {**_run(pool.run), **({"working_directory": None} if pool.scratch else {})},
        "file": pool.place.file,
        "line": pool.place.line,
        "problem": pool.problem,
    }


def _deployment(deployment: Deployment) -> dict[str, Json]:
    return {
        "name": deployment.name,
        "entrypoint": deployment.entrypoint or None,
        **(_command(deployment.command) if deployment.command is not None else {}),
        "flow_name": deployment.flow_name,
        "schedules": [_schedule(schedule) for schedule in deployment.schedules],
        "parameters": dict(deployment.parameters),
        "tags": list(deployment.tags),
        "description": deployment.description,
        "version": deployment.version,
        "enforce_parameter_schema": deployment.enforce_parameter_schema,
        "concurrency_limit": _concurrency(deployment),
        "triggers": list(deployment.triggers),
        "paused": deployment.paused,
        "pause_on_shutdown": deployment.pause_on_shutdown,
        "on_remove": deployment.on_remove,
        "source": _source(deployment.source),
        "notices": describe_notices(deployment.notices),
        "run": _run(deployment.run),
        "file": deployment.place.file,
        "line": deployment.place.line,
        "problem": deployment.problem,
    }


def _command(command: Command) -> dict[str, Json]:
    rules = command.rules
    return {
        "command": command.line if command.shell else list(command.argv),
        "shell": command.shell,
        "stdin": command.stdin,
        "parameter_schema": dict(command.parameter_schema) if command.parameter_schema is not None else None,
        "success_exit_codes": list(rules.success_exit_codes),
        "retries": rules.retries,
        "retry_delay": format_duration(rules.retry_delay_s),
    }


def _source(source: Source | None) -> Json:
    if source is None:
        return None
    git: dict[str, Json] = {
        "url": source.url,
        "branch": source.branch,
        "tag": source.tag,
        "commit": source.commit,
        "include_submodules": source.include_submodules,
        "directories": list(source.directories) or None,
        "credentials_file": source.credentials_file,
        "credential": source.credential,
        "credentials_block": source.credentials_block,
    }
    if not source.is_pulled:
        return {"directory": source.url}
    return {
        source.kind: git if source.kind == "git" else without_secrets(source.url),
        "pull_interval": format_duration(source.pull_interval_s),
        "time_limit": format_duration(source.time_limit_s),
        "size_max": format_size(source.size_max_bytes),
    }


def _concurrency(deployment: Deployment) -> Json:
    if deployment.concurrency_limit is None:
        return None
    return {
        "limit": deployment.concurrency_limit,
        "collision_strategy": deployment.collision_strategy or "ENQUEUE",
        "grace_period_seconds": deployment.collision_grace_s,
    }


def _schedule(schedule: Schedule) -> dict[str, Json]:
    timing: dict[str, Json] = {"cron": schedule.cron, "interval": schedule.interval_s, "rrule": schedule.rrule}
    details: dict[str, Json] = {
        "anchor_date": schedule.anchor_date,
        "timezone": schedule.timezone,
        "slug": schedule.slug,
        "parameters": dict(schedule.parameters) if schedule.parameters is not None else None,
        "max_scheduled_runs": schedule.max_scheduled_runs,
        "day_or": None if schedule.day_or else False,
    }
    said = {key: value for key, value in {**timing, **details}.items() if value is not None}
    return {**said, "active": schedule.active}


def _run(run: RunSettings) -> dict[str, Json]:
    return {
        "python": run.python,
        "user": run.user,
        "group": run.group,
        "working_directory": run.working_directory,
        "environment": _masked(run.environment),
        "environment_file": run.environment_file,
        "limit": run.limit,
        "limit_group": run.limit_group,
        "runtime_max": _duration(FOREVER_S if run.runtime_max_s is None else run.runtime_max_s),
        "memory_max": format_size(run.memory_max_bytes),
        "cpu_quota": None if run.cpu_quota_percent is None else format_percent(run.cpu_quota_percent),
        "tasks_max": run.tasks_max,
        "nice": run.nice,
        "umask": None if run.umask is None else f"{run.umask:04o}",
        "stop_signal": format_signal(run.stop_signal),
        "stop_timeout": _duration(run.stop_timeout_s),
        "hook_timeout": _duration(run.hook_timeout_s),
        "before": [list(command) for command in run.before] or None,
        "before_timeout": _duration(run.before_timeout_s),
        "after": [list(command) for command in run.after] or None,
        "after_timeout": _duration(run.after_timeout_s),
        "output_max": format_size(run.output_max_bytes),
        "start": run.start,
        "preload": list(run.preload),
        **{f"limit_{name}": _rlimit(*run.rlimits[name]) for name in RLIMITS if name in run.rlimits},
    }


def _masked(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: HIDDEN if sounds_secret(name) else value for name, value in environment.items()}


def _rlimit(soft: int, hard: int) -> str:
    return ":".join("infinity" if limit == UNLIMITED else str(limit) for limit in (soft, hard))


def _total(size: int) -> str:
    return format_size(None if size >= UNBOUNDED_BYTES else size)


def _duration(seconds: float) -> str:
    return format_duration(math.inf if seconds >= FOREVER_S else seconds)
