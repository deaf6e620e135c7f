"""runnerd as process 1, in real pid namespaces: signals are passed on, orphans reaped, the status is the daemon's."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from typing import IO

import psutil
import pytest

from runnerd.daemon.container_init import FORWARDED
from tests.kits.daemon import GENEROUS_S, HUP, KILL, TERM, Host, alive, eventually

NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc"]

# A daemon of a few lines below the real process 1.
DAEMON = """\
import os, signal, sys
from runnerd.daemon.container_init import become_init
status = become_init(os.environ)
if status is not None:
    sys.exit(status)
say = lambda text: os.write(1, text.encode() + b"\\n")
"""
ENDS = {
    "pass": 0,
    "sys.exit(78)": 78,
    "raise ValueError": 1,
    "os.kill(os.getpid(), signal.SIGKILL)": 128 + KILL,
    "os.abort()": 128 + signal.SIGABRT,
}
# Its grandchild is an orphan that lives until the pipe is closed.
ORPHAN = "import os, sys\nif os.fork() == 0:\n    sys.stdin.read(1)\n"


def needs() -> str | None:
    """What is missing for a pid namespace."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return "needs unshare and nsenter, of util-linux"
    made = subprocess.run([*NAMESPACE, "true"], capture_output=True, text=True)
    return None if made.returncode == 0 else f"cannot make a pid namespace, which takes root: {made.stderr.strip()}"


pytestmark = pytest.mark.skipif((_missing := needs()) is not None, reason=str(_missing))


def process_1(outer: subprocess.Popen[bytes]) -> psutil.Process:
    """Process 1 of the namespace that `unshare` made, seen from here."""
    (child,) = psutil.Process(outer.pid).children()
    return child


# --- a small daemon ---------------------------------------------------------------------------------------------


def small(body: str, *, environ: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    argv = [*NAMESPACE, sys.executable, "-c", DAEMON + body]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, env=os.environ | (environ or {}))


def line(stream: IO[bytes] | None) -> str:
    assert stream is not None
    return stream.readline().decode().strip()


@pytest.mark.parametrize(("body", "status"), ENDS.items())
def test_its_status_is_the_daemons(body: str, status: int) -> None:
    with small(body) as outer:
        assert outer.wait(GENEROUS_S) == status


def test_each_signal_is_passed_on() -> None:
    body = (
        "for number in range(1, 32):\n"
        "    if number not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD):\n"
        "        signal.signal(number, lambda number, frame: say(str(number)))\n"
        "say('ready')\n"
        "while True:\n    signal.pause()\n"
    )
    with small(body) as outer:
        assert line(outer.stdout) == "ready"
        for number in FORWARDED:
            process_1(outer).send_signal(number)
            assert line(outer.stdout) == str(int(number))
        (daemon,) = process_1(outer).children()
        daemon.kill()
        assert outer.wait(GENEROUS_S) == 128 + KILL


def test_a_signal_before_the_daemon_listens_is_not_lost() -> None:
    """It dies of it, as it would without us; process 1 by itself would never see it."""
    with small("say('here')\nsignal.pause()\n") as outer:
        assert line(outer.stdout) == "here"
        process_1(outer).send_signal(TERM)
        assert outer.wait(GENEROUS_S) == 128 + TERM


def test_the_daemon_has_a_session_of_its_own_and_no_blocked_signals() -> None:
    body = "say(f'{os.getpid() == os.getsid(0) != 1} {signal.pthread_sigmask(signal.SIG_BLOCK, [])}')\n"
    with small(body) as outer:
        assert line(outer.stdout) == "True set()"


@pytest.mark.parametrize(("given", "seen"), [("1", True), ("77", False)])
def test_what_a_manager_gives_to_process_1_is_the_daemons(given: str, seen: bool) -> None:
    names = ("LISTEN_PID", "WATCHDOG_PID")
    body = f"say(str([os.environ[name] == str(os.getpid()) for name in {names}]))\n"
    with small(body, environ=dict.fromkeys(names, given)) as outer:
        assert line(outer.stdout) == str([seen, seen])


# --- the real one -----------------------------------------------------------------------------------------------


class Container(Host):
    """A host whose daemon is process 1 of a pid namespace."""

    def __init__(self) -> None:
        super().__init__(url="http://127.0.0.1:1/api", python=sys.executable)

    @property
    def argv(self) -> list[str]:
        return [*NAMESPACE, *super().argv]

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.init().kill()  # and with it everybody; unshare itself does not listen
            self.process.wait()
        super().close()

    def init(self) -> psutil.Process:
        assert self.process is not None
        return process_1(self.process)

    def daemon(self) -> psutil.Process:
        """Process 1 has adopted the spawner too."""
        (found,) = (p for p in self.init().children() if "spawner" not in " ".join(p.cmdline()))
        return found


@pytest.fixture
def container() -> Iterator[Container]:
    container = Container()
    try:
        yield container
    finally:
        container.close()


def test_serves_and_drains(container: Container) -> None:
    container.start()
    assert container.daemon().ppid() == container.init().pid
    everybody = container.init().children(recursive=True)
    container.init().send_signal(TERM)
    assert container.wait() == 0
    assert " draining " in container.said() and " stopped" in container.said()
    eventually(lambda: not any(alive(p.pid) for p in everybody), "the container to be empty")


def test_reloads(container: Container) -> None:
    container.start()
    container.init().send_signal(HUP)
    eventually(lambda: " reloaded " in container.said(), "the reload")


def test_orphans_are_reaped(container: Container) -> None:
    """Nobody else would ever wait for one: it would stay a zombie."""
    container.start()
    init = container.init()
    enter = ["nsenter", "--pid", f"--target={init.pid}", sys.executable, "-c", ORPHAN]
    with subprocess.Popen(enter, stdin=subprocess.PIPE) as entered:
        (orphan,) = eventually(
            lambda: [p for p in init.children() if ORPHAN in p.cmdline()],
            "its parent to exit and leave it to process 1",
        )
        assert entered.stdin is not None
        entered.stdin.close()
    eventually(lambda: not psutil.pid_exists(orphan.pid), "the orphan to be reaped")
    assert container.ctl("health").returncode in (0, 1)


def test_ends_with_a_daemon_that_was_killed(container: Container) -> None:
    container.start()
    everybody = container.init().children(recursive=True)
    container.daemon().kill()
    assert container.wait() == 128 + KILL
    eventually(lambda: not any(alive(p.pid) for p in everybody), "the container to be empty")


def test_a_broken_configuration(container: Container) -> None:
    container.write_main("api: {url: 12}\n")
    ended = subprocess.run(container.argv, env=container.environ, capture_output=True, text=True, timeout=GENEROUS_S)
    assert ended.returncode == 78
    assert "runnerd.yaml:1:" in ended.stderr


def test_does_not_detach(container: Container) -> None:
    argv = [*container.argv, "--daemonize"]
    ended = subprocess.run(argv, env=container.environ, capture_output=True, text=True, timeout=GENEROUS_S)
    assert ended.returncode == 1
    assert "process 1" in ended.stderr


def test_control_c_in_a_terminal(container: Container) -> None:
    """It drains: heard twice, it would cut the drain short."""
    ours, theirs = pty.openpty()
    with open(container.log, "ab") as log:
        container.process = subprocess.Popen(
            container.argv, stdin=theirs, stdout=log, stderr=log, env=container.environ, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
    os.close(theirs)
    eventually(lambda: " ready " in container.said(), "the daemon to be ready")
    os.write(ours, b"\x03")
    assert container.wait() == 0
    os.close(ours)
    assert container.said().count(" draining ") == 1 and " stopped" in container.said()


def test_a_socket_of_the_containers_manager(container: Container) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        path = container.root / "given.sock"
        listening.bind(str(path))
        listening.listen()
        given = {"LISTEN_PID": "1", "LISTEN_FDS": "1"}
        at_3 = ["sh", "-c", 'exec "$@" 3<&0 </dev/null', "sh", *container.argv]
        with open(container.log, "ab") as log:
            container.process = subprocess.Popen(
                at_3, stdin=listening, stdout=log, stderr=log, env=container.environ | given
            )
    eventually(lambda: " ready " in container.said(), "the daemon to be ready")
    asked = subprocess.run(
        [sys.executable, "-m", "runnerd.cli", "--socket", str(path), "version"], capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr
