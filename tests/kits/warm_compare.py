"""Compare what flows that were started cold and warm have seen of their processes (tests/process/warm_facts.py)."""

from __future__ import annotations

import json
import re
from typing import Any

# Each is the same for a cold and a warm run, but for the run's own name and ids.
SAME = (
    "environment",
    "C environment",
    "working directory",
    "argv",
    "orig_argv",
    "command",
    "command name",
    "run in /proc/PID/environ",
    "sys.path",
    "__main__",
    "names in __main__",
    "logging",
    "settings",
    "signal dispositions",
    "signals in the kernel",
    "umask",
    "nice",
    "rlimits",
    "oom_score_adj",
    "session and group",
    "account",
    "privileges",
    "subreaper",
    "processors",
    "descriptors",
    "standard streams",
    "locale",
    "time zone",
    "flags",
    "threads",
    "threads in the kernel",
    "main thread",
    "event loop",
    "hooks",
    "interpreter",
    "decimal",
    "warnings",
    "temporary directory",
    "atexit",
    "parent",
)
# Each differs between any two processes.
DIFFERENT = ("random", "pid")
# A warm interpreter has imported these and more; the engine runs as __main__, and is imported again only on demand.
NOT_IMPORTED_WARM = {"prefect.engine"}

_OWN = re.compile(r"0x[0-9a-f]+|[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}|\b[0-9a-f]{64}\b|socket:\[\d+\]")


def seen_by(facts: dict[str, Any], aspect: str, key: str) -> Any:
    """One aspect of what the run `key` saw, without what is its own: its key, ids, addresses, and tokens."""
    return json.loads(_OWN.sub("OWN", json.dumps(facts[aspect])).replace(key, "KEY"))


def list_of_aspects(facts: dict[str, Any]) -> set[str]:
    """All aspects but those that have tests of their own."""
    return set(facts) - {"modules", "numpy random"}
