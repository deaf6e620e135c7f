"""Launch specs for this host: looks up what the pure part of launching needs to be told.

Invariant: whatever keeps a run from being started comes back as one sentence, never as an exception.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path

from runnerd.config import parse_environment_file
from runnerd.errors import ConfigError
from runnerd.launch import Account, ApiAccess, base_environment, hooks_spec, launch_spec
from runnerd.machine import RunRecord
from runnerd.model import LaunchSpec, RunSettings
from runnerd.registry import Registry
from runnerd.regular import open_regular
from runnerd.tools import Prepared


class FlowLauncher:
    """`access` is asked at every start, so that a rotated key reaches the next run."""

    def __init__(
        self,
        *,
        registry: Registry,
        access: Callable[[], ApiAccess],
        output_dir: str,
        environ: Mapping[str, str],
    ) -> None:
        self._registry = registry
        self._access = access
        self._output_dir = output_dir
        self._environ = environ

    async def prepare(self, record: RunRecord) -> Prepared:
        """What to start for this attempt, or why it cannot be."""
        entry = self._registry.by_id(record.deployment_id)
        if entry is None:
            return Prepared(start="its deployment is not configured on this host any more")
        environment = self.environment(entry.deployment.run)
        if isinstance(environment, str):
            return Prepared(start=environment)
        base, from_file = environment
        spec = launch_spec(
            record,
            entry.deployment,
            access=self._access(),
            base=base,
            file_environment=from_file,
            output=os.path.join(self._output_dir, f"{record.id}.{record.attempt}.log"),
        )
        return Prepared(start=spec, user=entry.deployment.run.user or base["USER"])

    async def hooks(self, record: RunRecord) -> LaunchSpec | str:
        """What to start to run this record's hooks, or why they cannot be run."""
        entry, flow = self._registry.by_id(record.deployment_id), (await self.prepare(record)).start
        if entry is None or isinstance(flow, str):
            return str(flow)
        return hooks_spec(flow, record, program=hooks_program(), timeout_s=entry.deployment.run.hook_timeout_s)

    def merged_environment(self, run: RunSettings) -> dict[str, str] | str:
        """What a process of these settings gets that is no flow run; a sentence when it cannot be had."""
        environment = self.environment(run)
        if isinstance(environment, str):
            return environment
        base, from_file = environment
        return {**base, **from_file, **run.environment}

    def environment(self, run: RunSettings) -> tuple[dict[str, str], Mapping[str, str]] | str:
        """The base environment of these settings and what environment_file adds; a sentence when there is none."""
        try:
            entry = pwd.getpwnam(run.user) if run.user else pwd.getpwuid(os.geteuid())
        except KeyError:
            return f"no such user {run.user}" if run.user else f"uid {os.geteuid()} has no passwd entry"
        account = Account(name=entry.pw_name, home=entry.pw_dir, shell=entry.pw_shell)
        base = base_environment(account, run, host=self._environ)
        if run.environment_file is None:
            return base, {}
        try:
            with open(run.environment_file, encoding="utf-8", opener=open_regular) as file:
                return base, parse_environment_file(file.read())
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            return f"environment_file {run.environment_file}: {why}"
        except ConfigError as error:
            return f"environment_file {run.environment_file}: {error}"


def hooks_program() -> str:
    """The text of the program that runs a flow's hooks under its own interpreter."""
    return Path(__file__).with_name("run_hooks.py").read_text(encoding="utf-8")
