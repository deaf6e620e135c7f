"""The schema that editors read is the schema that the daemon checks with, and it knows what the code knows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from runnerd.config import describe_config, read_schema
from runnerd.config.pools import make_pool_table
from runnerd.config.run_settings import make_run_table
from runnerd.config.settings import SettingsReader
from runnerd.config.units import format_signal
from runnerd.core.place import Place
from runnerd.core.settings import (
    ApiSettings,
    JournalSettings,
    LateSettings,
    LimitSettings,
    OutputSettings,
    PoolSettings,
    RunSettings,
    StopSettings,
    WarmSettings,
)
from runnerd.core.units import format_duration, format_size, parse_duration
from tests.kits.config import ConfigDir

SCHEMA = json.loads(read_schema())
TOP = SCHEMA["properties"]
RUN = SCHEMA["definitions"]["run"]["properties"]
POOL = TOP["pools"]["items"]["properties"]


def test_it_is_a_json_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["title"] == "runnerd configuration", "what editors show"


def test_every_key_says_what_it_is_for() -> None:
    def undescribed(schema: object, path: str) -> list[str]:
        found = []
        if isinstance(schema, dict):
            for key, value in schema.get("properties", {}).items():
                if "$ref" not in value and "description" not in value and not path.count("work_pool"):
                    found.append(f"{path}.{key}")
                found += undescribed(value, f"{path}.{key}")
            for name, value in schema.get("definitions", {}).items():
                found += undescribed(value, name)
        return found

    assert undescribed(SCHEMA, "") == []


def test_it_knows_exactly_the_keys_the_code_reads() -> None:
    assert set(RUN) == set(make_run_table("/"))
    assert set(POOL) == {*make_pool_table("/"), "run"}
    tables = SettingsReader("/").tables
    described = {**TOP, "notices": SCHEMA["definitions"]["notices"]}
    assert {name: set(described[name]["properties"]) for name in tables} == {
        name: set(table) for name, table in tables.items()
    }


def test_its_defaults_are_the_codes() -> None:
    api, limits, stop, late, journal, output, warm = (
        ApiSettings(url=""),
        LimitSettings(),
        StopSettings(),
        LateSettings(),
        JournalSettings(),
        OutputSettings(),
        WarmSettings(),
    )
    run = RunSettings(python="", working_directory="")
    values = {
        ("api", "poll_interval"): format_duration(api.poll_interval_s),
        ("api", "prefetch"): format_duration(api.prefetch_s),
        ("limits", "runs"): limits.runs,
        ("limits", "start_rate"): f"{limits.start_rate_per_s:g}/s",
        ("stop", "drain_timeout"): format_duration(stop.drain_timeout_s),
        ("stop", "then"): stop.then,
        ("late", "policy"): late.policy,
        ("journal", "keep"): format_duration(journal.keep_s),
        ("journal", "max_runs"): journal.max_runs,
        ("output", "journal"): output.journal,
        ("output", "max_total"): format_size(output.max_total_bytes),
        ("warm", "interpreters"): warm.interpreters,
        ("warm", "min_free_memory"): format_size(warm.min_free_memory_bytes),
    }
    assert {path: TOP[path[0]]["properties"][path[1]]["default"] for path in values} == values
    assert (RUN["stop_signal"]["default"], RUN["stop_timeout"]["default"]) == (
        format_signal(run.stop_signal),
        format_duration(run.stop_timeout_s),
    )
    assert parse_duration(TOP["warm"]["properties"]["idle"]["default"]) == warm.idle_s
    pool = PoolSettings(name="", run=run, place=Place(""))
    assert {key: its["default"] for key, its in POOL.items() if "default" in its} == {
        "create": pool.create,
        "prefetch": format_duration(pool.prefetch_s),
        "install_policy": pool.install_policy,
    }
    assert (RUN["output_max"]["default"], RUN["start"]["default"]) == (format_size(run.output_max_bytes), run.start)


RIGHT = """\
name: build-07
api: {url: http://127.0.0.1:4200/api, key_file: key, poll_interval: 10s, headers: {A: b}}
limits: {runs: 10, start_rate: 10/s, tags: {gpu: 1}}
stop: {drain_timeout: 30s, then: cancel}
late: {after: 10m, policy: run}
run: {python: /usr/bin/python3, limit_nofile: 10:50, preload: [os, xml.dom]}
journal: {keep: 30d}
output: {journal: never, max_total: 5G}
warm: {idle: 5m, interpreters: 2, min_free_memory: 0}
http: {listen: "127.0.0.1:9464"}
notices:
  on_failure: [{command: [/usr/bin/logger, "{{ run.name }}: {{run.words}}"]}, {post_file: /run/url, template: slack}]
  on_late: null
pools:
  - {name: all}
  - {name: some, queues: [high, default], match: null, type: process, create: false, limit: 4, prefetch: 5s}
  - {name: dev, match: dev-, queues: null, run: {working_directory: /, environment: {A: 1}, limit: 2}}
  - {name: devs, match: [dev-, test-], poll_interval: 2s, type: docker, install_policy: never}
x-anchors: {any: thing}
deployments:
  - name: nightly
    entrypoint: flows/etl.py:nightly
    schedule: {}
    schedules:
      - {cron: "0 2 * * *", timezone: Europe/Berlin}
      - {interval: 3600, active: false}
      - {rrule: "FREQ=DAILY;BYHOUR=9", cron: null}
    concurrency_limit: 1
    notices: {on_success: [{command: [mail, root], timeout: 1m}], on_cancel: []}
    run:
      {before: [/bin/true, "{{ run.id }}"], after: [[/bin/true], [ls]], after_timeout: 5s,
       runtime_max: 2h, memory_max: 2G, cpu_quota: 150%, umask: "0027", start: warm, environment: {A: 1, B: null}}
  - {name: other, entrypoint: "a.b:c", concurrency_limit: {limit: 1}, schedules: null, run: null}
"""


@pytest.mark.parametrize("draft", [jsonschema.Draft7Validator, jsonschema.Draft202012Validator])
def test_an_editor_finds_nothing_wrong_with_what_is_right(etc_with_everything: ConfigDir, draft: type) -> None:
    assert [error.message for error in draft(SCHEMA).iter_errors(yaml.safe_load(RIGHT))] == []
    assert etc_with_everything.problems() == []


@pytest.fixture
def etc_with_everything(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc", main=RIGHT)


def test_an_editor_sees_that_a_pool_has_queues_or_a_match() -> None:
    check = jsonschema.Draft7Validator(SCHEMA)
    assert not check.is_valid({"pools": [{"name": "a", "queues": ["x"], "match": "y"}]})
    assert not check.is_valid({"pools": [{"name": "a", "queues": ["x", "x"]}]})


@pytest.mark.parametrize("schedule", [{"cron": "x", "interval": 5}, {"active": True}])
def test_an_editor_sees_that_a_schedule_has_one_kind(schedule: object) -> None:
    item = {"name": "a", "entrypoint": "a:b", "schedules": [schedule]}
    assert not jsonschema.Draft7Validator(SCHEMA).is_valid({"deployments": [item]})


def test_its_examples_are_right() -> None:
    def wrong(schema: object) -> list[object]:
        if isinstance(schema, list):
            return [found for item in schema for found in wrong(item)]
        if not isinstance(schema, dict):
            return []
        own = jsonschema.Draft7Validator({**schema, "definitions": SCHEMA["definitions"]})
        examples = schema["examples"] if isinstance(schema.get("examples"), list) else []
        return [example for example in examples if not own.is_valid(example)] + wrong(list(schema.values()))

    assert wrong(SCHEMA) == []


# --- what is shown --------------------------------------------------------------------------------------------


def test_what_is_shown_reads_back_to_the_same(etc_with_everything: ConfigDir, tmp_path: Path) -> None:
    config = etc_with_everything.load()
    shown = describe_config(config)
    assert json.loads(json.dumps(shown)) == shown
    main = {key: value for key, value in shown.items() if key not in ("deployments", "invalid", "files", "problems")}
    items = [{k: v for k, v in item.items() if k not in ("file", "line", "problem")} for item in shown["deployments"]]
    main["api"]["headers"] = {"A": "b"}
    main["pools"] = [{k: v for k, v in item.items() if k not in ("file", "line", "problem")} for item in shown["pools"]]
    again = ConfigDir(tmp_path / "again", main=None)
    again.write("runnerd.yaml", yaml.safe_dump({**main, "deployments": items}))
    found = again.load()
    assert found.settings == config.settings
    # Where no working directory is said, it is the configuration's, and not used.
    assert [replace(pool, run=replace(pool.run, working_directory=""), place=Place("")) for pool in found.pools] == [
        replace(pool, run=replace(pool.run, working_directory=""), place=Place("")) for pool in config.pools
    ]
    assert [(d.name, d.schedules, d.run, d.concurrency_limit) for d in found.deployments] == [
        (d.name, d.schedules, d.run, d.concurrency_limit) for d in config.deployments
    ]


def test_no_secret_is_shown(tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path / "etc", main="api: {url: embedded, headers: {X-Auth: hush}, key_file: /k}\n")
    names = ["MY_API_KEY", "token", "Db_Password", "CLIENT_SECRET"]
    environment = ", ".join(f"{name}: hush" for name in names)
    run = f"{{environment: {{{environment}, A: b}}}}"
    etc.write("conf.d/a.yaml", f"deployments: [{{name: a, entrypoint: 'm:f', run: {run}}}]")
    etc.write("conf.d/b.yaml", f"pools: [{{name: a, run: {run}}}]")
    shown = describe_config(etc.load())
    assert "hush" not in json.dumps(shown)
    assert shown["api"]["headers"] == {"X-Auth": "***"}
    assert shown["api"]["key_file"] == "/k"
    for shown_as in ("deployments", "pools"):
        assert shown[shown_as][0]["run"]["environment"] == {**dict.fromkeys(names, "***"), "A": "b"}


def test_what_is_wrong_is_shown_too(tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path / "etc")
    etc.write("conf.d/a.yaml", "deployments: [{name: a}]\n")
    shown = describe_config(etc.load())
    words = f"{etc.etc}/conf.d/a.yaml:1:15: a deployment needs 'entrypoint' or 'command'"
    assert shown["problems"] == [words]
    assert shown["invalid"] == [{"name": "a", "file": f"{etc.etc}/conf.d/a.yaml", "line": 1, "problem": words}]
