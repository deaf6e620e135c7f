"""bounded_calls.py: calls that hang."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from runnerd.files.bounded_calls import HANGING_PER_PLACE, BoundedCalls, Unanswered

SHORT_S = 0.05


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What the calls that hang wait for; set in the end, so that no thread stays."""
    event = threading.Event()
    yield event
    event.set()


async def test_results_and_errors_are_those_of_the_call() -> None:
    calls = BoundedCalls()
    assert await calls.call("/a", lambda: 5) == 5
    with pytest.raises(ZeroDivisionError):
        await calls.call("/a", lambda: 1 // 0)
    assert await asyncio.to_thread(calls.wait, "/a", lambda: 6) == 6


async def test_the_loop_goes_on_while_a_call_is_under_way(release: threading.Event) -> None:
    calls = BoundedCalls()
    hanging = asyncio.create_task(calls.call("/a", release.wait))
    for _ in range(100):
        await asyncio.sleep(0)  # in the loop that answers all others
    assert not hanging.done()
    release.set()
    assert await hanging is True


async def test_a_call_that_hangs_is_left_to_itself(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=SHORT_S)
    assert await calls.call("/dead", release.wait) == Unanswered("did not answer within 0.05 s")
    assert await asyncio.to_thread(calls.wait, "/dead", release.wait) == Unanswered("did not answer within 0.05 s")
    for _ in range(1000):  # none of these has a thread
        assert await calls.call("/dead", release.wait) == Unanswered("does not answer: earlier calls still hang")
    assert len(bounded_threads()) == HANGING_PER_PLACE
    assert await calls.call("/alive", lambda: 5) == 5


async def test_a_place_that_answers_again_is_called_again(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=SHORT_S)
    for _ in range(HANGING_PER_PLACE):
        await calls.call("/dead", release.wait)
    release.set()
    for thread in bounded_threads():
        await asyncio.to_thread(thread.join)
    assert await calls.call("/dead", lambda: 5) == 5


async def test_threads_are_bounded_whatever_hangs(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=SHORT_S, threads=3)
    gathered = await asyncio.gather(*(calls.call(f"/dead/{number}", release.wait) for number in range(20)))
    assert len(bounded_threads()) == 3
    words = [one.words for one in gathered if isinstance(one, Unanswered)]
    assert sorted(set(words)) == ["did not answer within 0.05 s", "is not read: too many calls elsewhere hang"]
    assert await calls.call("/alive", lambda: 5) == Unanswered("is not read: too many calls elsewhere hang")


async def test_more_calls_than_threads_take_turns() -> None:
    calls = BoundedCalls(threads=2)
    assert await asyncio.gather(*(calls.call("/a", lambda n=n: n) for n in range(50))) == list(range(50))


async def test_an_idle_one_has_no_thread() -> None:
    await BoundedCalls().call("/a", lambda: 5)
    for thread in bounded_threads():
        await asyncio.to_thread(thread.join)  # ends by itself


def bounded_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bounded call"]
