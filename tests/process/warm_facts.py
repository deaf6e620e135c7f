"""What a flow can see of its process, as JSON: for runs that were started cold and warm, to be compared.

Standard library only, for the interpreter of a flow. `write(path)` is called by a flow while it is imported.
"""

from __future__ import annotations

import atexit
import ctypes
import decimal
import gc
import json
import locale
import logging
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from typing import Any


def write(path: str) -> None:
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(facts(), file, default=str)
    os.rename(path + ".new", path)


def facts() -> dict[str, Any]:
    open_now = descriptors()
    main = sys.modules["__main__"]
    return {
        "environment": dict(os.environ),
        "C environment": c_environment(),
        "working directory": os.getcwd(),
        "argv": sys.argv,
        "orig_argv": getattr(sys, "orig_argv", None),
        "command": read("/proc/self/cmdline").rstrip("\0").split("\0"),
        "command name": read("/proc/self/comm"),
        "run in /proc/PID/environ": [x for x in read("/proc/self/environ").split("\0") if "RUNNERD_RUN_ID=" in x],
        "sys.path": sys.path,
        "__main__": {
            name: getattr(main, name, "absent") if name != "__spec__" else getattr(main.__spec__, "name", None)
            for name in ("__name__", "__file__", "__package__", "__spec__", "__doc__", "__loader__")
        },
        "names in __main__": sorted(
            # Where a warning was given, whose line is in __main__: an import, which a warm run finds done.
            name
            for name in vars(main)
            if name.startswith("__") and name != "__warningregistry__"
        ),
        "logging": logging_config(),
        "settings": settings(),
        "signal dispositions": {str(n): str(signal.getsignal(n)) for n in sorted(signal.valid_signals())},
        "signals in the kernel": status("SigBlk", "SigIgn", "SigCgt", "ShdPnd", "SigPnd"),
        "umask": status("Umask"),
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "rlimits": {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if "RLIMIT_" in name},
        "oom_score_adj": read("/proc/self/oom_score_adj"),
        "session and group": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
        "account": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
        "privileges": status("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp"),
        "subreaper": is_subreaper(),
        "processors": sorted(os.sched_getaffinity(0)),
        "descriptors": open_now,
        "standard streams": [
            [s.name, s.mode, s.encoding, s.errors, s.line_buffering, s.newlines, s.isatty(), s.closed]
            for s in (sys.stdin, sys.stdout, sys.stderr)
        ],
        "locale": [
            locale.setlocale(locale.LC_ALL),
            locale.getpreferredencoding(False),
            sys.getfilesystemencoding(),
            sys.getdefaultencoding(),
        ],
        "time zone": [time.tzname, time.timezone],
        "flags": str(sys.flags),
        "threads": [thread.name for thread in threading.enumerate()],
        "threads in the kernel": len(os.listdir("/proc/self/task")),
        "main thread": threading.main_thread() is threading.current_thread(),
        "event loop": event_loop(),
        "hooks": [sys.excepthook is sys.__excepthook__, sys.displayhook is sys.__displayhook__, sys.gettrace()],
        "interpreter": [sys.getrecursionlimit(), sys.getswitchinterval(), gc.isenabled(), gc.get_threshold()],
        "decimal": str(decimal.getcontext()),
        "warnings": sorted(str(x[:1] + x[2:3]) for x in warnings.filters),
        "temporary directory": tempfile.gettempdir(),
        "atexit": getattr(atexit, "_ncallbacks", lambda: None)(),
        "modules": sorted(sys.modules),
        "random": random.random(),
        "numpy random": sys.modules["numpy"].random.random() if "numpy" in sys.modules else None,
        "pid": os.getpid(),
        "parent": os.getppid(),
    }


def read(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def status(*names: str) -> list[str]:
    return [line for line in read("/proc/self/status").splitlines() if line.split(":")[0] in names]


def descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):
        try:
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:
            continue  # the listing's own
    return found


def c_environment() -> list[str]:
    """What code in C reads, and gives to the processes that it starts."""
    block = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
    found = []
    while block[len(found)]:
        found.append(os.fsdecode(block[len(found)] or b""))
    return sorted(found)


def is_subreaper() -> int:
    value = ctypes.c_int(-1)
    ctypes.CDLL(None).prctl(37, ctypes.byref(value), 0, 0, 0)
    return value.value


def event_loop() -> list[Any]:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return [None, None]
    running: Any = asyncio._get_running_loop()
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    return [running, str(getattr(getattr(policy, "_local", None), "_loop", None))]


def logging_config() -> dict[str, Any]:
    loggers = {"root": logging.getLogger(), **logging.Logger.manager.loggerDict}
    found = {}
    for name, logger in sorted(loggers.items()):
        if isinstance(logger, logging.Logger):
            handlers = [
                [type(h).__name__, h.name, h.level, getattr(h.formatter, "_fmt", None), getattr(h, "stream", None)]
                for h in logger.handlers
            ]
            if handlers or logger.level or not logger.propagate or logger.disabled:
                found[name] = [logger.level, logger.propagate, logger.disabled, [list(map(str, h)) for h in handlers]]
    return found


def settings() -> dict[str, str]:
    context: Any = sys.modules.get("prefect.context")
    if context is None:
        return {}
    found = context.get_settings_context()
    return {"profile": str(found.profile), **found.settings.to_environment_variables()}
