"""Reads flow names and parameter schemas: a standalone program for a deployment's own interpreter (Python 3.9+).

This file imports no module of runnerd, and the daemon does not import it but passes the text as `python -c TEXT`, so
that no file permission matters. The work list is JSON in RUNNERD_INSPECT, `{"entrypoints": [...], "time_limit_s": 60}`;
with `"pull": {"steps": [...], "scratch": true}` each follows these pull steps, in a directory of its own;
with `"patience_s": 5`, an entrypoint that takes longer is answered as slow, so that the others need not wait. The
answers are JSON on descriptor 3, one line per entrypoint (deployments/inspection.py reads them).

Invariants: user code runs in a forked child only, so that a crash, sys.exit, os._exit or hang of one file costs one
answer; a child never holds descriptor 3, so that no output of a file can damage the answers.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from typing import Any

ANSWERS = 3
TRACEBACK_LINES = 12
HOOKS = ("on_cancellation", "on_crashed", "on_failure")
PACKAGE_FOLDERS = ("site-packages", "dist-packages")
DEPENDENCIES_MAX_CHARACTERS = 400_000  # of all paths together
PATIENCE_MIN_S = 1.0


class Refusal(Exception):
    """Says why an entrypoint cannot be inspected; the daemon decides by `kind`."""

    def __init__(self, kind: str, message: str, traceback_tail: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.traceback_tail = traceback_tail

    def answer(self, entrypoint: str | None) -> dict[str, Any]:
        message = " ".join(str(self).split())
        error = {"kind": self.kind, "message": message, "traceback_tail": self.traceback_tail}
        return {"entrypoint": entrypoint, "error": error}


def main() -> int:
    began_ns = time.time_ns()
    work = json.loads(os.environ.pop("RUNNERD_INSPECT"))
    os.set_inheritable(ANSWERS, False)
    # Blocked before the import of prefect: its threads inherit the mask, so that sigtimedwait gets every SIGCHLD.
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
    try:
        import_prefect()
    except Refusal as refusal:
        send(refusal.answer(None))
        return 1
    flush()  # else every child would write the output of prefect's import again
    time_limit_s = float(work["time_limit_s"])
    patience_s = float(work.get("patience_s") or time_limit_s)
    for entrypoint in work["entrypoints"]:
        answer = inspect_apart(entrypoint, min(patience_s, time_limit_s), began_ns, work.get("pull"))
        if patience_s < time_limit_s and answer.get("error", {}).get("kind") == "timeout":
            answer["error"]["kind"] = "slow"
            patience_s = max(patience_s / 2, PATIENCE_MIN_S)  # of many that hang, the others wait for the first only
        send(answer)
    return 0


def send(answer: dict[str, Any]) -> None:
    rest = json.dumps(answer).encode() + b"\n"
    while rest:
        rest = rest[os.write(ANSWERS, rest) :]


def import_prefect() -> None:
    try:
        importlib.import_module("prefect.flows")
    except Exception as exc:
        message = f"cannot import prefect: {words_of(exc)}"
        if isinstance(exc, ModuleNotFoundError) and exc.name == "prefect":
            message = "prefect is not installed for this interpreter; install it there, or set run.python"
        raise Refusal("no-prefect", f"{sys.executable}: {message}", tail_of(exc)) from exc


# --- one entrypoint, in a child of its own ------------------------------------------------------------------


def inspect_apart(entrypoint: str, time_limit_s: float, began_ns: int, pull: Any) -> dict[str, Any]:
    """Inspect in a forked child; make the answer here when the child ends without one.

    With `pull`, the child runs these pull steps first, in a directory that is removed here.
    """
    folder = tempfile.mkdtemp(prefix="runnerd-inspect-") if pull and pull["scratch"] else None
    # A memory file, not a pipe: a grandchild that keeps a pipe's end open would make this program wait.
    result = os.memfd_create("inspection")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 3.12 warns about threads; no thread of prefect holds a needed lock
            pid = os.fork()
        if pid == 0:
            inspect_in_child(entrypoint, result, began_ns, pull, folder)
        status = wait(pid, time_limit_s)
        with os.fdopen(os.dup(result), "rb") as file:
            file.seek(0)
            return judge(entrypoint, status, file.read(), time_limit_s)
    finally:
        os.close(result)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


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
    kill_group(pid)  # before the child is reaped: until then no other process can get its pid
    _, status = os.waitpid(pid, 0)
    return None if late else status


def kill_group(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # the child may be killed before its setpgid
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def judge(entrypoint: str, status: int | None, result: bytes, time_limit_s: float) -> dict[str, Any]:
    place = place_of(entrypoint)
    if status is None:
        limit = f"{place}: importing it took longer than {time_limit_s:g}s; does it run something at import?"
        return Refusal("timeout", limit).answer(entrypoint)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    if code == 0 and result.endswith(b"\n"):
        answer: dict[str, Any] = json.loads(result)
        return answer
    how = f"exited {code}" if code is not None else f"was killed by {signal_name(os.WTERMSIG(status))}"
    return Refusal("crashed", f"{place}: the interpreter {how} while it imported this file").answer(entrypoint)


def inspect_in_child(entrypoint: str, result: int, began_ns: int, pull: Any, folder: str | None) -> None:
    """Inspect, write the answer and exit; exit status 0 means that the answer is complete."""
    os.setpgid(0, 0)
    os.close(ANSWERS)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    try:
        try:
            if folder is not None:
                os.chdir(folder)
            if pull:
                run_pull_steps(entrypoint, pull["steps"])
            found = describe(entrypoint, began_ns)
            if pull:  # the files are gone in a moment
                found.update(file=None, sha256=None, dependencies={})
            answer = {"entrypoint": entrypoint, "ok": found}
        except Refusal as refusal:
            answer = refusal.answer(entrypoint)
        with os.fdopen(result, "wb") as file:
            file.write(json.dumps(answer).encode() + b"\n")
        flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        flush()
        os._exit(70)


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


# --- what Prefect's own client would register ---------------------------------------------------------------


def run_pull_steps(entrypoint: str, steps: list[Any]) -> None:
    """Run them as programs/run_engine.py does at the start of a run."""
    core = importlib.import_module("prefect.deployments.steps.core")
    try:
        output = asyncio.run(core.run_steps(steps))
        if output.get("directory"):
            os.chdir(output["directory"])
    except Exception as exc:
        cause = exc.__cause__ or exc
        raise Refusal(
            "import-failed", f"{place_of(entrypoint)}: a pull step failed: {words_of(cause)}", tail_of(exc)
        ) from exc


def describe(entrypoint: str, began_ns: int) -> dict[str, Any]:
    sys.path.insert(0, os.getcwd())
    file = file_of(entrypoint)
    digest = sha256(file)  # before the import: for a file replaced meanwhile, the cache must have the old digest
    flow = load(entrypoint)
    return {
        "flow_name": flow.name,
        "description": flow.description,
        "version": flow.version,
        "parameter_schema": parameter_schema(flow),
        "prefect_version": prefect_version(),
        "file": os.path.abspath(file) if file else None,
        "sha256": digest,
        "hooks": hooks_of(flow),
        "dependencies": dependencies(file, began_ns),
    }


def hooks_of(flow: Any) -> list[str]:
    """List the flow's state change hooks: `on_crashed_hooks` in 3.x, where `on_crashed` is the decorator."""
    found = {name: getattr(flow, f"{name}_hooks", getattr(flow, name, None)) for name in HOOKS}
    return [name for name, hooks in found.items() if isinstance(hooks, list) and hooks]


def prefect_version() -> str:
    return str(importlib.import_module("prefect").__version__)


def parameter_schema(flow: Any) -> Any:
    """Make the schema as this Prefect's `flow.serve()` registers it: 2.x without None, 3.x without unset keys."""
    schema = importlib.import_module("prefect.utilities.callables").parameter_schema(flow)
    if prefect_version().startswith("2."):
        return without_variadics(flow, json.loads(schema.json(exclude_none=True)))
    return without_variadics(flow, schema.model_dump(mode="json", exclude_unset=True))


def without_variadics(flow: Any, schema: Any) -> Any:
    """2.x calls *args and **kwargs required, and a server that enforces the schema would refuse every run."""
    required = schema.pop("required", None)
    if not required:
        return schema
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    variadic = {each.name for each in inspect.signature(flow).parameters.values() if each.kind in kinds}
    left = [name for name in required if name not in variadic]
    return {**schema, "required": left} if left else schema


def load(entrypoint: str) -> Any:
    flows = importlib.import_module("prefect.flows")
    errors = importlib.import_module("prefect.exceptions")
    # Without this option, Prefect guesses a flow from the syntax tree of a file that cannot be imported.
    no_guess = "use_placeholder_flow" in inspect.signature(flows.load_flow_from_entrypoint).parameters
    options = {"use_placeholder_flow": False} if no_guess else {}
    try:
        return flows.load_flow_from_entrypoint(entrypoint, **options)
    except errors.ScriptError as exc:
        raise import_failed(entrypoint, getattr(exc, "user_exc", None) or exc) from exc
    except errors.MissingFlowError as exc:
        raise missing_flow(entrypoint, exc) from exc
    except SystemExit as exc:
        raise Refusal(
            "crashed", f"{place_of(entrypoint)}: it calls sys.exit({exc.code!r}) when imported", tail_of(exc)
        ) from exc
    except Exception as exc:
        raise import_failed(entrypoint, exc) from exc


def missing_flow(entrypoint: str, exc: Exception) -> Refusal:
    place = place_of(entrypoint)
    name = entrypoint[len(place) + 1 :]
    cause = exc.__cause__
    if not isinstance(cause, AttributeError):
        return Refusal("not-a-flow", f'{place}: "{name}" is not a flow; decorate it with @flow')
    # Prefect also reports an AttributeError that a module's own code raises as a missing function.
    frames = traceback.extract_tb(cause.__traceback__)
    if not frames or os.path.basename(frames[-1].filename) != "importtools.py":
        return import_failed(entrypoint, cause)
    near = difflib.get_close_matches(name, functions_in(script_of(entrypoint) or module_file(entrypoint)), 1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return Refusal("no-such-function", f'{place}: there is no function "{name}"{hint}')


def import_failed(entrypoint: str, exc: BaseException) -> Refusal:
    place = place_of(entrypoint)
    absent = exc.name if isinstance(exc, ModuleNotFoundError) and script_of(entrypoint) is None else None
    if absent and f"{place}.".startswith(f"{absent}."):
        where = f"neither in {os.getcwd()} nor among the packages of {sys.executable}"
        return Refusal("missing-file", f"{place}: no such module, {where}")
    line = line_of(exc, script_of(entrypoint) or module_file(entrypoint))
    return Refusal("import-failed", f"{place}: {words_of(exc)}{line}", tail_of(exc))


# --- where the code is --------------------------------------------------------------------------------------


def script_of(entrypoint: str) -> str | None:
    """Return the path in `path/to/file.py:function`, None for a module entrypoint."""
    return entrypoint.rsplit(":", 1)[0] if ".py:" in entrypoint else None


def place_of(entrypoint: str) -> str:
    return entrypoint.rsplit(":" if ":" in entrypoint else ".", 1)[0]


def file_of(entrypoint: str) -> str | None:
    """Return the entrypoint's file; None for a module without a file, or one that cannot be found."""
    script = script_of(entrypoint)
    if script is None:
        if ":" not in entrypoint and "." not in entrypoint:
            raise Refusal(
                "import-failed", f"{entrypoint}: not an entrypoint; write path/to/file.py:function or module:function"
            )
        return module_file(entrypoint)
    try:
        os.stat(script)
    except OSError as exc:
        where = "" if os.path.isabs(script) else f" in {os.getcwd()}"
        raise Refusal("missing-file", f"{script}: {(exc.strerror or str(exc)).lower()}{where}") from exc
    return script


def module_file(entrypoint: str) -> str | None:
    try:
        spec = importlib.util.find_spec(place_of(entrypoint))
    except Exception:  # finding a.b imports a, which is user code and may raise anything; load() reports it
        return None
    return spec.origin if spec is not None and spec.has_location else None


# --- what the answer depends on -----------------------------------------------------------------------------


def dependencies(file: str | None, began_ns: int) -> dict[str, str]:
    """Stamps of the files that were imported from outside the interpreter's packages, of the folders of those packages,
    and of the interpreter, by path; deployments/dependencies.py compares them."""
    imported = [name for module in list(sys.modules.values()) if isinstance(name := attribute(module), str)]
    folders = [path for path in sys.path if os.path.basename(path) in PACKAGE_FOLDERS]
    standard = os.path.dirname(os.__file__) + os.sep
    own = [
        path
        for path in map(os.path.abspath, imported)
        if not path.startswith(standard) and not set(PACKAGE_FOLDERS) & set(path.split(os.sep))
    ]
    found: dict[str, str] = {}
    room = DEPENDENCIES_MAX_CHARACTERS
    for path in [*([file] if file else []), sys.executable, *folders, *own]:
        path = os.path.abspath(path)
        while not os.path.exists(path) and len(path) > 1:  # a module in a zip file
            path = os.path.dirname(path)
        room -= 0 if path in found else len(path) + 50
        if room > 0:
            found[path] = stamp(path, began_ns)
    return found


def attribute(module: Any) -> Any:
    with contextlib.suppress(Exception):  # anything may stand in sys.modules
        return vars(module).get("__file__")
    return None


def stamp(path: str, began_ns: int) -> str:
    about = os.stat(path)
    if began_ns <= about.st_ctime_ns <= time.time_ns():
        return "changed meanwhile"  # no later stamp is equal to this
    return f"{about.st_mtime_ns} {about.st_size} {about.st_ino}" if os.path.isfile(path) else f"{about.st_mtime_ns}"


# --- words --------------------------------------------------------------------------------------------------


def functions_in(file: str | None) -> list[str]:
    try:
        tree = ast.parse(read(file))
    except (OSError, SyntaxError, ValueError):
        return []
    return [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def read(file: str | None) -> bytes:
    with open(file or "", "rb") as opened:
        return opened.read()


def sha256(file: str | None) -> str | None:
    try:
        return hashlib.sha256(read(file)).hexdigest()
    except OSError:
        return None


def words_of(exc: BaseException) -> str:
    text = exc.msg if isinstance(exc, SyntaxError) else str(exc)
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def signal_name(number: int) -> str:
    return next((known.name for known in signal.Signals if known == number), f"signal {number}")


def line_of(exc: BaseException, file: str | None) -> str:
    """Name the line of the error in the entrypoint's file, and the innermost place when that is another file."""
    frames = [(f.filename, f.lineno) for f in traceback.extract_tb(exc.__traceback__) if f.filename[0] != "<"]
    if isinstance(exc, SyntaxError) and exc.filename:
        frames.append((exc.filename, exc.lineno))
    own = [line for name, line in frames if file and os.path.realpath(name) == os.path.realpath(file)]
    last = frames[-1] if frames else None
    if not own:
        return f" ({os.path.relpath(last[0])}, line {last[1]})" if last and file else ""
    here = os.getcwd() + os.sep
    if last and os.path.realpath(last[0]) != os.path.realpath(file or "") and last[0].startswith(here):
        return f" (line {own[-1]}, from {os.path.relpath(last[0])} line {last[1]})"
    return f" (line {own[-1]})"


def tail_of(exc: BaseException) -> str:
    text = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__, chain=False))
    return "\n".join(text.splitlines()[-TRACEBACK_LINES:])


if __name__ == "__main__":
    sys.exit(main())
