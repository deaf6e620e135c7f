"""The directory that is made for one attempt of a run, and the process that removes it. Pure."""

from __future__ import annotations

import os.path
from dataclasses import replace

from runnerd.core.machine import RunRecord
from runnerd.core.process import LaunchSpec
from runnerd.launch.environment import PATH

# Only where plain rm does not do are directories looked for that their owner closed to himself. find follows no link.
# Neither leaves the file system: whatever is mounted in there is not the run's. The tail is for people.
_TIDY = """
rm -rf --one-file-system -- "$@" 2>/dev/null && exit
find "$@" -xdev -type d ! -perm -700 -exec chmod u+rwx {} \\; 2>/dev/null
rm -rf --one-file-system -- "$@" 2>&1 | tail -n 3
for path; do if [ -e "$path" ] || [ -L "$path" ]; then exit 1; fi; done
"""
_TIDY_S = 600.0
TIDY_PREFIX = "tidy-"
HOOKS_SUFFIX = "-hooks"  # of the directory that a run's hooks have beside its own


def scratch_directory(record: RunRecord, *, tmp: str) -> str:
    """The directory below `tmp` that is made for this attempt of a run alone.

    By the record, so that the next daemon finds it again; and nobody can make it beforehand, for its claim's id is
    random.
    """
    secret = (record.transition_id or record.id).replace("-", "")[:12]
    return os.path.join(tmp, f"runnerd-{record.id[:8]}-{secret}-{record.attempt}")


def tidy_spec(record: RunRecord) -> LaunchSpec:
    """What the spawner needs to start to remove an ended run's scratch directory, and its hooks', as its user.

    Also those of the attempt before it in which nothing ran. The last argument is the directory of the last one.
    """
    assert record.scratch is not None and record.output is not None, "it was never to be started"
    tmp = os.path.dirname(record.scratch)
    before = [scratch_directory(replace(record, attempt=record.attempt - 1), tmp=tmp)] if record.respawned else []
    directories = [*before, record.scratch]
    return LaunchSpec(
        key=tidy_key(record.id),
        attempt=record.attempt,
        argv=("/bin/sh", "-c", _TIDY, "runnerd-tidy", *(one + HOOKS_SUFFIX for one in directories), *directories),
        environment={"PATH": PATH, "LANG": "C.UTF-8"},
        working_directory="/",
        output=record.output,
        user=record.user,
        runtime_max_s=_TIDY_S,
        stop_timeout_s=5.0,
    )


def tidy_key(run_id: str) -> str:
    """The spawner's key of the process that removes this run's scratch directory."""
    return f"{TIDY_PREFIX}{run_id}"
