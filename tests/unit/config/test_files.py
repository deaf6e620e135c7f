"""files.py: files that cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from runnerd.config.files import MAX_BYTES
from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from tests.kits.checkout import HIDDEN, hidden_from_others
from tests.kits.config import A, B, ConfigDir, names

T = TypeVar("T")


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def test_what_is_no_readable_file_is_one_problem_each(etc: ConfigDir) -> None:
    etc.write("conf.d/z.yaml", A)
    (etc.etc / "conf.d/a.yaml").mkdir()
    os.mkfifo(etc.etc / "conf.d/b.yaml")
    (etc.etc / "conf.d/c.yaml").symlink_to("nowhere")
    etc.write("conf.d/d.yaml", b"a: 1\nb: \xff\n")
    etc.write("conf.d/e.yaml", b"\xff\xfea\0:\0")
    etc.write("conf.d/f.yaml", b"#" * 5_000_000)
    etc.write("conf.d/g.yml", A)
    etc.write("conf.d/h.yaml", b"\xef\xbb\xbf" + B.encode())
    config = etc.load()
    assert names(config) == ["b", "a"]
    assert etc.words(config.problems) == [
        "conf.d/g.yml:1:1: is ignored; rename it to g.yaml",
        "conf.d/a.yaml:1:1: is a directory; a configuration file is a regular file",
        "conf.d/b.yaml:1:1: is not a regular file; a configuration file is a regular file",
        "conf.d/c.yaml:1:1: is a link to nowhere, which does not exist",
        "conf.d/d.yaml:2:4: is not UTF-8 (byte 0xff); save it as UTF-8",
        "conf.d/e.yaml:1:1: is not UTF-8 (byte 0xff); save it as UTF-8",
        "conf.d/f.yaml:1:1: has 5000000 bytes, more than the limit of 2M; split it",
    ]


def test_a_file_of_just_the_limit_is_read(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A + "#" * (MAX_BYTES - len(A)))
    assert names(etc.load()) == ["a"]
    etc.write("conf.d/a.yaml", A + "#" * (MAX_BYTES - len(A) + 1))
    assert etc.problems() == ["conf.d/a.yaml:1:1: has 2097153 bytes, more than the limit of 2M; split it"]


@pytest.mark.parametrize("bad", [b"a: \xff", b"api: [", b"- x\n", b"api: {url: 5}\n"])
def test_a_broken_runnerd_yaml_is_fatal(etc: ConfigDir, bad: bytes) -> None:
    etc.write("runnerd.yaml", bad)
    (line,) = etc.fatal()
    assert line.startswith("runnerd.yaml:")


UNREADABLE = """
import os, sys
from runnerd.config import HostDefaults, check
defaults = HostDefaults(hostname="h", python="python3", flow_user="root")
check(sys.argv[1], defaults=defaults)  # what it imports may be where only root may look
os.setgroups([]); os.setgid(65534); os.setuid(65534)
config, problems = check(sys.argv[1], defaults=defaults)
print(*problems, sep="\\n")
print(*[d.name for d in config.deployments] if config else [])
"""


@pytest.fixture
def open_etc() -> Iterator[ConfigDir]:
    """A directory that everybody may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield ConfigDir(Path(folder) / "etc")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody who may not read")
@pytest.mark.skipif(hidden_from_others(), reason=HIDDEN)
def test_what_may_not_be_read_is_told(open_etc: ConfigDir) -> None:
    """Another process: the permissions of root could not show it."""
    etc = open_etc
    etc.write("conf.d/a.yaml", A).chmod(0)
    etc.write("conf.d/b.yaml", B)
    hidden = etc.etc / "hidden"
    hidden.mkdir(mode=0o700)
    for number, run in enumerate(["", "run: {user: root}", "run: {user: nobody}"]):
        etc.write(
            f"conf.d/c{number}.yaml",
            f"deployments: [{{name: c{number}, entrypoint: '{hidden}/x.py:f', {run}}}]\n".replace(", }", "}"),
        )
    etc.write(
        "conf.d/d.yaml", f"deployments: [{{name: d, entrypoint: 'm:f', run: {{environment_file: {hidden}/env}}}}]\n"
    )
    answer = subprocess.run(
        [sys.executable, "-c", UNREADABLE, str(etc.etc)], capture_output=True, text=True, check=False, cwd="/"
    )
    assert answer.stderr == ""
    assert answer.stdout.replace(f"{etc.etc}/", "").splitlines() == [
        "conf.d/a.yaml:1:1: cannot be read: Permission denied",
        "conf.d/c2.yaml:1:38: entrypoint hidden/x.py: permission denied; check the modes of the directories above it",
        (
            "conf.d/d.yaml:1:68: run.environment_file hidden/env: permission denied;"
            " check the modes of the directories above it"
        ),
        "b c0 c1",
    ]


class DeadDisk(BoundedCalls):
    """Does not answer at one place."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place
        self.asked = 0

    def wait(self, place: str, call: Callable[[], T]) -> T | Unanswered:
        if not place.startswith(self.place):
            return super().wait(place, call)
        self.asked += 1
        return Unanswered("did not answer within 10 s")


def test_a_disk_that_does_not_answer_costs_its_deployments_only(tmp_path: Path) -> None:
    etc = ConfigDir(tmp_path / "etc")
    dead = "{name: %s, entrypoint: 'a.py:f', run: {working_directory: /dead/flows}}"
    file = "{name: c, entrypoint: flows/etl.py:nightly, run: {environment_file: /dead/env}}"
    live = "{name: d, entrypoint: flows/etl.py:nightly}"
    etc.write("conf.d/a.yaml", f"deployments: [{dead % 'a'}, {dead % 'b'}, {file}, {live}]\n")
    calls = DeadDisk("/dead")
    config = etc.load(calls=calls)
    assert [one.split(": ", 1)[1] for one in etc.words(config.problems)] == [
        "run.working_directory /dead/flows: did not answer within 10 s",
        "run.working_directory /dead/flows: did not answer within 10 s",
        "run.environment_file /dead/env: did not answer within 10 s",
    ]
    assert [one.name for one in config.deployments] == ["d"]
    assert calls.asked == 2, "each path is asked for once"
