"""absences.py, places.py, findings.py: what many new deployments cost, and that what others made stays as it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import pytest

from runnerd.core.backoff import Backoff
from runnerd.core.settings import Deployment, key_of
from runnerd.deployments.absences import ABSENT_FOR_S, Absences
from runnerd.deployments.findings import Findings, failed_inspection
from runnerd.deployments.inspector import InspectionResult
from runnerd.deployments.places import AT_ONCE_MAX, Places
from runnerd.deployments.registry import EntryState, Key
from runnerd.deployments.worklist import Begun
from runnerd.journal.journal import Registration
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, a_deployment, fake_api
from tests.kits.registrar import FakeInspector, Host, a_host, flow

MANY = [a_deployment(f"d{number}") for number in range(200)]
FLOW = "11111111-1111-4111-8111-111111111111"
LIST, FIND = "POST /deployments/filter", "GET /deployments/name/etl/"


def asked(host: Host) -> Counter[str]:
    return Counter(one.rpartition("/")[0] + "/" if "/name/" in one else one for one in host.prefect.asked)


async def test_a_new_one_of_many_costs_one_request(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(*MANY)
        counts = asked(host)
        assert counts["POST /deployments/"] == len(MANY)
        assert counts["POST /flows/"] <= AT_ONCE_MAX and counts[FIND] == 0


async def test_of_a_flow_that_exists_they_are_listed_together(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.api.ensure_flow("etl")
        await host.want(*MANY)
        counts = asked(host)
        assert counts["POST /deployments/"] == len(MANY) and counts[FIND] == 0
        assert 1 <= counts[LIST] <= 2 * len(MANY) / 50


async def test_schedules_that_others_made_stay(tmp_path: Path) -> None:
    """The API has some of the deployments already, of which this host knows nothing."""
    theirs = "00000000-0000-4000-8000-000000000007"
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    async with a_host(tmp_path / "a") as first:
        await first.want(*MANY[:20])
        schedules = first.stored("d7")["schedules"]
        assert isinstance(schedules, list)
        schedules.append({"id": theirs, "schedule": {"cron": "1 1 * * *", "timezone": "UTC"}, "active": True})
        async with a_host(tmp_path / "b", prefect=first.prefect) as host:
            host.prefect.asked.clear()
            await host.want(*MANY)
            kept = host.stored("d7")["schedules"]
            assert isinstance(kept, list) and theirs in [one["id"] for one in kept]
            assert asked(host)[FIND] == 20


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 500},
        {"status": 422},
        {"status": 200, "body": [{}]},
        {"status": 200, "body": {}},
        {"status": 200, "body": [{"id": FLOW, "name": "other", "flow_id": FLOW}]},
    ],
)
async def test_after_a_list_that_leaves_a_doubt_each_is_read_by_itself(tmp_path: Path, answer: Json) -> None:
    async with a_host(tmp_path) as host:
        await host.api.ensure_flow("etl")
        host.prefect.trouble(LIST, times=10_000, **answer)
        await host.want(*MANY)
        assert {entry.state for entry in host.registry.entries()} == {EntryState.READY}
        assert asked(host)[FIND] == len(MANY)


async def test_that_one_is_absent_is_not_believed_for_long() -> None:
    prefect, now = FakePrefect(major=3), [0.0]
    absences = Absences(api=fake_api(prefect), clock=lambda: now[0])
    for number in range(9):
        absences.expect("etl", f"d{number}")
    absences.note_new("etl")
    assert await absences.is_absent(FLOW, "etl", "d3")
    assert prefect.asked == []
    now[0] += ABSENT_FOR_S
    assert await absences.is_absent(FLOW, "etl", "d3")
    assert prefect.asked.count(LIST) == 1
    for number in range(8):
        absences.forget("etl", f"d{number}")
    assert not await absences.is_absent(FLOW, "etl", "d9"), "a few are read by themselves"
    assert prefect.asked.count(LIST) == 1


async def test_fewer_places_where_writes_meet_and_more_again_where_not() -> None:
    places = Places(backoff=Backoff)
    used, most, over = 0, 0, asyncio.Event()

    async def use() -> None:
        nonlocal used, most
        async with places.one():
            used += 1
            most = max(most, used)
            await over.wait()
            used -= 1

    async def most_at_once() -> int:
        nonlocal most
        most = 0
        over.clear()
        tasks = [asyncio.create_task(use()) for _ in range(9)]
        for _ in range(20):
            await asyncio.sleep(0)
        over.set()
        await asyncio.gather(*tasks)
        return most

    assert await most_at_once() == AT_ONCE_MAX
    places.note_refused()
    assert await most_at_once() == 1
    for _ in range(10):
        places.note_done()
    assert await most_at_once() == 2
    for _ in range(100):
        places.note_done()
    assert await most_at_once() == AT_ONCE_MAX


async def test_a_place_is_free_again_after_a_cancelled_wait() -> None:
    places = Places(backoff=Backoff)
    places.note_refused()
    async with places.one():
        waiting = asyncio.create_task(places.one().__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(5), places.one():
        pass


def test_findings_are_given_out_in_their_order() -> None:
    begun = [Begun(one) for one in MANY[:4]]
    keys = [key_of(one.deployment) for one in begun]
    findings = Findings(begun)
    answers = [flow(f"f{number}") for number in range(4)]
    assert list(findings.add({keys[1]: answers[1], keys[3]: answers[3]})) == []
    assert list(findings.add({keys[0]: answers[0]})) == [(begun[0], answers[0]), (begun[1], answers[1])]
    failed = failed_inspection("why")
    assert list(findings.rest(failed)) == [(begun[2], failed), (begun[3], answers[3])]


async def test_the_journal_is_not_read_anew_for_each_process_of_an_inspection(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=OneByOne()) as host:
        reads = 0
        whole = host.journal.registrations

        def counted(url: str) -> list[Registration]:
            nonlocal reads
            reads += 1
            return whole(url)

        host.journal.registrations = counted  # type: ignore[method-assign]
        await host.want(*MANY)
        assert {entry.state for entry in host.registry.entries()} == {EntryState.READY}
        assert reads < 20


class OneByOne(FakeInspector):
    """Gives out each finding by itself."""

    async def inspect(
        self,
        deployments: Sequence[Deployment],
        *,
        afresh: Collection[Key] = (),
        on_found: Callable[[Mapping[Key, InspectionResult]], None] = lambda found: None,
    ) -> dict[Key, InspectionResult]:
        found = await super().inspect(deployments, afresh=afresh)
        for key, answer in reversed(found.items()):
            on_found({key: answer})
            await asyncio.sleep(0)
        return found
