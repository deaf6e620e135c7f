"""reloading.py over real files: a failed reload changes nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runnerd.core.place import Json
from runnerd.deployments.inspection import InspectionFailure
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import URL
from tests.kits.registrar import BROKEN, FakeInspector, flow
from tests.kits.reloading import reloads

TWO = "deployments: [{name: two, entrypoint: 'flows/etl.py:nightly'}]\n"
POOLS = "pools: [{name: p, limit: 1}, {name: q}]\n"
BAD = "deployments: [{name: one, entrypint: x}]\n"
MAIN = "api: {url: http://127.0.0.1:4200/api}\n"


async def test_nothing_changed(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        document = await at.reload()
        none: Json = {"added": [], "changed": [], "removed": []}
        about: Json = {"ok": True, "applied": True, "settled": True, "settings": []}
        wanted = {**about, **none, "unchanged": 1, "pools": {**none, "unchanged": 0}, "problems": []}
        assert document == wanted


async def test_added_changed_and_removed(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.files.write("conf.d/20.yaml", TWO)
        assert (await at.reload())["added"] == ["two"]
        at.files.write("conf.d/20.yaml", TWO.replace("two,", "two, tags: [x],"))
        assert (await at.reload())["changed"] == ["etl/two"]
        (at.files.etc / "conf.d" / "20.yaml").unlink()
        assert (await at.reload())["removed"] == ["etl/two"]
        assert at.names() == ["one"]


async def test_what_changed_about_pools_is_told_by_their_names(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:

        async def told(text: str, name: str = "conf.d/20.yaml") -> tuple[list[str], list[str], list[str], int]:
            at.files.write(name, text)
            document = await at.reload()
            assert [document[word] for word in ("added", "changed", "removed", "unchanged")] == [[], [], [], 1]
            pools = document["pools"]
            return pools["added"], pools["changed"], pools["removed"], pools["unchanged"]

        assert await told(POOLS) == (["p", "q"], [], [], 0)
        assert await told(POOLS.replace("1", "2")) == ([], ["p"], [], 1)
        assert await told("# further down\n" + POOLS.replace("1", "2")) == ([], [], [], 2)
        assert await told(POOLS.replace("limit: 1", "limt: 3")) == ([], [], [], 2)  # its last good version
        assert [(pool.name, pool.limit) for pool in at.config.current.pools] == [("q", None), ("p", 2)]
        assert await told(POOLS.replace("1", "2"), "conf.d/15.yaml") == ([], [], [], 2)
        assert await told("") == ([], [], [], 2)
        assert await told("pools: [{name: q, run: {nice: 1}}]\n", "conf.d/15.yaml") == ([], ["q"], ["p"], 0)


async def test_settings_take_effect(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.files.write("runnerd.yaml", "api: {url: http://127.0.0.1:4200/api, poll_interval: 3s}\nlimits: {runs: 7}\n")
        assert (await at.reload())["ok"] is True
        settings = at.config.settings()
        assert (settings.limits.runs, settings.api.poll_interval_s) == (7, 3.0)


async def test_another_poll_interval_counts_from_now_on(tmp_path: Path) -> None:
    """The poller may be in the middle of a rest of an hour."""
    async with reloads(tmp_path) as at:
        for text, polls in (("10m", True), ("10m", False), ("3s", True)):
            at.wakes.poll.clear()
            at.files.write("runnerd.yaml", f"api: {{url: http://127.0.0.1:4200/api, poll_interval: {text}}}\n")
            await at.reload()
            assert at.wakes.poll.is_set() is polls


async def test_a_reading_that_cannot_be_used_changes_nothing(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        before = at.config.current
        at.files.write("runnerd.yaml", "limits: {runs: minus one}\n")
        at.files.write("conf.d/20.yaml", TWO)
        document = await at.reload()
        assert document["ok"] is False
        assert document["problems"][0]["file"].endswith("runnerd.yaml")
        assert (at.config.current, at.names()) == (before, ["one"])
        assert at.config.problems() != []
        assert at.host.stored("one")["paused"] is False
        assert "cannot reload; the old configuration stays" in at.host.lines.events("error")
        at.files.write("runnerd.yaml", MAIN)
        assert (await at.reload())["added"] == ["two"]
        assert at.config.problems() == []


async def test_a_broken_drop_in_takes_nothing_else_down(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.files.write("conf.d/10.yaml", BAD)
        at.files.write("conf.d/20.yaml", TWO)
        document = await at.reload()
        assert (document["ok"], document["added"]) == (False, ["two"])
        assert "entrypoint" in " ".join(problem["message"] for problem in document["problems"])
        assert sorted(at.names()) == ["one", "two"]
        assert at.host.stored("one")["paused"] is False


async def test_what_is_fixed_at_the_start_stays(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        url = at.config.settings().api.url
        at.files.write("runnerd.yaml", "api: {url: http://elsewhere:4200/api, poll_interval: 3s}\n")
        document = await at.reload()
        assert document["ok"] is False
        assert "at a restart only" in document["problems"][0]["message"]
        assert (at.config.settings().api.url, at.config.settings().api.poll_interval_s) == (url, 3.0)
        at.files.write("runnerd.yaml", MAIN)
        assert (await at.reload())["ok"] is True


async def test_a_flow_that_cannot_be_inspected_is_in_the_answer(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.inspector.change("flows/etl.py:broken", BROKEN)
        at.files.write("conf.d/20.yaml", TWO.replace("nightly", "broken"))
        document = await at.reload()
        assert document["ok"] is False
        assert [problem["deployment"] for problem in document["problems"]] == ["two"]
        assert document["problems"][0]["message"] == BROKEN.message


async def test_a_deployment_with_a_flaw_is_in_force_and_its_flaw_in_the_answer(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.inspector.change("flows/etl.py:nightly", flow("etl", schema={"properties": {"rows": {}}}))
        at.files.write("conf.d/20.yaml", TWO.replace("}]", ", parameters: {area: 1}}]"))
        document = await at.reload()
        assert (document["ok"], document["applied"], document["added"]) == (True, True, ["two"])
        assert [problem["deployment"] for problem in document["problems"]] == ["two"]


async def test_with_the_api_away_a_reload_still_ends(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.prefect.down = True
        at.files.write("conf.d/20.yaml", TWO)
        began = asyncio.get_running_loop().time()
        document = await at.reload()
        assert 9 < asyncio.get_running_loop().time() - began < 12
        assert (document["ok"], document["applied"], document["settled"]) == (True, True, False)
        assert document["added"] == ["two"]
        (problem,) = [one["message"] for one in document["problems"]]
        assert problem.startswith(f"not registered yet: two (Prefect at {URL} is unreachable: ")
        began = asyncio.get_running_loop().time()
        assert (await at.reload())["settled"] is False
        assert asyncio.get_running_loop().time() - began < 3, "an API that is known to be away is not waited for"
        at.host.prefect.down = False
        await at.host.registrar.settled.wait()
        assert at.host.stored("two")["paused"] is False


async def test_an_api_that_never_answers_holds_no_reload_up(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.prefect.mute = True
        at.files.write("conf.d/20.yaml", TWO + "limits: {runs: 3}\n")
        began = asyncio.get_running_loop().time()
        document = await at.reload()
        assert 9 < asyncio.get_running_loop().time() - began < 13
        assert (at.config.settings().limits.runs, document["settled"]) == (3, False)
        (problem,) = [one["message"] for one in document["problems"]]
        assert problem.startswith(f"not registered yet: two (Prefect at {URL} has not answered for 1")
        assert problem.endswith("go on in the background; see runnerctl deployments")


async def test_flows_that_are_inspected_for_long_are_not_put_down_to_the_api(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.inspector.change("flows/etl.py:slow", InspectionFailure(kind="slow", message="takes long"))
        at.files.write("conf.d/20.yaml", TWO.replace("nightly", "slow"))
        began = asyncio.get_running_loop().time()
        document = await at.reload()
        assert 59 < asyncio.get_running_loop().time() - began < 62
        (problem,) = [one["message"] for one in document["problems"]]
        assert problem.startswith("not registered yet: two (not done within 1min); ")
        at.host.inspector.release.set()
        await at.host.registrar.settled.wait()


async def test_reloads_do_not_overlap(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.files.write("conf.d/20.yaml", TWO)
        first, second = await asyncio.gather(at.reloader.reload(), at.reloader.reload())
        assert (first["added"], second["added"], second["unchanged"]) == (["two"], [], 2)


async def test_the_last_good_version_survives_a_restart(tmp_path: Path) -> None:
    prefect, inspector = FakePrefect(major=3), FakeInspector()
    async with reloads(tmp_path, prefect=prefect, inspector=inspector) as at:
        kept = at.config.current
        at.files.write("conf.d/10.yaml", BAD)
        await at.reload()
        remembered = at.host.journal.last_good()
        assert remembered is not None
        assert [one.entrypoint for one in remembered.deployments] == [kept.deployments[0].entrypoint]
        again = at.files.load(last_good=remembered)
        assert [one.name for one in again.deployments] == ["one"]
        assert again.problems != ()
