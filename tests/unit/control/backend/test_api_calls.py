"""backend/api_calls.py: a client of runnerd learns of a slow Prefect before its own limit."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from runnerd.cli.__main__ import VERBS
from runnerd.control.backend.api_calls import LIMIT_S, ApiCaller
from runnerd.control.client import PREFECT_TIMEOUT_S
from runnerd.control.contract import Refused
from runnerd.core.backoff import Backoff
from runnerd.core.errors import ApiAway
from runnerd.system.ambient import real_ambient
from tests.kits.nouns import LogLines, log_to

MAY_BE_MADE = "the change may have been made: check before you try again"


def a_caller() -> ApiCaller:
    return ApiCaller(
        ambient=replace(real_ambient(log_to(LogLines())), backoff=lambda: Backoff(first_s=0.5, uniform=lambda: 1.0))
    )


async def test_a_server_that_never_answers_is_given_up_before_runnerctl_gives_up_runnerd() -> None:
    began = asyncio.get_running_loop().time()
    said = await a_caller()(asyncio.Event().wait)
    assert isinstance(said, Refused)
    assert said.status == 503
    assert "did not answer within 2min; the change may have been made: check before you try again" in said.detail
    assert asyncio.get_running_loop().time() - began == LIMIT_S
    assert LIMIT_S < PREFECT_TIMEOUT_S
    slow = {verb for verb in VERBS if VERBS[verb].asks_prefect}
    assert slow == {"run", "execute", "plan", "retry", "pause", "resume", "pool", "queue"}


@pytest.mark.parametrize(
    ("reads", "unsure", "words"),
    [
        (True, True, "try again when `runnerctl status` shows the API as ok"),
        (False, False, "try again when `runnerctl status` shows the API as ok"),
        (
            False,
            True,
            "the change may have been made: check before you try again, once `runnerctl status` shows the API as ok",
        ),
    ],
)
async def test_only_of_a_change_that_may_have_arrived_it_says_so(reads: bool, unsure: bool, words: str) -> None:
    async def fail() -> str:
        raise ApiAway("cannot reach Prefect", unsure=unsure)

    said = await a_caller()(fail, reads=reads)
    assert isinstance(said, Refused)
    assert said.detail == f"cannot reach Prefect; {words}"


async def test_a_question_that_is_never_answered_has_changed_nothing() -> None:
    said = await a_caller()(asyncio.Event().wait, reads=True)
    assert isinstance(said, Refused)
    assert said.detail == "Prefect did not answer within 2min; try again when `runnerctl status` shows the API as ok"


async def test_one_that_is_slow_and_then_busy_is_asked_again() -> None:
    times = 0

    async def slow_and_busy() -> str:
        nonlocal times
        times += 1
        await asyncio.sleep(40)
        if times < 3:
            raise ApiAway("503", answered=True)
        return "done"

    assert isinstance(await a_caller()(slow_and_busy), Refused)  # three times 40 s are too long
    times = 1
    assert await a_caller()(slow_and_busy) == "done"
