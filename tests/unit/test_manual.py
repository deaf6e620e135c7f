"""The man pages and the shell completion say what the programs have: every key, default, verb and option."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from runnerd.cli.__main__ import VERBS
from runnerd.spawner.options import USAGE
from tests.kits.checkout import ROOT

MAN = ROOT / "docs" / "man"
COMPLETION = ROOT / "packaging" / "completion"
SCHEMA = json.loads((ROOT / "runnerd" / "config" / "schema.json").read_text())
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
# Where runnerd.yaml(5) has the keys of each part of the schema.
HEADINGS = {
    "": "THE HOST",
    "pools": "A pool",
    "scripts": "A script",
    "deployments": "A deployment",
    "source": "A source",
    "schedule": "A schedule",
    "trigger": "A trigger",
    "automations": "Host automations",
    "run": "The section run",
    "notices": "The section notices",
    "notice": "A notice",
    **{
        name: f"The section {name}"
        for name in ("api", "limits", "stop", "late", "journal", "output", "warm", "control", "http")
    },
}


def parts() -> Mapping[str, Mapping[str, Any]]:
    """The keys of each part of the schema, those of a map within a deployment with a dot."""
    top, definitions = SCHEMA["properties"], SCHEMA["definitions"]
    deployment = dict(definitions["deployment"]["properties"])
    for name in ("concurrency_limit", "work_pool"):
        deployment |= {f"{name}.{key}": value for key, value in deployment[name]["properties"].items()}
    source = dict(deployment["source"]["properties"])
    source |= {f"git.{key}": value for key, value in source.pop("git")["properties"].items()}
    sections = {name: its["properties"] for name, its in top.items() if "properties" in its}
    return {
        "": top,
        **sections,
        "pools": top["pools"]["items"]["properties"],
        "scripts": top["scripts"]["items"]["properties"],
        "automations": top["automations"]["items"]["properties"],
        "deployments": deployment,
        "source": source,
        "schedule": definitions["schedule"]["properties"],
        "trigger": {
            **definitions["trigger"]["properties"],
            **{f"metric.{key}": value for key, value in definitions["metric"]["properties"].items()},
        },
        "run": definitions["run"]["properties"],
        "notices": definitions["notices"]["properties"],
        "notice": definitions["notice"]["properties"],
    }


def items(page: str) -> Iterator[tuple[str, str, str]]:
    """(heading, what stands in the margin, text) of each item of a page's lists."""
    heading = ""
    for block in re.split(r"\n(?=\.(?:It|Sh|Ss) )", (MAN / page).read_text()):
        first, _, text = block.partition("\n")
        macro, _, rest = first.partition(" ")
        if macro == ".It":
            yield heading, rest, " ".join(text.split())
        else:
            heading = rest


def keys() -> dict[tuple[str, str], str]:
    """The text of each (heading, key) of runnerd.yaml(5)."""
    found = {}
    for heading, margin, text in items("runnerd.yaml.5"):
        if margin.startswith("Cm "):
            found |= {(heading, key): text for key in margin.removeprefix("Cm ").split(" , ")}
    return found


def plain(roff: str) -> str:
    """A page's line without its macros: `Fl -json` is --json."""
    return re.sub(r"\bFl ", "-", roff)


def test_every_key_of_the_configuration_is_in_its_manual_and_no_other() -> None:
    assert set(parts()) == set(HEADINGS)
    assert set(keys()) == {(HEADINGS[part], key) for part, its in parts().items() for key in its}


def test_every_default_of_the_configuration_is_in_its_manual() -> None:
    text = keys()
    for part, its in parts().items():
        for key, about in its.items():
            if "default" in about:
                default = json.dumps(about["default"]).strip('"')
                assert f"Default: {default}." in text[HEADINGS[part], key], f"{part}.{key}"


def module_of(verb: str) -> Any:
    return importlib.import_module(f"runnerd.cli.verbs.{VERBS[verb].module}")


def options_of(verb: str) -> set[str]:
    """The options that come right after the verb: none where it has commands."""
    module = module_of(verb)
    return options_in(module.add_arguments) if not hasattr(module, "COMMANDS") else {"--help"}


def options_in(arguments: Callable[[ArgumentParser], None]) -> set[str]:
    parser = ArgumentParser(prog="runnerctl", usage="")
    arguments(parser)
    return set(OPTION.findall(parser.format_help())) - {"-h"}


COMMANDS = [(verb, command) for verb in VERBS for command in getattr(module_of(verb), "COMMANDS", ())]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_runnerctl_is_in_its_manual_and_completed(verb: str) -> None:
    described = " ".join(plain(margin) for _, margin, _ in items("runnerctl.1"))
    assert f"Cm {verb}" in described
    text = plain((MAN / "runnerctl.1").read_text())
    missing = {option for option in options_of(verb) if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)}
    assert not missing
    assert verb in complete("runnerctl", "")
    assert {*options_of(verb), "--json", "--socket"} <= complete("runnerctl", verb, "-")


@pytest.mark.parametrize(("verb", "command"), COMMANDS)
def test_every_command_of_a_verb_is_in_its_manual_and_completed(verb: str, command: str) -> None:
    heading = {"pool": "WORK POOLS", "queue": "WORK QUEUES"}[verb]
    page = (MAN / "runnerctl.1").read_text()
    section = page.partition(f".Sh {heading}\n")[2].partition("\n.Sh ")[0]
    assert re.search(rf"\bCm {command}(?![\w-])", section)
    options = options_in(module_of(verb).COMMANDS[command].add_arguments) - {"--help"}
    assert not {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", plain(section))}
    assert command in complete("runnerctl", verb, "")
    assert complete("runnerctl", verb, command, "-") == {*options, "--json", "--socket", "--help"}


def test_no_command_is_completed_that_its_verb_has_not() -> None:
    for verb in {verb for verb, _ in COMMANDS}:
        assert complete("runnerctl", verb, "") == {command for its, command in COMMANDS if its == verb}


def test_no_verb_is_completed_that_runnerctl_has_not() -> None:
    assert {word for word in complete("runnerctl", "") if not word.startswith("-")} == set(VERBS)


@pytest.mark.parametrize("command", [(), ("check",), ("demo",)])
def test_every_option_of_runnerd_is_in_its_manual_and_completed(command: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "runnerd", *command, "--help"]
    usage = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True, env={"COLUMNS": "80"}).stdout
    options = set(OPTION.findall(usage)) - {"-h"}
    text = plain((MAN / "runnerd.8").read_text())
    assert not {option for option in options if not re.search(rf"(?<![\w-]){option}(?![\w-])", text)}
    assert options <= complete("runnerd", *command, "-")
    if command:
        assert f".It Cm {command[0]}" in text
        assert command[0] in complete("runnerd", "")


def test_every_option_of_the_spawner_is_in_its_manual() -> None:
    options = set(OPTION.findall(USAGE))
    assert options
    assert options <= set(OPTION.findall(plain((MAN / "runnerd-spawner.8").read_text())))


@pytest.mark.skipif(not shutil.which("man"), reason="man is not here (package man-db)")
@pytest.mark.parametrize("page", sorted(MAN.iterdir()), ids=lambda page: page.name)
def test_a_manual_page_is_sound(page: Path) -> None:
    argv = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(page)]
    shown = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    )
    assert (shown.returncode, shown.stderr) == (0, "")


# --- completion ----------------------------------------------------------------------------------------------

COMPLETE = 'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); "_$1"; printf "%s\\n" "${COMPREPLY[@]}"'
ANSWERS = {
    "runs": [
        {"id": "0a1b2c3d", "name": "happy-otter", "deployment": "nightly", "flow": "etl", "tags": ["x"]},
        {"id": "99887766", "name": "old $(touch pwned) `touch pwned`", "deployment": None, "flow": None, "tags": []},
    ],
    "deployments": [
        {"id": None, "name": "nightly", "flow": "etl", "state": "ready"},
        {"id": None, "name": "two words", "flow": 'a "quoted" flow', "state": "ready"},
    ],
    "pools": [{"id": "1", "name": "etl", "type": "process"}, {"id": "2", "name": "g p u", "type": "docker"}],
    "queues": [{"id": "3", "name": "urgent", "pool": "etl"}],
}


def complete(program: str, *words: str, path: str = "/usr/bin:/bin", cwd: Path = ROOT) -> set[str]:
    """What bash offers for the last of these words, with nothing on standard error."""
    argv = ["bash", "--norc", "-c", COMPLETE, "bash", str(COMPLETION / program), program, *words]
    shown = subprocess.run(argv, capture_output=True, text=True, env={"PATH": path}, cwd=cwd, stdin=subprocess.DEVNULL)
    assert (shown.returncode, shown.stderr) == (0, "")
    return set(shown.stdout.splitlines()) - {""}


def stand_in(directory: Path, script: str) -> str:
    """A PATH with a runnerctl that does what `script` says."""
    program = directory / "bin" / "runnerctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f"{program.parent}:/usr/bin:/bin"


@pytest.fixture
def running(tmp_path: Path) -> str:
    for verb, answer in ANSWERS.items():
        (tmp_path / verb).write_text(json.dumps(answer, indent=2, ensure_ascii=False))
    cases = {"runs*": "runs", "dep*": "deployments", "pool ls*": "pools", "queue ls --pool etl *": "queues"}
    script = " ".join(f'"{case[:-1]}"*) cat {tmp_path}/{name} ;;' for case, name in cases.items())
    return stand_in(tmp_path, f'case "$*" in {script} esac')


def test_names_come_from_the_daemon_and_nothing_in_them_is_run(running: str, tmp_path: Path) -> None:
    hostile = r"old\ \$\(touch\ pwned\)\ \`touch\ pwned\`"
    assert complete("runnerctl", "logs", "", path=running, cwd=tmp_path) == {"happy-otter", hostile}
    assert complete("runnerctl", "cancel", "old", path=running, cwd=tmp_path) == {hostile}
    assert not (tmp_path / "pwned").exists()


def test_an_id_is_completed_once_it_was_begun(running: str) -> None:
    assert complete("runnerctl", "logs", "0a", path=running) == {"0a1b2c3d"}


def test_deployments_are_completed_by_name_then_by_flow_and_name(running: str) -> None:
    assert complete("runnerctl", "run", "", path=running) == {"nightly", r"two\ words"}
    assert complete("runnerctl", "run", r"two\ ", path=running) == {r"two\ words"}
    assert complete("runnerctl", "runs", "--deployment", "ni", path=running) == {"nightly"}
    assert complete("runnerctl", "pause", "etl/", path=running) == {"etl/nightly"}


def test_pools_and_queues_are_completed_by_name(running: str) -> None:
    assert complete("runnerctl", "pool", "inspect", "", path=running) == {"etl", r"g\ p\ u"}
    assert complete("runnerctl", "queue", "ls", "--pool", "e", path=running) == {"etl"}
    assert complete("runnerctl", "queue", "pause", "--pool", "etl", "", path=running) == {"urgent"}
    assert complete("runnerctl", "queue", "pause", "", path=running) == set()  # of default-agent-pool
    for words in (("pool", "create", ""), ("pool", "pause", "etl", ""), ("queue", "create", "")):
        assert complete("runnerctl", *words, path=running) == set()


def test_the_socket_that_was_named_is_asked(tmp_path: Path) -> None:
    path = stand_in(tmp_path, f'echo "$@" >{tmp_path}/asked')
    complete("runnerctl", "--socket", "/run/other.sock", "logs", "", path=path)
    assert (tmp_path / "asked").read_text() == "--socket /run/other.sock runs --json\n"


@pytest.mark.parametrize("script", ['echo "cannot reach runnerd" >&2; exit 3', "exec sleep 600"], ids=["down", "hangs"])
def test_a_daemon_that_does_not_answer_completes_nothing_and_says_nothing(tmp_path: Path, script: str) -> None:
    assert complete("runnerctl", "logs", "", path=stand_in(tmp_path, script)) == set()
