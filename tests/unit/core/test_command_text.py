"""Parameters of a command become arguments, variables and JSON, whatever they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runnerd.core.command_text import (
    TEXT_MAX_BYTES,
    TOTAL_MAX_BYTES,
    Unfit,
    check_total,
    effective_parameters,
    fill_arguments,
    make_variables,
    write_stdin,
)
from runnerd.core.commands import SHELL, Command

BACKUP = Command(argv=("backup", "--level={{ level }}", "{{a}}{{ b }}", "{{ .Id }} {{ a b }}"))


def unfit(call: Any) -> str:
    with pytest.raises(Unfit) as raised:
        call()
    return str(raised.value)


def test_each_argument_stays_one() -> None:
    values = {"level": 3, "a": "x y; $(id) 'q'", "b": ["1", None]}
    argv = fill_arguments(BACKUP, values)
    assert argv == ("backup", "--level=3", "x y; $(id) 'q'[\"1\", null]", "{{ .Id }} {{ a b }}")


def test_a_value_is_filled_in_once() -> None:
    command = Command(argv=("echo", "{{ a }}"))
    assert fill_arguments(command, {"a": "{{ b }}", "b": "secret"}) == ("echo", "{{ b }}")


def test_a_shell_line_gets_quoted_values() -> None:
    command = Command(argv=(*SHELL, "echo {{ a }} >> log"), shell=True)
    assert fill_arguments(command, {"a": "it's; rm -rf /"})[-1] == "echo 'it'\"'\"'s; rm -rf /' >> log"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "parameter 'a' of its command has no value"),
        ({"a": "x\0y"}, "parameter 'a' has a NUL character, which no argument and no variable can have"),
        ({"a": "\ud800"}, "parameter 'a' has characters that are not Unicode"),
        ({"a": "x" * (TEXT_MAX_BYTES + 1)}, f"argument 1 of its command is longer than {TEXT_MAX_BYTES} bytes"),
    ],
)
def test_what_no_argument_can_be_is_said(values: dict[str, Any], words: str) -> None:
    assert unfit(lambda: fill_arguments(Command(argv=("echo", "{{ a }}")), values)) == words


def test_the_longest_argument_is_taken() -> None:
    longest = "x" * TEXT_MAX_BYTES
    assert fill_arguments(Command(argv=("echo", "{{ a }}")), {"a": longest}) == ("echo", longest)


def test_variables_are_text_or_json() -> None:
    values = {"level": 3, "Name": "a b", "on": True, "none": None, "many": {"é": [1.5]}}
    assert make_variables(values, on_stdin=False) == {
        "PARAM_LEVEL": "3",
        "PARAM_NAME": "a b",
        "PARAM_ON": "true",
        "PARAM_NONE": "null",
        "PARAM_MANY": '{"é": [1.5]}',
    }


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"a=b": 1}, "parameter 'a=b' cannot be a variable: only letters, digits and _ can"),
        ({"": 1}, "parameter '' cannot be a variable: only letters, digits and _ can"),
        ({"x\n": 1}, "parameter 'x\\n' cannot be a variable: only letters, digits and _ can"),
        ({"straße": 1}, "parameter 'straße' cannot be a variable: only letters, digits and _ can"),
        ({"a": 1, "A": 2}, "parameters 'a' and 'A' would both be the variable PARAM_A"),
        ({"a": "\0"}, "parameter 'a' has a NUL character, which no argument and no variable can have"),
        ({"a": "x" * TEXT_MAX_BYTES}, "parameter 'a' is too long for a variable; set stdin: parameters"),
    ],
)
def test_what_no_variable_can_be_is_said(values: dict[str, Any], words: str) -> None:
    assert unfit(lambda: make_variables(values, on_stdin=False)) == words


def test_what_is_too_long_for_a_variable_is_on_stdin() -> None:
    values = {"a": "x" * TEXT_MAX_BYTES, "b": 1}
    assert make_variables(values, on_stdin=True) == {"PARAM_B": "1"}
    assert json.loads(write_stdin(values)) == values


def test_stdin_is_one_line_of_a_bounded_length() -> None:
    assert write_stdin({"a": "é\n"}) == b'{"a":"\\u00e9\\n"}\n'
    assert unfit(lambda: write_stdin({"a": "x" * 2**20})) == "its parameters are longer than 1048576 bytes"


def test_all_together_are_bounded() -> None:
    check_total(("x",), {"A": "y" * (TOTAL_MAX_BYTES - 10)})
    words = f"its arguments and variables are longer than {TOTAL_MAX_BYTES} bytes"
    assert unfit(lambda: check_total(("x" * 10,), {"A": "y" * (TOTAL_MAX_BYTES - 10)})) == words


@pytest.mark.parametrize("properties", [None, 5, {"a": 5}, {"a": {"type": "integer"}}])
def test_a_schema_without_defaults_adds_nothing(properties: Any) -> None:
    assert effective_parameters({"properties": properties}, {"b": 1}) == {"b": 1}


def test_a_schemas_default_is_used_where_the_run_has_no_value() -> None:
    schema = {"properties": {"a": {"default": None}, "b": {"default": 2}}}
    assert effective_parameters(schema, {"b": 3}) == {"a": None, "b": 3}
