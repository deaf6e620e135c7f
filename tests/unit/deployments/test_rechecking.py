"""rechecking.py and dependencies.py: what an inspection depends on, and when a flow is inspected again by itself."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.core.prefect import Inspection
from runnerd.core.settings import key_of
from runnerd.deployments.dependencies import Change, Inspected, compare_all, read_stamp
from runnerd.deployments.rechecking import INSPECT_GAP_MAX_S, INSPECT_GAP_MIN_S, RECHECK_EVERY_S
from runnerd.deployments.registry import EntryState
from runnerd.files.bounded_calls import BoundedCalls
from tests.kits.nouns import a_deployment, copied
from tests.kits.registrar import BROKEN, FakeInspector, a_host, flow

A, B = a_deployment("a"), a_deployment("b")


def with_schema(title: str) -> Inspection:
    return replace(flow("etl"), parameter_schema={"title": title})


# --- the rounds ---------------------------------------------------------------------------------------------------


async def test_changed_code_is_registered_by_itself(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        rechecking = asyncio.create_task(host.rechecker.run())
        await host.want(A, B)
        copied(host.prefect)
        await asyncio.sleep(10 * RECHECK_EVERY_S)
        assert copied(host.prefect) == [] and host.inspector.asked == [A.entrypoint, B.entrypoint]
        host.inspector.change(A.entrypoint, with_schema("new"))
        await asyncio.sleep(2 * RECHECK_EVERY_S)
        assert host.stored("a")["parameter_openapi_schema"] == {"title": "new"}
        assert host.inspector.asked == [A.entrypoint, B.entrypoint, A.entrypoint]
        rechecking.cancel()


async def test_one_odd_deployment_ends_no_round(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        rechecking = asyncio.create_task(host.rechecker.run())
        await host.want(A, B)
        host.inspector.odd = "a"
        host.inspector.change(B.entrypoint, with_schema("new"))
        await asyncio.sleep(10 * RECHECK_EVERY_S)
        assert host.stored("b")["parameter_openapi_schema"] == {"title": "new"}
        words = "an item of a loop went wrong; the loop goes on without it"
        assert host.lines.events("error") == [words] * 2, "the comparison of all, and that of one; once each"
        host.inspector.odd = None
        host.inspector.change(A.entrypoint, with_schema("newer"))
        await asyncio.sleep(2 * RECHECK_EVERY_S)
        assert host.stored("a")["parameter_openapi_schema"] == {"title": "newer"}
        assert not rechecking.done()
        rechecking.cancel()


async def test_what_changes_all_the_time_is_inspected_ever_less_often(tmp_path: Path) -> None:
    async with a_host(tmp_path, inspector=FakeInspector(answers={A.entrypoint: BROKEN})) as host:
        rechecking = asyncio.create_task(host.rechecker.run())
        await host.want(A)
        await asyncio.sleep(10 * INSPECT_GAP_MIN_S)
        assert 4 <= len(host.inspector.asked) <= 12, "with what is tried again by itself"
        host.inspector.change(A.entrypoint, flow("etl"))
        await asyncio.sleep(2 * INSPECT_GAP_MAX_S)
        assert (host.entry(A).state, host.entry(A).problem) == (EntryState.READY, None)
        before = len(host.inspector.asked)
        host.inspector.change(A.entrypoint, with_schema("edited later"))
        await asyncio.sleep(2 * RECHECK_EVERY_S)
        assert len(host.inspector.asked) == before + 1
        rechecking.cancel()


async def test_a_double_is_tried_again_when_the_first_was_renamed(tmp_path: Path) -> None:
    double = replace(A, entrypoint="copy.py:flow")
    async with a_host(tmp_path) as host:
        await host.want(A, double)
        assert host.entry(double).state is EntryState.INVALID
        host.inspector.change(A.entrypoint, flow("renamed"))
        await host.rechecker.check()
        await host.registrar.settled.wait()
        assert [host.entry(one).full_name for one in (A, double)] == ["renamed/a", "etl/a"]
        assert host.registrar.problems() == ()


async def test_a_reload_that_inspects_regardless(tmp_path: Path) -> None:
    async with a_host(tmp_path) as host:
        await host.want(A)
        host.inspector.answers[A.entrypoint] = with_schema("from a file that nobody knows of")
        await host.want(A)
        assert len(host.inspector.asked) == 1
        host.prefect.trouble("PATCH /deployments", status=503, times=3)
        host.begin(A, inspect=True)
        await host.registrar.settled.wait()
        assert host.stored("a")["parameter_openapi_schema"] == {"title": "from a file that nobody knows of"}
        assert len(host.inspector.asked) == 2, "an outage inspects nothing again"


# --- what is compared ---------------------------------------------------------------------------------------------


async def compare(tmp_path: Path, stamps: dict[str, str] | None) -> Change:
    one = a_deployment("a", run={"working_directory": str(tmp_path)})
    ((found, change),) = await compare_all([Inspected(one, stamps)], calls=BoundedCalls())
    assert key_of(found.deployment) == key_of(one)
    return change


@pytest.mark.real_io
async def test_what_counts_as_a_change(tmp_path: Path) -> None:
    file, packages = tmp_path / "limits.py", tmp_path / "site-packages"
    file.write_text("x = 1")
    packages.mkdir()

    def stamps() -> dict[str, str]:
        return {str(path): read_stamp(str(path)) or "" for path in (file, packages)}

    before = stamps()
    assert await compare(tmp_path, before) is Change.NONE
    os.utime(file, ns=(1, 1))
    assert await compare(tmp_path, before) is Change.SOME
    before = stamps()
    (packages / "six-1.0.dist-info").mkdir()
    os.utime(packages, ns=(1, 1))  # whatever the resolution of the file system's clock is
    assert await compare(tmp_path, before) is Change.SOME
    before = stamps()
    file.unlink()
    assert await compare(tmp_path, before) is Change.SOME
    assert await compare(tmp_path, None) is Change.SOME, "inspected by a version that did not know"
    assert await compare(tmp_path, {"a\0b": "1"}) is Change.UNKNOWN
    assert await compare(tmp_path, {}) is Change.NONE
