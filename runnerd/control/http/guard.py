"""Decides what a client of the control socket may do, by the groups of its user.

Invariants: without lists in control: every client may do everything, because the mode of the socket's file decides who
is a client. With any list, a client that no list names, or that the kernel does not identify, may do nothing; root and
the daemon's own user may do everything. The name service is asked in a thread, and its answer is remembered for a
few seconds.
"""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from runnerd.control.contract import Peer
from runnerd.control.http.problem import HttpProblem
from runnerd.core.settings import ControlSettings
from runnerd.system.threads import in_thread

REMEMBER_S = 10.0
ANSWER_LIMIT_S = 10.0  # below the client's limit


class Level(IntEnum):
    """What a request needs; a level includes those below it. The names are those of the lists in control:."""

    READER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def key(self) -> str:
        """The key of the groups that have this level."""
        return f"{self.name.lower()}s"


@dataclass(frozen=True, slots=True)
class _Question:
    peer_uid: int
    gids: frozenset[int]
    control: ControlSettings


class Guard:
    """Permits or refuses requests, as the `control` section in force says.

    `own_uid` is the user of the daemon; `find_level` asks the name service, and may block; its
    answer is remembered for `remember_s` seconds.
    """

    def __init__(
        self,
        *,
        control: Callable[[], ControlSettings],
        own_uid: int | None = None,
        find_level: Callable[[int, frozenset[int], ControlSettings], Level | None] | None = None,
        remember_s: float = REMEMBER_S,
    ) -> None:
        self._control = control
        self._trusted = {0, os.geteuid() if own_uid is None else own_uid}
        self._find_level = find_level or find_level_of
        self._remember_s = remember_s
        self._answers: dict[_Question, tuple[float, asyncio.Task[Level | None]]] = {}

    async def check(self, peer: Peer | None, needed: Level, what: str) -> None:
        """Raise HttpProblem with status 403 unless `peer` has the level; `what` is the request, for its message."""
        control = self._control()
        if not control.narrowed or (peer is not None and peer.uid in self._trusted):
            return
        if peer is None:
            raise HttpProblem(403, f"cannot {what}: the kernel does not say which user asks", kind="not-permitted")
        level = await self._level_of(_Question(peer.uid, peer.groups | {peer.gid}, control))
        if level is None or level < needed:
            raise HttpProblem(403, _describe_refusal(peer, needed, what, control), kind="not-permitted")

    async def _level_of(self, question: _Question) -> Level | None:
        now = asyncio.get_running_loop().time()
        self._answers = {one: kept for one, kept in self._answers.items() if kept[0] > now or not kept[1].done()}
        if question not in self._answers:
            work = in_thread(lambda: self._find_level(question.peer_uid, question.gids, question.control))
            self._answers[question] = (now + self._remember_s, asyncio.create_task(work, name="groups of a client"))
        task = self._answers[question][1]
        await asyncio.wait({task}, timeout=ANSWER_LIMIT_S)
        if not task.done():
            detail = f"cannot find the groups of user {question.peer_uid}: the name service does not answer; try again"
            raise HttpProblem(503, detail, headers={"Retry-After": "5"})
        return task.result()


def find_level_of(uid: int, gids: frozenset[int], control: ControlSettings) -> Level | None:
    """Find the highest level of a user with these groups, and with those of its account; None without any."""
    mine = set(gids)
    try:
        account = pwd.getpwuid(uid)
        mine.update(os.getgrouplist(account.pw_name, account.pw_gid))
    except KeyError:
        pass  # an account that only a container knows: the groups of the process decide
    for level in sorted(Level, reverse=True):
        if any(_gid_of(name) in mine for name in control.lists()[level.key]):
            return level
    return None


def _gid_of(group: str) -> int | None:
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None


def _describe_refusal(peer: Peer, needed: Level, what: str, control: ControlSettings) -> str:
    lists = control.lists()
    named = [f"{name} (control.{level.key})" for level in Level if level >= needed for name in lists[level.key]]
    if not named:
        return f"cannot {what}: only root may do this (control: in runnerd.yaml names no group for it)"
    groups = f"group {named[0]}" if len(named) == 1 else f"one of the groups {', '.join(named)}"
    return f"cannot {what}: the user with uid {peer.uid} is not in {groups}; ask an administrator to add you to it"
