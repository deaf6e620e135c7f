"""Every mistake a deployment in a drop-in can hold, with the exact words and place it is answered with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runnerd.core.units import DURATION
from tests.kits.config import RIGHT, ConfigDir, prefixed
from tests.kits.nouns import make_sparse

_NO_STEP = "{}: {} is not the name of a step, such as prefect.deployments.steps.git_clone"
ITEMS = [
    ("schedulez: []", "4:5: unknown key 'schedulez' in a deployment; did you mean 'schedules'?"),
    ("description: 5", "4:18: description must be text, not 5; quote it"),
    ("version: 2.1", "4:14: version must be text, not 2.1; quote it"),
    ("tags: etl", "4:11: tags must be a list, not 'etl'"),
    ("tags: [1]", "4:12: tags[0] must be text, not 1; quote it"),
    ("tags: ['']", "4:12: tags[0] must not be empty"),
    ("parameters: []", "4:17: parameters must be a map, not a list"),
    (
        "parameters: {a: .inf}",
        "4:21: parameters.a: .inf is not a number in JSON; quote it if text is meant",
    ),
    (
        "parameters: {a: [{b: .nan}]}",
        "4:26: parameters.a[0].b: .nan is not a number in JSON; quote it if text is meant",
    ),
    (
        "parameters: {a: '{{ prefect.blocks.secret.x }}'}",
        (
            "4:21: parameters.a: cannot use {{ prefect.blocks.secret.x }}: a block is looked up by prefect deploy only;"
            " load it in the flow"
        ),
    ),
    ("enforce_parameter_schema: yess", "4:31: enforce_parameter_schema must be true or false, not 'yess'"),
    ("concurrency_limit: 0", "4:24: concurrency_limit must be at least 1, not 0"),
    ("concurrency_limit: {}", "4:24: concurrency_limit needs 'limit'"),
    (
        "concurrency_limit: {limit: 1, collision_strategy: enqueue}",
        (
            "4:55: concurrency_limit.collision_strategy must be one of ENQUEUE, CANCEL_NEW, not "
            "'enqueue'; did you mean 'ENQUEUE'?"
        ),
    ),
    (
        "concurrency_limit: '1'",
        "4:24: concurrency_limit must be a whole number, or a map with limit and collision_strategy, not '1'",
    ),
    ("paused: 1", "4:13: paused must be true or false, not 1"),
    ("on_remove: remove", "4:16: on_remove must be one of pause, delete, not 'remove'"),
    ("run: 5", "4:10: run must be a map, not 5"),
    ("run: {memory: 1G}", "4:11: unknown key 'memory' in run; did you mean 'memory_max'?"),
    ("schedules: [{}]", "4:17: a schedule needs exactly one of cron, interval and rrule, not none of them"),
    ("schedules: [null]", "4:17: schedules[0] is empty; remove it"),
    ("schedules: 5", "4:16: schedules must be a list, not 5"),
    ("schedules: [5]", "4:17: schedules[0] must be a map, not 5"),
    ("schedule: 5", "4:15: schedule must be a map, not 5"),
    (
        "schedules: [{cron: '0 2 * * *', interval: 60}]",
        "4:17: a schedule needs exactly one of cron, interval and rrule, not cron and interval",
    ),
    (
        "schedules: [{cron: '0 2 * *'}]",
        "4:24: schedules[0].cron: '0 2 * *' has 4 fields; write five: minute hour day month weekday",
    ),
    (
        "schedules: [{cron: '0 2 * * ä'}]",
        (
            "4:33: schedules[0].cron: 'ä' is not allowed here: days of the week go from 0 to 6 or from sun to sat, and"
            " may be joined by , - /"
        ),
    ),
    (
        "schedules: [{cron: '@hourl'}]",
        "4:24: schedules[0].cron: there is no '@hourl'; did you mean '@hourly'?",
    ),
    (
        "schedules: [{cron: '0'}]",
        "4:24: schedules[0].cron: '0' has 1 field; write five: minute hour day month weekday",
    ),
    ("schedules: [{interval: 0}]", "4:28: schedules[0].interval must be at least 1 seconds, not 0"),
    ("schedules: [{interval: '0s'}]", "4:28: schedules[0].interval must be at least 1s, not '0s'"),
    (
        "schedules: [{interval: 1:30:00}]",
        "4:28: schedules[0].interval: '1:30:00' is not a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m",
    ),
    (
        "schedules: [{interval: 5 parsecs}]",
        "4:28: schedules[0].interval must be a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m, not '5 parsecs'",
    ),
    (
        "schedules: [{interval: infinity}]",
        "4:28: schedules[0].interval must be a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m, not 'infinity'",
    ),
    (
        "schedules: [{interval: .inf}]",
        "4:28: schedules[0].interval must be a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m, not .inf",
    ),
    (
        "schedules: [{interval: 60, anchor_date: tomorrow}]",
        "4:45: schedules[0].anchor_date: 'tomorrow' is not a date; write it like 2026-01-01T00:00:00+00:00",
    ),
    (
        "schedules: [{cron: '0 2 * * *', anchor_date: 2024-01-01}]",
        "4:37: schedules[0].anchor_date goes with interval only",
    ),
    ("schedules: [{rrule: FREQ=DAILY, day_or: true}]", "4:37: schedules[0].day_or goes with cron only"),
    (
        "schedules: [{cron: '0 2 * * *', timezone: Europe/Berln}]",
        "4:47: schedules[0].timezone: there is no time zone 'Europe/Berln'; did you mean 'Europe/Berlin'?",
    ),
    (
        "schedules: [{cron: '0 2 * * *', timezone: europe/berlin}]",
        "4:47: schedules[0].timezone: there is no time zone 'europe/berlin'; did you mean 'Europe/Berlin'?",
    ),
    (
        "schedules: [{cron: '0 2 * * *', timezone: ../../etc/passwd}]",
        "4:47: schedules[0].timezone: there is no time zone '../../etc/passwd'",
    ),
    (
        "schedules: [{cron: '0 2 * * *', slug: a}, {cron: '0 3 * * *', slug: a}]",
        "4:73: schedules[1].slug: an earlier schedule has the slug 'a'; change one",
    ),
    (
        "schedules: [{cron: '0 2 * * *', max_scheduled_runs: 0}]",
        "4:57: schedules[0].max_scheduled_runs must be at least 1, not 0",
    ),
    (
        "schedules: [{cron: '0 2 * * *', active: 'no'}]",
        "4:45: schedules[0].active must be true or false, not 'no'",
    ),
    (
        "run: {python: venv/bin/python}",
        ("4:19: run.python must be an absolute path, or a name without '/' to look up in PATH, not 'venv/bin/python'"),
    ),
    ("run: {python: /nowhere/python}", "4:19: run.python /nowhere/python: no such file"),
    ("run: {python: /etc}", "4:19: run.python /etc: is a directory, not a file"),
    ("run: {python: /etc/passwd}", "4:19: run.python /etc/passwd: is not executable"),
    ("run: {user: nobody-there}", "4:17: run.user nobody-there: no such user on this host"),
    ("run: {group: nobody-there}", "4:18: run.group nobody-there: no such group on this host"),
    ("run: {user: 1000}", "4:17: run.user must be text, not 1000; quote it"),
    ("run: {working_directory: /nowhere}", "4:30: run.working_directory /nowhere: no such directory"),
    ("run: {working_directory: nowhere}", "4:30: run.working_directory nowhere: no such directory"),
    ("run: {working_directory: /etc/passwd}", "4:30: run.working_directory /etc/passwd: is not a directory"),
    (  # a terminal would obey that one
        'run: {working_directory: "/a\\x9bb"}',
        "4:30: run.working_directory: '/a\\x9bb' has the control character U+009B; remove it",
    ),
    (
        "run: {environment: {A: [1]}}",
        "4:28: run.environment.A must be text, a number or true/false, not a list",
    ),
    (
        "run: {environment: {'A=B': 1}}",
        "4:25: run.environment has the key 'A=B'; a key must be a variable's name, without '='",
    ),
    ('run: {environment: {A: "\\0"}}', "4:24: run.environment: the value of 'A' has a NUL character"),
    ("run: {environment_file: nowhere.env}", "4:29: run.environment_file nowhere.env: no such file"),
    (
        "run: {environment_file: huge.env}",
        "4:29: run.environment_file huge.env: has 68719476736 bytes, more than the limit of 2M; split it",
    ),
    ("run: {environment_file: fifo.env}", "4:29: run.environment_file fifo.env: is not a regular file"),
    ("run: {environment_file: zero.env}", "4:29: run.environment_file zero.env: is not a regular file"),
    (
        "run: {environment_file: bad.env}",
        "4:29: run.environment_file bad.env: line 2: the quote opened here is never closed",
    ),
    ("run: {limit: 0}", "4:18: run.limit must be at least 1, not 0"),
    ("run: {limit: ten}", "4:18: run.limit must be a whole number, not 'ten'"),
    ("run: {runtime_max: 0}", "4:24: run.runtime_max must be at least 1 seconds, not 0"),
    ("run: {runtime_max: -5}", "4:24: run.runtime_max must be at least 1 seconds, not -5"),
    (
        "run: {runtime_max: 1h30x}",
        f"4:24: run.runtime_max must be {DURATION}, or infinity, not '1h30x'",
    ),
    (
        "run: {runtime_max: 9999999y}",
        "4:24: run.runtime_max: '9999999y' is too long for a duration; write infinity for no limit",
    ),
    (
        "run: {runtime_max: .nan}",
        "4:24: run.runtime_max must be a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m, or infinity, not .nan",
    ),
    (
        "run: {memory_max: 512MB}",
        "4:23: run.memory_max must be a size such as 512M or 2G, or infinity, not '512MB'",
    ),
    ("run: {memory_max: 0}", "4:23: run.memory_max must be at least 1M, not 0"),
    (
        "run: {memory_max: 99999999E}",
        "4:23: run.memory_max: '99999999E' is too large for a size; write infinity for no limit",
    ),
    (
        "run: {memory_max: 0.5}",
        "4:23: run.memory_max must be a size such as 512M or 2G, or infinity, not 0.5",
    ),
    ("run: {memory_max: '0.5B'}", "4:23: run.memory_max: '0.5B' is not a whole number of bytes"),
    ("run: {cpu_quota: 150}", "4:22: run.cpu_quota must be a percentage such as 150%, or infinity, not 150"),
    ("run: {cpu_quota: 0%}", "4:22: run.cpu_quota must be more than 0%, not '0%'"),
    ("run: {cpu_quota: 1.5}", "4:22: run.cpu_quota must be a percentage such as 150%, or infinity, not 1.5"),
    ("run: {tasks_max: 0}", "4:22: run.tasks_max must be at least 1, not 0"),
    ("run: {tasks_max: many}", "4:22: run.tasks_max must be a whole number or infinity, not 'many'"),
    ("run: {nice: 20}", "4:17: run.nice must be between -20 and 19, not 20"),
    ("run: {nice: -21}", "4:17: run.nice must be between -20 and 19, not -21"),
    ("run: {nice: 5.0}", "4:17: run.nice must be a whole number, not 5.0"),
    ("run: {umask: 0027}", '4:18: run.umask must be a quoted octal number such as "0027", not 0027'),
    ("run: {umask: '0999'}", "4:18: run.umask must be a quoted octal number such as \"0027\", not '0999'"),
    ("run: {umask: '27'}", "4:18: run.umask must be a quoted octal number such as \"0027\", not '27'"),
    (
        "run: {limit_nofile: 4096:1024}",
        "4:25: run.limit_nofile: '4096:1024' has a soft limit above the hard one; write soft:hard",
    ),
    (
        "run: {limit_nofile: infinity:5}",
        "4:25: run.limit_nofile: 'infinity:5' has a soft limit above the hard one; write soft:hard",
    ),
    (
        "run: {limit_nofile: 1:2:3}",
        "4:25: run.limit_nofile: '1:2:3' is not a limit; write one number, or soft:hard",
    ),
    (
        "run: {limit_nofile: 1K}",
        "4:25: run.limit_nofile must be a limit such as 1024, 1024:4096 or infinity, not '1K'",
    ),
    (
        "run: {limit_nproc: 10:5}",
        "4:24: run.limit_nproc: '10:5' has a soft limit above the hard one; write soft:hard",
    ),
    (
        "run: {limit_core: lots}",
        "4:23: run.limit_core must be a limit such as 64M, 64M:1G or infinity, not 'lots'",
    ),
    ("run: {limit_rss: 1G}", "4:11: unknown key 'limit_rss' in run; did you mean 'limit_as'?"),
    (
        "run: {stop_signal: SIGTREM}",
        "4:24: run.stop_signal: there is no signal 'SIGTREM'; did you mean 'SIGTERM'?",
    ),
    (
        "run: {stop_signal: term}",
        "4:24: run.stop_signal: there is no signal 'term'; did you mean 'SIGTERM'?",
    ),
    ("run: {stop_signal: 99}", "4:24: run.stop_signal: there is no signal 99"),
    ("run: {stop_signal: 0}", "4:24: run.stop_signal must be at least 1, not 0"),
    (
        "run: {stop_signal: SIGSTOP}",
        "4:24: run.stop_signal: SIGSTOP does not end a process; use SIGTERM or SIGINT",
    ),
    (
        "run: {stop_signal: 19}",
        "4:24: run.stop_signal: SIGSTOP does not end a process; use SIGTERM or SIGINT",
    ),
    ("run: {stop_timeout: 0}", "4:25: run.stop_timeout must be at least 0.1 seconds, not 0"),
    (
        "run: {output_max: infinity}",
        "4:23: run.output_max must be a size such as 512M or 2G, not 'infinity'",
    ),
    ("run: {output_max: 0}", "4:23: run.output_max must be at least 4K, not 0"),
    ("run: {start: hot}", "4:18: run.start must be one of cold, warm, auto, not 'hot'"),
    ('run: {user: "a\\nb"}', "4:17: run.user must be text without control characters, not 'a\\nb'"),
    (
        "work_pool: {job_variables: {env: {A: [1]}}}",
        "4:42: work_pool.job_variables.env.A must be text, a number or true/false, not a list",
    ),
    ("work_pool: 5", "4:16: work_pool must be a map, not 5"),
    ("triggers: [{x: 1}]", "4:17: unknown key 'x' in a trigger"),
    ("sla: [{x: 1}]", "4:5: sla: not supported; remove it, or make an automation"),
    ("pull: [{git_clone: {repository: x}}]", _NO_STEP.format("4:13", "pull[0].git_clone")),
    (
        "pull: [{prefect.deployments.steps.set_working_directory: {}}]",
        "4:62: pull[0] needs a directory, not null",
    ),
    (
        "pull: [{prefect.deployments.steps.set_working_directory: {directory: /nowhere}}]",
        "4:74: run.working_directory /nowhere: no such directory",
    ),
    ("pull: 5", "4:11: pull must be a list or a map, not 5"),
    ("pull: [5]", "4:12: pull[0] must be a map, not 5"),
]


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    directory = ConfigDir(tmp_path / "etc")
    directory.write("bad.env", "A=1\nB='x\n")
    make_sparse(directory.etc / "huge.env")
    os.mkfifo(directory.etc / "fifo.env")
    os.symlink("/dev/zero", directory.etc / "zero.env")
    return directory


@pytest.mark.parametrize(("line", "words"), ITEMS, ids=[line for line, _ in ITEMS])
def test_a_wrong_line_costs_its_deployment_only(etc: ConfigDir, line: str, words: str) -> None:
    etc.write("conf.d/a.yaml", f"{RIGHT}    {line}\n  - name: b\n    entrypoint: flows/etl.py:nightly\n")
    config = etc.load()
    assert etc.words(config.problems) == prefixed(etc, [words])
    assert [problem.deployment for problem in config.problems] == ["a"]
    assert [deployment.name for deployment in config.deployments] == ["b"]
    assert [(bad.name, bad.place.line) for bad in config.invalid] == [("a", 2)]
    assert config.invalid[0].problem == str(config.problems[0])
