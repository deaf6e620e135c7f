"""Deployments with a command instead of an entrypoint, in the files."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.config import HostDefaults, describe_config
from runnerd.core.codec import Decoder, to_json
from runnerd.core.commands import SHELL, Command, CommandRules
from runnerd.core.settings import Deployment
from tests.kits.config import MAIN, ConfigDir

FULL = """\
deployments:
  - name: backup
    command: [/usr/local/bin/backup, "--level={{ level }}"]
    parameters: {level: 3}
    parameter_schema: {type: object, properties: {level: {type: integer}}}
    success_exit_codes: [0, 3]
    retries: 2
    retry_delay: 10s
    stdin: parameters
"""
UNSAFE = (
    "1:34: command: {{ p }} stands inside double quotes, where its value would not be safe; write it between blanks,"
    ' or use "$PARAM_P"'
)


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def problems(etc: ConfigDir, keys: str) -> list[str]:
    etc.write("conf.d/a.yaml", f"deployments: [{{name: a, {keys}}}]\n")
    return [one.removeprefix("conf.d/a.yaml:") for one in etc.problems()]


def test_all_keys(etc: ConfigDir) -> None:
    found = etc.one(FULL)
    assert found.command == Command(
        argv=("/usr/local/bin/backup", "--level={{ level }}"),
        stdin="parameters",
        parameter_schema={"title": "Parameters", "type": "object", "properties": {"level": {"type": "integer"}}},
        rules=CommandRules(success_exit_codes=(0, 3), retries=2, retry_delay_s=10.0),
    )
    assert found.entrypoint == ""
    assert Decoder().decode(Deployment, to_json(found)) == found, "the journal has the last good configuration"
    (shown,) = describe_config(etc.load())["deployments"]
    assert shown["command"] == ["/usr/local/bin/backup", "--level={{ level }}"]
    assert (shown["retry_delay"], shown["success_exit_codes"], shown["entrypoint"]) == ("10s", [0, 3], None)


def test_a_line_of_the_shell(etc: ConfigDir) -> None:
    found = etc.one("deployments: [{name: a, command: 'ls {{ x }} | wc', shell: true, parameters: {x: /}}]\n")
    assert found.command == Command(argv=(*SHELL, "ls {{ x }} | wc"), shell=True)
    assert found.command.line == "ls {{ x }} | wc"


def test_no_interpreter_is_needed(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "deployments: [{name: a, command: ['true']}]\n")
    config = etc.load(defaults=HostDefaults(hostname="h", python="/none/python", api_url=None))
    assert (config.problems, len(config.deployments)) == ((), 1)


def test_the_command_may_come_later(etc: ConfigDir) -> None:
    assert problems(etc, "command: [/none/such]") == []


def test_what_is_of_interpreters_is_named(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "deployments: [{name: a, command: [x], run: {python: /usr/bin/python3, start: cold}}]\n")
    assert etc.words(etc.load().warnings) == [
        "conf.d/a.yaml:1:45: run.python has no effect on a command",
        "conf.d/a.yaml:1:71: run.start has no effect on a command",
    ]


def test_two_of_one_name_are_one(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "deployments: [{name: a, command: [x]}, {name: a, command: [y]}]\n")
    (found,) = etc.problems()
    assert found.endswith(
        "deployment 'a' of this command is already defined at conf.d/a.yaml:1:15; rename or remove one"
    )


def test_with_a_flow_of_that_name_too(etc: ConfigDir) -> None:
    flow = "{name: a, flow_name: a, entrypoint: 'flows/etl.py:nightly'}"
    etc.write("conf.d/a.yaml", f"deployments: [{flow}, {{name: a, command: [y]}}]\n")
    (found,) = etc.problems()
    assert "is already defined at" in found


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("tags: [x]", "1:15: a deployment needs 'entrypoint' or 'command'"),
        ("command: null", "1:15: a deployment needs 'entrypoint' or 'command'"),
        (
            "command: [x], entrypoint: 'm:f'",
            "1:25: command and entrypoint exclude each other: a command is run without Prefect; remove one",
        ),
        (
            "command: [x], work_pool: {name: p}",
            "1:39: a command cannot be in a work pool, whose workers run flows; remove work_pool or command",
        ),
        ("command: x", "1:34: command must be a list; or set shell: true"),
        ("command: [x], shell: true", "1:34: command must be a text with shell: true"),
        ("command: []", "1:34: command must not be an empty list; name one, or remove the key"),
        ("command: ['']", "1:35: command[0] must name a program"),
        ("command: [x, 5]", "1:38: command[1] must be text, not 5; quote it"),
        ('command: ["a\\0b"]', "1:35: command[0] must be text without NUL characters, not 'a\\x00b'"),
        ("command: 5", "1:34: command must be a list or text, not 5; quote it"),
        (
            "command: [x, '{{ lvl }}'], parameters: {level: 1}",
            "1:38: command[1]: {{ lvl }} is in neither parameters nor parameter_schema; did you mean 'level'?",
        ),
        (
            "command: ['{{ p }}'], parameters: {p: 1}",
            "1:35: command[0]: a parameter cannot choose the program; name the program",
        ),
        (
            "command: ' {{ p }}/x y', shell: true, parameters: {p: 1}",
            "1:34: command: a parameter cannot choose the program; name the program",
        ),
        (
            "command: 'echo \"{{ p }}\"', shell: true, parameters: {p: 1}",
            UNSAFE,
        ),
        (
            "command: [x], parameters: {'a b': 1}",
            "1:51: parameters: parameter 'a b' cannot be a variable: only letters, digits and _ can",
        ),
        (
            "command: [x], parameters: {a: 1, A: 1}",
            "1:51: parameters: parameters 'a' and 'A' would both be the variable PARAM_A",
        ),
        (
            "command: [x], parameter_schema: {properties: {a-b: {}}}",
            "1:57: parameter_schema: parameter 'a-b' cannot be a variable: only letters, digits and _ can",
        ),
        (
            "command: [x], parameter_schema: {type: array}",
            "1:57: parameter_schema must be of type object, with a map of properties",
        ),
        (
            "command: [x], parameter_schema: {properties: {a: {type: number, minimum: x}}}",
            "1:57: parameter_schema is no JSON Schema: properties.a.minimum: 'x' is not of type 'number'",
        ),
        (
            "command: [x], parameter_schema: {properties: {a: {default: .nan}}}",
            "1:84: parameter_schema.properties.a.default: .nan is not a number in JSON; quote it if text is meant",
        ),
        (
            f"command: [x], parameter_schema: {{title: '{'t' * 70000}'}}",
            "1:57: parameter_schema must have at most 65536 characters",
        ),
        ("command: [x], retries: -1", "1:48: retries must be between 0 and 10000, not -1"),
        ("command: [x], retry_delay: -5", "1:52: retry_delay must be at least 0 seconds, not -5"),
        ("command: [x], retry_delay: 2y", "1:52: retry_delay must be at most 365d, not '2y'"),
        ("command: [x], success_exit_codes: [256]", "1:60: success_exit_codes[0] must be between 0 and 255, not 256"),
        ("command: [x], stdin: all", "1:46: stdin must be one of none, parameters, not 'all'"),
        ("command: [x], comand: [x]", "1:39: unknown key 'comand' in a deployment; did you mean 'command'?"),
        (
            "entrypoint: 'flows/etl.py:nightly', retries: 2",
            "1:61: retries needs a command: flows have this in their code; remove it",
        ),
        (
            "entrypoint: 'flows/etl.py:nightly', shell: true",
            "1:61: shell needs a command: flows have this in their code; remove it",
        ),
    ],
)
def test_what_is_wrong_is_said_at_its_place(etc: ConfigDir, keys: str, words: str) -> None:
    assert problems(etc, keys) == [words]


def test_names_of_schedules_and_of_the_schema_are_known(etc: ConfigDir) -> None:
    keys = "schedules: [{cron: '@daily', parameters: {b: 1}}], parameter_schema: {properties: {c: {}}}"
    assert problems(etc, f"command: [x, '{{{{ b }}}}{{{{ c }}}}'], {keys}") == []


def test_a_broken_one_keeps_its_last_good_version(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", MAIN)
    etc.write("conf.d/a.yaml", FULL)
    good = etc.load()
    etc.write("conf.d/a.yaml", FULL.replace("retries: 2", "retries: many"))
    (kept,) = etc.load(last_good=good).deployments
    assert kept.command == good.deployments[0].command
    assert kept.problem is not None
