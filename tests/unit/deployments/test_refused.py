"""requesting.py, dropping.py: what the API refuses for ever holds up no other, is named, and is seldom tried again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.place import Problem
from runnerd.deployments.registry import EntryState
from runnerd.deployments.retrying import RETRY_MAX_S
from tests.kits.nouns import a_deployment
from tests.kits.registrar import FakeInspector, Host, a_host, flow

A, B, C = a_deployment("a"), a_deployment("b"), a_deployment("c")
MANY = [a_deployment(f"d{number}") for number in range(91)]
FOR_EVER = 1_000_000
OF_A = "GET /deployments/name/etl/a"


@pytest.mark.parametrize("status", [500, 503, 403])
async def test_one_that_the_api_refuses_for_ever_becomes_a_problem(tmp_path: Path, status: int) -> None:
    async with a_host(tmp_path) as host:
        await host.want(B, C)
        host.prefect.trouble(OF_A, status=status, times=FOR_EVER, body={"exception_message": "no such table"})
        await asyncio.wait_for(host.want(A, B), 60)
        assert host.entry(A).state is EntryState.UNREGISTERED
        assert host.stored("c")["paused"] is True, "the others settle, and drops go on"
        (problem,) = host.registrar.problems()
        assert problem == Problem(message=problem.message, place=A.place, deployment="a")
        assert problem.message.startswith("the API refuses the deployment: ")
        assert str(status) in problem.message and "no such table" in problem.message
        host.prefect.asked.clear()
        await asyncio.sleep(3600)
        assert 3600 / RETRY_MAX_S - 1 <= host.prefect.asked.count(OF_A) <= 3600 / RETRY_MAX_S + 6
        assert host.lines.events("warning").count("cannot register a deployment") == 1
        host.prefect.troubles.clear()
        await asyncio.sleep(RETRY_MAX_S)
        assert (host.entry(A).state, host.registrar.problems()) == (EntryState.READY, ())


async def test_at_a_reload_it_is_tried_again_at_once(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        host.prefect.trouble(OF_A, status=403, times=FOR_EVER)
        await asyncio.wait_for(host.want(A, B), 60)
        await asyncio.sleep(3600)
        host.prefect.asked.clear()
        await asyncio.wait_for(host.want(A, B), 1)
        assert host.prefect.asked.count(OF_A) == 1, "what was refused before needs no second answer"
        host.prefect.troubles.clear()
        await asyncio.wait_for(host.want(A, B), 1)
        assert host.entry(A).state is EntryState.READY


@pytest.mark.parametrize("status", [500, 403])
async def test_many_that_the_api_refuses_leave_room_for_the_others(tmp_path: Path, status: int) -> None:
    refused = [a_deployment(f"x{number}") for number in range(12)]
    inspector = FakeInspector(answers={one.entrypoint: flow(one.name) for one in refused})
    async with a_host(tmp_path, inspector=inspector) as host:
        host.prefect.trouble("GET /deployments/name/x", status=status, times=FOR_EVER)
        host.begin(*refused, *MANY)
        await asyncio.sleep(60)
        assert [host.entry(one).state for one in MANY] == [EntryState.READY] * len(MANY)
        await asyncio.wait_for(host.registrar.settled.wait(), 600)
        assert len(host.registrar.problems()) == len(refused)
        await asyncio.wait_for(host.want(*refused, *MANY, A), 60)
        assert host.entry(A).state is EntryState.READY


async def test_an_api_that_gives_no_answer_refuses_nothing(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(B)
        host.prefect.trouble("POST /flows/", status=None, times=FOR_EVER)
        host.begin(A, B)
        await asyncio.sleep(7200)
        assert not host.registrar.settled.is_set()
        assert host.registrar.problems() == ()
        host.prefect.troubles.clear()
        await asyncio.wait_for(host.registrar.settled.wait(), 60)
        assert host.entry(A).state is EntryState.READY


# --- drops ----------------------------------------------------------------------------------------------------------


def refuse_to_drop(host: Host, name: str, status: int | None) -> None:
    host.prefect.trouble(f"/deployments/{host.stored(name)['id']}", status=status, times=FOR_EVER)


@pytest.mark.parametrize("status", [500, 503, 403])
@pytest.mark.parametrize("on_remove", ["pause", "delete"])
async def test_one_that_cannot_be_dropped_holds_up_no_other(tmp_path: Path, status: int, on_remove: str) -> None:
    first = replace(A, on_remove=on_remove)
    async with a_host(tmp_path) as host:
        await host.want(first, B, C)
        refuse_to_drop(host, "a", status)
        await asyncio.wait_for(host.want(C), 60)
        assert (host.stored("a")["paused"], host.stored("b")["paused"]) == (False, True)
        host.prefect.asked.clear()
        await asyncio.sleep(3600)
        assert 3600 / 300 - 1 <= len(host.prefect.asked) <= 3600 / 300 + 1
        assert host.lines.events("error").count("cannot drop a deployment") == 1
        host.prefect.troubles.clear()
        await asyncio.sleep(300)
        left = {one["name"]: one["paused"] for one in host.prefect.deployments.values()}
        assert left == {"b": True, "c": False} | ({"a": True} if on_remove == "pause" else {})


async def test_many_that_cannot_be_dropped(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(*MANY, A)
        host.prefect.trouble("PATCH /deployments", status=500, times=FOR_EVER)
        host.begin(A)
        await asyncio.sleep(30)
        host.prefect.asked.clear()
        await asyncio.sleep(60)
        assert len(host.prefect.asked) < 9 * 60 / 5 + 9, "a server that refuses all is asked seldom"
        host.prefect.troubles.clear()
        await asyncio.wait_for(host.registrar.settled.wait(), 60)
        await asyncio.sleep(300)
        assert [host.stored(one.name)["paused"] for one in MANY] == [True] * len(MANY)


async def test_drops_wait_for_an_api_that_gives_no_answer(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A, B)
        refuse_to_drop(host, "a", None)
        host.begin(B)
        await asyncio.sleep(3600)
        assert not host.registrar.settled.is_set()
        assert "cannot drop a deployment" not in host.lines.events("error")
        host.prefect.troubles.clear()
        await asyncio.wait_for(host.registrar.settled.wait(), 60)
        assert host.stored("a")["paused"] is True
