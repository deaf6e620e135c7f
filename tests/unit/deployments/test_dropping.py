"""dropping.py: what waits for a declaration that may be the same deployment, and what a renamed flow leaves behind."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from runnerd.core.place import Place, Problem
from runnerd.core.settings import key_of
from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.registry import EntryState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import URL, a_deployment, copied
from tests.kits.registrar import BROKEN, FakeInspector, Host, a_host, flow

OTHER_FILE = Place("/etc/runnerd/conf.d/20-new.yaml", 2, 3)
# Deployments without a name have the host's.
A, B = a_deployment("host-1", entrypoint="a.py:main"), a_deployment("host-1", entrypoint="b.py:main")
NEW = a_deployment("host-1", entrypoint="new.py:main", place=OTHER_FILE)
DELETED = replace(A, on_remove="delete")
SLOW = InspectionFailure(kind="slow", message="importing it took longer than 5s")


def two_flows() -> FakeInspector:
    found = {A.entrypoint: flow("flow a"), B.entrypoint: flow("flow b"), NEW.entrypoint: BROKEN}
    return FakeInspector(answers=found)


def paused_by_flow(prefect: FakePrefect) -> dict[str, object]:
    return {prefect.flows[one["flow_id"]]["name"]: one["paused"] for one in prefect.deployments.values()}


class SlowPrefect(FakePrefect):
    """Its pauses and deletions take effect half a minute late."""

    def transport(self) -> httpx.MockTransport:
        at_once = super().transport()

        async def answer(request: httpx.Request) -> httpx.Response:
            paused = request.method == "PATCH" and json.loads(request.content).get("paused") is True
            if paused or request.method == "DELETE":
                await asyncio.sleep(30)
            return await at_once.handle_async_request(request)

        return httpx.MockTransport(answer)


async def test_a_pause_waits_for_no_broken_file_that_only_has_the_same_name(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=two_flows()) as host:
        await host.want(A, B)
        await host.want(NEW)
        assert paused_by_flow(host.prefect) == {"flow a": True, "flow b": True}
        assert host.registrar.held_drops() == []


async def test_a_pause_waits_for_a_broken_one_with_the_same_code(tmp_path: Path) -> None:
    moved = replace(NEW, entrypoint="flows/a.py:main")
    inspector = two_flows()
    inspector.answers[moved.entrypoint] = BROKEN
    async with a_host(tmp_path, inspector=inspector) as host:
        await host.want(A, B)
        await host.want(moved)
        await asyncio.sleep(600)
        assert paused_by_flow(host.prefect) == {"flow a": False, "flow b": True}
        (held,) = host.registrar.held_drops()
        assert str(held).startswith(f"{OTHER_FILE}: cannot pause the deployment flow a/host-1, which left the files: ")
        inspector.answers[moved.entrypoint] = flow("flow a")
        await asyncio.sleep(600)
        assert (host.entry(moved).state, host.registrar.problems()) == (EntryState.READY, ())
        assert paused_by_flow(host.prefect) == {"flow a": False, "flow b": True}


async def test_what_is_not_deleted_yet_is_a_problem_while_that_is_so(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=two_flows()) as host:
        await host.want(replace(A, on_remove="delete"))
        await host.want(NEW)
        await asyncio.sleep(600)
        assert paused_by_flow(host.prefect) == {"flow a": False}
        (held,) = [one for one in host.registrar.problems() if one.deployment == "flow a/host-1"]
        assert "cannot delete the deployment flow a/host-1" in held.message
        host.prefect.trouble("DELETE /deployments", status=500, times=1_000_000)
        host.inspector.answers[NEW.entrypoint] = flow("a new flow")
        await asyncio.sleep(600)
        assert host.registrar.held_drops() == []
        host.prefect.troubles.clear()
        await asyncio.sleep(600)
        assert paused_by_flow(host.prefect) == {"a new flow": False}
        assert host.registrar.problems() == ()


async def test_nothing_is_held_back_by_what_has_left_the_files_too(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=two_flows()) as host:
        await host.want(replace(A, on_remove="delete"))
        await host.want(NEW)
        assert host.registrar.held_drops()
        await host.want()
        assert (host.registrar.problems(), host.prefect.deployments) == ((), {})


async def test_a_pause_waits_while_one_of_its_name_is_inspected(tmp_path: Path) -> None:
    """A reload brings that one while another drop is under way."""
    first = a_deployment("first")
    async with a_host(tmp_path, SlowPrefect(major=3), two_flows()) as host:
        await host.want(first, A)
        host.begin()
        await asyncio.sleep(5)
        assert not any(paused_by_flow(host.prefect).values()), "the first pause is under way"
        host.inspector.answers[NEW.entrypoint] = SLOW
        host.inspector.alone[NEW.entrypoint] = flow("a new flow")
        host.begin(NEW)
        await asyncio.sleep(600)
        assert paused_by_flow(host.prefect) == {"etl": True, "flow a": False}
        host.inspector.release.set()
        await asyncio.sleep(120)
        assert paused_by_flow(host.prefect) == {"etl": True, "flow a": True, "a new flow": False}


async def test_one_that_is_registered_anew_during_its_pause_is_resumed(tmp_path: Path) -> None:
    async with a_host(tmp_path, SlowPrefect(major=3), two_flows()) as host:
        await host.want(A)
        host.begin(NEW)
        await asyncio.sleep(5)
        host.inspector.answers[NEW.entrypoint] = flow("flow a")  # it is tried again before the pause has an answer
        await asyncio.sleep(600)
        assert host.entry(NEW).state is EntryState.READY
        assert paused_by_flow(host.prefect) == {"flow a": False}
        assert [one.paused for one in host.journal.registrations(URL)] == [False]


# --- a flow that was renamed --------------------------------------------------------------------------------------


NAMES = [("aaa", "bbb"), ("bbb", "aaa")]


@pytest.mark.parametrize(("old", "new"), NAMES)
async def test_the_daemon_ends_between_a_renamed_flow_and_its_drop(tmp_path: Path, old: str, new: str) -> None:
    slow = a_deployment("slow")
    prefect, inspector = FakePrefect(major=3), FakeInspector(answers={A.entrypoint: flow(old), slow.entrypoint: SLOW})
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        inspector.change(A.entrypoint, flow(new))
        host.begin(A, slow)  # drops wait for the slow import
        await asyncio.sleep(20)
        assert paused_by_flow(prefect) == {old: False, new: False}
        copied(prefect)
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(A)
        assert paused_by_flow(prefect) == {old: True, new: False}
        assert host.entry(A).flow == new
        assert len(copied(prefect)) <= 2, "nothing is registered again"


@pytest.mark.parametrize(("old", "new"), NAMES)
@pytest.mark.parametrize("restart", [True, False])
async def test_a_renamed_flow_whose_drop_was_refused(tmp_path: Path, old: str, new: str, restart: bool) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector(answers={A.entrypoint: flow(old)})
    one = replace(A, on_remove="delete")
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(one)
        prefect.trouble("DELETE /deployments", status=500, times=1_000_000)
        inspector.change(A.entrypoint, flow(new))
        host.registrar.inspect_again([one])
        await asyncio.sleep(200)
        assert paused_by_flow(prefect) == {old: False, new: False}
        prefect.troubles.clear()
        if not restart:
            await host.want(replace(one, description="edited"))
            assert paused_by_flow(prefect) == {new: False}
            assert host.lines.events("info").count("dropped") == 1
    async with a_host(tmp_path, prefect, inspector) as host:
        await host.want(one)
        assert paused_by_flow(prefect) == {new: False}
        assert host.entry(one).flow == new


@pytest.mark.parametrize(("old", "new"), NAMES)
async def test_a_flow_that_got_its_old_name_back(tmp_path: Path, old: str, new: str) -> None:
    """The code decides which of two registrations is in use, and at the next start that one is in use at once."""
    prefect = FakePrefect(major=3)
    async with a_host(tmp_path, prefect, FakeInspector(answers={A.entrypoint: flow(old)})) as host:
        first_id = await rename_undeleted(host, new)
    back = FakeInspector(known={key_of(A): flow(old)})
    async with a_host(tmp_path, prefect, back) as host:
        host.begin(DELETED)
        await asyncio.sleep(200)
        assert host.entry(DELETED).deployment_id == first_id
    async with a_host(tmp_path, prefect, back) as host:
        host.begin(DELETED)
        assert host.registry.ids() == [first_id]
    async with a_host(tmp_path, prefect, back) as host:
        host.begin(DELETED)
        prefect.troubles.clear()
        await asyncio.sleep(200)
        assert list(prefect.deployments) == [first_id]


async def test_what_got_its_old_name_back_is_in_use_though_its_file_is_broken(tmp_path: Path) -> None:
    """The new name's is dropped when the code is known, though no reading of the files listed it."""
    prefect = FakePrefect(major=3)
    async with a_host(tmp_path, prefect, FakeInspector(answers={A.entrypoint: flow("old")})) as host:
        first_id = await rename_undeleted(host, "new")
    prefect.troubles.clear()
    problem = Problem(message="unknown key", place=A.place)
    async with a_host(tmp_path, prefect, FakeInspector(known={key_of(A): flow("old")})) as host:
        await host.want(DELETED, problems=[problem])
        assert list(prefect.deployments) == [first_id]


async def test_one_that_gets_its_name_back_during_its_deletion_is_made_anew(tmp_path: Path) -> None:
    inspector = FakeInspector(answers={A.entrypoint: flow("old")})
    async with a_host(tmp_path, SlowPrefect(major=3), inspector) as host:
        first_id = await rename_undeleted(host, "new")
        inspector.change(A.entrypoint, BROKEN)
        host.prefect.troubles.clear()
        host.begin(DELETED)
        await asyncio.sleep(5)
        assert first_id in host.prefect.deployments, "its deletion is under way"
        inspector.answers[A.entrypoint] = flow("old")
        await asyncio.sleep(200)
        assert host.entry(DELETED).flow == "old"
        assert list(host.prefect.deployments) == host.registry.ids() != [first_id]


async def test_one_that_is_registered_under_its_old_name_is_not_deleted_meanwhile(tmp_path: Path) -> None:
    inspector = FakeInspector(answers={A.entrypoint: flow("old")})
    async with a_host(tmp_path, inspector=inspector) as host:
        first_id = await rename_undeleted(host, "new")
        inspector.change(A.entrypoint, BROKEN)
        host.prefect.troubles.clear()
        host.prefect.trouble("DELETE /deployments", status=500, times=1)  # it is due again in five minutes
        host.prefect.trouble("PATCH /deployments", times=1_000_000)
        host.begin(replace(DELETED, description="edited"))
        await asyncio.sleep(5)
        inspector.answers[A.entrypoint] = flow("old")
        await asyncio.sleep(600)
        host.prefect.troubles.clear()
        await asyncio.sleep(600)
        assert list(host.prefect.deployments) == host.registry.ids() == [first_id]


async def rename_undeleted(host: Host, new: str) -> str:
    """Rename the flow of DELETED, and refuse to delete the old one's deployment; return its id."""
    await host.want(DELETED)
    (first_id,) = host.prefect.deployments
    host.prefect.trouble("DELETE /deployments", status=500, times=1_000_000)
    host.inspector.change(DELETED.entrypoint, flow(new))
    host.registrar.inspect_again([DELETED])
    await asyncio.sleep(200)
    assert host.entry(DELETED).flow == new
    assert len(host.prefect.deployments) == 2
    return first_id
