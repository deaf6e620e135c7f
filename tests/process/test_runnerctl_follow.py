"""runnerctl while a run goes on: watching, following, waiting, Ctrl-C, a restart of the daemon, and a terminal."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.kits.fakes.fake_documents import ended
from tests.kits.fakes.runnerctl import COMMAND, environment, finish, heeding_ctrl_c, runnerctl, started, until_said
from tests.kits.fakes.serving import Serving, serving

RUN = "aaaa1111-0000-4000-8000-000000000001"
CREATED = "00000000-0000-4000-8000-000000000001"
FAILED = ended(
    api_state="FAILED",
    api_state_name="TimedOut",
    exit={"code": None, "signal": 15, "oom": False, "words": "killed by SIGTERM"},
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        it.call(it.host.deployments.put, "d-1", "nightly")
        yield it


def say(served: Serving, run_id: str, text: bytes) -> None:
    with (served.outputs / f"{run_id}.log").open("ab") as output:
        output.write(text)


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts runnerctl in the background; whatever the test does, nothing is left of it."""
    with ExitStack() as stack:
        yield lambda served, *arguments: stack.enter_context(started(served, *arguments))


# --- run --watch ---------------------------------------------------------------------------------------------


def test_watching_a_run_that_completes(served: Serving, start: Start) -> None:
    process = start(served, "run", "nightly", "--watch")
    served.until(lambda: served.host.runs.subscribers() == 1)
    served.call(served.host.runs.put, CREATED, name="lucky-crab", phase="claiming")
    until_said(process, b"lucky-crab: claiming\n")
    say(served, CREATED, b"working\n")
    served.call(served.host.runs.put, CREATED, phase="running")
    assert process.stdout is not None
    assert process.stdout.readline() == b"working\n"
    say(served, CREATED, b"the end\n")
    served.call(served.host.runs.put, CREATED, phase="reporting")
    served.call(served.host.runs.put, CREATED, **ended())
    result = finish(process)
    assert result.status == 0
    assert result.out == "the end\n"
    assert result.err.endswith("lucky-crab: Completed after 12s\n")


def test_watching_a_run_that_fails(served: Serving, start: Start) -> None:
    process = start(served, "execute", RUN, "--watch")
    served.until(lambda: served.host.runs.subscribers() == 1)
    served.call(served.host.runs.put, RUN, name="given-run", **FAILED)
    result = finish(process)
    assert result.status == 1
    assert result.err.endswith("given-run: Failed (TimedOut) after 12s: killed by SIGTERM\n")


def test_watching_as_a_document(served: Serving, start: Start) -> None:
    process = start(served, "execute", RUN, "--watch", "--json")
    served.until(lambda: served.host.runs.subscribers() == 1)
    done = served.call(served.host.runs.put, RUN, **ended())
    result = finish(process)
    assert result.status == 0
    assert f'"id": "{RUN}"' in result.out
    assert result.out.count('"phase": "done"') == 1
    assert done["phase"] == "done"


def test_watching_says_what_a_run_waits_for(served: Serving, start: Start) -> None:
    served.call(served.host.drain, timeout_s=None, reason=None, peer=None)
    process = start(served, "run", "nightly", "--watch")
    until_said(process, b"waiting: this host is draining; runnerctl undrain ends the drain\n")
    served.call(served.host.runs.put, CREATED, **ended())
    assert finish(process).status == 0


def test_ctrl_c_leaves_the_run_going_and_says_so(served: Serving, start: Start) -> None:
    served.call(served.host.runs.put, RUN)
    process = start(served, "execute", RUN, "--watch")
    until_said(process, b": running\n")
    os.killpg(process.pid, signal.SIGINT)
    result = finish(process)
    assert result.status == 130
    assert result.err.endswith(
        "the run continues; follow: runnerctl logs -f aaaa1111; cancel: runnerctl cancel aaaa1111\n"
    )
    assert [verb for verb, _ in served.host.asked] == ["execute"]
    served.until(lambda: served.host.runs.subscribers() == 0)


def test_a_watcher_outlives_the_daemon_as_the_run_does(tmp_path: Path, start: Start) -> None:
    with serving(tmp_path) as before:
        before.call(before.host.runs.put, RUN)
        say(before, RUN, b"one\n")
        process = start(before, "execute", RUN, "--watch")
        assert process.stdout is not None
        assert process.stdout.readline() == b"one\n"
        until_said(process, b": running\n")
    say(before, RUN, b"two\n")
    with serving(tmp_path) as after:
        after.call(after.host.runs.put, RUN, phase="stopping", intent="timeout")
        until_said(process, b": stopping (runtime_max)\n")
        after.call(after.host.runs.put, RUN, **FAILED)
        result = finish(process)
    assert result.status == 1
    assert result.out == "two\n"


# --- logs -f, cancel --wait ----------------------------------------------------------------------------------


def test_following_output_until_the_run_is_over(served: Serving, start: Start) -> None:
    served.call(served.host.runs.put, RUN)
    process = start(served, "logs", "-f", "aaaa")
    say(served, RUN, b"one\n")
    assert process.stdout is not None
    assert process.stdout.readline() == b"one\n"
    say(served, RUN, b"two\n\xff")
    served.call(served.host.runs.put, RUN, phase="reporting")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, b"two\n\xff", b"")


def test_ctrl_c_ends_following_without_a_word(served: Serving, start: Start) -> None:
    served.call(served.host.runs.put, RUN)
    say(served, RUN, b"one\n")
    process = start(served, "logs", "-f", RUN)
    assert process.stdout is not None
    process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)
    result = finish(process)
    assert (result.status, result.err) == (130, "")


def test_waiting_for_cancelled_runs(served: Serving, start: Start) -> None:
    other = "bbbb1111-0000-4000-8000-000000000002"
    served.call(served.host.runs.put, RUN)
    served.call(served.host.runs.put, other)
    process = start(served, "cancel", "--all", "--wait")
    served.until(lambda: served.host.runs.subscribers() == 1)  # it waits for the first
    cancelled = {"api_state": "CANCELLED", "api_state_name": "Cancelled"}
    served.call(served.host.runs.put, other, **ended(**cancelled))
    served.call(served.host.runs.put, RUN, **ended(**cancelled))
    result = finish(process)
    assert result.status == 0
    assert result.out == (
        f"run-aaaa ({RUN}): Cancelled after 12s: exited 0\nrun-bbbb ({other}): Cancelled after 12s: exited 0\n"
    )


# --- on a terminal -------------------------------------------------------------------------------------------


class Terminal:
    """What a terminal of a given width showed so far."""

    def __init__(self, main: int) -> None:
        self._main = main
        self.shown = b""

    def until(self, words: bytes) -> None:
        while words not in self.shown:
            assert self._read(), f"{words!r} was never shown, only {self.shown!r}"

    def to_the_end(self) -> str:
        while self._read():
            pass
        return self.shown.decode()

    def press(self, key: bytes) -> None:
        os.write(self._main, key)

    def _read(self) -> bytes:
        ready, _, _ = select.select([self._main], [], [], 60)
        assert ready, f"nothing more was shown, only {self.shown!r}"
        try:
            block = os.read(self._main, 65536)
        except OSError:  # what Linux says when nobody has the other side open any more
            block = b""
        self.shown += block
        return block


@contextmanager
def on_terminal(
    served: Serving, *arguments: str, width: int, **env: str
) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    main, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    with heeding_ctrl_c():
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=side,
            stdout=side,
            stderr=side,
            env=environment(RUNNERD_SOCKET=served.socket, **env),
            start_new_session=True,
        )
    os.close(side)
    try:
        yield Terminal(main), process
    finally:
        process.kill()
        process.wait(60)
        os.close(main)


def test_a_terminal_gets_colour_short_ids_and_no_escape_of_a_runs_name(served: Serving) -> None:
    served.call(served.host.runs.put, RUN, name="evil\x1b[2Jname", memory_bytes=None)
    with on_terminal(served, "status", width=200) as (terminal, process):
        text = terminal.to_the_end()
        assert process.wait(60) == 0
    assert "\x1b[32mrunning" in text
    assert "aaaa1111 " in text
    assert RUN not in text
    assert "\x1b[2J" not in text
    assert "evil?[2Jname" in text
    assert " ago" in text


@pytest.mark.parametrize("width", [40, 72, 100])
def test_a_narrow_terminal_is_not_overrun(served: Serving, width: int) -> None:
    served.call(served.host.runs.put, RUN, name="a-name-that-is-longer-than-a-terminal-may-like-it-to-be")
    for verb in (("runs",), ("runs", "--all"), ("deployments",)):
        with on_terminal(served, *verb, width=width, NO_COLOR="1") as (terminal, _):
            lines = terminal.to_the_end().splitlines()
        assert len(lines) == 2
        assert max(map(len, lines)) <= width
        assert "\x1b" not in "".join(lines)


def test_top_draws_again_and_q_ends_it(served: Serving) -> None:
    with on_terminal(served, "top", width=120) as (terminal, process):
        terminal.until(b"No runs.")
        served.call(served.host.runs.put, RUN, name="came-later")
        terminal.until(b"came-later")
        terminal.press(b"q")
        assert terminal.to_the_end().endswith("\x1b[?25h\x1b[?1049l")
        assert process.wait(60) == 0


def test_top_goes_on_while_the_daemon_is_away(tmp_path: Path) -> None:
    with serving(tmp_path) as served, on_terminal(served, "top", width=120) as (terminal, process):
        terminal.until(b"No runs.")
        (tmp_path / "control.sock").rename(tmp_path / "away.sock")
        terminal.until(b"cannot reach runnerd")
        (tmp_path / "away.sock").rename(tmp_path / "control.sock")
        process.send_signal(signal.SIGINT)
        terminal.to_the_end()
        assert process.wait(60) == 0


def test_nothing_that_is_piped_is_cut(served: Serving) -> None:
    name = "n" * 300
    served.call(served.host.runs.put, RUN, name=name)
    result = runnerctl(served, "runs", COLUMNS="40")
    assert name in result.out
    assert RUN in result.out
