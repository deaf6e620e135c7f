"""runnerctl with arguments that cannot be what they are for: one short line, exit status 2 or 4, nothing is asked."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.cli.__main__ import VERBS
from runnerd.cli.call import NOT_FOUND, USAGE
from tests.kits.fakes.runnerctl import runnerctl
from tests.kits.fakes.serving import Serving, serving

NAMES = {
    "long": "a" * 60_000,
    "line break": "a\nb",
    "escape": "\x1b[2J",
    "C1": "a\x9b2J",
    "half a character": "a\udc80",
}
NO_NAMES = {"--socket", "--base-job-template", "--description", "--settled", "-p", "path", "what"}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it
        assert it.host.asked == []
        assert [line for line in it.log.lines if line[0] != "info"] == []


def commands() -> Iterator[tuple[tuple[str, ...], argparse.ArgumentParser]]:
    """Every verb and command, with a parser of its arguments."""
    for verb, about in VERBS.items():
        module = importlib.import_module(f"runnerd.cli.verbs.{about.module}")
        for name, command in getattr(module, "COMMANDS", {"": None}).items():
            words = (verb, name) if name else (verb,)
            parser = argparse.ArgumentParser(prog=f"runnerctl {' '.join(words)}", usage="")
            (module.add_arguments if command is None else command.add_arguments)(parser)
            yield words, parser


def with_hostile(name: str) -> Iterator[list[str]]:
    """Command lines with `name` for one argument that is text, and something harmless for those that are needed."""
    for words, parser in commands():
        actions = [action for action in parser._actions if action.nargs != 0]
        places = [action for action in actions if not action.option_strings]
        needed = {action.dest: "1" if action.dest in ("limit", "priority") else "x" for action in places}
        for action in actions:
            flag = action.option_strings[-1] if action.option_strings else action.dest
            if flag in NO_NAMES or action.option_strings[:1] == ["-p"]:
                continue
            given = needed | ({} if action.option_strings else {action.dest: name})
            option = [f"{flag}={name}"] if action.option_strings else []
            yield [*words, *option, "--", *given.values()]


LINES = {kind: list(with_hostile(name)) for kind, name in NAMES.items()}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name(served: Serving, kind: str) -> None:
    chosen = LINES[kind] if kind == "long" else LINES[kind][:4]
    assert len(LINES[kind]) > 30
    for line in chosen:
        result = runnerctl(served, *line)
        assert result.status in (USAGE, NOT_FOUND), line
        assert result.out == ""
        assert result.err.startswith("runnerctl: ")
        assert result.err.count("\n") == 1
        assert len(result.err) < 2500
        assert result.err.rstrip("\n").isprintable()


@pytest.mark.parametrize(
    "pair",
    [
        "a=[NaN]",
        "a=1e999",
        "a=" + "9" * 5000,
        'a={"b": 1, "b": 2}',
        "a=" + "[" * 100_000,
        "a=" + "[" * 101 + "]" * 101,
        'a="\\ud800"',
        "a=\udc80",
        "\udc80=1",
        "x" * 60_000,
    ],
)
def test_a_parameter(served: Serving, pair: str) -> None:
    result = runnerctl(served, "run", "nightly", "-p", pair)
    assert (result.status, result.out, result.err.count("\n")) == (USAGE, "", 1)
    assert len(result.err) < 500


@pytest.mark.parametrize("value", ["a" * 10_001, "\udc80"])
def test_a_description(served: Serving, value: str) -> None:
    result = runnerctl(served, "pool", "create", "etl", "--description", value)
    assert (result.status, result.out, result.err.count("\n")) == (USAGE, "", 1)


@pytest.mark.parametrize("timeout", ["1e400", "NaN", "infinity2", "9" * 5000, "1" * 400 + "y", "-1"])
def test_a_duration(served: Serving, timeout: str) -> None:
    result = runnerctl(served, "drain", f"--timeout={timeout}")
    assert (result.status, result.out, result.err.count("\n")) == (USAGE, "", 1)
    assert len(result.err) < 2500


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', b"\xff", b"[]"])
def test_a_template(served: Serving, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "template.json").write_bytes(content)
    result = runnerctl(served, "pool", "create", "etl", "--base-job-template", str(tmp_path / "template.json"))
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert len(result.err) < 500


@pytest.mark.parametrize("path", ["a" * 60_000, "\udc80", "a\nb"])
def test_a_path(served: Serving, path: str) -> None:
    for line in (
        ["config", "check", path],
        ["status", "--socket", path],
        ["pool", "create", "x", "--base-job-template", path],
    ):
        result = runnerctl(served, *line)
        assert result.status in (1, 3)
        assert "Traceback" not in result.err
        assert (result.out + result.err).replace("\n", "").isprintable()
