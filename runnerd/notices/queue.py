"""Holds the notices that are to be sent, and sends them: on time, a few at once, again until it succeeds.

Invariants: a notice is in the journal before it is sent, and until then it is sent at least once, by this daemon or a
later one; an attempt is on disk before it begins; what is pending is bounded in number and age; nothing waits for this.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Protocol

from runnerd.core.errors import JournalError
from runnerd.core.exit_words import time_text
from runnerd.core.notices import Notice, NoticeTarget
from runnerd.core.place import Json, Problem
from runnerd.journal.journal import Journal
from runnerd.log.log import Log
from runnerd.notices.commands import NoticeCommands
from runnerd.system.ambient import Ambient
from runnerd.system.containment import Containment

PENDING_MAX = 1000
AT_ONCE_MAX, AT_ONCE_PER_TARGET = 8, 2
_FIRST_S, _CAP_S = 10.0, 900.0  # between attempts
_AGE_MAX = timedelta(days=1)  # then a notice is given up
_GIVEN_UP_SHOWN = timedelta(days=1)
_SENT_KEPT, _SENT_MAX = timedelta(days=7), 10_000  # by which the same notice is known
_PRUNE_EVERY = timedelta(hours=1)
_JOURNAL_RETRY_S = 10.0
_IDLE_S = 600.0
_SHOWN_MAX = 100


Write = Callable[[], None]


class Sender(Protocol):
    """Sends one notice; returns why that has failed, None when it has not."""

    async def send(self, notice: Notice) -> str | None: ...


class NoticeQueue:
    """The pending notices, oldest first, and those given up of late.

    `target_in_force`: whom a notice is for by the files as they are now; None where they have nobody any more.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        commands: NoticeCommands,
        posts: Sender,
        target_in_force: Callable[[Notice], NoticeTarget | None],
        ambient: Ambient,
    ) -> None:
        self._rows = journal.notices
        self._commands = commands
        self._posts = posts
        self._target_in_force = target_in_force
        self._now = ambient.now
        self._log: Log = ambient.log
        self._contained = Containment(log=ambient.log, loop="notices", passing=())
        self._notices: dict[str, Notice] = {}
        self._under_way: dict[str, NoticeTarget] = {}
        self._sent: set[str] = set()  # sent, and that could not be written yet
        self._woken, self._changed = asyncio.Event(), asyncio.Event()
        self._pruned_at: datetime | None = None
        self._unwritten: str | None = None  # why the journal could not be written

    # --- what others see ----------------------------------------------------------------------------------------

    def add(self, notices: Iterable[Notice]) -> None:
        """Take notices that are in the journal."""
        for notice in notices:
            self._notices.setdefault(notice.id, notice)
        self._woken.set()

    def wake(self) -> None:
        """Look again now what is to be sent, and to whom: another configuration is in force."""
        self._woken.set()

    def pending(self) -> list[Notice]:
        """Return the notices that have failed at least once, or were given up."""
        return [one for one in self._notices.values() if one.problem is not None]

    async def settle(self, seconds: float) -> None:
        """Wait until each notice was sent or has failed once, at most so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(one.problem is None for one in self._notices.values()):
                    self._changed.clear()
                    await self._changed.wait()

    def problems(self) -> list[Problem]:
        """Say for each target which notices cannot be sent, and why."""
        by_target: dict[str, list[Notice]] = {}
        for notice in self.pending():
            by_target.setdefault(notice.target.shown, []).append(notice)
        return [Problem(message=_describe(shown, failed)) for shown, failed in by_target.items()]

    def documents(self) -> list[Json]:
        """Return the documents of the notices that fail, at most of the first 100."""
        return [_document(one) for one in self.pending()[:_SHOWN_MAX]]

    # --- the loop -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what the last daemon has left, then what is added, for ever."""
        await self._load()
        async with asyncio.TaskGroup() as group:
            while True:
                self._woken.clear()
                self._bound()
                self._correct()
                for notice in self._startable():
                    self._under_way[notice.id] = notice.target
                    group.create_task(self._attempt(notice), name=f"notice {notice.id}")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rest_s()):
                        await self._woken.wait()

    async def _load(self) -> None:
        """Read the notices of the last daemon, as soon as the journal can be read."""
        while True:
            try:
                left = self._rows.pending()
                break
            except JournalError as error:
                self._note_unwritten(error)
                await asyncio.sleep(_JOURNAL_RETRY_S)
        self._notices = {one.id: one for one in left} | self._notices
        await self._commands.forget_others(set(self._notices))

    def _startable(self) -> list[Notice]:
        """Choose the notices to try now."""
        now, per_target = self._now(), Counter(self._under_way.values())
        chosen: list[Notice] = []
        # One that is to be tried later than any delay lasts is due: the clock was set back.
        due = [one for one in self._notices.values() if not now < one.next_at <= now + timedelta(seconds=_CAP_S)]
        for notice in sorted(due, key=lambda one: one.next_at):
            if len(self._under_way) + len(chosen) >= AT_ONCE_MAX:
                break
            if notice.given_up or notice.id in self._under_way or per_target[notice.target] >= AT_ONCE_PER_TARGET:
                continue
            per_target[notice.target] += 1
            chosen.append(notice)
        return chosen

    def _rest_s(self) -> float:
        """Return how long until the next attempt is due; one that waits for others is begun at their end."""
        waiting = [one.next_at for one in self._notices.values() if not one.given_up and one.id not in self._under_way]
        if not waiting:
            return _IDLE_S
        left_s = (min(waiting) - self._now()).total_seconds()
        # A clock that was set forward or back: look again before long.
        return min(left_s, _IDLE_S) if left_s > 0 else _IDLE_S if self._under_way else _JOURNAL_RETRY_S

    async def _attempt(self, notice: Notice) -> None:
        """Try to send a notice once."""
        try:
            with self._contained.item(f"notice {notice.id}") as item:
                await self._send(notice)
            if item.why is not None:
                self._defer(notice, item.why)
        finally:
            del self._under_way[notice.id]
            self._woken.set()
            self._changed.set()

    async def _send(self, notice: Notice) -> None:
        if notice.id not in self._sent:
            begun = self._begin(notice)
            if begun is None:
                return
            why = await (self._commands if notice.target.command else self._posts).send(begun)
            if why is not None:
                self._note_failed(begun, why)
            else:
                self._sent.add(notice.id)
                fields = {"run": notice.run_id, "notice": notice.event, "to": notice.target.shown}
                self._log.info("notice sent", **fields, tries=begun.tries)
            notice = begun
        if notice.id in self._sent and self._write(lambda: self._rows.finish(notice.id)):
            self._notices.pop(notice.id, None)
            self._sent.discard(notice.id)
        elif notice.id in self._sent:
            self._notices[notice.id] = replace(notice, next_at=self._in(_JOURNAL_RETRY_S))
            return
        if notice.target.command:
            await self._commands.forget(notice)

    def _begin(self, notice: Notice) -> Notice | None:
        """Write that an attempt begins; None where that cannot be written. One that is under way is gone on with."""
        resumed = notice.begun and bool(notice.target.command) and self._commands.under_way(notice)
        begun = replace(notice, begun=True, tries=notice.tries if resumed else notice.tries + 1)
        if not self._write(lambda: self._rows.save(begun)):
            self._notices[notice.id] = replace(notice, next_at=self._in(_JOURNAL_RETRY_S))
            return None
        self._notices[notice.id] = begun
        return begun

    def _note_failed(self, notice: Notice, why: str) -> None:
        fields = {"run": notice.run_id, "notice": notice.event, "to": notice.target.shown, "why": why}
        given_up = self._now() - notice.created_at >= _AGE_MAX
        delay_s = min(_FIRST_S * 2.0 ** min(notice.tries - 1, 20), _CAP_S)
        failed = replace(notice, begun=False, problem=why, given_up=given_up, next_at=self._in(delay_s))
        if given_up:
            self._log.error("cannot send a notice; it is given up", **fields, tries=notice.tries)
        elif notice.problem != why:
            self._log.warning("cannot send a notice; it is tried again", **fields, in_s=delay_s)
        self._notices[notice.id] = failed
        self._write(lambda: self._rows.save(failed))

    def _defer(self, notice: Notice, why: str) -> None:
        """Leave a notice for a while whose attempt went wrong in a way that nobody thought of."""
        if notice.id in self._notices:
            self._note_failed(self._notices[notice.id], why)

    # --- bounds -------------------------------------------------------------------------------------------------

    def _bound(self) -> None:
        """Drop what is too much or too old, and forget old notices that were sent."""
        now = self._now()
        idle = [one for one in self._notices.values() if one.id not in self._under_way]
        for notice in idle:
            if notice.given_up and now - notice.created_at >= _AGE_MAX + _GIVEN_UP_SHOWN:
                self._drop(notice)
        surplus = len(self._notices) - PENDING_MAX
        if surplus > 0:
            oldest = sorted(idle, key=lambda one: (not one.given_up, one.created_at))[:surplus]
            self._log.error("too many notices wait; the oldest are dropped", dropped=len(oldest), most=PENDING_MAX)
            for notice in oldest:
                self._drop(notice)
        if self._pruned_at is None or not timedelta() <= now - self._pruned_at < _PRUNE_EVERY:
            self._pruned_at = now
            self._write(lambda: self._rows.prune(before=now - _SENT_KEPT, most=_SENT_MAX))

    def _correct(self) -> None:
        """Send notices that fail to whom the files name now, at once; drop those whose target was removed."""
        for notice in self.pending():
            if notice.id in self._under_way:
                continue
            with self._contained.item(f"notice {notice.id}"):
                target = self._target_in_force(notice)
                if target is None:
                    if self._drop(notice):
                        fields = {"run": notice.run_id, "notice": notice.event, "to": notice.target.shown}
                        self._log.info("a notice is dropped: its target is not in the files any more", **fields)
                elif target != notice.target:
                    changed = replace(notice, target=target, problem=None, given_up=False, next_at=self._now())
                    if self._write(partial(self._rows.save, changed)):
                        self._notices[notice.id] = changed

    def _drop(self, notice: Notice) -> bool:
        if notice.id not in self._notices or not self._write(lambda: self._rows.finish(notice.id)):
            return False
        del self._notices[notice.id]
        return True

    def _write(self, write: Write) -> bool:
        """Write to the journal; False where it cannot be written, which is tried again."""
        try:
            write()
        except JournalError as error:
            self._note_unwritten(error)
            return False
        self._unwritten = None
        return True

    def _note_unwritten(self, error: JournalError) -> None:
        if self._unwritten is None:
            self._log.error("notices wait for the journal", why=str(error))
        self._unwritten = str(error)

    def _in(self, seconds: float) -> datetime:
        return self._now() + timedelta(seconds=seconds)


def _describe(shown: str, failed: list[Notice]) -> str:
    latest = failed[-1]
    about = f"{latest.event} of run {latest.run_name} ({latest.deployment})"
    more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
    end = "it was given up" if latest.given_up else f"tried {_times(latest.tries)}, next at {time_text(latest.next_at)}"
    return f"cannot send the notice {about}{more} by {shown}: {latest.problem}; {end}"


def _document(notice: Notice) -> Json:
    return {
        "event": notice.event.value,
        "run": notice.run_id,
        "name": notice.run_name,
        "deployment": notice.deployment,
        "to": notice.target.shown,
        "tries": notice.tries,
        "created_at": time_text(notice.created_at),
        "next_at": None if notice.given_up else time_text(notice.next_at),
        "given_up": notice.given_up,
        "problem": notice.problem,
    }


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
