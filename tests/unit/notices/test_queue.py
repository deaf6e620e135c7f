"""notices/queue.py: journalled before it is sent, repeated until it is, bounded, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from operator import attrgetter
from pathlib import Path

from runnerd.core.notices import Notice, NoticeTarget
from runnerd.notices.commands import NoticeCommands
from runnerd.notices.queue import AT_ONCE_MAX, AT_ONCE_PER_TARGET, PENDING_MAX, NoticeQueue
from tests.kits.engine import Engine, fake_engine
from tests.kits.fakes.fake_spawner import FakeSpawner
from tests.kits.notices import SenderDouble, a_notice, a_target
from tests.kits.nouns import Json


@asynccontextmanager
async def sending(
    folder: Path,
    posts: SenderDouble,
    *,
    spawner: FakeSpawner | None = None,
    target_in_force: Callable[[Notice], NoticeTarget | None] = attrgetter("target"),
    **settings: Json,
) -> AsyncIterator[tuple[Engine, NoticeQueue]]:
    """A queue that sends POSTs by `posts`, and commands by a FakeSpawner; ended in the end, as with its daemon."""
    async with fake_engine(folder, spawner=spawner, **settings) as (engine, _):
        commands = engine.notices.queue._commands
        assert isinstance(commands, NoticeCommands)
        queue = NoticeQueue(
            journal=engine.journal,
            commands=commands,
            posts=posts,
            target_in_force=target_in_force,
            ambient=engine.ambient,
        )
        task = asyncio.create_task(queue.run())
        try:
            yield engine, queue
            assert not task.done(), "it has ended, and the daemon with it"
        finally:
            task.cancel()
            await asyncio.wait([task])


def put(engine: Engine, queue: NoticeQueue, *names: str, **changes: Json) -> None:
    notices = [a_notice(name, at=engine.now(), **changes) for name in names]
    engine.journal.notices.add(notices)
    queue.add(notices)


def left(engine: Engine) -> list[str]:
    return [one.id for one in engine.journal.notices.pending()]


async def test_what_is_sent_is_done_for_ever(tmp_path: Path) -> None:
    posts = SenderDouble()
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, "a")
        await asyncio.sleep(5)
        assert left(engine) == []
        assert engine.lines.events("info")[-1] == "notice sent"
    async with sending(tmp_path, posts) as (_engine, _queue):
        await asyncio.sleep(5)
    assert [one.id for one in posts.sent] == ["a"]


async def test_a_failure_is_shown_and_repeated_until_it_is_sent(tmp_path: Path) -> None:
    posts = SenderDouble(answers=["HTTP 500", "HTTP 500", "HTTP 502"])
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, "a", target=a_target(post="https://user:pw@hooks.test:8443/secret"))
        await asyncio.sleep(5)
        (document,) = queue.documents()
        assert (document["to"], document["tries"]) == ("POST to https://hooks.test:8443", 1)
        (problem,) = queue.problems()
        assert "on_crash of run silver-fox (nightly) by POST to https://hooks.test:8443: HTTP 500" in str(problem)
        await asyncio.sleep(120)
        assert [one.tries for one in posts.sent] == [1, 2, 3, 4]
        assert (queue.documents(), queue.problems(), left(engine)) == ([], [], [])
        assert engine.lines.events("warning") == ["cannot send a notice; it is tried again"] * 2, "each cause once"
        assert "secret" not in engine.lines.getvalue()
        assert "pw" not in engine.lines.getvalue()


async def test_the_next_daemon_sends_what_this_one_could_not(tmp_path: Path) -> None:
    async with sending(tmp_path, SenderDouble(hangs=True)) as (engine, queue):
        put(engine, queue, "a")
        await asyncio.sleep(5)
        assert left(engine) == ["a"]
    posts = SenderDouble()
    async with sending(tmp_path, posts) as (engine, _):
        await asyncio.sleep(5)
        assert [(one.id, one.tries) for one in posts.sent] == [("a", 2)]
        assert left(engine) == []


async def test_one_that_fails_goes_where_the_files_send_it_by_now(tmp_path: Path) -> None:
    posts, files = SenderDouble(answers=["HTTP 404"] * 2), {"a": a_target(), "b": a_target(), "c": a_target()}
    async with sending(tmp_path, posts, target_in_force=lambda one: files.get(one.id)) as (engine, queue):
        put(engine, queue, "a", "b")
        await queue.settle(30)
        assert len(queue.problems()) == 1
        files["a"] = a_target(post="http://right.test/")
        del files["b"]
        queue.wake()
        await asyncio.sleep(2)
        assert [(one.id, one.target.shown) for one in posts.sent[2:]] == [("a", "POST to http://right.test")]
        assert (queue.problems(), left(engine)) == ([], [])
        assert "a notice is dropped: its target is not in the files any more" in engine.lines.events("info")


async def test_one_that_was_to_be_tried_before_the_clock_was_set_back(tmp_path: Path) -> None:
    posts = SenderDouble()
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, "a", next_at=engine.now() + timedelta(days=300))
        put(engine, queue, "b", next_at=engine.now() + timedelta(seconds=60))
        await asyncio.sleep(5)
        assert [one.id for one in posts.sent] == ["a"]
        await asyncio.sleep(60)
        assert [one.id for one in posts.sent] == ["a", "b"]


async def test_it_is_given_up_after_a_day_and_shown_for_another(tmp_path: Path) -> None:
    posts = SenderDouble(answers=["HTTP 500"] * 1000)
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, "a")
        await asyncio.sleep(86400 + 1000)
        (document,) = queue.documents()
        assert (document["given_up"], document["next_at"]) == (True, None)
        assert "it was given up" in str(queue.problems()[0])
        tried = len(posts.sent)
        assert 90 < tried < 110, "at most every quarter of an hour"
        await asyncio.sleep(86400)
        assert len(posts.sent) == tried
        assert (queue.documents(), left(engine)) == ([], [])


async def test_a_slow_target_holds_up_no_other(tmp_path: Path) -> None:
    posts = SenderDouble(hangs=True)
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, *"abcd")
        put(engine, queue, "e", target=a_target(post="http://other.test/"))
        await asyncio.sleep(5)
        assert [one.id for one in posts.sent] == ["a", "b", "e"]
        assert posts.most == AT_ONCE_PER_TARGET + 1


async def test_there_are_only_so_many_at_once(tmp_path: Path) -> None:
    posts = SenderDouble(hangs=True)
    async with sending(tmp_path, posts) as (engine, queue):
        for number in range(2 * AT_ONCE_MAX):
            put(engine, queue, f"n-{number}", target=a_target(post=f"http://t{number}.test/"))
        await asyncio.sleep(5)
        assert posts.most == AT_ONCE_MAX


async def test_too_many_are_dropped_the_oldest_first(tmp_path: Path) -> None:
    posts = SenderDouble(hangs=True)
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, *(f"n-{number}" for number in range(PENDING_MAX + 5)))
        await asyncio.sleep(1)
        assert len(left(engine)) == PENDING_MAX
        assert "too many notices wait; the oldest are dropped" in engine.lines.events("error")


async def test_a_sender_that_goes_wrong_ends_nothing(tmp_path: Path) -> None:
    class Odd(SenderDouble):
        async def send(self, notice: Notice) -> str | None:
            await super().send(notice)
            raise RuntimeError("odd")

    posts = Odd()
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, "a")
        await asyncio.sleep(60)
        assert len(posts.sent) > 1
        assert queue.documents()[0]["problem"] == "RuntimeError: odd"


async def test_settle_waits_for_the_first_attempts_and_no_longer_than_it_may(tmp_path: Path) -> None:
    posts = SenderDouble(answers=["HTTP 500"])
    async with sending(tmp_path, posts) as (engine, queue):
        put(engine, queue, "a", "b")
        began = engine.clock()
        await queue.settle(30)
        assert engine.clock() - began < 10
        assert [one.id for one in posts.sent] == ["a", "b"]
        posts.hangs = True
        put(engine, queue, "c")
        await queue.settle(30)
        assert engine.clock() - began > 30


async def test_sent_ones_are_forgotten_in_time(tmp_path: Path) -> None:
    async with sending(tmp_path, SenderDouble()) as (engine, queue):
        put(engine, queue, "a")
        await asyncio.sleep(timedelta(days=6).total_seconds())
        assert engine.journal.notices.has(["a"]) == {"a"}
        await asyncio.sleep(timedelta(days=2).total_seconds())
        assert engine.journal.notices.has(["a"]) == set()


# --- commands -------------------------------------------------------------------------------------------------------


async def test_a_command_is_one_process_though_the_daemon_is_replaced(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    async with sending(tmp_path, SenderDouble(), spawner=spawner) as (engine, queue):
        put(engine, queue, "a", target=a_target(post=None, command=("/bin/page", "{{ run.name }}", "$(id)")))
        await engine.until(lambda: spawner.live())
        (spec,) = spawner.started
        assert spec.argv[-3:] == ("/bin/page", "silver-fox", "$(id)")
        assert '"words": "killed by SIGKILL"' in spec.environment["RUNNERD_DOCUMENT"]
    async with sending(tmp_path, SenderDouble(), spawner=spawner) as (engine, queue):
        await asyncio.sleep(5)
        assert left(engine) == ["a"]
        spawner.exit("notice-a")
        await engine.until(lambda: not left(engine))
        await engine.until(lambda: not spawner.records)
    assert len(spawner.started) == 1


async def test_a_command_that_fails_is_run_again(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    async with sending(tmp_path, SenderDouble(), spawner=spawner) as (engine, queue):
        put(engine, queue, "a", target=a_target(post=None, command=("/bin/page",)))
        await engine.until(lambda: spawner.live())
        spawner.exit("notice-a", code=3)
        await engine.until(lambda: queue.documents())
        assert queue.documents()[0]["problem"] == "exited 3"
        await engine.until(lambda: spawner.live())
        spawner.exit("notice-a")
        await engine.until(lambda: not left(engine))
        assert [spec.attempt for spec in spawner.started] == [1, 2]


async def test_a_command_that_hangs_is_ended_in_time(tmp_path: Path) -> None:
    spawner = FakeSpawner()
    async with sending(tmp_path, SenderDouble(), spawner=spawner) as (engine, queue):
        put(engine, queue, "a", target=a_target(post=None, command=("/bin/page",), timeout_s=7.0))
        await engine.until(lambda: queue.documents())
        assert queue.documents()[0]["problem"] == "took longer than 7s"
