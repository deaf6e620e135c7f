"""The processes there are, by one look through /proc: whose child each is, of which session, and since when.

* A look is not one instant. What forks and exits while it lasts can be missed, so who must be sure looks again.
* A process that was seen is signalled through a pidfd that was open before its start time was compared.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterable

from runnerd.spawner.proc.identity import open_process, stat_fields

_STATE, _PARENT, _SESSION, _THREADS, _START_TICKS = 0, 1, 3, 17, 19
_PR_SET_CHILD_SUBREAPER = 36
_RUN_ID = b"RUNNERD_RUN_ID="
_ENVIRONMENT_BYTES = 2**21  # a process can say that its environment is all of its memory


class Process:
    __slots__ = ("alive", "parent", "pid", "session", "ticks")

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.parent = int(fields[_PARENT])
        self.session = int(fields[_SESSION])
        self.ticks = int(fields[_START_TICKS])
        # A process whose first thread has ended reads as a zombie for as long as its other threads work on.
        self.alive = fields[_STATE] not in (b"Z", b"X") or int(fields[_THREADS]) > 1

    def send(self, number: int) -> bool:
        """Signal it; whether it was there and is ours to signal. Raises OSError when out of descriptors."""
        pidfd = open_process(self.pid, self.ticks)
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except (ProcessLookupError, PermissionError):
            return False
        finally:
            os.close(pidfd)
        return True


Table = dict[int, Process]


def look() -> Table:
    """All processes, by pid."""
    table = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            pid = int(name)
            fields = stat_fields(pid)
            if fields:
                table[pid] = Process(pid, fields)
    return table


def below(table: Table, roots: Iterable[int]) -> list[Process]:
    """The roots that are there, and all that descends from them."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found = [table[pid] for pid in set(roots) if pid in table]
    seen = {process.pid for process in found}
    for process in found:  # grows as it goes
        for child in children.get(process.pid, ()):
            # A child is not older than its parent: if it is, the parent's number was another's when it was read.
            if child.pid not in seen and child.ticks >= process.ticks:
                seen.add(child.pid)
                found.append(child)
    return found


def own_children() -> list[int]:
    """The pids of our children. One of them stays in it, as a zombie, until we reap it."""
    try:
        with open("/proc/thread-self/children", "rb", buffering=0) as file:
            return [int(pid) for pid in file.readall().split()]
    except FileNotFoundError:  # a kernel that was built without it
        me = os.getpid()
        return [process.pid for process in look().values() if process.parent == me]


def run_named_by(pid: int) -> str | None:
    """The run that a process says it belongs to, by its environment; empty: none; None where nobody can tell now."""
    fields = stat_fields(pid)
    if not fields or fields[_STATE] == b"D":
        return None  # whoever reads the memory of a process that is stuck in the kernel may get stuck behind it
    try:
        with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
            environment = file.read(_ENVIRONMENT_BYTES)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return None  # gone, or not ours to read
    for item in (environment or b"").split(b"\0"):
        if item.startswith(_RUN_ID):
            return item[len(_RUN_ID) :].decode("utf-8", "replace")
    return "" if environment else None  # in the midst of an exec it reads as empty


def describe(pid: int) -> str:
    """For the log."""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return f"{pid} ({(file.read(64) or b'').decode('utf-8', 'replace').strip()})"
    except OSError:
        return str(pid)


def become_subreaper() -> None:
    """What our descendants leave behind comes to us, not to init; this outlasts an exec. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
