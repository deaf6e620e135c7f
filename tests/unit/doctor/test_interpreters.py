"""interpreters.py: what is used as Python, and what each interpreter answered."""

from __future__ import annotations

import pytest

from runnerd.doctor.interpreters import CheckedInterpreter, Versions, check_interpreter, interpreters_of, parse_versions
from runnerd.prefect_api.dialect import server_info
from tests.kits.checks import a_source, state_and_words

SERVER = server_info("3.8.8")


def an_interpreter(problem: str | None = None) -> CheckedInterpreter:
    return interpreters_of([a_source("etl/nightly", problem=problem, python="/opt/etl/bin/python", user="etl")])[0]


@pytest.mark.parametrize(
    ("versions", "server", "state", "words"),
    [
        (Versions("3.11", "3.8.8"), SERVER, "ok", "Prefect 3.8.8, Python 3.11; used by etl/nightly"),
        (Versions("3.11", "3.8.8"), "away", "ok", "Prefect 3.8.8"),
        (Versions("3.11", "2.20.25"), server_info("2.20.25"), "ok", "Prefect 2.20.25"),
        (Versions("3.11", "3.8.8"), server_info("2.20.25"), "error", "pip install 'prefect>=2.20,<3'"),
        (Versions("3.11", "2.20.25"), SERVER, "error", "/opt/etl/bin/python -m pip install 'prefect>=3,<4'"),
        (Versions("3.11", "2.19.0"), server_info("2.20.25"), "warning", "Prefect 2.19.0 is older than 2.20"),
        (Versions("3.11", "2.19.0"), "away", "warning", "Prefect 2.19.0 is older than 2.20"),
        (Versions("3.11", None), SERVER, "error", "Prefect is not installed in the interpreter of etl/nightly"),
        (Versions("3.11", "unheard-of"), SERVER, "ok", "Prefect unheard-of"),
        (
            "no such interpreter /x",
            SERVER,
            "error",
            "cannot run the interpreter of etl/nightly: no such interpreter /x",
        ),
    ],
)
def test_an_interpreter(versions: Versions | str, server: object, state: str, words: str) -> None:
    check = check_interpreter(an_interpreter(), versions, server)  # type: ignore[arg-type]
    assert check.name == "python /opt/etl/bin/python as etl"
    state_and_words(check, state, words)


def test_an_interpreter_whose_prefect_does_not_import() -> None:
    broken = an_interpreter(problem="/opt/etl/bin/python: cannot import prefect: ModuleNotFoundError: pydantic")
    check = check_interpreter(broken, Versions("3.11", "3.8.8"), SERVER)
    state_and_words(check, "error", "Prefect 3.8.8 is installed, but ", "pydantic", "pip install")


def test_each_interpreter_is_one_check_a_user() -> None:
    runs = [{}, {}, {"user": "etl"}, {"python": "/x"}, {"user": "etl", "group": "g"}]
    found = interpreters_of([a_source(f"d{n}", **run) for n, run in enumerate(runs)])
    assert [len(one.sources) for one in found] == [2, 1, 1, 1]
    assert len({one.name for one in found}) == 4


def test_reading_an_answer() -> None:
    assert parse_versions("3.11 3.8.8\n") == Versions("3.11", "3.8.8")
    assert parse_versions("3.11 \n") == Versions("3.11", None)
    for text in ("", "3.11 3.8", "a b c\n", "\n"):
        assert parse_versions(text) is None
