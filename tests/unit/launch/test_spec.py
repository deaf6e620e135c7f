"""spec.py and environment.py: what a flow's process gets, and what it must not get."""

from __future__ import annotations

import pytest

from runnerd.core.process import LaunchSpec
from runnerd.core.settings import Deployment
from runnerd.launch.environment import Account, base_environment
from runnerd.launch.spec import (
    PROGRAM,
    ApiAccess,
    absolute_entrypoint,
    hooks_spec,
    launch_spec,
    program_argv,
    program_text,
)
from tests.kits.nouns import a_deployment, a_record

ETL = Account(name="etl", home="/home/etl", shell="/bin/bash")
ACCESS = ApiAccess(url="http://p/api", environment={"PREFECT_API_KEY": "pnu_secret"})
RUN = {"python": "/opt/etl/bin/python", "working_directory": "/opt/etl"}


def spec(deployment: Deployment | None = None, **changes: object) -> LaunchSpec:
    given: dict[str, object] = {"base": {}, "file_environment": {}, "access": ACCESS, "output": "/o"}
    given |= {"worker": "build-07", **changes}
    record = a_record("11111111-1111-4111-8111-111111111111", attempt=2)
    return launch_spec(record, deployment or a_deployment(run=RUN), **given)  # type: ignore[arg-type]


def test_the_environment_is_built_from_nothing() -> None:
    host = {
        "LANG": "de_DE.UTF-8",
        "LC_TIME": "C",
        "TZ": "Europe/Berlin",
        "NOTIFY_SOCKET": "/run/systemd/notify",
        "WATCHDOG_USEC": "1",
        "LISTEN_FDS": "1",
        "CREDENTIALS_DIRECTORY": "/run/credentials",
        "PREFECT_API_KEY": "the daemon's own",
        "PATH": "/root/bin",
        "HOME": "/root",
        "PYTHONPATH": "/somewhere",
    }
    assert base_environment(ETL, a_deployment(run=RUN).run, host=host) == {
        "LANG": "de_DE.UTF-8",
        "LC_TIME": "C",
        "TZ": "Europe/Berlin",
        "PATH": "/opt/etl/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/home/etl",
        "USER": "etl",
        "LOGNAME": "etl",
        "SHELL": "/bin/bash",
        "PYTHONUNBUFFERED": "1",
    }


@pytest.mark.parametrize("python", ["/usr/bin/python3", "python3"])
def test_a_system_interpreter_does_not_change_the_path(python: str) -> None:
    run = a_deployment(run={"python": python}).run
    path = base_environment(ETL, run, host={})["PATH"]
    assert path == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def test_defaults_where_the_host_and_passwd_say_nothing() -> None:
    environment = base_environment(Account(name="x", home="/", shell=""), a_deployment().run, host={})
    assert (environment["LANG"], environment["SHELL"]) == ("C.UTF-8", "/bin/sh")


def test_later_environments_win() -> None:
    deployment = a_deployment(run={**RUN, "environment": {"C": "run", "D": "run"}})
    given = spec(
        deployment,
        base={"A": "base", "B": "base", "C": "base", "PREFECT_API_KEY": "base"},
        file_environment={"B": "file", "C": "file"},
    ).environment
    assert {key: given[key] for key in "ABCD"} == {"A": "base", "B": "file", "C": "run", "D": "run"}
    assert given["PREFECT_API_KEY"] == "pnu_secret"


def test_nothing_may_change_which_run_it_is() -> None:
    names = ("PREFECT_API_URL", "PREFECT__FLOW_RUN_ID", "PREFECT__FLOW_ENTRYPOINT", "RUNNERD_RUN_ID")
    hostile = dict.fromkeys(names, "hostile")
    given = spec(a_deployment(run={**RUN, "environment": hostile}), file_environment=hostile, base=hostile)
    assert "hostile" not in given.environment.values()
    assert given.environment["PREFECT__FLOW_RUN_ID"] == given.key == given.environment["RUNNERD_RUN_ID"]
    assert given.environment["PREFECT_API_URL"] == "http://p/api"
    assert given.environment["RUNNERD_DEPLOYMENT"] == "nightly"


def test_a_deployment_may_bring_its_own_key() -> None:
    deployment = a_deployment(run={**RUN, "environment": {"PREFECT_API_KEY": "its own"}})
    assert spec(deployment).environment["PREFECT_API_KEY"] == "its own"


def test_secrets_are_on_no_command_line_and_in_no_repr() -> None:
    made = spec()
    assert made.argv == program_argv("/opt/etl/bin/python", "prefect.engine")
    assert "pnu_secret" not in repr(ACCESS)
    assert repr(ACCESS) == "ApiAccess(url='http://p/api', environment=<1 variables>)"


def test_every_setting_reaches_the_spawner() -> None:
    settings = {
        "user": "etl",
        "group": "data",
        "umask": 0o27,
        "nice": 5,
        "rlimits": {"nofile": (1, 2)},
        "memory_max_bytes": 2**30,
        "cpu_quota_percent": 150.0,
        "tasks_max": 64,
        "output_max_bytes": 7,
        "runtime_max_s": 60.0,
        "stop_signal": 2,
        "stop_timeout_s": 9.0,
        "working_directory": "/opt/etl",
    }
    made = spec(a_deployment(run={**RUN, **settings}))
    assert {name: getattr(made, name) for name in settings} == settings
    assert (made.attempt, made.output) == (2, "/o")


def test_the_engine_runs_inside_a_program_of_runnerd() -> None:
    made = spec(a_deployment(run={**RUN, "environment": {PROGRAM: "hostile"}}))
    assert made.argv[0] == "/opt/etl/bin/python" and made.argv[-1] == "prefect.engine"
    assert made.environment[PROGRAM] == program_text("run_engine")
    assert made.environment["PREFECT__FLOW_ENTRYPOINT"] == "/opt/etl/nightly.py:flow"
    hooks = hooks_spec(made, a_record("1", hook="on_crashed"), program="hooks", timeout_s=1.0)
    assert (hooks.argv[0], hooks.argv[-1]) == ("/opt/etl/bin/python", "runnerd-hooks")
    assert hooks.environment[PROGRAM] == "hooks"


@pytest.mark.parametrize(
    ("entrypoint", "whole"),
    [
        ("etl.py:nightly", "/opt/etl/etl.py:nightly"),
        ("flows/etl.py:nightly", "/opt/etl/flows/etl.py:nightly"),
        ("/srv/etl.py:nightly", "/srv/etl.py:nightly"),
        ("package.module:nightly", "package.module:nightly"),
        ("we:ird.py:flow", "/opt/etl/we:ird.py:flow"),
    ],
)
def test_entrypoints(entrypoint: str, whole: str) -> None:
    assert absolute_entrypoint(entrypoint, "/opt/etl") == whole
    made = spec(a_deployment(entrypoint=entrypoint, run=RUN))
    assert made.environment["PREFECT__FLOW_ENTRYPOINT"] == whole
