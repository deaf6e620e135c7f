"""Reads what a script serves: a standalone program for the script's own interpreter (Python 3.9+, Prefect 2.20 and 3).

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`. The
work is JSON in RUNNERD_RECORD, `{"script": "flows/serve.py", "arguments": [], "time_limit_s": 60, "answers": 3}`; the
answer is one line of JSON on descriptor `answers` (deployments/recording.py reads it).

Invariants: the script runs as `__main__` in a forked child without that descriptor, so that a crash, exit or hang of it
costs no answer; Prefect's own code makes the deployments, but nothing is served and no request reaches the API.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import time
import traceback
import types
import warnings
from typing import Any

from runnerd.programs.script_recorder import NO_API, Recorder, stand_in
from runnerd.programs.script_text import Refusal, Served, line_of, tail_of, words_of

# The script has no way to the API, and Prefect neither starts a server for it nor reports it to anybody.
CUT_OFF = {
    "PREFECT_API_URL": NO_API,
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "PREFECT_LOGGING_TO_API_ENABLED": "false",
    "PREFECT_CLIENT_MAX_RETRIES": "0",
    "DO_NOT_TRACK": "1",
}
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
CREDENTIALS = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING")


def main() -> int:
    began_ns = time.time_ns()
    work = json.loads(os.environ.pop("RUNNERD_RECORD"))
    for name in [name for name in sys.modules if name.startswith("runnerd.programs.")]:
        del sys.modules[name]  # the script may have modules of runnerd's in its own interpreter
    answers = int(work["answers"])
    os.set_inheritable(answers, False)
    # Blocked before the import of prefect: its threads inherit the mask, so that sigtimedwait gets every SIGCHLD.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    for name in CREDENTIALS:
        os.environ.pop(name, None)
    os.environ.update(CUT_OFF)
    try:
        import_prefect()
        answer = record_apart(work, began_ns)
    except Refusal as refusal:
        answer = refusal.answer()
    rest = json.dumps(answer).encode() + b"\n"
    while rest:
        rest = rest[os.write(answers, rest) :]
    return 0


# --- the script, in a child of its own ----------------------------------------------------------------------


def record_apart(work: dict[str, Any], began_ns: int) -> dict[str, Any]:
    """Record in a forked child; make the answer here when the child ends without one."""
    # A memory file, not a pipe: a grandchild that keeps a pipe's end open would make this program wait.
    result = os.memfd_create("record")
    flush()  # else the child would write the output of prefect's import again
    parent = os.getpid()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 3.12 warns about threads; no thread of prefect holds a needed lock
        pid = os.fork()
    if pid == 0:
        end_with(parent)
        record_in_child(work, result, began_ns)
    status = wait(pid, float(work["time_limit_s"]))
    with os.fdopen(result, "rb") as file:
        file.seek(0)
        return judge(work, status, file.read())


def end_with(parent: int) -> None:
    """Have this process killed when its parent is, as by Ctrl-C of an import: a script may go on for ever."""
    with contextlib.suppress(ImportError, AttributeError, OSError):  # a Python without ctypes
        importlib.import_module("ctypes").CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(70)


def wait(pid: int, time_limit_s: float) -> int | None:
    """Return the child's wait status, None when it took too long; kill all processes of its group."""
    deadline = time.monotonic() + time_limit_s
    late = False
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            late = True
            break
        signal.sigtimedwait([signal.SIGCHLD], left)
    for kill in (os.killpg, os.kill):  # before the child is reaped: until then no other process can get its pid
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    return None if late else status


def judge(work: dict[str, Any], status: int | None, result: bytes) -> dict[str, Any]:
    script = work["script"]
    if result.endswith(b"\n"):
        answer: dict[str, Any] = json.loads(result)
        return answer
    if status is None:
        limit = float(work["time_limit_s"])
        return Refusal("timeout", f"{script}: after {limit:g}s it had neither ended nor served a flow").answer()
    how = f"exited {os.WEXITSTATUS(status)}" if os.WIFEXITED(status) else f"was killed by {signal_name(status)}"
    return Refusal("crashed", f"{script}: the interpreter {how} before the script served a flow").answer()


def record_in_child(work: dict[str, Any], result: int, began_ns: int) -> None:
    """Run the script, write the answer and exit."""
    os.setpgid(0, 0)
    os.close(int(work["answers"]))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    script = work["script"]

    def finish(begin: Any = lambda: None) -> None:
        try:
            try:
                begin()
                answer = {"ok": recorder.answer(began_ns)}
            except Refusal as refusal:
                answer = refusal.answer()
            write(answer, result)
        except BaseException:
            traceback.print_exc()
        os._exit(70)

    recorder = Recorder(script, finish=finish)
    finish(lambda: run_script(script, work.get("arguments", ()), recorder))


def write(answer: dict[str, Any], result: int) -> None:
    rest = json.dumps(answer).encode() + b"\n"
    flush()
    while rest:
        rest = rest[os.write(result, rest) :]


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


def run_script(script: str, arguments: list[str], recorder: Recorder) -> None:
    """Run the script as `python SCRIPT ARGUMENTS` does, until it serves. Raises Refusal."""
    try:
        with open(script, "rb") as file:
            text = file.read()
    except OSError as exc:
        where = "" if os.path.isabs(script) else f" in {os.getcwd()}"
        raise Refusal("missing-file", f"{script}: {(exc.strerror or str(exc)).lower()}{where}") from exc
    stand_in(recorder)
    path = os.path.abspath(script)
    main_module = types.ModuleType("__main__")
    main_module.__dict__.update(__file__=path, __builtins__=__builtins__)
    sys.modules["__main__"] = main_module
    sys.argv = [script, *arguments]
    sys.path[0:1] = [os.path.dirname(path)]
    try:
        exec(compile(text, path, "exec"), main_module.__dict__)
    except Served:
        pass
    except SystemExit as exc:
        if not recorder.starts and exc.code not in (None, 0):
            raise Refusal("failed", f"{script}: it exits with {exc.code!r} before it serves a flow") from exc
    except BaseException as exc:  # after a start it is an error in how the script ends
        if not recorder.starts:
            line = line_of(exc, path)
            raise Refusal("failed", f"{script}: {words_of(exc)}", tail_of(exc), line) from exc
    recorder.wait_for_threads()


def import_prefect() -> None:
    try:
        importlib.import_module("prefect.flows")
    except Exception as exc:
        message = f"cannot import prefect: {words_of(exc)}"
        if isinstance(exc, ModuleNotFoundError) and exc.name == "prefect":
            message = "prefect is not installed for this interpreter; install it there, or set run.python"
        raise Refusal("no-prefect", f"{sys.executable}: {message}", tail_of(exc)) from exc


def signal_name(status: int) -> str:
    number = os.WTERMSIG(status)
    return next((known.name for known in signal.Signals if known == number), f"signal {number}")


if __name__ == "__main__":
    sys.exit(main())
