"""interpreters.py: what is used as Python, and what each interpreter answered."""

from __future__ import annotations

import pytest

from runnerd.doctor.interpreters import Answer, Interpreter, interpreter_check, interpreters_of, read_answer
from runnerd.prefect_api.dialect import server_info
from tests.kits.checks import a_source, state_and_words

SERVER = server_info("3.8.8")


def an_interpreter(problem: str | None = None) -> Interpreter:
    return interpreters_of([a_source("etl/nightly", problem=problem, python="/opt/etl/bin/python", user="etl")])[0]


@pytest.mark.parametrize(
    ("answer", "server", "state", "words"),
    [
        (Answer("3.11", "3.8.8"), SERVER, "ok", "Prefect 3.8.8, Python 3.11; etl/nightly uses it"),
        (Answer("3.11", "3.8.8"), "away", "ok", "Prefect 3.8.8"),
        (Answer("3.11", "2.20.25"), server_info("2.20.25"), "ok", "Prefect 2.20.25"),
        (Answer("3.11", "3.8.8"), server_info("2.20.25"), "error", "pip install 'prefect>=2.20,<3'"),
        (Answer("3.11", "2.20.25"), SERVER, "error", "/opt/etl/bin/python -m pip install 'prefect>=3,<4'"),
        (Answer("3.11", "2.19.0"), server_info("2.20.25"), "warning", "its Prefect 2.19.0 is older"),
        (Answer("3.11", "2.19.0"), "away", "warning", "its Prefect 2.19.0 is older"),
        (Answer("3.11", None), SERVER, "error", "it has no Prefect"),
        (Answer("3.11", "unheard-of"), SERVER, "ok", "Prefect unheard-of"),
        ("no such interpreter /x", SERVER, "error", "it cannot be run: no such interpreter /x"),
    ],
)
def test_an_interpreter(answer: Answer | str, server: object, state: str, words: str) -> None:
    check = interpreter_check(an_interpreter(), answer, server)  # type: ignore[arg-type]
    assert check.name == "python /opt/etl/bin/python as etl"
    state_and_words(check, state, words)


def test_an_interpreter_whose_prefect_does_not_import() -> None:
    broken = an_interpreter(problem="/opt/etl/bin/python: cannot import prefect: ModuleNotFoundError: pydantic")
    check = interpreter_check(broken, Answer("3.11", "3.8.8"), SERVER)
    state_and_words(check, "error", "it has Prefect 3.8.8, but ", "pydantic", "pip install")


def test_each_interpreter_is_one_check_a_user() -> None:
    runs = [{}, {}, {"user": "etl"}, {"python": "/x"}, {"user": "etl", "group": "g"}]
    found = interpreters_of([a_source(f"d{n}", **run) for n, run in enumerate(runs)])
    assert [len(one.sources) for one in found] == [2, 1, 1, 1]
    assert len({one.name for one in found}) == 4


def test_reading_an_answer() -> None:
    assert read_answer("3.11 3.8.8\n") == Answer("3.11", "3.8.8")
    assert read_answer("3.11 \n") == Answer("3.11", None)
    for text in ("", "3.11 3.8", "a b c\n", "\n"):
        assert read_answer(text) is None
