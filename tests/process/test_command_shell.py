"""Values in a shell line are words of the real shell and nothing else, wherever a placeholder is allowed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runnerd.core.command_text import fill_arguments
from runnerd.core.commands import SHELL, Command
from runnerd.core.shell_quotes import find_unsafe

SHOW = f"{sys.executable} -I -S -c 'import sys; print(ascii(sys.argv[1:]))'"
HOSTILE = [
    "$(touch MARK)", "`touch MARK`", "; touch MARK", "'; touch MARK; '", '"; touch MARK; "', "'\"'; touch MARK #",
    "\n touch MARK\n", "&& touch MARK", "| touch MARK", "\\", "\\'", "*", "~", "$HOME", "${x:=$(touch MARK)}", "",
    "a b  c", "#", "!", "-n", "\t", "é", "{{ x }}", "a[$(touch MARK)]",
]  # fmt: skip
LINES = [
    f"{SHOW} {{{{ x }}}}",
    f"{SHOW} 'q' \"d\" {{{{ x }}}} # it's \"one",
    f"A={{{{ x }}}}; {SHOW} \"$A\"",
    f"# it's\n{SHOW} {{{{ x }}}} | cat",
    f"if true; then {SHOW} --a={{{{ x }}}}; fi && true",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_stays_one_word(tmp_path: Path, line: str, value: str) -> None:
    assert not list(find_unsafe(line))
    argv = fill_arguments(Command(argv=(*SHELL, line), shell=True), {"x": value})
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ascii(value)[1:-1] in done.stdout, done.stderr
    assert not list(tmp_path.iterdir()), "the shell has run what is a value"


PIECES = [
    "'",
    '"',
    "\\",
    "`",
    "$(",
    ")",
    "((",
    "))",
    "${",
    "}",
    "#",
    "\n",
    " ",
    "<<E\n",
    "\nE\n",
    ";",
    "a",
    "$",
    "{{ x }}",
    "|",
    "&",
]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from(PIECES), max_size=14), st.sampled_from(["$(touch MARK)", "`touch MARK`", "'$(touch MARK)"])
)
def test_no_line_that_is_taken_runs_a_value(tmp_path: Path, pieces: list[str], value: str) -> None:
    """Whatever the line is, the shell's own reading of it decides what a value is."""
    line = ": " + "".join(pieces)
    if "{{ x }}" not in line or any(find_unsafe(line)):
        return
    argv = fill_arguments(Command(argv=(*SHELL, line), shell=True), {"x": value})
    subprocess.run(argv, cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
    assert not list(tmp_path.iterdir()), f"the shell has run a value in {line!r}"
