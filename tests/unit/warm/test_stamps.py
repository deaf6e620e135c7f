"""stamps.py: what changes the stamp of an interpreter, and what does not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.warm.plan import Plan, make_plan
from runnerd.warm.stamps import read_stamp
from tests.kits.warm_host import a_spec, a_venv, a_wish

PACKAGES = "venv/lib/python3.11/site-packages"


def plan(folder: Path, *preload: str, **environment: str) -> Plan:
    spec = a_spec(folder / "venv/bin/python", working_directory=str(folder / "work"), environment=environment)
    made = make_plan(spec, a_wish(preload=preload))
    assert isinstance(made, Plan)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A virtual environment, and a working directory with a package of its own."""
    a_venv(tmp_path / "venv")
    for path in (
        "work/mypkg/sub/deep.py",
        "work/mypkg/__init__.py",
        "work/beside.py",
        "work/data.csv",
        "work/out/x.py",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("1\n")
    return tmp_path


def touch(path: Path) -> None:
    about = path.stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1))


def write(path: Path) -> None:
    path.write_text("changed\n")


async def changes(folder: Path, made: Plan, path: str, change: Callable[[Path], None]) -> bool:
    calls = BoundedCalls()
    before = await read_stamp(made, calls=calls)
    assert before == await read_stamp(made, calls=calls), "nothing has changed"
    change(folder / path)
    return await read_stamp(made, calls=calls) != before


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("venv/bin/python", write),
        ("venv/pyvenv.cfg", write),
        (f"{PACKAGES}/a.pth", touch),
        (f"{PACKAGES}/b.pth", write),
        (f"{PACKAGES}/other-1.0.dist-info", Path.mkdir),
        (f"{PACKAGES}/prefect-3.9.1.dist-info/RECORD", touch),
        ("venv/linked/sitecustomize.py", write),
    ],
)
async def test_a_change_of_the_environment(folder: Path, path: str, change: Callable[[Path], None]) -> None:
    assert await changes(folder, plan(folder), path, change)


@pytest.mark.parametrize("path", ["work/mypkg/__init__.py", "work/mypkg/sub/deep.py", "work/beside.py"])
async def test_a_change_of_a_preloaded_file(folder: Path, path: str) -> None:
    assert await changes(folder, plan(folder, "mypkg.sub"), path, touch)


@pytest.mark.parametrize("path", ["work/mypkg/new.py", "work/new.py"])
async def test_a_file_more(folder: Path, path: str) -> None:
    assert await changes(folder, plan(folder, "mypkg"), path, write)


async def test_a_package_that_hides_the_installed_one(folder: Path) -> None:
    (folder / PACKAGES / "tables").mkdir()
    assert await changes(folder, plan(folder, "tables"), "work/tables.py", write)


async def test_modules_that_a_pth_file_or_pythonpath_has(folder: Path) -> None:
    write(folder / "venv/linked/tables.py")
    assert await changes(folder, plan(folder, "tables"), "venv/linked/tables.py", touch)
    (folder / "lib").mkdir()
    write(folder / "lib/tables.py")
    assert await changes(folder, plan(folder, "tables", PYTHONPATH=str(folder / "lib")), "lib/tables.py", touch)


@pytest.mark.parametrize("path", ["work/results.csv", "work/out/x.csv", "venv/linked/results.csv", "work/out/new.py"])
async def test_what_a_flow_writes_beside_is_no_change(folder: Path, path: str) -> None:
    assert not await changes(folder, plan(folder, "mypkg"), path, write)


async def test_without_preloading_no_file_of_the_deployment_counts(folder: Path) -> None:
    assert not await changes(folder, plan(folder), "work/mypkg/__init__.py", touch)


async def test_an_environment_that_is_not_there(tmp_path: Path) -> None:
    assert isinstance(await read_stamp(plan(tmp_path, "mypkg"), calls=BoundedCalls()), str)


async def test_odd_files(folder: Path) -> None:
    os.mkfifo(folder / PACKAGES / "fifo.pth")
    (folder / PACKAGES / "odd.pth").write_bytes(b"\xff\0\n" * 10)
    (folder / "work/mypkg/loop").symlink_to(folder / "work")
    assert isinstance(await read_stamp(plan(folder, "mypkg"), calls=BoundedCalls()), str)


async def test_a_disk_that_hangs(folder: Path) -> None:
    class Hanging(BoundedCalls):
        async def call(self, *_: object) -> Unanswered:  # type: ignore[override]
            return Unanswered("did not answer within 10 s")

    found = await read_stamp(plan(folder), calls=Hanging())
    assert str(found) == f"{folder}/venv/bin did not answer within 10 s"
