"""guard.py and the levels of the routes: who may make which request on the control socket."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import socket
import threading
from pathlib import Path

import pytest

from runnerd.control.contract import Peer
from runnerd.control.http.exchange import Reply, Request, json_reply
from runnerd.control.http.guard import Guard, Level, find_level_of
from runnerd.control.http.listener import groups_of
from runnerd.control.http.problem import HttpProblem
from runnerd.control.http.router import Access, Route, Router
from runnerd.control.routes.table import build_routes
from runnerd.core.settings import ControlSettings
from tests.kits.fakes.fake_host import FakeHost
from tests.kits.fakes.serving import ListLog

LISTS = ControlSettings(admins=("ops",), operators=("dev", "night"), readers=("look",))
STRANGER = Peer(pid=7, uid=4711, gid=4711)

READER = """
    GET /v1/status  GET /v1/health  GET /v1/metrics  GET /v1/doctor  GET /v1/config  GET /v1/events
    GET /v1/runs  GET /v1/runs/*  GET /v1/runs/*/logs  GET /v1/runs/*/attempts
    GET /v1/runs/*/plan  GET /v1/deployments  GET /v1/deployments/*  GET /v1/deployments/*/plan
    GET /v1/pools  GET /v1/pools/*  GET /v1/pools/*/preview  GET /v1/pools/*/queues  GET /v1/pools/*/queues/*
    GET /v1/pools/*/queues/*/preview  GET /v1/queues  GET /v1/preview  GET /v1/worker-types  GET /v1/worker-types/*
"""
OPERATOR = """
    POST /v1/reload  POST /v1/drain  POST /v1/undrain  POST /v1/runs/*/cancel  POST /v1/cancel
    POST /v1/runs/*/retry
    POST /v1/deployments/*/run  POST /v1/deployments/*/pause  POST /v1/deployments/*/resume
    POST /v1/deployments/*/pull
"""
ADMIN = """
    POST /v1/deployments/*/revert
    POST /v1/execute  POST /v1/pools  POST /v1/pools/*/pause  POST /v1/pools/*/resume  POST /v1/pools/*/update
    POST /v1/pools/*/delete  POST /v1/pools/*/queues  POST /v1/pools/*/queues/*/pause  POST /v1/pools/*/queues/*/resume
    POST /v1/pools/*/queues/*/update  POST /v1/pools/*/queues/*/delete
"""
WANTED = {
    (method, path): level
    for level, text in ((Level.READER, READER), (Level.OPERATOR, OPERATOR), (Level.ADMIN, ADMIN))
    for method, path in zip(text.split()[::2], text.split()[1::2], strict=True)
}


def guard(level: Level | None, control: ControlSettings = LISTS) -> Guard:
    """A guard to whose name service every stranger has this level."""
    return Guard(control=lambda: control, own_uid=1, find_level=lambda *_: level)


async def status_of(its: Guard, peer: Peer | None, needed: Level) -> int:
    try:
        await its.check(peer, needed, "GET /v1/x")
    except HttpProblem as refused:
        return refused.status
    return 200


# --- the table ------------------------------------------------------------------------------------------------


def test_every_route_has_its_level(tmp_path: Path) -> None:
    table = build_routes(host=FakeHost(outputs=tmp_path), log=ListLog())
    assert {(route.method, route.path): route.level for route in table} == WANTED
    assert all(route.level is Level.READER for route in table if route.method == "GET" or route.access is Access.PUBLIC)


@pytest.mark.real_io
@pytest.mark.parametrize("level", [None, *Level])
async def test_each_level_at_each_route(tmp_path: Path, level: Level | None) -> None:
    called: list[str] = []

    async def handle(_: Request, *__: str) -> Reply:
        called.append("")
        return json_reply({})

    table = build_routes(host=FakeHost(outputs=tmp_path), log=ListLog())
    router = Router([Route(r.method, r.path, handle, r.level, r.access) for r in table], guard=guard(level))
    for (method, path), needed in WANTED.items():
        request = Request(method=method, path=tuple(path.strip("/").split("/")), query={}, body=b"", peer=STRANGER)
        called.clear()
        if level is not None and level >= needed:
            await router.answer(request)
            assert called == [""], path
        else:
            with pytest.raises(HttpProblem, match=f"cannot {method} {path.replace('*', '.')}: ") as refused:
                await router.answer(request)
            assert refused.value.status == 403
            assert called == [], path


# --- who is asked for nothing ---------------------------------------------------------------------------------


async def test_without_lists_everybody_may_do_everything() -> None:
    its = guard(None, ControlSettings())
    assert [await status_of(its, peer, Level.ADMIN) for peer in (STRANGER, None)] == [200, 200]


async def test_root_and_the_daemons_user_may_do_everything() -> None:
    peers = [Peer(pid=7, uid=uid, gid=4711) for uid in (0, 1)]
    assert [await status_of(guard(None), peer, Level.ADMIN) for peer in peers] == [200, 200]


async def test_who_is_not_identified_may_do_nothing() -> None:
    assert await status_of(guard(Level.ADMIN), None, Level.READER) == 403


@pytest.mark.real_io
async def test_an_empty_list_is_a_list() -> None:
    its = Guard(control=lambda: ControlSettings(admins=()), own_uid=1)
    with pytest.raises(HttpProblem, match="only root may do this") as refused:
        await its.check(STRANGER, Level.READER, "GET /v1/status")
    assert refused.value.status == 403


# --- the message ----------------------------------------------------------------------------------------------


@pytest.mark.real_io
@pytest.mark.parametrize(
    ("needed", "groups"),
    [
        (Level.ADMIN, "in group ops (control.admins)"),
        (
            Level.OPERATOR,
            "in one of the groups dev (control.operators), night (control.operators), ops (control.admins)",
        ),
    ],
)
async def test_a_refusal_names_the_groups(needed: Level, groups: str) -> None:
    with pytest.raises(HttpProblem) as refused:
        await guard(Level.READER).check(STRANGER, needed, "POST /v1/cancel")
    said = f"cannot POST /v1/cancel: the user with uid 4711 is not {groups}; ask an administrator to add you to it"
    assert refused.value.detail == said
    assert refused.value.kind == "urn:runnerd:problem:not-permitted"


# --- the name service -----------------------------------------------------------------------------------------


def test_the_highest_level_of_all_groups_counts() -> None:
    nobody, mine = pwd.getpwnam("nobody"), grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name
    others = ControlSettings(admins=("daemon", "no-such-group"), readers=(mine,))
    assert find_level_of(nobody.pw_uid, frozenset(), others) is Level.READER  # the account's own group
    daemon = grp.getgrnam("daemon").gr_gid
    assert find_level_of(nobody.pw_uid, frozenset({daemon}), others) is Level.ADMIN  # a group of the process
    assert find_level_of(4711, frozenset({daemon}), others) is Level.ADMIN  # an account that only a container knows
    assert find_level_of(4711, frozenset({4711}), others) is None
    assert find_level_of(nobody.pw_uid, frozenset(), ControlSettings(admins=())) is None


@pytest.mark.real_io
@pytest.mark.parametrize(("remember_s", "asked"), [(3600.0, 2), (0.0, 4)])
async def test_an_answer_is_remembered_for_a_while(remember_s: float, asked: int) -> None:
    questions = []

    def find(uid: int, gids: frozenset[int], _: ControlSettings) -> Level | None:
        questions.append((uid, gids))
        return Level.READER

    its = Guard(control=lambda: LISTS, own_uid=1, find_level=find, remember_s=remember_s)
    for uid in (5, 6, 5, 6):
        peer = Peer(pid=7, uid=uid, gid=uid, groups=frozenset({9}))
        assert await status_of(its, peer, Level.READER) == 200
    assert len(questions) == asked
    assert questions[0] == (5, frozenset({5, 9}))


async def test_a_name_service_that_hangs_is_asked_once_and_not_waited_for() -> None:
    answered, asked = threading.Event(), []

    def find(*_: object) -> Level | None:
        asked.append("")
        answered.wait(60)
        return Level.ADMIN

    its = Guard(control=lambda: LISTS, own_uid=1, find_level=find)
    try:
        assert await status_of(its, STRANGER, Level.READER) == 503  # by the jumping clock of this loop
        await asyncio.sleep(3600)
        assert await status_of(its, STRANGER, Level.READER) == 503
        assert len(asked) == 1
    finally:
        answered.set()


def test_this_process_has_the_groups_that_it_has() -> None:
    """SO_PEERGROUPS, which has no name in Python."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert groups_of(ours) == frozenset(os.getgroups())
