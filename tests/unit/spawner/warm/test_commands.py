"""Which runs may be forked of which interpreter."""

from __future__ import annotations

import pytest

from runnerd.launch.spec import program_argv
from runnerd.spawner.io.messages import Fields, Launch
from runnerd.spawner.warm.commands import FORKED_COMMANDS, Origin
from runnerd.spawner.warm.fixed_at_start import fixed_at_start

PYTHON = "/opt/flows/bin/python"


def launch(*argv: str, **changes: object) -> Launch:
    spec: dict[str, object] = {
        "key": "k",
        "attempt": 1,
        "argv": [PYTHON, *(argv or ("-m", "prefect.engine"))],
        "environment": {"PATH": "/bin", "HOME": "/home/etl", "PYTHONHASHSEED": "0"},
        "working_directory": "/",
        "output": "/dev/null",
        "user": "etl",
        "group": None,
        **changes,
    }
    return Launch(Fields(spec, "spec"))


def test_the_command_of_prefect_2_is_the_launch_specs_own() -> None:
    assert list(program_argv(PYTHON, "prefect.engine")[1:]) in FORKED_COMMANDS


@pytest.mark.parametrize("argv", FORKED_COMMANDS)
def test_the_engine_is_forked(argv: list[str]) -> None:
    run = launch(*argv, environment={"HOME": "/home/etl", "PYTHONHASHSEED": "0", "PREFECT_API_KEY": "secret"})
    assert Origin(launch("-c", "pass")).refuse(run) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user": "other"}, "another user, group or python"),
        ({"user": None}, "another user, group or python"),
        ({"group": "staff"}, "another user, group or python"),
        ({"own": True}, "another user, group or python"),
        ({"argv": ["/usr/bin/python3", "-m", "prefect.engine"]}, "another user, group or python"),
        ({"argv": [PYTHON, "-m", "prefect.engine", "--help"]}, "not Prefect's engine"),
        ({"argv": [PYTHON]}, "not Prefect's engine"),
        ({"environment": {"HOME": "/home/etl"}}, "another value of PYTHONHASHSEED than"),
        ({"environment": {"HOME": "/", "PYTHONHASHSEED": "0", "LC_ALL": "C"}}, "another value of HOME, LC_ALL than"),
    ],
)
def test_what_is_not_forked(changes: dict[str, object], words: str) -> None:
    problem = Origin(launch("-c", "pass")).refuse(launch(**changes))
    assert problem is not None and words in problem


def test_no_value_is_shown() -> None:
    problem = Origin(launch("-c", "pass")).refuse(launch(environment={"LD_PRELOAD": "secret"}))
    assert problem is not None and "LD_PRELOAD" in problem and "secret" not in problem


def test_fixed_variables() -> None:
    given = {
        "PYTHONPATH": "/a",
        "LC_ALL": "C",
        "HOME": "/",
        "PREFECT_API_KEY": "secret",
        "PATH": "/bin",
        "MY_LANG": "x",
    }
    assert fixed_at_start(given) == {"PYTHONPATH": "/a", "LC_ALL": "C", "HOME": "/"}
