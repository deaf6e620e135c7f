"""What a right deployment becomes: every key, defaults, schedules, and prefect.yaml as Prefect writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runnerd.core.place import Place
from runnerd.core.settings import Deployment, RunSettings, Schedule
from tests.kits.config import MAIN, ConfigDir


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def test_only_a_name_and_an_entrypoint_are_needed(etc: ConfigDir) -> None:
    found = etc.one("deployments:\n- name: a\n  entrypoint: flows/etl.py:nightly\n")
    assert found == Deployment(
        name="a",
        entrypoint="flows/etl.py:nightly",
        run=RunSettings(python=sys.executable, working_directory=str(etc.etc)),
        place=Place(f"{etc.etc}/conf.d/10-a.yaml", 2, 3),
    )


def test_every_key_of_a_deployment(etc: ConfigDir) -> None:
    found = etc.one("""\
        deployments:
          - name: Nächtlich 1
            entrypoint: etl.jobs:Class.nightly
            flow_name: nightly
            parameters: {region: eu, n: 010, deep: [{a: null}]}
            tags: [etl, x, etl]
            description: Loads yesterday.
            version: "2.1"
            enforce_parameter_schema: false
            concurrency_limit: {limit: 2, collision_strategy: CANCEL_NEW, grace_period_seconds: 120}
            paused: true
            on_remove: delete
        """)
    assert (found.name, found.entrypoint, found.flow_name) == ("Nächtlich 1", "etl.jobs:Class.nightly", "nightly")
    assert found.parameters == {"region": "eu", "n": 8, "deep": [{"a": None}]}
    assert type(found.parameters["deep"][0]) is dict
    assert (found.tags, found.description, found.version) == (("etl", "x"), "Loads yesterday.", "2.1")
    assert (found.enforce_parameter_schema, found.paused, found.on_remove) == (False, True, "delete")
    assert (found.concurrency_limit, found.collision_strategy, found.collision_grace_s) == (2, "CANCEL_NEW", 120)


def test_null_is_not_said(etc: ConfigDir) -> None:
    bare = etc.one("deployments:\n- name: a\n  entrypoint: m:f\n")
    nulls = "flow_name schedules schedule parameters tags description version enforce_parameter_schema paused"
    nulls += " concurrency_limit on_remove run work_pool build push pull triggers sla"
    text = "deployments:\n- name: a\n  entrypoint: m:f\n" + "".join(f"  {key}: null\n" for key in nulls.split())
    assert etc.one(text) == bare


def test_every_key_of_run(etc: ConfigDir, tmp_path: Path) -> None:
    etc.write("env", "A=1\n")
    (tmp_path / "work").mkdir()
    found = etc.one("""\
        deployments:
          - name: a
            entrypoint: m:f
            run:
              python: python3
              user: nobody
              group: daemon
              working_directory: ../work
              environment: {S: x, I: 5, H: 0x10, F: 1.10, B: yes, E: "", T: 2026-01-01}
              environment_file: env
              limit: 1
              runtime_max: 2h
              memory_max: 2G
              cpu_quota: 150%
              tasks_max: 256
              nice: -5
              umask: "0027"
              limit_nofile: 10:50
              limit_nproc: 5
              limit_core: 0
              limit_as: 4G:infinity
              limit_fsize: infinity
              limit_memlock: 64K
              limit_stack: 8M
              limit_data: 1G
              limit_cpu: 1h
              stop_signal: INT
              stop_timeout: 1m 30s
              output_max: 1M
              start: auto
        """)
    assert found.run == RunSettings(
        python="python3",
        user="nobody",
        group="daemon",
        working_directory=str(tmp_path / "work"),
        environment={"S": "x", "I": "5", "H": "0x10", "F": "1.10", "B": "yes", "E": "", "T": "2026-01-01"},
        environment_file=str(etc.etc / "env"),
        limit=1,
        runtime_max_s=7200.0,
        memory_max_bytes=2**31,
        cpu_quota_percent=150.0,
        tasks_max=256,
        nice=-5,
        umask=0o027,
        rlimits={
            "nofile": (10, 50),  # YAML reads 10:50 as the number 650
            "nproc": (5, 5),
            "core": (0, 0),
            "as": (2**32, -1),
            "fsize": (-1, -1),
            "memlock": (65536, 65536),
            "stack": (2**23, 2**23),
            "data": (2**30, 2**30),
            "cpu": (3600, 3600),
        },
        stop_signal=2,
        stop_timeout_s=90.0,
        output_max_bytes=2**20,
        start="auto",
    )


@pytest.mark.parametrize("key", ["runtime_max", "memory_max", "cpu_quota", "tasks_max"])
def test_infinity_is_no_limit_also_over_the_hosts(etc: ConfigDir, key: str) -> None:
    host = f"{MAIN}run: {{runtime_max: 1h, memory_max: 1G, cpu_quota: 50%, tasks_max: 5}}\n"
    run = etc.one(f"deployments: [{{name: a, entrypoint: 'm:f', run: {{{key}: infinity}}}}]\n", host).run
    said = {"runtime_max": run.runtime_max_s, "memory_max": run.memory_max_bytes}
    said |= {"cpu_quota": run.cpu_quota_percent, "tasks_max": run.tasks_max}
    assert {name for name, value in said.items() if value is None} == {key}


def test_a_deployments_run_goes_over_the_hosts(etc: ConfigDir) -> None:
    host = MAIN + "run: {user: nobody, nice: 5, start: warm, environment: {A: 1, B: 2, C: 3}, limit_core: 0}\n"
    found = etc.one(
        """\
        deployments:
          - name: a
            entrypoint: m:f
            run: {user: null, nice: 6, environment: {B: x, C: null}, limit_as: 1G}
        """,
        host,
    )
    assert (found.run.user, found.run.nice, found.run.start) == (None, 6, "warm")
    assert found.run.environment == {"A": "1", "B": "x"}
    assert found.run.rlimits == {"core": (0, 0), "as": (2**30, 2**30)}


def test_schedules(etc: ConfigDir) -> None:
    found = etc.one("""\
        deployments:
          - name: a
            entrypoint: m:f
            schedules:
              - {cron: "0 2 * * MON-FRI", timezone: Europe/Berlin, day_or: false, slug: night}
              - {cron: "@hourly", active: false}
              - {cron: "0 0 2 * * *"}
              - {interval: 3600, anchor_date: 2026-07-01T06:00:00, timezone: Europe/Berlin}
              - {interval: 15m, anchor_date: "2026-01-01"}
              - {interval: 1.5, anchor_date: 2026-01-01T00:00:00Z}
              - {rrule: FREQ=DAILY, parameters: {a: [1]}, max_scheduled_runs: 5}
              - {cron: null, interval: 60, rrule: null}
        """)
    assert found.schedules == (
        Schedule(cron="0 2 * * MON-FRI", timezone="Europe/Berlin", day_or=False, slug="night"),
        Schedule(cron="@hourly", active=False),
        Schedule(cron="0 0 2 * * *"),
        Schedule(interval_s=3600, anchor_date="2026-07-01T06:00:00+00:00", timezone="Europe/Berlin"),
        Schedule(interval_s=900, anchor_date="2026-01-01T00:00:00+00:00"),
        Schedule(interval_s=1.5, anchor_date="2026-01-01T00:00:00+00:00"),
        Schedule(rrule="FREQ=DAILY", parameters={"a": [1]}, max_scheduled_runs=5),
        Schedule(interval_s=60),
    )


def test_the_older_form_of_one_schedule(etc: ConfigDir) -> None:
    found = etc.one("deployments: [{name: a, entrypoint: 'm:f', schedule: {cron: '0 2 * * *'}}]\n")
    assert found.schedules == (Schedule(cron="0 2 * * *"),)
    assert etc.one("deployments: [{name: a, entrypoint: 'm:f', schedule: {}, schedules: []}]\n").schedules == ()


# --- prefect.yaml ---------------------------------------------------------------------------------------------

# As `prefect deploy` of 3.8 saves it (comments from its template, an anchor as its documentation shows).
PREFECT_YAML = """\
# Welcome to your prefect.yaml file! You can use this file for storing and managing
# configuration for deploying your flows.

# Generic metadata about this project
name: etl
prefect-version: 3.8.8

# build section allows you to manage and build docker images
build:

# push section allows you to manage if and how this project is uploaded to remote locations
push:

# pull section allows you to provide instructions for cloning this project in remote locations
pull:
- prefect.deployments.steps.set_working_directory:
    directory: {etc}/flows

definitions:
  schedules:
    nightly: &nightly
      cron: 0 2 * * *
      timezone: Europe/Berlin
      day_or: true
      active: true
  pools:
    local: &local
      name:
      work_queue_name:
      job_variables: {{}}

# the deployments section allows you to provide configuration for deploying flows
deployments:
- name: nightly
  version:
  tags: []
  concurrency_limit:
  description:
  entrypoint: etl.py:nightly
  parameters: {{}}
  work_pool: *local
  schedules:
  - *nightly
  - interval: 3600.0
    anchor_date: '2026-01-01T00:00:00+00:00'
    timezone: UTC
    active: true
    max_scheduled_runs:
    parameters: {{}}
    slug:
- name: daytime
  version: 2c8ff0f
  tags:
  - etl
  concurrency_limit:
    limit: 1
    collision_strategy: ENQUEUE
  description: By day.
  entrypoint: flows/etl.py:nightly
  parameters:
    region: eu
  work_pool:
    <<: *local
    job_variables:
      env:
        LOG_LEVEL: DEBUG
        N: 1
      working_dir: /
      stream_output: true
  schedule: {{}}
  enforce_parameter_schema: true
  build: null
  triggers: []
  pull: []
  run:
    environment: {{N: 2}}
    working_directory: {etc}
"""


def test_a_prefect_yaml_is_a_drop_in(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", MAIN + "run: {environment: {LOG_LEVEL: INFO, A: 1}}\n")
    etc.write("conf.d/etl.yaml", PREFECT_YAML.format(etc=etc.etc))
    config = etc.load()
    assert etc.words(config.problems) == []
    (warning,) = etc.words(config.warnings)
    assert "work_pool.job_variables.stream_output has no effect without work_pool.name" in warning
    nightly, daytime = config.deployments
    assert (nightly.name, nightly.version, nightly.concurrency_limit, nightly.parameters) == ("nightly", None, None, {})
    assert nightly.run.working_directory == f"{etc.etc}/flows"
    assert nightly.schedules == (
        Schedule(cron="0 2 * * *", timezone="Europe/Berlin", active=True),
        Schedule(interval_s=3600, anchor_date="2026-01-01T00:00:00+00:00", timezone="UTC", parameters={}, active=True),
    )
    assert (daytime.version, daytime.tags, daytime.concurrency_limit) == ("2c8ff0f", ("etl",), 1)
    assert daytime.run.environment == {"LOG_LEVEL": "DEBUG", "A": "1", "N": "2"}
    assert daytime.run.working_directory == str(etc.etc)


def directory_of(etc: ConfigDir, item: str, top: str = "") -> str:
    etc.write("runnerd.yaml", MAIN + f"run: {{working_directory: {etc.etc}}}\n")
    return etc.one(f"{top}\ndeployments:\n- name: a\n  entrypoint: m:f\n  {item}\n").run.working_directory


def test_which_working_directory_wins(etc: ConfigDir) -> None:
    step = "{prefect.deployments.steps.set_working_directory: {directory: %s}}"
    newer = "{prefect.deployments.steps.pull.set_working_directory: {directory: %s}}"
    variables = "work_pool: {job_variables: {working_dir: /usr}}"
    assert directory_of(etc, "tags: []") == str(etc.etc)
    assert directory_of(etc, variables) == "/usr"
    assert directory_of(etc, variables, f"pull: [{step % '/etc'}]") == "/etc"
    assert directory_of(etc, f"{variables}\n  pull: {newer % '/var'}", f"pull: [{step % '/etc'}]") == "/var"
    assert directory_of(etc, f"{variables}\n  pull: []", f"pull: [{step % '/etc'}]") == "/usr"
    assert directory_of(etc, f"pull: [{step % '/var'}]\n  run: {{working_directory: /}}") == "/"
    assert directory_of(etc, f"pull: [{step % 'flows'}]") == f"{etc.etc}/flows"
    assert directory_of(etc, f"pull: [{step % '/var'}, {newer % '/usr'}]") == "/usr"


def test_a_deployment_with_a_pull_of_its_own_does_not_mind_the_files(etc: ConfigDir) -> None:
    etc.write(
        "conf.d/a.yaml",
        """\
        pull: [{git_clone: {repository: x}}]
        deployments:
          - {name: a, entrypoint: 'm:f'}
          - {name: b, entrypoint: 'm:f', pull: []}
        """,
    )
    config = etc.load()
    assert [d.name for d in config.deployments] == ["b"]
    assert [p.deployment for p in config.problems] == ["a"]


def test_templates_of_other_kinds_are_the_flows_own(etc: ConfigDir) -> None:
    found = etc.one("deployments: [{name: a, entrypoint: 'm:f', parameters: {t: 'Dear {{ name }}'}}]\n")
    assert found.parameters == {"t": "Dear {{ name }}"}
