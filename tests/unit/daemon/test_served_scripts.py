"""`scripts:` in the life of a daemon: read without holding anything up, taken anew, paused, and kept when they fail."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from runnerd.core.place import Json
from runnerd.core.recording import Recording, RecordingFailure, Said, Served
from runnerd.deployments.dependencies import read_stamp
from runnerd.deployments.script_reading import READ_GAP_MAX_S, RECHECK_EVERY_S
from tests.kits.nouns import copied
from tests.kits.reloading import ONE, Reloads, reloads

SERVE = "flows/serve.py"
DROP_IN = f"scripts: [{{path: {SERVE}}}]\n"


def serving(r: Reloads, *names: str, of: str = SERVE, imports: str | None = None) -> Recording:
    """An answer like the program's: `imports` is one more file that it depends on."""
    entries: list[dict[str, Json]] = [{"name": name, "entrypoint": "flows/etl.py:nightly"} for name in names]
    files = [str(r.files.etc / of)] + ([imports] if imports else [])
    return Recording(
        prefect_version="3.9.1",
        served=tuple(Served(entry, 3) for entry in entries),
        dependencies={path: stamp for path in files if (stamp := read_stamp(path)) is not None},
    )


def write_script(r: Reloads, text: str = "# serves\n", name: str = SERVE) -> None:
    path = r.files.etc / name
    path.write_text(text)
    os.utime(path, ns=(1, len(text)))  # no two texts have one stamp, however fast the clock of this disk


async def rounds(count: float = 2) -> None:
    await asyncio.sleep(count * RECHECK_EVERY_S)


async def test_its_deployments_are_registered_and_a_reload_waits_for_them(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        write_script(r)
        r.scripts.outcomes[SERVE] = serving(r, "a", "b")
        r.files.write("conf.d/20.yaml", DROP_IN)
        document = await r.reload()
        assert (document["ok"], document["settled"], document["problems"]) == (True, True, [])
        assert sorted(r.names()) == ["a", "b", "one"]
        assert r.host.stored("a") is not None and r.host.stored("b") is not None
        entry = next(one for one in r.host.registry.entries() if one.deployment.name == "a")
        assert (entry.deployment.place.file, entry.deployment.place.line) == (str(r.files.etc / SERVE), 3)


async def test_what_it_no_longer_declares_is_paused_and_nothing_else(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        write_script(r)
        r.scripts.outcomes[SERVE] = serving(r, "a", "b")
        r.files.write("conf.d/20.yaml", DROP_IN)
        await r.reload()
        write_script(r, "# serves less\n")
        r.scripts.outcomes[SERVE] = serving(r, "a")
        await rounds()
        await r.host.registrar.settled.wait()
        await rounds()
        assert sorted(r.names()) == ["a", "one"]
        assert r.host.stored("b")["paused"] is True
        assert r.host.stored("a")["paused"] is False


async def test_it_is_read_again_when_what_it_imports_changes_and_else_not(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        write_script(r)
        write_script(r, "x = 1\n", "flows/lib.py")
        lib = str(r.files.etc / "flows/lib.py")
        r.scripts.outcomes[SERVE] = serving(r, "a", imports=lib)
        r.files.write("conf.d/20.yaml", DROP_IN)
        await r.reload()
        await rounds(20)
        assert r.scripts.read == [SERVE]
        copied(r.host.prefect)
        write_script(r, "x = 12\n", "flows/lib.py")
        r.scripts.outcomes[SERVE] = serving(r, "a", "c", imports=lib)
        await rounds(3)
        assert r.scripts.read == [SERVE, SERVE]
        assert sorted(r.names()) == ["a", "c", "one"]


async def test_one_that_fails_keeps_its_last_good_deployments(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        write_script(r)
        r.scripts.outcomes[SERVE] = serving(r, "a")
        r.files.write("conf.d/20.yaml", DROP_IN)
        await r.reload()
        good, r.scripts.outcomes[SERVE] = r.scripts.outcomes[SERVE], RecordingFailure(said=Said("serve.py: no", 4))
        write_script(r, "raise\n")
        await rounds()
        assert sorted(r.names()) == ["a", "one"]
        assert r.host.stored("a")["paused"] is False
        (problem,) = r.config.problems()
        assert (problem.message, problem.place and problem.place.line) == ("serve.py: no", 4)
        document = await r.reload()
        assert [one["message"] for one in document["problems"] if one["line"] == 4][:1] == ["serve.py: no"]
        read = len(r.scripts.read)
        await asyncio.sleep(3 * READ_GAP_MAX_S)
        assert 3 <= len(r.scripts.read) - read <= 12  # again by itself, and the less often the longer it fails
        r.scripts.outcomes[SERVE] = good
        await asyncio.sleep(2 * READ_GAP_MAX_S)
        assert r.config.problems() == []


async def test_one_that_hangs_holds_up_no_other(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        for name in (SERVE, "flows/other.py"):
            write_script(r, name=name)
        r.scripts.hanging.add(SERVE)
        r.scripts.outcomes["flows/other.py"] = serving(r, "b", of="flows/other.py")
        r.scripts.outcomes[SERVE] = serving(r, "a")
        r.files.write("conf.d/20.yaml", f"scripts: [{{path: {SERVE}}}, {{path: flows/other.py}}]\n")
        document = await r.reload()
        assert document["settled"] is False
        assert any("scripts not read yet: flows/serve.py" in one["message"] for one in document["problems"])
        assert r.host.stored("b") is not None
        r.scripts.hanging.clear()
        await rounds()
        await r.host.registrar.settled.wait()
        assert r.host.stored("a") is not None


async def test_a_removed_script_is_forgotten_with_its_deployments(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        write_script(r)
        r.scripts.outcomes[SERVE] = serving(r, "a")
        path = r.files.write("conf.d/20.yaml", DROP_IN)
        await r.reload()
        path.unlink()
        document = await r.reload()
        assert (document["removed"], r.names()) == (["etl/a"], ["one"])
        write_script(r, "# other\n")
        await rounds(4)
        assert r.scripts.read == [SERVE]


async def test_an_edited_drop_in_waits_for_a_reload_although_a_script_changes(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        write_script(r)
        r.scripts.outcomes[SERVE] = serving(r, "a")
        r.files.write("conf.d/20.yaml", DROP_IN)
        await r.reload()
        r.files.write("conf.d/10.yaml", ONE.replace("one", "edited"))
        write_script(r, "# changed\n")
        r.scripts.outcomes[SERVE] = serving(r, "b")
        await rounds()
        assert sorted(r.names()) == ["b", "one"]
        assert (await r.reload())["added"] == ["edited"]


async def test_an_edited_run_section_has_the_script_read_again(tmp_path: Path) -> None:
    async with reloads(tmp_path) as r:
        write_script(r)
        r.scripts.outcomes[SERVE] = serving(r, "a")
        r.files.write("conf.d/20.yaml", DROP_IN)
        await r.reload()
        r.files.write("conf.d/20.yaml", "scripts: [{path: flows/serve.py, run: {limit: 3}}]\n")
        assert (await r.reload())["ok"] is True
        assert r.scripts.read == [SERVE, SERVE]
        entry = next(one for one in r.host.registry.entries() if one.deployment.name == "a")
        assert entry.deployment.run.limit == 3
