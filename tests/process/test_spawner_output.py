"""The bound of a run's output: while the run writes, at its end, and for what a run does to its own file."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.output.attempts import find_outputs
from runnerd.output.output_file import read_block
from runnerd.processes.protocol import Record
from runnerd.spawner.runs.output_bound import BLOCK_BYTES, OutputFile
from runnerd.spawner.runs.outputs import RESULT_MAX_BYTES
from tests.kits.spawner import SpawnerUnderTest, wait_until
from tests.process.test_spawner_end import end_of

MIB = 2**20
PYTHON = (sys.executable, "-I", "-S", "-c")


def used(path: Path) -> int:
    return os.stat(path).st_blocks * 512


async def run_program(spawner: SpawnerUnderTest, program: str, *, bound: int) -> Record:
    return await end_of(spawner, spawner.spec("run", *PYTHON, program, output_max_bytes=bound))


async def test_output_stays_bounded_and_keeps_its_newest_part(spawner: SpawnerUnderTest) -> None:
    path = spawner.home / "run.out"
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", mode=("write", str(MIB)), output_max_bytes=2**18))
        whole = lambda: path.exists() and os.stat(path).st_size == MIB + len("ready\n")  # noqa: E731
        await asyncio.to_thread(wait_until, whole, "all of the output")
        await asyncio.to_thread(wait_until, lambda: used(path) <= 2**18, "the output to be trimmed")
        await link.client.stop(key="run", attempt=0, reason="cancel", timeout_s=0)
        await link.until("run", "exited")
    content = path.read_bytes()
    assert content[:64] == b"\0" * 64
    assert content[-70:] == f"{MIB // 64 - 1:063d}\nready\n".encode()
    assert len(content) == MIB + len("ready\n")


async def test_a_flood_is_bounded_while_it_runs_and_exactly_at_its_end(spawner: SpawnerUnderTest) -> None:
    """After each 64 MiB the run waits until its file is within the bound again: the cut does not wait for its end."""
    path = spawner.home / "run.out"
    program = f"""if True:
        import os, time
        for _ in range(8):
            for _ in range(64): os.write(1, b"x" * {MIB})
            while os.fstat(1).st_blocks * 512 > {MIB}: time.sleep(0.001)
        for _ in range(64): os.write(1, b"y" * {MIB})
        os.write(1, b"the last line\\n")
    """
    record = await run_program(spawner, program, bound=MIB)
    assert record.exit is not None
    assert record.exit.code == 0
    assert used(path) <= MIB
    assert path.read_bytes().endswith(b"ythe last line\n")


async def test_a_burst_right_before_the_end_is_cut_to_the_bound(spawner: SpawnerUnderTest) -> None:
    path = spawner.home / "run.out"
    await run_program(spawner, "import os; os.write(1, b'x' * (8 * 2**20) + b'end')", bound=MIB)
    assert used(path) <= MIB
    assert used(path) >= MIB // 2 - 2 * BLOCK_BYTES  # half is kept where it was still growing at the cut
    assert path.read_bytes().endswith(b"xend")


async def test_a_burst_after_a_long_silence_is_cut(spawner: SpawnerUnderTest) -> None:
    path, go = spawner.home / "run.out", spawner.home / "go"
    os.mkfifo(go)
    program = (
        f"import os; os.write(1, b'.'); open({str(go)!r}).read(); os.write(1, b'x' * (4 * 2**20)); open({str(go)!r})"
    )
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", *PYTHON, program, output_max_bytes=MIB))
        await asyncio.to_thread(wait_until, lambda: path.exists() and used(path) > 0, "the first line")
        await asyncio.to_thread(go.write_text, "")
        await asyncio.to_thread(wait_until, lambda: os.stat(path).st_size > 4 * MIB, "the burst")
        await asyncio.to_thread(wait_until, lambda: used(path) <= MIB, "the burst to be cut")
        await asyncio.to_thread(go.write_text, "")
        await link.until("run", "exited")


async def test_what_is_printed_while_no_spawner_runs_is_cut_by_the_next(spawner: SpawnerUnderTest) -> None:
    path, go = spawner.home / "run.out", spawner.home / "go"
    os.mkfifo(go)
    program = f"import os; open({str(go)!r}).read(); os.write(1, b'x' * (8 * {MIB})); open({str(go)!r}, 'w')"
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", *PYTHON, program, output_max_bytes=MIB))
        spawner.end(9)
    await asyncio.to_thread(go.write_text, "")
    await asyncio.to_thread(go.read_text)
    await asyncio.to_thread(wait_until, lambda: used(path) > MIB, "the output")
    spawner.start()
    async with spawner.link() as link:
        await link.until("run", "exited")
    assert used(path) <= MIB


async def test_space_reserved_behind_the_end_counts(spawner: SpawnerUnderTest) -> None:
    """A run holds its output file open, and may ask for space there without writing (fallocate)."""
    path = spawner.home / "run.out"
    program = (
        "import ctypes, os; os.write(1, b'small\\n')\n"
        "ctypes.CDLL(None).fallocate64(1, 1, ctypes.c_int64(0), ctypes.c_int64(64 * 2**20))"
    )
    await run_program(spawner, program, bound=MIB)
    assert used(path) <= MIB
    assert path.read_bytes() == b"small\n"


async def test_space_reserved_behind_much_output_counts_too(spawner: SpawnerUnderTest) -> None:
    path = spawner.home / "run.out"
    program = (
        f"import ctypes, os; os.write(1, b'x' * {2 * MIB} + b'end')\n"
        "ctypes.CDLL(None).fallocate64(1, 1, ctypes.c_int64(0), ctypes.c_int64(64 * 2**20))"
    )
    await run_program(spawner, program, bound=MIB)
    assert MIB // 4 <= used(path) <= MIB
    assert path.read_bytes().endswith(b"xend")


async def test_the_answer_of_a_helper_is_bounded(spawner: SpawnerUnderTest) -> None:
    answer = spawner.home / "answer"
    program = f"import os\nfor _ in range(64): os.write(3, b'x' * {MIB})"
    await end_of(spawner, spawner.spec("run", *PYTHON, program, result=str(answer)))
    assert used(answer) <= RESULT_MAX_BYTES


@pytest.mark.parametrize("before", ["write", "end"])
async def test_the_answer_of_a_helper_is_bounded_by_the_next_spawner_too(
    spawner: SpawnerUnderTest, before: str
) -> None:
    """It writes while the next spawner runs, or only before; then it ends under it."""
    answer, go = spawner.home / "answer", spawner.home / "go"
    os.mkfifo(go)
    program = f"""if True:
        import os
        open({str(go)!r}).read()
        for _ in range({2 * RESULT_MAX_BYTES // MIB}): os.write(3, b"x" * {MIB})
        open({str(go)!r}, "w").close()
        open({str(go)!r}).read()
    """
    large = lambda: used(answer) > RESULT_MAX_BYTES  # noqa: E731
    bounded = lambda: used(answer) <= RESULT_MAX_BYTES  # noqa: E731
    async with spawner.link() as link:
        await link.client.spawn(spawner.spec("run", *PYTHON, program, result=str(answer)))
        spawner.end(9)
    if before == "end":
        await asyncio.to_thread(go.write_text, "")
        await asyncio.to_thread(go.read_text)
        await asyncio.to_thread(wait_until, large, "the answer")
        await asyncio.to_thread(go.write_text, "")
        spawner.start()
    else:
        spawner.start()
        await asyncio.to_thread(go.write_text, "")
        await asyncio.to_thread(go.read_text)
        await asyncio.to_thread(wait_until, bounded, "the answer to be cut while its helper runs")
        await asyncio.to_thread(go.write_text, "")
    async with spawner.link() as link:
        await link.until("run", "exited")
    assert bounded()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "output"
    path.write_bytes(b"x" * MIB + b"end")
    return path


def test_a_flood_is_cut_to_its_newest_part_behind_a_hole(file: Path) -> None:
    file.write_bytes(b"x" * (20 * MIB) + b"end")
    with OutputFile(str(file)) as output:
        output.cut(2 * BLOCK_BYTES, flood=True)
        assert (output.size, output.used_bytes) == (3 * BLOCK_BYTES, 2 * BLOCK_BYTES)
    assert file.read_bytes() == b"\0" * BLOCK_BYTES + b"x" * (2 * BLOCK_BYTES - 3) + b"end"
    assert read_block(str(file), 0)[0] == b"x" * (2 * BLOCK_BYTES - 3) + b"end"
    (found,) = find_outputs({1: str(file)})
    assert (found.stored_bytes, found.cut) == (2 * BLOCK_BYTES, True)


def test_a_flood_is_cut_behind_a_hole_and_stays_in_order_while_it_goes_on(tmp_path: Path) -> None:
    """It is of numbered blocks; some may be lost at a cut."""
    path = tmp_path / "output"
    program = f"""if True:
        import itertools, os
        for number in itertools.count(1): os.write(1, b"%0{BLOCK_BYTES}d" % number)
    """
    with open(path, "ab") as end, subprocess.Popen([*PYTHON, program], stdout=end) as writer:
        try:
            for _ in range(48):
                wait_until(lambda: used(path) > 17 * MIB, "the next flood")
                with OutputFile(str(path)) as output:
                    output.cut(2 * BLOCK_BYTES, flood=True)
                wait_until(lambda: os.stat(path).st_size >= 32 * BLOCK_BYTES, "more of it")
                with open(path, "rb") as file:
                    assert file.seek(0, os.SEEK_DATA) == BLOCK_BYTES
                    numbers = [int(file.read(BLOCK_BYTES)) for _ in range(31)]
                assert numbers == sorted(set(numbers))
        finally:
            writer.kill()


@pytest.fixture
def disk_without_punching(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "ramfs", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("mounting a file system takes root, outside of an unprivileged container")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("flood", [True, False])
def test_a_file_is_cut_where_no_hole_can_be_punched(disk_without_punching: Path, flood: bool) -> None:
    path = disk_without_punching / "output"
    path.write_bytes(b"x" * (20 * MIB) + b"end")
    with OutputFile(str(path)) as output:
        output.cut(2 * BLOCK_BYTES, flood=flood)
    assert path.read_bytes() == b"\0" * BLOCK_BYTES + b"x" * (2 * BLOCK_BYTES - 3) + b"end"


def test_a_small_file_is_left_alone(file: Path) -> None:
    with OutputFile(str(file)) as output:
        output.cut(2 * MIB)
    assert file.read_bytes() == b"x" * MIB + b"end"


def test_somebody_elses_file_is_refused(file: Path) -> None:
    with pytest.raises(PermissionError, match="it belongs to uid"):
        OutputFile(str(file), owner=os.geteuid() + 1)
    with OutputFile(str(file), owner=os.geteuid()) as output:
        assert output.size == MIB + 3
