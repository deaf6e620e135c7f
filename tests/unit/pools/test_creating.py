"""creating.py through its keeper: what is there of a pool before it is served, and why it cannot be."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from runnerd.pools.job.process_job import process_template
from runnerd.pools.keeper import SYNC_GAP_S
from runnerd.pools.table import PoolService, PoolState
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json, copied
from tests.kits.pools import Keeping, keeping, pool_settings

OWN = {"job_configuration": {"command": "{{ command }}"}, "variables": {"properties": {"command": {}}}}
CREATE = "POST /work_pools/"
NO_POOL = (
    "work pool etl does not exist, and create is false; create it (runnerctl pool create etl), or set create: true"
)


def names(one: Keeping) -> list[str]:
    return [queue.name for queue in one.served().queues]


async def seen(*pools: Json, major: int = 3, wait_s: float = 0.0, prefect: FakePrefect | None = None) -> Keeping:
    """A keeper of these after a while."""
    async with keeping(*pools, prefect=prefect or FakePrefect(major=major)) as one:
        await asyncio.sleep(wait_s)
        return one


# --- pools ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("major", [2, 3])
async def test_a_pool_that_is_missing_is_made_of_type_process(major: int) -> None:
    one = await seen(pool_settings(), major=major)
    made = one.prefect.pools.read_pool("etl")
    assert (made.type, made.base_job_template) == ("process", process_template(major))
    assert (one.served().state, one.served().service, names(one)) == (PoolState.READY, PoolService.WORKER, ["default"])
    assert one.found, "it is polled at once"
    assert one.keeper.documents([])[0]["state"] == "ready"


async def test_a_pool_that_is_missing_and_is_not_to_be_made() -> None:
    async with keeping(pool_settings(create=False), pool_settings("other")) as one:
        assert (one.served().state, one.problems()) == (PoolState.INVALID, {"etl": NO_POOL})
        assert list(one.prefect.pools.pools) == ["other"]
        assert one.keeper.documents([])[0]["problem"] == NO_POOL
        await asyncio.sleep(3600)
        assert [(line["event"], line["why"]) for line in one.lines.all() if line["level"] == "error"] == [
            ("cannot serve a work pool", NO_POOL)
        ]
        one.prefect.pools.create_pool("etl")
        await asyncio.sleep(60)
        assert (one.served().state, one.problems()) == (PoolState.READY, {})
        one.prefect.pools.delete_pool("etl")
        await asyncio.sleep(60)
        assert one.problems() == {"etl": NO_POOL}
        assert one.lines.events("error") == ["cannot serve a work pool"] * 2, "it is news again"
        assert one.served("other").open


async def test_a_pool_that_is_deleted_is_made_again() -> None:
    async with keeping(pool_settings(queues=("high",))) as one:
        before = one.served().pool
        one.prefect.pools.delete_pool("etl")
        one.keeper.outdated("etl")
        one.keeper.outdated("of somebody else")
        await asyncio.sleep(SYNC_GAP_S)
        assert one.served().pool != before
        assert (one.served().open, names(one), len(one.found)) == (True, ["high"], 2)


async def test_a_pool_that_another_host_makes_at_the_same_time() -> None:
    prefect = FakePrefect(major=3)
    prefect.trouble(CREATE, status=409, after=True, body={"detail": "A work pool with this name already exists."})
    assert (await seen(pool_settings(), prefect=prefect)).served().open


async def test_a_pool_that_the_server_does_not_let_us_make() -> None:
    why = "cannot create work pool prefect-etl: work pools whose names start with 'prefect' are Prefect's own"
    assert (await seen(pool_settings("prefect-etl"))).problems() == {"prefect-etl": f"{why}, and cannot be created"}


@pytest.mark.parametrize("paused", [False, True])
async def test_a_pool_that_is_there_is_taken_as_it_is(paused: bool) -> None:
    prefect = FakePrefect(major=3)
    there = prefect.pools.create_pool("etl", base_job_template=OWN, is_paused=paused, concurrency_limit=4)
    one = await seen(pool_settings(type="process", base_job_template="/nowhere.json"), prefect=prefect, wait_s=60)
    assert prefect.pools.read_pool("etl").base_job_template == OWN
    known = one.served()
    assert known.pool is not None
    assert (known.pool.id, known.limited) == (there.id, True)
    assert known.state is (PoolState.PAUSED if paused else PoolState.READY)
    assert not [asked for asked in prefect.asked if asked.startswith("PATCH")]


@pytest.mark.parametrize("create", [True, False])
async def test_a_pool_of_ours_without_a_template(create: bool) -> None:
    prefect = FakePrefect(major=2)
    prefect.pools.create_pool("etl", base_job_template={})
    one = await seen(pool_settings(create=create), prefect=prefect, wait_s=60)
    assert prefect.pools.read_pool("etl").base_job_template == (process_template(2) if create else {})
    assert one.served().open
    assert len([asked for asked in prefect.asked if asked.startswith("PATCH")]) == int(create)


# --- types ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "there", "major", "why"),
    [
        ("process", "docker", 3, "work pool etl is of type docker, not process; correct type, or leave it out"),
        ("docker", "process", 2, "work pool etl is of type process, not docker; correct type, or leave it out"),
        (
            None,
            "prefect-agent",
            3,
            "work pool etl is of type prefect-agent, which Prefect 3 has no more; move to a pool of type process",
        ),
        (
            None,
            "ecs:push",
            3,
            "work pool etl is of type ecs:push: Prefect runs its flows itself, no worker can serve it",
        ),
        (
            None,
            "prefect:managed",
            3,
            "work pool etl is of type prefect:managed: Prefect runs its flows itself, no worker can serve it",
        ),
    ],
)
async def test_a_pool_of_a_type_that_cannot_be_served(wanted: str | None, there: str, major: int, why: str) -> None:
    prefect = FakePrefect(major=major)
    prefect.pools.create_pool("etl", type=there)
    one = await seen(pool_settings(type=wanted), prefect=prefect)
    assert one.problems() == {"etl": why}
    assert (one.served().open, one.workers, one.found, prefect.pools.beats) == (False, {}, [], {})


@pytest.mark.parametrize("kind", ["prefect-agent", "ecs:push"])
async def test_a_pool_that_nobody_could_serve_is_not_even_made(kind: str) -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.add_worker_type("ecs:push", "prefect", OWN)
    one = await seen(pool_settings(type=kind), prefect=prefect)
    assert kind in one.problems()["etl"]
    assert prefect.pools.pools == {}


async def test_a_pool_of_agents_is_made_without_a_template() -> None:
    one = await seen(pool_settings(type="prefect-agent"), major=2)
    made = one.prefect.pools.read_pool("etl")
    assert (made.type, made.base_job_template, one.served().service) == ("prefect-agent", {}, PoolService.AGENT)


async def test_a_pool_of_another_type_has_that_type_s_template() -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.add_worker_type("docker", "prefect-docker", OWN)
    one = await seen(pool_settings(type="docker"), prefect=prefect)
    assert (prefect.pools.read_pool("etl").base_job_template, one.served().service) == (OWN, PoolService.OTHER)


async def test_a_type_that_the_server_does_not_know() -> None:
    prefect = FakePrefect(major=3)
    for kind in ("kubernetes", "docker"):
        prefect.pools.add_worker_type(kind, f"prefect-{kind}", OWN)
    why = "cannot create work pool etl: there is no type dokcer; there are docker, kubernetes"
    assert (await seen(pool_settings(type="dokcer"), prefect=prefect)).problems() == {"etl": why}


# --- template files ---------------------------------------------------------------------------------------------


async def test_a_pool_is_made_with_the_template_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(json.dumps(OWN), encoding="utf-8")
    one = await seen(pool_settings(base_job_template=str(path)))
    assert one.prefect.pools.read_pool("etl").base_job_template == OWN


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot read base_job_template {}: No such file or directory"),
        (b"{", "cannot read base_job_template {}: it is not JSON: Expecting property name"),
        (b"\xff\xfe", "cannot read base_job_template {}: it is not UTF-8 (byte 0xff)"),
        (b"[" * 100_000, "cannot read base_job_template {}: it is not JSON"),
        (b"[" * 3 * 2**20, "cannot read base_job_template {}: it has 3145728 bytes, more than the limit of 2M"),
        (b"[1]", "base_job_template {} is none: it must be a map with job_configuration and variables"),
        (b'{"variables": {}}', "base_job_template {} is none: it must be a map"),
    ],
)
async def test_a_file_that_is_no_template(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "template.json"
    if content is not None:
        path.write_bytes(content)
    async with keeping(pool_settings(base_job_template=str(path)), pool_settings("other")) as one:
        assert one.problems()["etl"].startswith(why.format(path))
        assert list(one.prefect.pools.pools) == ["other"]
        path.write_text(json.dumps(OWN), encoding="utf-8")
        await asyncio.sleep(60)
        assert one.problems() == {}, "a file that was mended is read without a reload"


async def test_a_template_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    problem = (await seen(pool_settings(base_job_template=str(tmp_path / "pipe")))).problems()["etl"]
    assert problem.startswith(f"cannot read base_job_template {tmp_path}/pipe: it is not a regular file")


# --- queues -----------------------------------------------------------------------------------------------------


async def test_queues_are_made_in_the_order_they_are_named() -> None:
    one = await seen(pool_settings(queues=("z", "a", "m")))
    assert names(one) == ["z", "a", "m"]
    priorities = [queue.priority for queue in one.served().queues]
    assert priorities == [1, 2, 3]
    assert [queue.name for queue in one.prefect.pools.queues("etl")] == ["z", "a", "m", "default"]


async def test_the_default_queue_has_its_place_among_them() -> None:
    one = await seen(pool_settings(queues=("high", "default", "low")))
    assert [(queue.name, queue.priority) for queue in one.served().queues] == [("high", 1), ("default", 2), ("low", 3)]


async def test_a_new_queue_comes_last_where_somebody_has_arranged_the_others() -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("etl")
    prefect.pools.create_queue("etl", "urgent", priority=1)
    one = await seen(pool_settings(queues=("new", "urgent")), prefect=prefect)
    assert [queue.name for queue in one.prefect.pools.queues("etl")] == ["urgent", "default", "new"]
    assert names(one) == ["urgent", "new"]


async def test_queues_that_are_there_keep_their_priorities() -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("etl")
    for name, priority in (("low", 30), ("high", 10)):
        prefect.pools.create_queue("etl", name, priority=priority)
    one = await seen(pool_settings(queues=("low", "high", "default")), prefect=prefect)
    assert [(queue.name, queue.priority) for queue in one.served().queues] == [
        ("default", 1),
        ("high", 10),
        ("low", 30),
    ]


async def test_a_queue_that_is_missing_and_is_not_to_be_made() -> None:
    prefect = FakePrefect(major=3)
    prefect.pools.create_pool("etl")
    one = await seen(pool_settings(queues=("default", "high"), create=False), prefect=prefect)
    advice = "create it (runnerctl queue create --pool etl high), or set create: true"
    why = f"work pool etl has no queue high, and create is false; {advice}"
    assert (one.problems(), one.served().open) == ({"etl": why}, False)


class Rival(FakePrefect):
    """Another host makes the queue `high` as soon as somebody has seen that there is none."""

    def _route(self, method: str, path: str, body: Json) -> tuple[int, Json]:
        answer = super()._route(method, path, body)
        if path.endswith("/queues/filter") and "high" not in str(self.pools.by_id):
            self.pools.create_queue("etl", "high", priority=1)
        return answer


async def test_a_queue_that_another_host_makes_at_the_same_time() -> None:
    one = await seen(pool_settings(queues=("high", "low")), prefect=Rival(major=3))
    assert (names(one), one.problems(), one.lines.events("error")) == (["high", "low"], {}, [])


async def test_a_queue_that_cannot_be_made() -> None:
    one = await seen(pool_settings(queues=("a/b",)), pool_settings("other"))
    assert one.problems()["etl"].startswith("cannot create queue a/b of work pool etl: ")
    assert one.served("other").open


async def test_new_queues_are_found_without_a_restart() -> None:
    async with keeping(pool_settings(match=("batch-", "night"))) as one:
        assert (names(one), one.served().open) == ([], True)
        for name in ("batch-1", "other", "nightly"):
            one.prefect.pools.create_queue("etl", name)
        await asyncio.sleep(60)
        assert names(one) == ["batch-1", "nightly"]
        assert len(one.found) == 2, "they are polled at once"
        one.prefect.pools.delete_queue("etl", "nightly")
        await asyncio.sleep(60)
        assert names(one) == ["batch-1"]
        copied(one.prefect)
        await asyncio.sleep(60)
        assert "POST /work_pools/etl/queues" not in one.prefect.asked, "what matches is never made"


async def test_a_queue_that_is_deleted_meanwhile() -> None:
    async with keeping(pool_settings("a", queues=("high",)), pool_settings("b", queues=("x",))) as one:
        await one.want(pool_settings("a", queues=("high",)), pool_settings("b", queues=("x",), create=False))
        for pool, queue in (("a", "high"), ("b", "x")):
            one.prefect.pools.delete_queue(pool, queue)
            one.keeper.outdated(pool)
        await asyncio.sleep(SYNC_GAP_S)
        assert [queue.name for queue in one.served("a").queues] == ["high"]
        assert list(one.problems()) == ["b"]


@pytest.mark.parametrize("change", [{"is_paused": True}, {"priority": 7}, {"concurrency_limit": 0}])
async def test_a_queue_that_is_another_by_now(change: dict[str, Json]) -> None:
    async with keeping(pool_settings()) as one:
        one.prefect.pools.update_queue("etl", "default", change)
        await asyncio.sleep(60)
        (queue,) = one.served().queues
        assert {key: getattr(queue, key) for key in change} == change


async def test_the_command_that_creates_what_is_missing_has_its_type_and_can_be_pasted() -> None:
    one = await seen(pool_settings("it's", type="docker", create=False))
    assert "create it (runnerctl pool create 'it'\"'\"'s' --type docker), or" in one.problems()["it's"]
