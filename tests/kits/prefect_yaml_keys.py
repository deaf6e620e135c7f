"""Every key that a prefect.yaml may have, and what becomes of it here: nothing of a file is swallowed.

`carried`: the field of core/settings.py that has it, and its value; `named`: the words of the problem or the warning;
`unused`: Prefect does nothing with it either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Key:
    """One key: `written` is its line, in the part of the file that the table's name says."""

    written: str
    carried: tuple[str, Any] | None = None
    named: str | None = None
    unused: bool = False


STEP = "[{prefect.deployments.steps.run_shell_script: {id: build, script: make}}]"
CLONE = "[{prefect.deployments.steps.git_clone: {repository: 'https://x.test/y.git', branch: '{{ $BRANCH }}'}}]"
CLONED = ({"prefect.deployments.steps.git_clone": {"repository": "https://x.test/y.git", "branch": "{{ $BRANCH }}"}},)

A_TRIGGER = {
    **{"name": "a__automation_1", "description": "", "enabled": False, "type": "event"},
    **{"parameters": None, "job_variables": None, "schedule_after": 0.0},
    **{"match": {}, "match_related": {}, "after": [], "expect": [], "for_each": []},
    **{"posture": "Reactive", "threshold": 1, "within": 0.0},
}

FILE = {
    "prefect-version": Key("prefect-version: 3.9.1", unused=True),
    "name": Key("name: project", unused=True),
    "build": Key(f"build: {STEP}", named="build: not run"),
    "push": Key(f"push: {STEP}", named="push: not run"),
    "pull": Key(f"pull: {CLONE}", carried=("pull_steps", CLONED)),
    "definitions": Key("definitions: {a: &a {b: 1}}", unused=True),
    "x-": Key("x-mine: {a: 1}", unused=True),
    "nonsense": Key("nonsense: 1", named="unknown key 'nonsense'"),
}

DEPLOYMENT = {
    "name": Key("", carried=("name", "a")),
    "entrypoint": Key("", carried=("entrypoint", "flows/etl.py:nightly")),
    "version": Key("version: '2.1'", carried=("version", "2.1")),
    "version_type": Key("version_type: vcs:git", named="version_type has no effect"),
    "tags": Key("tags: [a, b]", carried=("tags", ("a", "b"))),
    "description": Key("description: By night.", carried=("description", "By night.")),
    "paused": Key("paused: true", carried=("paused", True)),
    "concurrency_limit": Key("concurrency_limit: 3", carried=("concurrency_limit", 3)),
    "flow_name": Key("flow_name: etl", carried=("flow_name", "etl")),
    "parameters": Key("parameters: {at: 2025-08-27}", carried=("parameters", {"at": "2025-08-27"})),
    "enforce_parameter_schema": Key("enforce_parameter_schema: false", carried=("enforce_parameter_schema", False)),
    "build": Key(f"build: {STEP}", named="build: not run"),
    "push": Key(f"push: {STEP}", named="push: not run"),
    "pull": Key(f"pull: {CLONE}", carried=("pull_steps", CLONED)),
    "triggers": Key("triggers: [{enabled: false}]", carried=("triggers[0]", A_TRIGGER)),
    "sla": Key("sla: [{name: late}]", named="sla: not supported"),
    "schedule": Key("schedule: {cron: '@daily'}", carried=("schedules[0].cron", "@daily")),
    "schedules": Key("schedules: [{cron: '@daily'}]", carried=("schedules[0].cron", "@daily")),
    "work_pool": Key("", carried=("work_pool", "etl")),
    "work_queue_name": Key("work_queue_name: high", named="work_queue_name has no effect here"),
    "nonsense": Key("nonsense: 1", named="unknown key 'nonsense'"),
}

WORK_POOL = {
    "name": Key("", carried=("work_pool", "etl")),
    "work_queue_name": Key("work_queue_name: high", carried=("work_queue", "high")),
    "job_variables": Key(
        "job_variables: {image: 'etl:{{ prefect.variables.tag }}', stream_output: false, env: {A: '1'}}",
        carried=(
            "job_variables",
            {"image": "etl:{{ prefect.variables.tag }}", "stream_output": False, "env": {"A": "1"}},
        ),
    ),
    "nonsense": Key("nonsense: 1", named="unknown key 'nonsense' in work_pool"),
}

CONCURRENCY = {
    "limit": Key("", carried=("concurrency_limit", 2)),
    "collision_strategy": Key("collision_strategy: CANCEL_NEW", carried=("collision_strategy", "CANCEL_NEW")),
    "grace_period_seconds": Key("grace_period_seconds: 120", carried=("collision_grace_s", 120)),
}

SCHEDULE = {
    "cron": Key("cron: '@daily'", carried=("schedules[0].cron", "@daily")),
    "interval": Key("interval: 60", carried=("schedules[0].interval_s", 60)),
    "rrule": Key("rrule: FREQ=DAILY", carried=("schedules[0].rrule", "FREQ=DAILY")),
    "timezone": Key("cron: '@daily', timezone: Asia/Tokyo", carried=("schedules[0].timezone", "Asia/Tokyo")),
    "anchor_date": Key(
        "interval: 60, anchor_date: 2026-01-01T02:30:00, timezone: Asia/Tokyo",
        carried=("schedules[0].anchor_date", "2026-01-01T02:30:00+00:00"),
    ),
    "active": Key("cron: '@daily', active: false", carried=("schedules[0].active", False)),
    "parameters": Key("cron: '@daily', parameters: {a: 1}", carried=("schedules[0].parameters", {"a": 1})),
    "slug": Key("cron: '@daily', slug: night", carried=("schedules[0].slug", "night")),
    "day_or": Key("cron: '@daily', day_or: false", carried=("schedules[0].day_or", False)),
    "max_scheduled_runs": Key("cron: '@daily', max_scheduled_runs: 4", carried=("schedules[0].max_scheduled_runs", 4)),
    "catchup": Key("cron: '@daily', catchup: true", named="catchup of a schedule has no effect"),
    "max_active_runs": Key("cron: '@daily', max_active_runs: 2", named="max_active_runs of a schedule has no effect"),
    "nonsense": Key("cron: '@daily', nonsense: 1", named="unknown key 'nonsense'"),
}

TABLES = {
    "file": FILE,
    "deployment": DEPLOYMENT,
    "work_pool": WORK_POOL,
    "concurrency_limit": CONCURRENCY,
    "schedule": SCHEDULE,
}
# Keys that are about the update of a registered deployment, and tested there.
OF_UPDATES = {"deployment": {"is_schedule_active"}, "schedule": {"replaces"}}
