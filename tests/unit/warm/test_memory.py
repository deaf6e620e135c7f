"""memory.py: when this host is short of memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.warm.memory import find_shortage

PRESSURE = "some avg10={} avg60=0.00 avg300=0.00 total=7\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=1\n"


def shortage(folder: Path, *, available_kb: int = 2**20, stalled: str = "0.00", min_free: int = 2**29) -> str | None:
    (folder / "meminfo").write_text(f"MemTotal: 9999999 kB\nMemFree: 1 kB\nMemAvailable:   {available_kb} kB\n")
    (folder / "pressure").write_text(PRESSURE.format(stalled))
    files = {"memory": f"{folder}/meminfo", "pressure": f"{folder}/pressure"}
    return find_shortage(min_free_bytes=min_free, **files, cgroup=f"{folder}/cgroup")


def test_enough(tmp_path: Path) -> None:
    assert shortage(tmp_path) is None
    assert shortage(tmp_path, stalled="9.99") is None


def test_too_little(tmp_path: Path) -> None:
    words = "256M of memory are available, less than warm.min_free_memory (512M)"
    assert shortage(tmp_path, available_kb=2**18) == words


@pytest.mark.parametrize(
    ("limit", "used", "cached", "short"),
    [(2**30, 2**29 + 1, 0, True), (2**30, 2**29 + 1, 2**20, False), ("max", 2**40, 0, False), (2**20, 2**30, 0, True)],
)
def test_a_container_has_a_limit_of_its_own(
    tmp_path: Path, limit: int | str, used: int, cached: int, short: bool
) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "cgroup" / "memory.current").write_text(f"{used}\n")
    (tmp_path / "cgroup" / "memory.stat").write_text(f"anon 7\ninactive_file {cached}\nfile 9\n")
    assert (shortage(tmp_path) is not None) == short


def test_processes_that_wait(tmp_path: Path) -> None:
    assert shortage(tmp_path, stalled="10.50") == "processes wait for memory for 10% of the time"


def test_0_is_any(tmp_path: Path) -> None:
    assert shortage(tmp_path, available_kb=0, stalled="99.00", min_free=0) is None


@pytest.mark.parametrize("text", ["", "MemAvailable: lots\n"])
def test_a_kernel_that_does_not_say(tmp_path: Path, text: str) -> None:
    (tmp_path / "meminfo").write_text(text)
    path = f"{tmp_path}/meminfo"
    assert find_shortage(min_free_bytes=2**40, memory=path, pressure=f"{tmp_path}/absent", cgroup=path) is None


def test_this_host() -> None:
    assert find_shortage(min_free_bytes=2**60) is not None, "no host has an exbibyte"
