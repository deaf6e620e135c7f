"""docs/from-prefect.md: whatever of runnerd it names is there, and its files are good."""

from __future__ import annotations

import getpass
import importlib
import json
import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from runnerd.cli.__main__ import VERBS
from tests.kits.checkout import ROOT
from tests.kits.config import ConfigDir

TEXT = (ROOT / "docs" / "from-prefect.md").read_text()
SCHEMA = json.loads((ROOT / "runnerd" / "config" / "schema.json").read_text())
KEY = re.compile(r"(?P<path>[a-z_]+(?:\[\])?(?:\.[a-z_]+(?:\[\])?)*)(?:: (?P<value>\S+))?")
OPTION = re.compile(r"--[a-z][a-z-]*")
SPAN = re.compile(r"`([^`]+)`")
COMMON = {"--json", "--socket", "--help", "--version"}
METRICS = (ROOT / "runnerd" / "control" / "backend" / "metrics.py").read_text()
ROUTES = "\n".join(path.read_text() for path in (ROOT / "runnerd" / "control").rglob("*.py"))
MANUAL = (ROOT / "docs" / "man" / "runnerd.8").read_text()


def rows() -> Iterator[tuple[str, str]]:
    """(theirs, ours) of each row of each table."""
    for line in TEXT.splitlines():
        if line.startswith("| "):
            _, theirs, ours, _ = line.split("|")
            if theirs.strip() != "Prefect":
                yield theirs.strip(), ours.strip()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)


def node_of(path: str) -> dict[str, Any] | None:
    """The schema of the key at this path."""
    node: Any = SCHEMA
    for step in path.split("."):
        node = within(node).get("properties", {}).get(step.removesuffix("[]"))
        if node is None:
            return None
        if step.endswith("[]"):
            node = within(node).get("items")
    return within(node)


def within(node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        found: dict[str, Any] = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
        return found
    return node


def flaw_of_key(span: str) -> str | None:
    match = KEY.fullmatch(span)
    node = node_of(match["path"]) if match else None
    if match is None or node is None:
        return "no such key"
    if match["value"] is None:
        return None
    validator = jsonschema.Draft7Validator({**node, "definitions": SCHEMA["definitions"]})
    return None if validator.is_valid(yaml.safe_load(match["value"])) else "a value that it does not take"


def options_of(words: list[str]) -> set[str] | None:
    """What `runnerctl WORDS` takes; None where there is no such verb, or no such command of it."""
    if not words:
        return COMMON
    if words[0] not in VERBS:
        return None
    module = importlib.import_module(f"runnerd.cli.verbs.{VERBS[words[0]].module}")
    if commands := getattr(module, "COMMANDS", None):
        if words[1:2] == [] or words[1] not in commands:
            return None
        arguments = commands[words[1]].add_arguments
    else:
        arguments = module.arguments
    parser = ArgumentParser(prog="runnerctl", usage="")
    arguments(parser)
    return COMMON | set(OPTION.findall(parser.format_help()))


def flaw_of_command(span: str) -> str | None:
    words = shlex.split(span, comments=True)[1:]
    known = options_of([word for word in words if not word.startswith("-")])
    if known is None:
        return "no such verb"
    unknown = {word.partition("=")[0] for word in words if word.startswith("--")} - known
    return f"no such option: {unknown}" if unknown else None


def flaw_of(span: str, command: str) -> str | None:
    """What is wrong with something of ours; `command` is the last one named before it in its cell."""
    match span.partition(" ")[0]:
        case "runnerctl":
            return flaw_of_command(span)
        case "runnerd":
            taken = set(OPTION.findall(re.sub(r"Fl (?=-)", "-", MANUAL)))
            return None if set(OPTION.findall(span)) <= taken else "no such option"
        case "systemctl" | "journalctl":
            return None if "runnerd" in span else "not ours"
        case word if word.startswith("--"):
            return flaw_of_command(f"{command} {span}")
        case word if word.startswith("/v1/"):
            return None if f'"{span}"' in ROUTES else "no such route"
        case word if word.startswith("runnerd_"):
            return None if f'"{span}"' in METRICS else "no such metric"
        case word if word.isupper():
            return None if word.startswith("PREFECT_") or word == "SSL_CERT_FILE" else "no such variable"
    return flaw_of_key(span)


def test_whatever_of_ours_is_named_is_there() -> None:
    flaws = {}
    for theirs, ours in rows():
        command = "runnerctl"
        for span in SPAN.findall(ours):
            flaws[theirs, span] = flaw_of(span, command)
            command = span if span.startswith("runnerctl ") else command
    assert len(flaws) > 150
    assert {span: flaw for span, flaw in flaws.items() if flaw} == {}


def test_a_wrong_name_is_found() -> None:
    wrong = (
        "pools[].limits", "pool.limit", "limits.run", "stop.then: wait", "runnerctl pools", "runnerctl pool list",
        "runnerctl pool create --priority", "runnerd --twice", "/v1/nothing", "runnerd_nothing", "EDITOR", "Whatever",
    )  # fmt: skip
    assert [span for span in wrong if flaw_of(span, "runnerctl") is None] == []
    right = ("pools[].run.user", "deployments[].schedules[].cron", "stop.then: crash", "pools[].create: false")
    assert [span for span in right if flaw_of(span, "runnerctl") is not None] == []


def test_every_row_is_one_of_keys_verbs_or_words() -> None:
    """A row without any name of ours says why there is none."""
    silent = ("always", "never", "does not exist", "the same", "the server's", "the flow's own", "the keys of")
    unsaid = [theirs for theirs, ours in rows() if not SPAN.search(ours) and not ours.startswith(silent)]
    assert unsaid == []


def test_keys_and_verbs_in_the_text_are_there() -> None:
    prose = re.sub(r"^```.*?^```|^\|.*?$", "", TEXT, flags=re.M | re.S)
    ours = re.compile(r"(?:runnerctl|runnerd) .+|(?:api|limits|stop|late|run|pools\[\]|deployments\[\])\..+")
    flaws = {span: flaw_of(span, "runnerctl") for span in SPAN.findall(prose) if ours.fullmatch(span)}
    assert len(flaws) > 12
    assert {span: flaw for span, flaw in flaws.items() if flaw} == {}


def test_the_commands_of_the_ways_to_move_are_there() -> None:
    lines = [line[2:] for block in blocks("console") for line in block.splitlines()]
    ours = [line for line in lines if line.startswith("runnerctl ")]
    flaws = {line: flaw_of_command(without_operands(line)) for line in ours}
    assert len(ours) > 8
    assert {line: flaw for line, flaw in flaws.items() if flaw} == {}


def without_operands(line: str) -> str:
    """Verb and command, and the options: what stands between is somebody's."""
    words = shlex.split(line, comments=True)
    commands = 3 if words[1] in ("pool", "queue") else 2
    return " ".join([*words[:commands], *(word for word in words[commands:] if word.startswith("--"))])


def test_the_files_of_the_ways_to_move_are_good(tmp_path: Path) -> None:
    main, *drop_ins = blocks("yaml")
    etc = ConfigDir(tmp_path / "etc", main=of_this_host(main, tmp_path))
    for number, text in enumerate(drop_ins):
        etc.write(f"conf.d/{number}.yaml", of_this_host(text, tmp_path))
    config = etc.load()
    assert etc.words(config.problems) == []
    assert [pool.name for pool in config.pools] == ["etl", "default-agent-pool"]
    assert [deployment.name for deployment in config.deployments] == ["nightly"]


def of_this_host(text: str, tmp_path: Path) -> str:
    """The same with a user, an interpreter and a directory that are there."""
    text = text.replace("/opt/flows/venv/bin/python", sys.executable).replace("/opt/etl", str(tmp_path / "etc"))
    return text.replace("user: etl", f"user: {getpass.getuser()}")
