"""mounts.py: which mount a path is on, without a question to any file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runnerd.files.mounts import Mount, Mounts, parse_mounts, read_mountinfo

LINES = [
    "22 1 8:1 / / rw,relatime shared:1 - nfs4 server:/root rw\n",
    "23 22 0:21 / /proc rw - proc proc rw\n",
    "24 22 0:50 / /mnt/a\\040b rw shared:7 master:2 - nfs server:/x rw\n",
    "25 22 0:51 / /net rw - autofs systemd-1 rw\n",
    "26 25 0:52 / /net/host rw - fuse.sshfs host: rw\n",
    "27 26 0:53 / /net/host rw - tmpfs over rw\n",
    "no mount\n",
]


@pytest.mark.parametrize(
    ("path", "device", "remote"),
    [
        ("/", "8:1", False),  # the root, whatever it is
        ("/mnt", "8:1", False),
        ("/mnt/ab", "8:1", False),
        ("/proc/self", "0:21", False),
        ("/mnt/a b", "0:50", True),
        ("/mnt/a b/c/d", "0:50", True),
        ("//mnt/x/../a b/c", "0:50", True),
        ("/net/other", "0:51", True),
        ("/net/host/x", "0:53", False),  # the mount on top
    ],
)
def test_a_path_is_on_the_mount_with_the_longest_mount_point(path: str, device: str, remote: bool) -> None:
    assert Mounts(read=lambda: LINES).find(path) == Mount(device, remote)


def test_the_mounts_are_read_again_when_they_are_a_second_old() -> None:
    now, lines = [0.0], [LINES[0]]
    mounts = Mounts(read=lambda: lines, clock=lambda: now[0])
    assert mounts.find("/net/host") == Mount("8:1", False)
    lines += LINES[3:5]
    assert mounts.find("/net/host") == Mount("8:1", False)
    now[0] = 1.0
    assert mounts.find("/net/host") == Mount("0:52", True)


def test_without_proc_no_mount_is_known() -> None:
    assert Mounts(read=list).find("/a/b") is None


def test_the_mounts_of_this_process() -> None:
    assert "/proc" in parse_mounts(read_mountinfo())


@pytest.mark.parametrize("odd", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2003", "\u2028", "\udcff"])
def test_a_mount_point_may_have_all_characters_that_the_kernel_does_not_escape(tmp_path: Path, odd: str) -> None:
    line = f"24 22 0:50 / /mnt/a{odd}b rw - nfs server:/x{odd} rw\n"
    (tmp_path / "mountinfo").write_bytes(os.fsencode(LINES[0] + line + LINES[1]))
    mounts = Mounts(read=lambda: read_mountinfo(str(tmp_path / "mountinfo")))
    assert mounts.find(f"/mnt/a{odd}b/c") == Mount("0:50", True)
    assert mounts.find("/proc") == Mount("0:21", False)
