"""Says in words how a run ended. Pure."""

from __future__ import annotations

import signal
from datetime import UTC, datetime

from runnerd.core.machine import EXIT_UNKNOWN, Intent
from runnerd.core.prefect import ApiState, StateType
from runnerd.core.process import Exit, Receipt
from runnerd.core.run_placeholders import one_line
from runnerd.core.units import format_duration, format_size

HOST_RESTARTED = "the host restarted"
DRAINED = "the host was drained"
_CANCELLED = "cancelled; "
_COMPLETED_FIRST = "completed before the cancel ended it; "


# What an exit code usually means: those of shells, and 247, which is -9 as a program's own exit code. Prefect explains
# the same codes (prefect/_internal/infrastructure_exit_codes.py of 3.9).
_CODE_MEANS = {
    126: "command cannot be executed",
    127: "command not found",
    137: "usually a process of it was killed by SIGKILL, often for want of memory",
    143: "usually a process of it was ended by SIGTERM",
    247: "usually it was terminated for want of memory",
}


# By the stage of a set-up that failed: systemd's number and name of it (systemd.exec(5)), which administrators look up.
_SYSTEMD_STAGES = {
    "working-directory": "200/CHDIR",
    "nice": "201/NICE",
    "exec": "203/EXEC",
    "rlimits": "205/LIMITS",
    "stdin": "208/STDIN",
    "output": "209/STDOUT",
    "group": "216/GROUP",
    "user": "217/USER",
}


def start_words(message: str, *, stage: str | None) -> str:
    """Say why no process was started. `stage`: at which a command failed; None for a flow, whose program is Python."""
    words = message.removeprefix("cannot start: ")
    if stage is None:
        return words
    code = _SYSTEMD_STAGES.get(stage)
    words = words.replace("no such interpreter", "no such command")
    return f"{words} ({code})" if code is not None else words


def signal_name(number: int) -> str:
    """Return `SIGTERM` for 15, `signal 99` for a number without a name on this system."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_words(ended: Exit | None, *, memory_max_bytes: int | None = None) -> str:
    """Say how a process ended: `exited 1`, `killed by SIGSEGV`, `killed: out of memory (memory_max 2G)`."""
    if ended is None:
        return EXIT_UNKNOWN
    if ended.oom:
        bound = f" (memory_max {format_size(memory_max_bytes)})" if memory_max_bytes else ""
        return f"killed: out of memory{bound}"
    if ended.signal is not None:
        return f"killed by {signal_name(ended.signal)}"
    if ended.code is not None:
        means = _CODE_MEANS.get(ended.code)
        return f"exited {ended.code}" + (f" ({means})" if means else "")
    return EXIT_UNKNOWN


def ending(
    ended: Exit | None,
    *,
    intent: Intent | None,
    failure: str | None = None,
    runtime_max_s: float | None = None,
    memory_max_bytes: int | None = None,
    cause: str | None = None,
    receipt: Receipt | None = None,
) -> str:
    """Say why runnerd ended a run, if it did, and how the run's process ended. `cause`: why it was evicted."""
    if failure is not None:
        return f"could not start: {failure}"
    how = exit_words(ended, memory_max_bytes=memory_max_bytes)
    if receipt is not None and receipt.state is None:
        how += ": Prefect's API aborted the run"
    if intent is Intent.CANCEL:
        return f"{_CANCELLED}{how}"
    if intent is Intent.TIMEOUT:
        bound = f" {format_duration(runtime_max_s)}" if runtime_max_s else ""
        return f"ran longer than runtime_max{bound}; {how}"
    if intent is Intent.EVICT:
        return f"{cause or 'the host was stopped'}; {how}"
    return how


def words_in_state(words: str | None, *, intent: Intent | None, state: StateType) -> str | None:
    """Correct the words of an end that were chosen before the run's last state was read.

    A run that is Completed was not ended by its cancel, whenever that was asked for.
    """
    if intent is not Intent.CANCEL or state is not StateType.COMPLETED or not words:
        return words
    return f"{_COMPLETED_FIRST}{words.removeprefix(_CANCELLED)}" if words.startswith(_CANCELLED) else words


def message_of(state: ApiState | None) -> str | None:
    """Return what was said with a state, in one line of bounded length: anybody may have reported it."""
    return (one_line(state.message) or None) if state is not None else None


def time_text(at: datetime | None) -> str | None:
    """Write a time by RFC 3339, in UTC, to the millisecond."""
    if at is None:
        return None
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
