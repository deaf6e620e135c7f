"""Forks runs of a process that has imported what a run imports: a standalone program for the flow's interpreter.

Python 3.9 to 3.14, standard library only. This file imports no module of runnerd, and the daemon does not import it but
passes its text to `python -c`, so that no file permission matters. Descriptor 3 is a socket to the spawner. The names
of the modules to import besides are JSON in RUNNERD_PRELOAD. What is sent: `{"ready": {...}}` or `{"failed": "why"}`,
and for each request `{"fork": 7}` either `{"forked": 7}` or `{"refused": 7, "why": "..."}`.

With a request come descriptors: /dev/null, the output, the pipe of the release, the socket of the run, the work (JSON:
argv, environment, directory, umask) and perhaps the file of the result. Only the forked process reads the work: this
one never holds the environment of a run. The forked process becomes a child of the spawner, says `ready` on its socket,
and does nothing before its release: end-of-file there means that the run was started in another way, or not at all.

State is not restored piece by piece: a process that has only imported is as a fresh one that has imported the same.
What imports leave that a fork cannot share, a thread or an open file, is refused, but for the event loop of asyncio.
What depends on the environment, the directory or chance is made again in the fork.
"""

from __future__ import annotations

import builtins
import contextlib
import ctypes
import functools
import gc
import importlib
import importlib.machinery
import json
import os
import platform
import resource
import runpy
import socket
import sys
import threading
import time
import types
from collections.abc import Callable, Iterable
from typing import Any

CHANNEL = RESULT = 3
REQUEST_MAX_BYTES = 4096
PR_SET_CHILD_SUBREAPER = 36
NOT_STARTED = 127
# What a run of Prefect imports on its way to the first line of the flow, or in its end; each where it is there.
ENGINE = ("prefect", "prefect.engine")
ALSO = (
    "anyio._backends._asyncio",
    "encodings.idna",
    "rich._emoji_codes",
    "prefect._internal.metrics",
    "prefect.flow_engine",
    "prefect.deployments.steps.core",
    "prefect.client.orchestration",
    "prefect.logging.handlers",
    "prefect.events.clients",
    "prefect.events.worker",
    "prefect.task_engine",
    "prefect.utilities.visualization",
)
# Libraries that start threads as soon as they are loaded, and the variable with which they start none.
STARTS_THREADS = {b"openblas": "OPENBLAS_NUM_THREADS"}


class Unfit(Exception):
    """This process cannot fork runs; the message is one sentence."""


def serve() -> Callable[[], None]:
    """Import, then fork on each request; return in a forked and released process only: what starts its run."""
    channel = socket.socket(fileno=CHANNEL)
    channel.set_inheritable(False)
    here = Here()
    before = read_environment()
    try:
        ready = import_all(json.loads(os.environ.pop("RUNNERD_PRELOAD", "[]")))
    except BaseException as error:
        # SystemExit too: an imported module that calls sys.exit() must not look like an interpreter that was stopped.
        problem = str(error) if isinstance(error, Unfit) else describe("cannot import what runs need", error)
        channel.send(json.dumps({"failed": one_line(problem)}).encode())
        os._exit(1)
    here.variables = {name: (before.get(name), os.environ.get(name)) for name in {*before, *os.environ}}
    here.loop = find_loop()
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # or each collection in a fork writes to, and so copies, all that was imported
    channel.send(json.dumps({"ready": ready}).encode())
    while True:
        request, fds, _, _ = socket.recv_fds(channel, REQUEST_MAX_BYTES, 8, socket.MSG_CMSG_CLOEXEC)
        if not request:
            os._exit(0)  # the spawner is gone, or wants no more forks
        number = json.loads(request)["fork"]
        why: str | None = find_unfit("", fds) or fork()
        if why is None:
            channel.detach()
            return begin(fds, here)
        answer = {"forked": number} if why == "" else {"refused": number, "why": one_line(why)}
        channel.send(json.dumps(answer).encode())
        for fd in fds:
            os.close(fd)


def read_environment() -> dict[str, str]:
    """Read the environment as it was given, before the start of Python has added to it (LC_CTYPE, by PEP 538)."""
    with open("/proc/self/environ", "rb") as file:
        items = (os.fsdecode(item).partition("=") for item in file.read().split(b"\0"))
    return {name: value for name, _, value in items}


class Here:
    """What a fork takes over: among it the entry of sys.path for the current directory, which is known by its identity.

    `variables`: of each what it was, and what the start of Python and imports have made of it; None where it is not.
    """

    def __init__(self) -> None:
        self.variables: dict[str, tuple[str | None, str | None]] = {}
        self.entry = os.getcwd()
        self.program: types.ModuleType | None = None
        self.loop: Any = None  # the event loop that imports have made
        self.there = sys.path[:1] == [""]  # not with -P or -I
        if self.there:
            sys.path[0] = self.entry  # as with `python -m`

    def move(self, directory: str) -> None:
        for at, entry in enumerate(sys.path):
            if self.there and entry is self.entry:
                sys.path[at] = directory


def import_all(preload: list[str]) -> dict[str, Any]:
    started = time.monotonic()
    engine_was_there = False
    for name in ENGINE:
        engine_was_there = "prefect.engine" in sys.modules
        import_one(name)
    for name in ALSO:
        with contextlib.suppress(ModuleNotFoundError):  # of another version
            importlib.import_module(name)
    if not engine_was_there:
        # As `python -m` has it, which loads the module as __main__ and warns where it is loaded already.
        del sys.modules["prefect.engine"]
        delattr(sys.modules["prefect"], "engine")
    refuse_unfit("prefect")
    for name in preload:
        import_one(name)
        refuse_unfit(name)
    put_loop_away()
    undo_logging()
    version = str(getattr(sys.modules["prefect"], "__version__", "unknown"))
    seconds = round(time.monotonic() - started, 3)
    return {"python": platform.python_version(), "prefect": one_line(version), "import_s": seconds}


def import_one(name: str) -> None:
    try:
        importlib.import_module(name)
    except BaseException as error:
        raise Unfit(describe(f"cannot import {name}", error)) from None


def refuse_unfit(name: str) -> None:
    put_loop_away()
    why = find_unfit(f"importing {name} ", [])
    renew_loop(find_loop())  # the next module may use it
    if why:
        raise Unfit(why)


def find_loop() -> Any:
    """Return the event loop that imports have made for this thread, if it is asyncio's own; else None.

    Python 3.9 makes one for the locks of Prefect 2. It has an epoll instance and a pair of sockets to wake it. One that
    handles signals is not made anew: the number of its socket is what Python writes signals to.
    """
    policy: Any = getattr(sys.modules.get("asyncio.events"), "_event_loop_policy", None)
    loop: Any = getattr(getattr(policy, "_local", None), "_loop", None)
    known = all(hasattr(loop, name) for name in ("_selector", "_make_self_pipe", "_close_self_pipe", "_ssock"))
    odd = not known or loop.is_running() or loop.is_closed() or getattr(loop, "_signal_handlers", None)
    return None if odd else loop


def put_loop_away() -> None:
    """Close the event loop's descriptors, which a fork must not share, unless the loop watches other files too."""
    loop = find_loop()
    if loop is not None and len(loop._selector.get_map() or ()) == 1:
        loop._close_self_pipe()
        loop._selector.close()


def renew_loop(loop: Any) -> None:
    """Give an event loop that was put away descriptors of its own. It is the same object: locks may belong to it."""
    if loop is not None and loop._ssock is None:
        loop._selector = type(loop._selector)()
        loop._make_self_pipe()
        sys.modules["asyncio.events"].set_event_loop(loop)  # since Python 3.12, a fork has forgotten it


def find_unfit(doing: str, received: list[int]) -> str:
    """Say what this process has that a fork cannot share, besides the descriptors that it received; "" for nothing."""
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    count = len(os.listdir("/proc/self/task"))
    if threads or count != 1:
        named = f" ({', '.join(threads)})" if threads else ""
        why = f"{doing or 'the interpreter '}started a thread{named}: a process with {count} threads is not forked"
        return why + ("" if threads else advise())
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            target = os.readlink(f"/proc/self/fd/{fd}")
            if int(fd) > CHANNEL and int(fd) not in received:
                return f"{doing or 'the interpreter '}left a file open ({target}), which runs must not share"
    return ""


def advise() -> str:
    """Say which variable keeps the loaded libraries from starting threads; "" where none is known to."""
    with open("/proc/self/maps", "rb") as file:
        loaded = {os.path.basename(line) for line in file}
    for library, variable in STARTS_THREADS.items():
        if os.environ.get(variable) != "1" and any(library in name for name in loaded):
            return f"; set {variable}=1 in run.environment, which its runs then have too"
    return ""


def describe(what: str, error: BaseException) -> str:
    return f"{what}: {type(error).__name__}: {error}"


def one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:250]


def fork() -> str | None:
    """Fork a process that the spawner becomes the parent of: None in it, "" or a problem in the interpreter."""
    try:
        middle = os.fork()
    except OSError as error:
        return f"cannot fork: {error.strerror}"
    if middle:
        with contextlib.suppress(ChildProcessError):  # where an imported module ignores SIGCHLD
            if os.waitpid(middle, 0)[1] != 0:
                return "cannot fork a second time"
        return ""
    try:
        # The spawner is the nearest subreaper: the end of this process makes the next one its child.
        if os.fork():
            os._exit(0)
    except BaseException:
        os._exit(1)
    return None


def begin(fds: list[int], here: Here) -> Callable[[], None]:
    """Become the run's process, wait for the release, and return what starts the run."""
    try:
        os.setsid()
        become_subreaper()
        null, output, release, status, work_fd = fds[:5]
        with open(work_fd, encoding="ascii", closefd=False) as file:
            work = json.load(file)
        report = socket.socket(fileno=status)
        move_descriptors(null, output, fds[5] if len(fds) > 5 else None, keep=(release, status))
        why = here.there and find_shadowed(work)
        limit_itself(work)
        report.send(f"refused\n{why}".encode() if why else b"ready")
        if why or not os.read(release, 1):
            os._exit(0)
        os.close(release)
        enter_directory(work, report)
        report.close()
    except BaseException:
        os._exit(NOT_STARTED)
    return become(work, here)


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become a subreaper")


def move_descriptors(null: int, output: int, result: int | None, *, keep: tuple[int, int]) -> None:
    """Make null, output and result descriptors 0 to 3, and close all others but those to keep."""
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    low = RESULT
    if result is not None:
        os.dup2(result, RESULT)
        low += 1
    for fd in sorted(keep):
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def limit_itself(work: dict[str, Any]) -> None:
    """Set the run's limits. The spawner checks them, and sets those that only root can set."""
    for number, soft, hard in work["rlimits"]:
        if resource.getrlimit(number) != (soft, hard):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(number, (soft, hard))
    if os.getpriority(os.PRIO_PROCESS, 0) < work["nice"]:
        os.setpriority(os.PRIO_PROCESS, 0, work["nice"])


def find_shadowed(work: dict[str, Any]) -> str:
    """Say which file in the run's directory has the name of a module that was imported from elsewhere.

    In a fresh process that file would have been imported, in a fork it would not.
    """
    directory = work["directory"]
    if work["make_directory"]:
        return ""
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name.partition(".")[0]
            if name in sys.modules and name != "__main__" and is_module(entry):
                origin = getattr(sys.modules[name], "__file__", None) or ""
                if name not in sys.builtin_module_names and os.path.dirname(origin) not in (directory, entry.path):
                    return f"{entry.name} in the working directory has the name of a module that was imported already"
    return ""


def is_module(entry: os.DirEntry[str]) -> bool:
    if entry.name.endswith((".py", ".so", ".pyc")):
        return True
    return "." not in entry.name and os.path.exists(os.path.join(entry.path, "__init__.py"))


def enter_directory(work: dict[str, Any], report: socket.socket) -> None:
    """Make and enter the working directory; what fails is for the spawner to say."""
    stage = "make-directory"
    try:
        if work["make_directory"]:
            os.umask(0)
            os.mkdir(work["directory"], 0o700)
        stage = "working-directory"
        os.chdir(work["directory"])
    except OSError as error:
        report.send(f"{stage}\n{error.errno or ''}".encode())
        os._exit(NOT_STARTED)
    os.umask(work["umask"])


def become(work: dict[str, Any], here: Here) -> Callable[[], None]:
    argv: list[str] = work["argv"]
    imported = {name: now for name, (was, now) in here.variables.items() if work["environment"].get(name) == was}
    os.environ.clear()
    os.environ.update({name: value for name, value in {**work["environment"], **imported}.items() if value is not None})
    rename_process(argv, work["environment"])
    if hasattr(sys, "orig_argv"):
        sys.orig_argv[:] = argv
    here.move("" if argv[1] == "-c" else os.getcwd())
    importlib.invalidate_caches()
    renew_loop(here.loop)
    make_chance_anew()
    main = replace_main(here)
    sys.argv[:] = argv[1:2] + argv[3:]
    refresh_prefect()
    if argv[1] == "-c":
        return functools.partial(exec, argv[2], main.__dict__)
    return functools.partial(runpy._run_module_as_main, argv[2])  # type: ignore[attr-defined]


def replace_main(here: Here) -> types.ModuleType:
    here.program = sys.modules["__main__"]  # which must not be collected: it owns the functions of this program
    main = types.ModuleType("__main__")
    main.__dict__.update(__builtins__=builtins, __loader__=importlib.machinery.BuiltinImporter)
    if "__annotations__" in vars(here.program):
        main.__annotations__ = {}
    sys.modules["__main__"] = main
    return main


def make_chance_anew() -> None:
    loaded = sys.modules
    if "random" in loaded:
        loaded["random"].seed()
    if "numpy.random" in loaded:
        loaded["numpy.random"].seed()
    if "multiprocessing.process" in loaded:
        loaded["multiprocessing.process"].current_process().authkey = os.urandom(32)
    if "tempfile" in loaded:
        tempfile: Any = loaded["tempfile"]
        tempfile.tempdir = None  # TMPDIR decides


def rename_process(argv: list[str], environment: dict[str, str]) -> None:
    """Show the run's command, and the run in the environment, in /proc: by it the spawner knows a run's processes."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    arg_start, arg_end, env_start, env_end = (int(field) for field in fields[45:49])
    if not 0 < arg_start < arg_end <= env_start < env_end:
        return  # the kernel does not say
    overwrite(arg_start, arg_end - arg_start, map(os.fsencode, argv))
    place = env_start
    for variable in ctypes.string_at(env_start, env_end - env_start).split(b"\0"):
        name = variable.partition(b"=")[0]
        if name == b"RUNNERD_RUN_ID":
            overwrite(place, len(variable), ())
        elif name == b"RUNNERD_PROGRAM":  # the longest, and no pointer to it is left
            first = {"RUNNERD_RUN_ID": environment.get("RUNNERD_RUN_ID", ""), **environment}
            overwrite(place, len(variable), (os.fsencode(f"{name}={value}") for name, value in first.items()))
        place += len(variable) + 1


def overwrite(place: int, size: int, texts: Iterable[bytes]) -> None:
    """Write the texts that fit, each with a NUL behind, and fill the rest with NULs."""
    content = b""
    for text in texts:
        if len(content) + len(text) < size:
            content += text + b"\0"
    ctypes.memmove(place, content.ljust(size, b"\0"), size)


def refresh_prefect() -> None:
    """Read the settings of Prefect again, and set its logging up by them, as `import prefect` does."""
    context: Any = sys.modules.get("prefect.context")
    if hasattr(context, "root_settings_context"):
        context.GLOBAL_SETTINGS_CONTEXT = None  # on which Prefect 2 would build
        context.GLOBAL_SETTINGS_CONTEXT = context.root_settings_context()
    configuration: Any = sys.modules.get("prefect.logging.configuration")
    if configuration is not None:
        configuration.setup_logging()


def undo_logging() -> None:
    """Take back what Prefect has set up, so that a fork sets logging up for the first time."""
    configuration: Any = sys.modules.get("prefect.logging.configuration")
    config = getattr(configuration, "PROCESS_LOGGING_CONFIG", None)
    if not config:
        return
    import logging  # not above: a run must not find a module loaded that its Prefect does not load

    root = logging.getLogger()
    for logger in [root, *logging.Logger.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            ours = [handler for handler in logger.handlers if handler.name in config["handlers"]]
            for handler in ours:
                logger.removeHandler(handler)
    for name in config["loggers"]:
        logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger(name).propagate = True
    root.setLevel(logging.WARNING)
    config.clear()


def hide_frame(error: BaseException) -> None:
    """Take the frame that has called `run` off the traceback; by `raise` alone it raises the exception again."""
    error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
    if hasattr(sys, "exception"):  # Python 3.11
        return
    # Before, `raise` takes the traceback that was noted when the exception was caught.
    noted = [ctypes.py_object(each) for each in (type(error), error, error.__traceback__)]
    for each in noted:
        ctypes.pythonapi.Py_IncRef(each)  # the next call takes them over
    ctypes.pythonapi.PyErr_SetExcInfo(*noted)


run = serve()
