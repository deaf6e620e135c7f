"""runnerctl when something is wrong: one line on standard error, the right exit status, and never a traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.cli.__main__ import find_socket, main
from runnerd.control.client import unreachable
from runnerd.control.contract import Refused
from tests.kits.checkout import HIDDEN, hidden_from_others
from tests.kits.fakes.run_elsewhere import run_elsewhere
from tests.kits.fakes.runnerctl import environment, finish, runnerctl, started
from tests.kits.fakes.serving import Serving, serving

RUN = "aaaa1111-0000-4000-8000-000000000001"
MAY_LOAD = (
    "runnerd.cli",
    "runnerd.control.client",
    "runnerd.core.errors",
    "runnerd.core.names",
    "runnerd.core.numbers",
    "runnerd.core.strict_json",
    "runnerd.core.units",
    "runnerd.system.paths",
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        it.call(it.host.runs.put, RUN)
        it.call(it.host.deployments.put, "d-1", "nightly")
        yield it


@pytest.mark.parametrize("words", [("status", ""), ("logs", ""), ("execute", ""), ("cancel", ""), ("run", "")])
def test_an_empty_name_is_refused_before_the_daemon_is_asked(served: Serving, words: tuple[str, ...]) -> None:
    result = runnerctl(served, *words)
    assert (result.status, result.out) == (2, "")
    a_run = "the name of a run or deployment"
    named = {"execute": "the id of a flow run", "cancel": "the name of a run", "run": "the name of a deployment"}
    assert result.err == f"runnerctl: cannot use '' as {named.get(words[0], a_run)}: the text is empty\n"


def test_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    advice = "is it running? start it: runnerd, or runnerd --daemonize"
    missing = runnerctl(None, "status", "--socket", str(path))
    assert missing.status == 3
    assert missing.err == f"runnerctl: cannot reach runnerd at {path}: no such file; {advice}\n"
    path.write_text("")
    refused = runnerctl(None, f"--socket={path}", "cancel", "--all")
    assert refused.status == 3
    advice = "name the control socket, such as /run/runnerd/control.sock"
    assert refused.err == f"runnerctl: cannot reach runnerd at {path}: this is not a socket; {advice}\n"
    empty = runnerctl(None, "--socket", "", "status")
    assert (empty.status, "the path is empty" in empty.err) == (2, True)
    long = runnerctl(None, "--socket", "/" + "x" * 200, "status")
    assert (long.status, "at most 107 bytes; name the control socket by a shorter path" in long.err) == (3, True)


def test_the_advice_is_one_that_this_host_can_follow() -> None:
    path, error = "/run/runnerd/control.sock", FileNotFoundError(2, "No such file or directory")
    assert str(unreachable(path, error, systemd=True)).endswith("; is it running? systemctl start runnerd")
    for where, systemd in ((path, False), ("/run/user/7/runnerd/control.sock", True)):
        assert "systemctl" not in str(unreachable(where, error, systemd=systemd))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("config", "chek"), "argument COMMAND: invalid choice: 'chek'"),
        (("status", "x", "y"), "unrecognized arguments: y"),
    ],
)
def test_a_usage_error_names_the_help_of_its_verb(words: tuple[str, ...], message: str) -> None:
    result = runnerctl(None, *words)
    assert (result.status, message in result.err) == (2, True)
    assert result.err.endswith(f"; see runnerctl {words[0]} --help\n")


def test_a_state_that_no_run_can_have(served: Serving) -> None:
    result = runnerctl(served, "runs", "--state", "bogus")
    assert (result.status, "no run has it; known are waiting, claiming, starting" in result.err) == (2, True)
    assert runnerctl(served, "runs", "--state", "crashed").status == 0
    assert runnerctl(served, "runs", "--state", "Running").status == 0
    assert runnerctl(served, "runs", "--state", "waiting").err.startswith("no runs")


def test_the_log_of_a_run_that_waits(served: Serving) -> None:
    waiting = "bbbb1111-0000-4000-8000-000000000001"
    served.call(served.host.runs.put, waiting, name="later", phase=None, waiting="limits.runs 1 is reached")
    result = runnerctl(served, "logs", waiting)
    assert (result.status, result.out) == (0, "")
    assert result.err == "later has not started: it waits: limits.runs 1 is reached\n"


def test_a_run_that_only_prefect_has(served: Serving) -> None:
    far = "bbbb1111-0000-4000-8000-000000000001"
    kept = f"neither its deployment nor its work pool is served here; prefect flow-run cancel {far} cancels it"
    served.host.runs.elsewhere[far] = run_elsewhere(far, kept=kept)
    shown = runnerctl(served, "status", far).out
    for line in ("Phase:     not on this host", "Waits for: work pool etl is paused", "State:     Scheduled"):
        assert f"{line}\n" in shown.replace(":  ", ": ")
    for words in (("logs", far), ("logs", "-f", far), ("logs", "--json", far)):
        result = runnerctl(served, *words)
        about = (
            f"run far ({far}) has not run on this host: it is Scheduled in Prefect, and waits: work pool etl is paused"
        )
        assert (result.status, result.out, result.err) == (4, "", f"runnerctl: {about}\n")
    result = runnerctl(served, "cancel", far)
    assert (result.status, result.err) == (1, f"runnerctl: cannot cancel run far ({far}): {kept}\n")
    served.host.runs.elsewhere[far] = run_elsewhere(far)
    assert runnerctl(served, "cancel", "--wait", far).out == f"far ({far}): already Cancelled\n"


def test_a_run_that_nobody_has(served: Serving) -> None:
    none = "bbbb1111-0000-4000-8000-000000000002"
    for verb in ("status", "logs", "cancel"):
        result = runnerctl(served, verb, none)
        assert (result.status, "there is no run" in result.err) == (4, True)
    served.host.runs.unread = Refused(status=503, detail="Prefect sleeps")
    for verb in ("status", "logs", "cancel"):
        assert runnerctl(served, verb, none).err == "runnerctl: Prefect sleeps\n"


def test_a_deployment_that_is_not_registered(served: Serving) -> None:
    served.call(served.host.deployments.put, "", "broken", id=None, problem="no such file: broken.py")
    result = runnerctl(served, "run", "broken")
    cause = "it is not registered in Prefect: no such file: broken.py"
    assert (result.status, result.err) == (1, f"runnerctl: cannot run broken: {cause}\n")
    assert "the full id of a flow run in Prefect is needed" in runnerctl(served, "execute", "broken").err


@pytest.mark.skipif(hidden_from_others(), reason=HIDDEN)
@pytest.mark.parametrize("verb", ["status", "doctor"])
def test_a_socket_we_may_not_open(tmp_path: Path, verb: str) -> None:
    """In a forked child that gives up root: its interpreter is loaded, wherever that is installed."""
    tmp_path.chmod(0o700 if os.getuid() == 0 else 0)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.dup2(write, 2)
            if os.getuid() == 0:
                os.setgroups([])
                os.setresuid(65534, 65534, 65534)
            sys.stderr = open(2, "w", closefd=False)
            ours = main([verb, "--socket", str(tmp_path / "control.sock")])
            sys.stderr.flush()
            os._exit(ours)
        finally:
            os._exit(99)  # whatever happens, this copy of pytest must not go on
    os.close(write)
    _, status = os.waitpid(child, 0)
    tmp_path.chmod(0o700)
    with open(read) as said:
        assert said.read().endswith("permission denied; you need to be root or in group runnerd\n")
    assert os.waitstatus_to_exitcode(status) == 5


@pytest.mark.parametrize(("refused", "status"), [(403, 5), (404, 4), (409, 1), (422, 1), (503, 1)])
def test_what_the_host_refuses(served: Serving, refused: int, status: int) -> None:
    served.host.refusal = Refused(status=refused, detail="because of\nthe test")  # type: ignore[arg-type]
    for arguments in (("run", "nightly"), ("pause", "nightly"), ("execute", RUN)):
        result = runnerctl(served, *arguments)
        assert (result.status, result.err, result.out) == (status, "runnerctl: because of the test\n", "")


def test_what_is_not_there(served: Serving) -> None:
    for arguments in (("logs", "zz"), ("run", "zz"), ("pause", "zz"), ("resume", "zz"), ("cancel", "zz")):
        result = runnerctl(served, *arguments)
        assert result.status == 4
        assert result.err.count("\n") == 1
        assert "'zz'; see runnerctl " in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("stauts",),
        ("status", "--jsno"),
        ("runs", "--sta", "x"),
        ("cancel",),
        ("drain", "--timeout", "soon"),
        ("undrain", "--timeout", "5"),
        ("logs",),
        ("top",),
        ("--socket",),
        ("run", "nightly", "-p", "a=1", "-p", "a=2"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_2(served: Serving, arguments: tuple[str, ...]) -> None:
    result = runnerctl(served, *arguments)
    assert (result.status, result.out) == (2, "")
    assert result.err.startswith("runnerctl: ")
    assert result.err.count("\n") == 1
    assert served.host.asked == []


def test_help_is_no_error() -> None:
    top, verb = runnerctl(None, "--help"), runnerctl(None, "cancel", "--help")
    assert (top.status, verb.status) == (0, 0)
    assert "undrain" in top.out
    assert "--deployment" in verb.out


def test_an_error_of_the_daemon(served: Serving) -> None:
    served.host.problems = [{"message": object()}]  # cannot be JSON
    result = runnerctl(served, "status")
    assert result.status == 1
    assert result.err == "runnerctl: internal error of runnerd; see its log: journalctl -u runnerd\n"


def test_where_the_socket_is_looked_for(tmp_path: Path) -> None:
    assert find_socket({"RUNNERD_SOCKET": "/x"}, root=True) == "/x"
    assert find_socket({}, root=True) == "/run/runnerd/control.sock"
    assert find_socket({"RUNTIME_DIRECTORY": "/run/other"}, root=True) == "/run/runnerd/control.sock"
    (tmp_path / "runnerd").mkdir()
    own = tmp_path / "runnerd" / "control.sock"
    own.touch()
    assert find_socket({"XDG_RUNTIME_DIR": str(tmp_path)}, root=False) == str(own)


def test_the_flag_wins_before_and_after_the_verb(served: Serving) -> None:
    for arguments in (("--socket", served.socket, "status"), ("status", "--socket", served.socket)):
        assert runnerctl(None, *arguments, RUNNERD_SOCKET="/nowhere").status == 0
    for arguments in (("--json", "version"), ("version", "--json")):
        assert json.loads(runnerctl(served, *arguments).out)["runnerd"] == "9.9.9"


@pytest.mark.parametrize("words", [["status"], ["pool", "ls"]])
def test_a_verb_loads_nothing_that_is_slow(served: Serving, words: list[str]) -> None:
    code = (
        f"import sys; from runnerd.cli.__main__ import main; status = main({[*words, '--json']});"
        "print(*sorted(sys.modules), file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(RUNNERD_SOCKET=served.socket), check=True
    )
    loaded = set(done.stderr.decode().split())
    assert "runnerd.control.client" in loaded
    slow = {"httpx", "h11", "prefect", "yaml", "jsonschema", "psutil", "structlog", "asyncio", "http", "email", "ssl"}
    assert not loaded & (slow | {"dataclasses", "inspect"})
    ours = {name for name in loaded if name.startswith("runnerd.")} - {
        "runnerd.control",
        "runnerd.core",
        "runnerd.system",
    }
    assert {name for name in ours if not name.startswith(MAY_LOAD)} == set()


def test_a_reader_that_leaves_ends_it_without_a_word(served: Serving) -> None:
    (served.outputs / f"{RUN}.log").write_bytes(b"x" * 2**22)
    with started(served, "logs", RUN) as process:
        assert process.stdout is not None
        assert process.stdout.read(10) == b"x" * 10
        process.stdout.close()
        process.stdout = None
        assert finish(process).err == ""
