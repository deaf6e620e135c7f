"""reloading.py: what the answer to a reload says of the host's own keys, of work pools, and of what was not applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.core.place import Json
from tests.kits.reloading import Reloads, reloads

API = "api:\n  url: http://127.0.0.1:4200/api\n"


async def changes(at: Reloads, text: str) -> list[tuple[Json, ...]]:
    """Reload with this runnerd.yaml: key, old, new, whether a restart is needed, and line of each change."""
    at.files.write("runnerd.yaml", text)
    document = await at.reload()
    assert document["applied"] is True
    return [tuple(one[name] for name in ("key", "old", "new", "restart", "line")) for one in document["settings"]]


# --- the host's own keys ---


async def test_each_changed_key_of_the_host_is_named(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        assert await changes(at, API + "  poll_interval: 5s\nlimits: {runs: 8, tags: {gpu: 1}}\nname: other\n") == [
            ("name", "host-1", "other", False, 5),
            ("api.poll_interval", "10s", "5s", False, 3),
            ("limits.runs", 10, 8, False, 4),
            ("limits.tags.gpu", None, 1, False, 4),
        ]
        assert await changes(at, API + "  poll_interval: 5s\nlimits: {runs: 8, tags: {gpu: 2}}\nname: other\n") == [
            ("limits.tags.gpu", 1, 2, False, 4)
        ]
        assert await changes(at, API + "control: {admins: [wheel]}\nhttp: {listen: 127.0.0.1:9464}\n") == [
            ("name", "other", "host-1", False, None),
            ("api.poll_interval", "5s", "10s", False, None),
            ("limits.runs", 8, 10, False, None),
            ("limits.tags.gpu", 2, None, False, None),
            ("control.admins", None, ["wheel"], False, 3),
            ("http.listen", None, "127.0.0.1:9464", False, 4),
        ]
        logged = [line["settings"] for line in at.host.lines.all() if line["event"] == "reloaded"]
        assert logged[1] == "limits.tags.gpu"


async def test_what_takes_a_restart_has_its_place_and_is_said_each_time(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        text = "api:\n  request_timeout: 9s\n  url: http://elsewhere:4200/api\n  prefetch: 1s\n"
        for times in (1, 2):
            changed = await changes(at, text)
            assert changed[0] == ("api.url", "http://127.0.0.1:4200/api", "http://elsewhere:4200/api", True, 3)
            assert changed[-1] == ("api.request_timeout", "1min", "9s", True, 2)
            assert len(changed) == (3 if times == 1 else 2), "what is in force has not changed again"
        problems = at.config.problems()
        assert [problem.place and problem.place.line for problem in problems] == [3, 2]
        assert problems[0].message.startswith("api.url takes effect at a restart only")
        assert at.config.settings().api.request_timeout_s == 60.0


async def test_no_secret_is_in_the_answer(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        text = API + "  headers: {X-Token: s3cret, X-Other: s4me}\n"
        assert await changes(at, text) == [
            ("api.headers.X-Token", None, "***", True, 3),
            ("api.headers.X-Other", None, "***", True, 3),
        ]
        assert len(at.config.problems()) == 1
        at.files.write("runnerd.yaml", text)
        document = await at.reload()
        assert "s3cret" not in str(document) and "s4me" not in str(document)


# --- what was not applied ---


@pytest.mark.parametrize("text", ["limits: {runs: [}\n", API + "limits: {runs: -1}\n", "limits: {runs: 3}\n"])
async def test_a_host_file_that_cannot_be_used_applies_nothing(tmp_path: Path, text: str) -> None:
    async with reloads(tmp_path) as at:
        before = at.config.current
        at.files.write("runnerd.yaml", text)
        at.files.write("conf.d/20.yaml", "deployments: [{name: two, entrypoint: 'flows/etl.py:nightly'}]\n")
        document = await at.reload()
        assert (document["ok"], document["applied"], document["settings"]) == (False, False, [])
        assert document["added"] == []
        assert at.config.current is before


async def test_a_problem_that_was_there_before_is_listed_once(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.files.write("conf.d/20.yaml", "limits: {runs: x}\n")
        await at.reload()
        at.files.write("runnerd.yaml", "limits: {runs: [}\n")
        assert (await at.reload())["applied"] is False
        assert len(at.config.problems()) == 2


async def test_a_broken_part_is_no_reason_not_to_apply_the_rest(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.files.write("runnerd.yaml", API + "pools: [{name: 7}]\nlimits: {runs: 3}\n")
        at.files.write("conf.d/20.yaml", "limits: {runs: x}\n")
        document = await at.reload()
        assert (document["ok"], document["applied"]) == (False, True)
        assert at.config.settings().limits.runs == 3


# --- work pools ---


async def test_the_answer_has_the_problem_of_a_pool_that_was_just_added(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.files.write("conf.d/30.yaml", "pools:\n  - name: there\n  - {name: missing, create: false}\n")
        document = await at.reload()
        assert (document["ok"], document["applied"], document["settled"]) == (False, True, True)
        (problem,) = document["problems"]
        assert problem["message"].startswith("work pool missing does not exist, and create is false")
        assert (problem["file"], problem["line"]) == (str(at.files.etc / "conf.d" / "30.yaml"), 3)
        at.host.prefect.pools.create_pool("missing")
        assert (await at.reload())["problems"] == [], "an unchanged pool is asked for again too"


async def test_pools_that_the_api_does_not_answer_for_are_named(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        at.host.prefect.mute = True
        at.files.write("conf.d/30.yaml", "pools: [{name: p}, {name: q}]\n")
        document = await at.reload()
        assert (document["ok"], document["applied"], document["settled"]) == (True, True, False)
        (problem,) = [one["message"] for one in document["problems"]]
        assert problem.startswith("work pools not asked for yet: p, q (not done within 10s); runnerctl status")
