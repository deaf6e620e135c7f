"""What the spawner itself has to hold to when it forks: the accounts as they are now, and its own descriptors."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from runnerd.core.errors import SpawnerError
from tests.kits.spawner import (
    SpawnerUnderTest,
    assert_nothing_left,
    needs_root,
    needs_system_python,
    open_files,
    wait_until,
)
from tests.kits.warm import WARM, flow_spec, make_prefect, run_to_end, start_warm, warm_spec


@needs_root
@needs_system_python
async def test_a_user_who_was_taken_out_of_a_group_does_not_keep_it(idle_spawner: SpawnerUnderTest) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        pytest.skip("needs unshare, and the privilege to mount")
    spawner = idle_spawner
    group = spawner.home / "group"
    group.write_text(f"{Path('/etc/group').read_text()}extra:x:54321:nobody\n")
    make_prefect(spawner)
    mount = f'mount --bind {group} /etc/group && exec "$@"'
    spawner.start(through=("unshare", "--mount", "/bin/sh", "-c", mount, "sh"))
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner, user="nobody"))
        flow = "import os; print(54321 in os.getgroups())"
        first = await run_to_end(link, flow_spec(spawner, "run-1", flow, user="nobody"))
        assert (first.start, spawner.output("run-1")) == ("warm", "True\n"), first.start_problem
        with group.open("r+") as file:  # in place: it is mounted
            text = file.read().replace("extra:x:54321:nobody", "extra:x:54321:")
            file.seek(0)
            file.truncate()
            file.write(text)
        second = await run_to_end(link, flow_spec(spawner, "run-2", flow, user="nobody"))
        assert (second.start, spawner.output("run-2")) == ("cold", "False\n")
        assert "it has other groups than the run's user has now" in (second.start_problem or "")


async def test_a_spawner_without_descriptors_leaks_none(spawner: SpawnerUnderTest) -> None:
    """Whichever of a request's descriptors is the one too many; afterwards it forks again, and reaps all it forked."""
    make_prefect(spawner)
    async with spawner.link() as link:
        await start_warm(link, warm_spec(spawner))
        await run_to_end(link, flow_spec(spawner, "first", "print('ran')"))
        assert spawner.process is not None
        pid = spawner.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        before, limits = sorted(open_files(pid)), resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = max(map(int, os.listdir(f"/proc/{pid}/fd")))
        for more in range(1, 10):
            key = f"run-{more}"
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + more, limits[1]))
            with contextlib.suppress(SpawnerError):
                await run_to_end(link, flow_spec(spawner, key, "print('ran')"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
            assert spawner.output(key) in ("", "ran\n"), "never twice"
        wait_until(lambda: len(children.read_text().split()) == 1, "all but the interpreter to be reaped")
        assert sorted(open_files(pid)) == before
        last = await run_to_end(link, flow_spec(spawner, "last", "print('ran')"))
        assert (last.start, spawner.output("last")) == ("warm", "ran\n"), last.start_problem
        await link.client.stop(key=WARM, attempt=0, reason="evict", timeout_s=0.0)
        await link.until(WARM, "exited")
    assert_nothing_left(spawner)
