"""Reads the command of a deployment that has one instead of an entrypoint, and the keys that only a command has."""

from __future__ import annotations

import json
from collections.abc import Iterator

from runnerd.config.messages import Path, find_value_place
from runnerd.config.placeholders import list_odd_numbers
from runnerd.config.sections import Flaws, Table, make_duration_reader, read_as_is, read_section, read_whole
from runnerd.config.work_pool import pool_name
from runnerd.config.yaml_nodes import Map, make_plain
from runnerd.core.command_text import VARIABLE_PREFIX, Unfit, make_variables
from runnerd.core.commands import SHELL, Command, CommandRules
from runnerd.core.json_words import dotted, shorten
from runnerd.core.place import Json
from runnerd.core.placeholders import list_names
from runnerd.core.schema_words import suggest_near_match
from runnerd.core.shell_quotes import find_unsafe

SCHEMA_MAX_CHARACTERS = 65536
_RULES: Table = {
    "success_exit_codes": ("success_exit_codes", tuple),
    "retries": ("retries", read_whole),
    "retry_delay": ("retry_delay_s", make_duration_reader(least_s=0, most_s=365 * 86400)),
}
_OTHERS: Table = {"stdin": ("stdin", read_as_is)}
_ONLY_OF_COMMANDS = ("shell", "parameter_schema", *_RULES, *_OTHERS)
_OF_INTERPRETERS = ("python", "start", "preload", "hook_timeout")


def has_command(node: Map) -> bool:
    """Whether the deployment has a command, and so no flow's code."""
    return node.get("command") is not None


def read_command(node: Map, flaws: Flaws) -> Command | None:
    """Read the command; None without one, or where it has a flaw. Without one, an entrypoint is needed."""
    if not has_command(node):
        _refuse_without_command(node, flaws)
        return None
    _refuse_with_command(node, flaws)
    _warn_of_vain_settings(node.get("run"), flaws)
    argv = None if flaws.at("command") else _read_argv(node, flaws)
    schema = None if flaws.at("parameter_schema") else _read_schema(node, flaws)
    rules = read_section(node, _RULES, (), flaws).arguments()
    others = read_section(node, _OTHERS, (), flaws).arguments()
    if argv is None:
        return None
    shell = node.get("shell") is True
    _check_names(node, flaws)
    _refuse_placeholders(node, shell=shell, flaws=flaws)
    return Command(argv=argv, shell=shell, parameter_schema=schema, rules=CommandRules(**rules), **others)


def _refuse_without_command(node: Map, flaws: Flaws) -> None:
    if "entrypoint" not in node:
        flaws.add((), "a deployment needs 'entrypoint' or 'command'", node.place())
    for key in _ONLY_OF_COMMANDS:
        if node.get(key) is not None and not flaws.at(key):
            flaws.add((key,), f"{key} needs a command: flows have this in their code; remove it", node.key_place(key))


def _refuse_with_command(node: Map, flaws: Flaws) -> None:
    if "entrypoint" in node:
        words = "command and entrypoint exclude each other: a command is run without Prefect; remove one"
        flaws.add(("command",), words, node.key_place("command"))
    if pool_name(node) is not None:
        words = "a command cannot be in a work pool, whose workers run flows; remove work_pool or command"
        flaws.add(("work_pool",), words, node.key_place("work_pool"))


def _warn_of_vain_settings(run: Json, flaws: Flaws) -> None:
    for key in _OF_INTERPRETERS if isinstance(run, Map) else ():
        if run.get(key) is not None:
            flaws.warn(f"run.{key} has no effect on a command", run.key_place(key))


def _read_argv(node: Map, flaws: Flaws) -> tuple[str, ...] | None:
    said, shell = node["command"], node.get("shell") is True
    if isinstance(said, str) is not shell:
        words = "command must be a text with shell: true" if shell else "command must be a list; or set shell: true"
        flaws.add(("command",), words, node.value_place("command"))
        return None
    if shell:
        return (*SHELL, said)
    argv = tuple(said)
    if not argv[0].strip():
        flaws.add(("command", 0), "command[0] must name a program", find_value_place(node, ("command", 0)))
        return None
    return argv


def _read_schema(node: Map, flaws: Flaws) -> dict[str, Json] | None:
    said = node.get("parameter_schema")
    if said is None:
        return None
    for place, words in list_odd_numbers(said):
        flaws.add(("parameter_schema",), f"parameter_schema.{words}", place)
        return None
    schema = make_plain(said)
    if (wrong := _find_schema_fault(schema)) is not None:
        flaws.add(("parameter_schema",), f"parameter_schema {wrong}", node.value_place("parameter_schema"))
        return None
    return {"title": "Parameters", "type": "object", **schema}


def _find_schema_fault(schema: dict[str, Json]) -> str | None:
    from jsonschema import Draft202012Validator, SchemaError

    if schema.get("type", "object") != "object" or not isinstance(schema.get("properties", {}), dict):
        return "must be of type object, with a map of properties"
    if len(json.dumps(schema)) > SCHEMA_MAX_CHARACTERS:
        return f"must have at most {SCHEMA_MAX_CHARACTERS} characters"
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = dotted(error.absolute_path)
        return f"is no JSON Schema: {where + ': ' if where else ''}{shorten(error.message)}"
    return None


def _check_names(node: Map, flaws: Flaws) -> None:
    """Refuse names of which no variable can be made: each run would fail."""
    for section, names in _declared(node):
        try:
            make_variables(dict.fromkeys(names, ""), on_stdin=False)
        except Unfit as error:
            flaws.add((section,), f"{section}: {error}", node.value_place(section))


def _declared(node: Map) -> Iterator[tuple[str, list[str]]]:
    """Yield the parameters that the deployment names, by the key in which it does."""
    yield "parameters", _keys(node.get("parameters"))
    schema = node.get("parameter_schema")
    yield "parameter_schema", _keys(schema.get("properties") if isinstance(schema, Map) else None)
    schedules = node.get("schedules")
    for one in [node.get("schedule"), *(schedules if isinstance(schedules, list) else ())]:
        yield "schedules", _keys(one.get("parameters") if isinstance(one, Map) else None)


def _keys(node: Json) -> list[str]:
    return list(node) if isinstance(node, Map) else []


def _refuse_placeholders(node: Map, *, shell: bool, flaws: Flaws) -> None:
    known = [name for _, names in _declared(node) for name in names]
    for path, text in _texts(node):
        place = find_value_place(node, path)
        for name, offset in list_names(text):
            if name not in known:
                hint = suggest_near_match(name, known)
                words = f"{{{{ {name} }}}} is in neither parameters nor parameter_schema{hint}"
                flaws.add(path, f"{dotted(path)}: {words}", place)
            elif path == ("command", 0) or (shell and not text[:offset].strip()):
                words = "a parameter cannot choose the program; name the program"
                flaws.add(path, f"{dotted(path)}: {words}", place)
        for name, _, where in find_unsafe(text) if shell else ():
            words = f"{{{{ {name} }}}} stands {where}, where its value would not be safe; write it between blanks"
            flaws.add(path, f'{dotted(path)}: {words}, or use "${VARIABLE_PREFIX}{name.upper()}"', place)


def _texts(node: Map) -> Iterator[tuple[Path, str]]:
    said = node["command"]
    if isinstance(said, str):
        yield ("command",), said
        return
    for index, text in enumerate(said):
        yield ("command", index), text
