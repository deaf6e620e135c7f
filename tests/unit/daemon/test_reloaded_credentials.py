"""reloading.py and credentials_in_force.py: a reload reads the keys again; no broken file takes one away."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runnerd.launch.credentials_in_force import RETRY_S
from tests.kits.reloading import Reloads, reloads


def with_key(folder: Path, *, name: str = "key") -> str:
    return f"api:\n  url: http://127.0.0.1:4200/api\n  key_file: {folder / name}\n"


async def lose_key(at: Reloads, folder: Path) -> None:
    """Have the key `first` in use, and then its file gone, each known to a reload."""
    (folder / "key").write_text("first")
    at.files.write("runnerd.yaml", with_key(folder))
    await at.reload()
    (folder / "key").unlink()
    await at.reload()


async def authorized(at: Reloads) -> str | None:
    """Make one request; return the key that it carried."""
    await at.api.transport.request("GET", "/health")
    return at.host.prefect.keys[-1]


async def test_a_reload_reads_the_key_again_and_has_it_used_at_once(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        (tmp_path / "key").write_text("first")
        at.files.write("runnerd.yaml", with_key(tmp_path))
        assert (await at.reload())["ok"] is True
        assert await authorized(at) == "first"
        (tmp_path / "key").write_text("second")
        assert await authorized(at) == "first", "without a reload, only a denial has the file read again"
        assert (await at.reload())["ok"] is True
        assert await authorized(at) == "second"


async def test_a_key_file_that_cannot_be_read_is_a_problem_until_it_can(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        (tmp_path / "key").write_text("first")
        at.files.write("runnerd.yaml", with_key(tmp_path))
        await at.reload()
        assert await authorized(at) == "first"
        (tmp_path / "key").rename(tmp_path / "elsewhere")
        document = await at.reload()
        assert (document["ok"], document["applied"]) == (False, True)
        (problem,) = document["problems"]
        why = "No such file or directory; the last good one stays in use"
        assert problem["message"] == f"cannot read the API key file {tmp_path / 'key'}: {why}"
        assert (problem["file"], problem["line"]) == (str(at.files.etc / "runnerd.yaml"), 3)
        assert [one.message for one in at.problems.all()] == [problem["message"]]
        assert "cannot read the credentials" in at.host.lines.events("warning")
        assert await authorized(at) == "first"
        assert len(at.problems.all()) == 1, "a request that succeeds mends no file"
        (tmp_path / "elsewhere").rename(tmp_path / "key")
        assert (await authorized(at), len(at.problems.all())) == ("first", 1), "no request reads it"
        retrying = asyncio.create_task(at.credentials.run())
        await asyncio.sleep(RETRY_S + 1)
        assert at.problems.all() == [], "read again without another reload"
        retrying.cancel()


async def test_no_request_reads_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        await lose_key(at, tmp_path)
        assert await authorized(at) == "first"
        (tmp_path / "key").write_text("second")
        assert [await authorized(at) for _ in range(5)] == ["first"] * 5
        retrying = asyncio.create_task(at.credentials.run())
        await asyncio.sleep(RETRY_S + 1)
        assert await authorized(at) == "second", "what was read again is used at once"
        retrying.cancel()


async def test_a_denial_has_a_key_file_read_that_could_not_be_read_before(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        await lose_key(at, tmp_path)
        (tmp_path / "key").write_text("second")
        at.host.prefect.key = "second"
        assert await authorized(at) == "second"
        assert at.problems.all() == []


@pytest.mark.parametrize("text", ["", "two\nlines", "\x00"])
async def test_a_key_that_no_request_can_carry_leaves_the_last_one_in_force(tmp_path: Path, text: str) -> None:
    async with reloads(tmp_path) as at:
        (tmp_path / "key").write_text("first")
        (tmp_path / "odd").write_text(text)
        at.files.write("runnerd.yaml", with_key(tmp_path))
        await at.reload()
        at.files.write("runnerd.yaml", with_key(tmp_path, name="odd"))
        assert "it must be one line" in (await at.reload())["problems"][0]["message"]
        assert await authorized(at) == "first"


async def test_the_key_of_another_server_is_not_sent_to_the_present_one(tmp_path: Path) -> None:
    async with reloads(tmp_path) as at:
        for name in ("key", "other"):
            (tmp_path / name).write_text(name)
        at.files.write("runnerd.yaml", with_key(tmp_path))
        await at.reload()
        at.files.write("runnerd.yaml", with_key(tmp_path, name="other").replace("4200", "4300"))
        document = await at.reload()
        assert [(one["key"], one["restart"]) for one in document["settings"]] == [
            ("api.url", True),
            ("api.key_file", True),
        ]
        assert [one["line"] for one in document["problems"]] == [2, 3]
        assert await authorized(at) == "key"
