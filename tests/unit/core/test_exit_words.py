"""words.py: how a run ended, as it is read at night."""

from __future__ import annotations

import signal

import pytest

from runnerd.core.exit_words import ending, exit_words, signal_name
from runnerd.core.machine import EXIT_UNKNOWN, Intent
from runnerd.core.process import Exit


def test_signals_have_names() -> None:
    assert signal_name(signal.SIGSEGV) == "SIGSEGV"
    assert signal_name(signal.SIGRTMIN) == "SIGRTMIN"
    assert signal_name(99) == "signal 99"


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (None, EXIT_UNKNOWN),
        (Exit(), EXIT_UNKNOWN),
        (Exit(code=0), "exited 0"),
        (Exit(code=1), "exited 1"),
        (Exit(code=127), "exited 127 (command not found)"),
        (Exit(code=247), "exited 247 (usually it was terminated for want of memory)"),
        (Exit(code=248), "exited 248"),
        (Exit(signal=11), "killed by SIGSEGV"),
        (Exit(signal=9, oom=True), "killed: out of memory (memory_max 2G)"),
    ],
)
def test_exits(ended: Exit | None, words: str) -> None:
    assert exit_words(ended, memory_max_bytes=2 * 2**30) == words


def test_out_of_memory_without_a_bound_of_its_own() -> None:
    assert exit_words(Exit(signal=9, oom=True)) == "killed: out of memory"


@pytest.mark.parametrize(
    ("intent", "words"),
    [
        (None, "killed by SIGTERM"),
        (Intent.CANCEL, "cancelled; killed by SIGTERM"),
        (Intent.TIMEOUT, "ran longer than runtime_max 2h; killed by SIGTERM"),
        (Intent.EVICT, "the host was stopped; killed by SIGTERM"),
    ],
)
def test_endings_say_why(intent: Intent | None, words: str) -> None:
    assert ending(Exit(signal=15), intent=intent, runtime_max_s=7200) == words


def test_a_timeout_whose_bound_is_not_known() -> None:
    assert ending(Exit(code=0), intent=Intent.TIMEOUT) == "ran longer than runtime_max; exited 0"


def test_what_could_not_start_says_only_that() -> None:
    words = ending(None, intent=Intent.CANCEL, failure="no such user etl")
    assert words == "could not start: no such user etl"
