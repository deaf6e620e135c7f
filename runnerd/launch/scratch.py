"""Names the scratch directory of one attempt of a run, and makes the launch spec of its removal. Pure."""

from __future__ import annotations

import os
from dataclasses import replace

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.launch.environment import PATH

# rm alone mostly suffices. Where it fails, a directory may lack its owner's own permissions (0700): chmod those and
# repeat. find follows no link. Neither command leaves the file system, because what is mounted inside is not the run's.
# The last words of rm (tail) go into the run's output.
_TIDY_SCRIPT = """
rm -rf --one-file-system -- "$@" 2>/dev/null && exit
find "$@" -xdev -type d ! -perm -700 -exec chmod u+rwx {} \\; 2>/dev/null
rm -rf --one-file-system -- "$@" 2>&1 | tail -n 3
for path; do if [ -e "$path" ] || [ -L "$path" ]; then exit 1; fi; done
"""
_TIDY_TIME_LIMIT_S = 600.0
TIDY_PREFIX = "tidy-"
HOOKS_SUFFIX = "-hooks"  # added to the name of the run's scratch directory for the one of its hooks


def scratch_directory(record: RunRecord, *, tmp: str) -> str:
    """Return the directory below `tmp` that is for this attempt of the run only.

    The name is computed from the record, so that the next daemon finds the directory again. The claim's transition id
    in it is random, so that no other user can make the directory beforehand.
    """
    random_part = (record.transition_id or record.id).replace("-", "")[:12]
    return os.path.join(tmp, f"runnerd-{record.id[:8]}-{random_part}-{record.attempt}")


def tidy_spec(record: RunRecord) -> LaunchSpec:
    """Make the launch spec that removes an ended run's scratch directory, and that of its hooks, as the run's user.

    Where the run was spawned again because its first attempt ran nothing, the directories of that attempt are removed
    too. The last argument of the command is the directory of the latest attempt.
    """
    assert record.scratch is not None and record.output is not None, "the run never got a launch spec"
    tmp = os.path.dirname(record.scratch)
    before = [scratch_directory(replace(record, attempt=record.attempt - 1), tmp=tmp)] if record.respawned else []
    directories = [*before, record.scratch]
    return LaunchSpec(
        key=tidy_key(record.id),
        attempt=record.attempt,
        argv=(
            "/bin/sh",
            "-c",
            _TIDY_SCRIPT,
            "runnerd-tidy",
            *(one + HOOKS_SUFFIX for one in directories),
            *directories,
        ),
        environment={"PATH": PATH, "LANG": "C.UTF-8"},
        working_directory="/",
        output=record.output,
        user=record.user,
        runtime_max_s=_TIDY_TIME_LIMIT_S,
        stop_timeout_s=5.0,
    )


def tidy_key(run_id: str) -> str:
    """Return the spawner's key of the process that removes this run's scratch directory."""
    return f"{TIDY_PREFIX}{run_id}"
