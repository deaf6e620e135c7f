"""bounded_calls.py: calls that hang."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.files.bounded_calls import HANGING_PER_PLACE, THREADS, WRITTEN_OFF, BoundedCalls, Unanswered
from runnerd.files.mounts import Mounts

SHORT_S = 0.05
LINES = [
    "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
    "2 1 8:2 / /home rw - ext4 /dev/sda2 rw\n",
    "3 1 0:50 / /mnt/dead rw shared:1 - nfs4 server:/dead rw\n",
    "4 1 0:51 / /mnt/alive rw shared:1 - nfs4 server:/alive rw\n",
    "5 2 0:50 /sub /home/bound rw - nfs4 server:/dead rw\n",
]
MOUNTS = Mounts(read=lambda: LINES)


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What the calls that hang wait for; set in the end, so that no thread stays for the next test to count."""
    wait_for_no_thread()
    event = threading.Event()
    yield event
    event.set()
    wait_for_no_thread()


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
    await join_threads()
    assert await calls.call("/dead", lambda: 5) == 5


async def test_threads_are_bounded_whatever_hangs(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=SHORT_S, threads=6, mounts=MOUNTS)
    places = [*(f"/dead/{number}" for number in range(20)), *(f"name {number}" for number in range(20))]
    gathered = await asyncio.gather(*(calls.call(place, release.wait) for place in places))
    assert len(bounded_threads()) == 6
    words = [one.words for one in gathered if isinstance(one, Unanswered)]
    assert sorted(set(words)) == ["did not answer within 0.05 s", "is not read: too many calls elsewhere hang"]
    assert await calls.call("/mnt/alive", lambda: 5) == Unanswered("is not read: too many calls elsewhere hang")


async def test_more_calls_than_threads_take_turns() -> None:
    calls = BoundedCalls(threads=2)
    assert await asyncio.gather(*(calls.call("/a", lambda n=n: n) for n in range(50))) == list(range(50))


async def test_an_idle_one_has_no_thread() -> None:
    await BoundedCalls().call("/a", lambda: 5)
    await join_threads()  # they end by themselves


# --- what is left to others whatever hangs ----------------------------------------------------------------------

# With 4 * SHORT_S: calls of many threads are answered within that, also on a busy host.
DEAD = [f"{number} 1 0:{number} / /dead/{number} rw - nfs4 s:/x rw\n" for number in range(100, 100 + THREADS)]


async def test_remote_mounts_that_hang_take_no_thread_from_those_that_answer(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=4 * SHORT_S, mounts=Mounts(read=lambda: [*LINES, *DEAD]))
    for start in range(100, 124, 8):
        places = [f"/dead/{number}/x" for number in range(start, start + 8)]
        await asyncio.gather(*(calls.call(place, release.wait) for place in places for _ in range(2)))
    assert len(bounded_threads()) == 48 > THREADS
    assert calls.problem() is None
    assert [await calls.call(place, lambda: 5) for place in ("/mnt/alive", "/etc/runnerd", "accounts: bob")] == [5] * 3
    again = [await calls.call(f"/dead/{number}/x", lambda: 5) for number in range(100, 124)]
    assert again == [Unanswered("does not answer: earlier calls still hang")] * 24
    release.set()
    await join_threads()
    again = [await calls.call(f"/dead/{number}/x", lambda: 5) for number in range(100, 124)]
    assert again == [5] * 24, "they answer again"
    await join_threads()
    assert not calls._threads._under_way and not calls._threads._alive, "nothing is counted any more"


async def test_too_many_remote_mounts_that_hang_are_a_problem(release: threading.Event) -> None:
    more = [f"{number} 1 0:{number} / /dead/{number} rw - nfs4 s:/x rw\n" for number in range(200, 300)]
    calls = BoundedCalls(limit_s=4 * SHORT_S, mounts=Mounts(read=lambda: [*LINES, *more]))
    for start in range(200, 248, 8):
        places = [f"/dead/{number}" for number in range(start, start + 8)]
        await asyncio.gather(*(calls.call(place, release.wait) for place in places for _ in range(2)))
    assert len(bounded_threads()) == THREADS * WRITTEN_OFF + THREADS // 2
    assert await calls.call("/mnt/alive", lambda: 5) == Unanswered("is not read: too many calls elsewhere hang")
    named = (
        "64 reads of files hang, at /dead/200, /dead/201, /dead/202 and 29 other places: files on other network mounts"
    )
    assert (calls.problem() or "").startswith(named)
    assert [await calls.call(place, lambda: 5) for place in ("/etc/runnerd", "accounts: bob")] == [5, 5]
    release.set()
    await join_threads()
    assert calls.problem() is None


async def test_calls_that_wait_are_made_once_others_are_written_off(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=4 * SHORT_S, mounts=Mounts(read=lambda: [*LINES, *DEAD]))
    hanging = [calls.call(f"/dead/{number}/x", release.wait) for number in range(100, 100 + THREADS // 2)]
    first = asyncio.gather(*hanging)
    await asyncio.sleep(2 * SHORT_S)  # so that these have not waited for as long when those are given up
    assert await calls.call("/mnt/alive", lambda: 5) == 5
    await first


async def test_local_directories_that_have_answered_are_read_whatever_hangs(
    tmp_path: Path, release: threading.Event
) -> None:
    calls = BoundedCalls(limit_s=4 * SHORT_S, mounts=Mounts(read=lambda: [*LINES, *DEAD]))
    assert await calls.call(str(tmp_path), lambda: 5) == 5
    await join_threads()
    await hang_at_all_but_known(calls, release)
    assert await calls.call(str(tmp_path), lambda: 5) == 5
    assert await calls.call("/etc", lambda: 5) == Unanswered("is not read: too many calls elsewhere hang")


@pytest.mark.parametrize("own", ["/etc/runnerd", "/mnt/alive"])
async def test_the_daemons_own_directories_are_read_whatever_hangs(
    tmp_path: Path, release: threading.Event, own: str
) -> None:
    disks = [f"{number} 1 8:{number} / {tmp_path}/{number} rw - ext4 /dev/sd rw\n" for number in range(THREADS)]
    calls = BoundedCalls(limit_s=4 * SHORT_S, mounts=Mounts(read=lambda: [*LINES, *DEAD, *disks]), own=[own])
    known = [str(tmp_path / str(number)) for number in range(THREADS)]
    assert [await calls.call(place, lambda: 5) for place in known] == [5] * THREADS
    await join_threads()
    await hang_at_all_but_known(calls, release)
    await asyncio.gather(*(calls.call(place, release.wait) for place in known))
    assert calls._threads._alive == THREADS - THREADS // 8  # without those that are written off
    assert await calls.call(known[-1], lambda: 5) == Unanswered("is not read: too many calls elsewhere hang")
    assert await calls.call(own, lambda: 5) == 5  # though it has not answered before


async def test_a_directory_of_the_daemon_on_a_mount_that_hangs_is_part_of_it(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=4 * SHORT_S, mounts=MOUNTS, own=["/mnt/dead/log"])
    for _ in range(HANGING_PER_PLACE):
        await calls.call("/mnt/dead", release.wait)
    assert await calls.call("/mnt/dead/log", lambda: 5) == Unanswered("does not answer: earlier calls still hang")


async def hang_at_all_but_known(calls: BoundedCalls, release: threading.Event) -> None:
    """Let calls hang at remote mounts, at directories that have not answered and at names, until none has a thread."""
    for place in ("/dead/{}/x", "/new/{}", "name {}"):
        every = [place.format(number) for number in range(100, 100 + THREADS)]
        await asyncio.gather(*(calls.call(one, release.wait) for one in every))


# --- what hangs together --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["/mnt/dead", "/mnt/dead/{}/x", "/srv", "a name"])
async def test_calls_that_come_together_leave_threads_to_all_other_places(release: threading.Event, place: str) -> None:
    calls = BoundedCalls(mounts=MOUNTS)
    places = [place.format(number) for number in range(THREADS + 8)]
    hanging = asyncio.gather(*(calls.call(one, release.wait) for one in places))
    await asyncio.sleep(0)  # now all have begun
    assert len(bounded_threads()) == THREADS // 8
    assert await calls.call("/mnt/alive", lambda: 5) == 5
    assert await calls.call("another name", lambda: 6) == 6
    assert not hanging.done()
    release.set()
    assert await hanging == [True] * (THREADS + 8)  # in turn


async def test_directories_of_a_mount_that_hangs_are_one_place(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=SHORT_S, mounts=MOUNTS)
    for number in range(HANGING_PER_PLACE):
        assert await calls.call(f"/mnt/dead/{number}", release.wait) == Unanswered("did not answer within 0.05 s")
    again = [await calls.call(place, lambda: 5) for place in ("/mnt/dead", "/mnt/dead/a/b", "/home/bound")]
    assert again == [Unanswered("does not answer: earlier calls still hang")] * 3
    assert [await calls.call(place, lambda: 5) for place in ("/mnt", "/mnt/alive", "/home")] == [5, 5, 5]


async def test_calls_that_wait_for_their_place_are_given_its_words(release: threading.Event) -> None:
    calls = BoundedCalls(limit_s=SHORT_S, mounts=MOUNTS)
    gathered = await asyncio.gather(*(calls.call("/mnt/dead", release.wait) for _ in range(6)))
    words = [one.words for one in gathered if isinstance(one, Unanswered)]
    assert words == ["did not answer within 0.05 s"] * 4 + ["does not answer: earlier calls still hang"] * 2


async def test_a_link_to_a_mount_that_hangs_is_part_of_it_once_it_has_answered(
    tmp_path: Path, release: threading.Event
) -> None:
    links = [tmp_path / name for name in ("a", "b", "c")]
    (tmp_path / "export").mkdir()
    for link in links:
        link.symlink_to(tmp_path / "export")
    remote = Mounts(read=lambda: [*LINES, f"9 1 0:77 / {tmp_path}/export rw - nfs4 s:/e rw\n"])
    calls = BoundedCalls(limit_s=SHORT_S, mounts=remote)
    assert [await calls.call(str(link), lambda: 5) for link in links] == [5, 5, 5]
    await join_threads()
    for link in links[:HANGING_PER_PLACE]:
        await calls.call(str(link), release.wait)
    assert await calls.call(str(links[-1]), lambda: 5) == Unanswered("does not answer: earlier calls still hang")
    assert await calls.call(str(tmp_path), lambda: 5) == 5


async def test_directories_that_have_not_answered_yet_take_half_of_the_threads(
    tmp_path: Path, release: threading.Event
) -> None:
    calls = BoundedCalls(limit_s=SHORT_S, mounts=MOUNTS)
    assert await calls.call(str(tmp_path), lambda: 5) == 5
    await join_threads()
    await asyncio.gather(*(calls.call(f"/new/{number}", release.wait) for number in range(THREADS)))
    assert len(bounded_threads()) == THREADS // 2
    assert await calls.call("/new/one", lambda: 5) == Unanswered("is not read: too many calls elsewhere hang")
    assert await calls.call(str(tmp_path), lambda: 5) == 5


@pytest.mark.parametrize("place", ["/a\0b", "/\ud800"])
async def test_a_place_that_cannot_be_a_path_is_called(place: str) -> None:
    calls = BoundedCalls(threads=1, mounts=MOUNTS)
    for _ in range(3):  # by a thread that goes on
        assert await calls.call(place, lambda: 5) == 5
        with pytest.raises(ZeroDivisionError):
            await calls.call(place, lambda: 1 // 0)
    await join_threads()


async def test_a_place_at_the_end_of_a_long_chain_of_links_is_called(tmp_path: Path) -> None:
    for number in range(sys.getrecursionlimit()):
        (tmp_path / f"{number}").symlink_to(tmp_path / f"{number + 1}")
    calls = BoundedCalls(threads=1, mounts=MOUNTS)
    for _ in range(2):  # by a thread that goes on
        assert await calls.call(str(tmp_path / "0"), lambda: 5) == 5
    await join_threads()


async def test_an_answer_is_given_though_where_its_place_leads_is_not(release: threading.Event) -> None:
    def hang(place: str) -> str:
        release.wait()
        return place

    calls = BoundedCalls(limit_s=SHORT_S, mounts=MOUNTS, realpath=hang)
    assert [await calls.call("/a", lambda n=n: n) for n in range(THREADS)] == list(range(THREADS))
    assert await asyncio.to_thread(calls.wait, "/b", lambda: 5) == 5
    release.set()
    await join_threads()


async def join_threads() -> None:
    for thread in bounded_threads():
        await asyncio.to_thread(thread.join)


def wait_for_no_thread() -> None:
    for thread in bounded_threads():
        thread.join(60)
        assert not thread.is_alive()


def bounded_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bounded call"]
