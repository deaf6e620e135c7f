"""The daemon in the background of a host without systemd: the real program, and nobody who answers as its API."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from runnerd.daemon.log_file import LogFile
from tests.kits.background import Background
from tests.kits.daemon import GENEROUS_S, HUP, INT, KILL, TERM, alive, eventually


@pytest.fixture
def host() -> Iterator[Background]:
    host = Background()
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def mute_spawner(host: Background) -> Iterator[None]:
    """Accepts connections and never says a word."""
    directory = host.root / "run-spawner"
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(directory / "spawner.sock"))
        listening.listen()
        yield


# --- a daemon -------------------------------------------------------------------------------------------------


def test_returns_once_it_is_ready_with_the_api_away(host: Background) -> None:
    pid = host.begin()
    assert " ready " in host.said()
    assert host.json("status")["pid"] == pid
    host.stop()
    assert not host.pid_file.exists()
    assert " draining " in host.said() and " stopped" in host.said()


def test_has_left_the_terminal_and_the_directory(host: Background) -> None:
    process = psutil.Process(host.begin())
    assert process.cwd() == "/"
    assert process.terminal() is None
    assert os.getsid(process.pid) not in (os.getsid(0), process.pid)  # a leader could get a terminal again
    umask = [
        line.split()[1] for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "Umask" in line
    ]
    assert umask == ["0022"]
    assert [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null", "/dev/null", str(host.log)]
    assert host.log.stat().st_mode & 0o7777 == 0o640
    assert host.pid_file.stat().st_mode & 0o7777 == 0o644
    assert resource.prlimit(process.pid, resource.RLIMIT_CORE) == resource.getrlimit(resource.RLIMIT_CORE)


def test_files_where_they_are_wanted(host: Background) -> None:
    """Relative names are those of the directory it was started in."""
    started = host.daemonize("--pid-file", "here.pid", "--log-file", "here.log", "--log-format", "json")
    assert (started.returncode, started.stderr) == (0, "")
    host.pid_file, host.log = host.root / "here.pid", host.root / "here.log"
    assert '"event": "ready"' in host.said()
    host.stop()
    assert not host.pid_file.exists()


def test_starts_without_standard_streams(host: Background) -> None:
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *host.argv, "--daemonize"]
    assert subprocess.run(closed, env=host.environ, timeout=GENEROUS_S).returncode == 0
    links = [os.readlink(f"/proc/{host.pid()}/fd/{fd}") for fd in range(3)]
    assert links == ["/dev/null", "/dev/null", str(host.log)]


# --- what it cannot do ----------------------------------------------------------------------------------------


def test_a_broken_configuration_is_told_on_the_terminal(host: Background) -> None:
    host.write_main("api: {url: 12}\n")
    refused = host.daemonize()
    assert refused.returncode == 78
    assert "runnerd.yaml:1:" in refused.stderr
    assert sorted(p.name for p in host.root.iterdir()) == ["etc"]


def test_why_it_cannot_begin_is_told_on_the_terminal(host: Background) -> None:
    """The control socket is made after detaching."""
    (host.root / "run" / "control.sock").mkdir(parents=True)
    refused = host.daemonize()
    assert refused.returncode == 1
    assert "control.sock" in refused.stderr and refused.stderr.startswith("runnerd: cannot ")
    assert "control.sock" in host.said()
    assert not host.pid_file.exists()


@pytest.mark.usefixtures("mute_spawner")
@pytest.mark.parametrize("number", [KILL, TERM])
def test_the_starter_notices_a_daemon_that_ends_before_it_is_ready(host: Background, number: signal.Signals) -> None:
    starter = host.starting()
    os.kill(host.pid(), number)
    _, said = starter.communicate(timeout=GENEROUS_S)
    assert starter.returncode == 1
    assert said.startswith("runnerd: the daemon ended before it was ready")


@pytest.mark.usefixtures("mute_spawner")
def test_an_impatient_terminal_does_not_end_the_daemon(host: Background) -> None:
    starter = host.starting()
    starter.send_signal(INT)
    _, said = starter.communicate(timeout=GENEROUS_S)
    assert (starter.returncode, said) == (
        130,
        f"runnerd: the daemon goes on starting in the background; see {host.log}\n",
    )
    pid = host.pid()
    assert alive(pid)
    os.kill(pid, KILL)  # while its spawner still says nothing, or it would start one of its own
    eventually(lambda: not alive(pid), "it to die")


def test_not_under_a_service_manager(host: Background) -> None:
    refused = host.daemonize(environ={"NOTIFY_SOCKET": str(host.root / "notify")})
    assert refused.returncode == 1
    assert "NOTIFY_SOCKET" in refused.stderr and "Type=notify" in refused.stderr
    assert sorted(p.name for p in host.root.iterdir()) == ["etc"]


@pytest.mark.parametrize("words", [["--pid-file", "x"], ["--log-file", "x"], ["--daemonize", "check"]])
def test_flags_that_make_no_sense_are_refused(host: Background, words: list[str]) -> None:
    refused = subprocess.run([*host.argv, *words], env=host.environ, capture_output=True, text=True, timeout=GENEROUS_S)
    assert refused.returncode == 2
    assert "--daemonize" in refused.stderr


# --- the PID file ---------------------------------------------------------------------------------------------


def test_a_second_instance_is_refused_and_touches_nothing(host: Background) -> None:
    pid = host.begin()
    eventually(lambda: " api " in host.said(), "the API to be asked, which is logged")
    before = host.files()
    refused = host.daemonize()
    assert refused.returncode == 1
    assert f"pid {pid}" in refused.stderr and str(host.pid_file) in refused.stderr
    with_another = host.daemonize(
        "--pid-file", str(host.root / "another.pid"), "--log-file", str(host.root / "another")
    )
    assert with_another.returncode == 1
    assert f"pid {pid}" in with_another.stderr and str(host.root / "state") in with_another.stderr
    assert host.files() == before
    assert host.json("status")["pid"] == pid


@pytest.mark.parametrize("left", ["gone", "somebody else", "nothing"])
def test_a_stale_pid_file_is_replaced(host: Background, left: str) -> None:
    """A pid says nothing: it may be another program's by now, which must neither stop us nor be harmed."""
    with subprocess.Popen(["true"]) as gone:
        pass
    text = {"gone": f"{gone.pid}\n", "somebody else": f"{os.getpid()}\n", "nothing": ""}[left]
    host.pid_file.parent.mkdir()
    host.pid_file.write_text(text)
    pid = host.begin()
    assert pid not in (gone.pid, os.getpid())
    assert (f"replaced a stale PID file file={host.pid_file} pid={text.strip()}" in host.said()) is (text != "")


def test_what_a_killed_daemon_left_is_replaced(host: Background) -> None:
    first = host.begin()
    os.kill(first, KILL)
    eventually(lambda: not alive(first), "it to die")
    assert host.pid() == first
    assert host.begin() != first
    assert f"pid={first}" in host.said()


def test_a_failed_start_leaves_a_stale_pid_file_as_it_was(host: Background) -> None:
    host.begin()
    other = host.root / "stale.pid"
    other.write_text("1\n")
    assert host.daemonize("--pid-file", str(other)).returncode == 1
    assert other.read_text() == "1\n"


def test_somebody_elses_pid_file_is_left_to_him(host: Background) -> None:
    """As when an administrator cleared /run: another may have its name by now."""
    host.begin()
    pid = host.pid()
    host.pid_file.unlink()
    host.pid_file.write_text("7\n")
    os.kill(pid, TERM)
    eventually(lambda: not alive(pid), "the daemon to stop")
    assert host.pid_file.read_text() == "7\n"


@pytest.mark.parametrize("what", ["text", "link", "directory", "pipe", "no directory"])
def test_only_a_pid_file_is_used_as_one(host: Background, what: str) -> None:
    path, precious = host.root / "odd.pid", host.root / "precious"
    precious.write_text("precious")
    make = {
        "text": lambda: shutil.copy(precious, path),
        "link": lambda: path.symlink_to(precious),
        "directory": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "no directory": lambda: None,
    }
    make[what]()
    path = path / "in" if what == "no directory" else path
    refused = host.daemonize("--pid-file", str(path))
    assert refused.returncode == 1
    assert refused.stderr.startswith("runnerd: cannot ") and str(path) in refused.stderr
    assert precious.read_text() == "precious"
    assert what != "text" or path.read_text() == "precious"


# --- the log --------------------------------------------------------------------------------------------------


def test_hangup_opens_the_log_anew_and_reloads(host: Background) -> None:
    pid = host.begin()
    rotated = host.log.rename(f"{host.log}.1")
    os.kill(pid, HUP)
    eventually(lambda: " reloaded " in host.said(), "the new log to be written")
    assert " reloaded " not in rotated.read_text()
    assert host.log.stat().st_mode & 0o7777 == 0o640
    assert os.readlink(f"/proc/{pid}/fd/2") == str(host.log)


def test_a_log_that_cannot_be_opened_anew_goes_on_in_the_old_file(host: Background) -> None:
    pid = host.begin()
    rotated = host.log.rename(f"{host.log}.1")
    host.log.mkdir()
    os.kill(pid, HUP)
    eventually(lambda: " reloaded " in rotated.read_text(), "the reload")
    assert "cannot reopen the log; going on in the old file" in rotated.read_text()


def test_a_log_that_cannot_be_written_is_refused(host: Background) -> None:
    refused = host.daemonize("--log-file", str(host.root))
    assert refused.returncode == 1
    assert (
        refused.stderr == f"runnerd: cannot write the log {host.root}: Is a directory; choose another with --log-file\n"
    )
    assert not host.pid_file.exists()


def test_a_full_disk_is_survived_and_the_next_line_begins_anew(tmp_path: Path) -> None:
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    with LogFile(str(link)) as log:
        assert log.write(b"lost\n") == len(b"lost\n")
        link.unlink()
        link.write_text("half a li")
        log.reopen()
        assert log.write(b"whole\n") == len(b"whole\n")
    assert link.read_text() == "half a li\nwhole\n"


# --- python-daemon --------------------------------------------------------------------------------------------


def python(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout


def test_python_daemon_is_loaded_for_this_only() -> None:
    modules = "runnerd.__main__, runnerd.daemon.build, runnerd.daemon.daemonize, runnerd.daemon.container_init"
    assert python(f"import sys, {modules}; print('daemon' in sys.modules)") == "False\n"


def test_python_daemon_is_not_shown_a_billion_descriptors() -> None:
    """It makes a set of as many as there may be."""
    program = (
        "from resource import *\nfrom runnerd.daemon.daemonize import lowered_descriptor_limit\n"
        "setrlimit(RLIMIT_NOFILE, (50, 400))\n"
        "with lowered_descriptor_limit(500):\n    print(getrlimit(RLIMIT_NOFILE))\n"
        "with lowered_descriptor_limit(100):\n    print(getrlimit(RLIMIT_NOFILE))\n"
    )
    assert python(program) == "(50, 400)\n(50, 100)\n"
