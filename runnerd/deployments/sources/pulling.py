"""Pulls one version of a source: a helper process under the deployment's user and interpreter does it.

Nothing is decided here: the process is started, and its answer read. What it answers is hostile: a commit that is none,
or a directory that is not where trees are, is a failure.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from runnerd.core.errors import SpawnerError
from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec
from runnerd.core.settings import RunSettings
from runnerd.core.source import Source, Tree, without_secrets
from runnerd.core.units import format_duration
from runnerd.deployments.sources.credentials import Login
from runnerd.launch.environment import Environments
from runnerd.launch.spec import PROGRAM, program_argv, program_text
from runnerd.processes.helper import HelperOutcome, last_line, name_helper, run_helper
from runnerd.processes.link import SpawnerLink, describe_end

_ANSWER_MAX_BYTES = 2**20
_OUTPUT_MAX_BYTES = 65536
_WORDS_MAX = 400
_PROGRAMS = {"git": "pull_git", "remote": "pull_remote"}
_STORES_MAX = 1000  # of more, none is dropped, because their names would not fit in
_VARIABLE_MAX_BYTES = 120_000  # Linux bounds one at 128 KiB
_VERSION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be pulled, and what is to stay. `commit`: this one instead of what the source names.

    `entrypoints`: paths in the tree that must not lead out of it; `keep`: names of its trees in use; `history`: commits
    that may be wanted again; `stores`: names of the folders of all sources; the others are dropped
    after a week, none where nothing is said.
    """

    source: Source
    run: RunSettings
    login: Login | None = field(default=None, repr=False)
    commit: str | None = None
    entrypoints: Sequence[str] = ()
    keep: Sequence[str] = ()
    history: Sequence[str] = ()
    stores: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """A tree, and those of the entrypoints that lead out of it."""

    tree: Tree
    outside: frozenset[str] = frozenset()


class Puller:
    """Pulls into `place`, below folders whose names have `token` in them."""

    def __init__(self, *, link: SpawnerLink, environments: Environments, work_dir: str, place: str, token: str) -> None:
        self._link = link
        self._environments = environments
        self._work_dir = work_dir
        self._place = place
        self._token = token

    async def pull(self, wanted: Wanted) -> Pulled | str:
        """Return what was pulled, or one sentence why nothing was."""
        environment = await self._environments.build(wanted.run)
        if isinstance(environment, str):
            return environment
        work = json.dumps(self._work(wanted))
        if len(work) > _VARIABLE_MAX_BYTES:
            return "too many trees of it are in use"
        spec = self._spec(wanted, {**environment, "RUNNERD_PULL": work})
        try:
            outcome = await run_helper(spec, link=self._link, answer_max=_ANSWER_MAX_BYTES)
        except SpawnerError as error:
            return str(error)
        return self._read(outcome, wanted.source)

    def _work(self, wanted: Wanted) -> dict[str, Json]:
        source, login = wanted.source, wanted.login
        return {
            "url": source.url,
            "branch": source.branch,
            "tag": source.tag,
            "commit": wanted.commit or source.commit,
            "submodules": source.include_submodules,
            "directories": list(source.directories),
            "size_max": source.size_max_bytes,
            "secret": [login.user, login.password] if login is not None else None,
            "place": self._place,
            "token": self._token,
            "entrypoints": list(wanted.entrypoints),
            "keep": list(wanted.keep),
            "history": list(wanted.history),
            "stores": list(wanted.stores) if 0 < len(wanted.stores) <= _STORES_MAX else None,
        }

    def _spec(self, wanted: Wanted, environment: dict[str, str]) -> LaunchSpec:
        run, names = wanted.run, name_helper(self._work_dir)
        return LaunchSpec(
            key=names.key,
            attempt=1,
            argv=program_argv(run.python, "runnerd-pull"),
            environment={**environment, PROGRAM: program_text(_PROGRAMS[wanted.source.kind])},
            working_directory="/",
            output=names.output,
            result=names.result,
            user=run.user,
            group=run.group,
            umask=0o077,
            nice=run.nice,
            rlimits={**run.rlimits, "fsize": (wanted.source.size_max_bytes, wanted.source.size_max_bytes)},
            memory_max_bytes=run.memory_max_bytes,
            cpu_quota_percent=run.cpu_quota_percent,
            tasks_max=run.tasks_max,
            output_max_bytes=_OUTPUT_MAX_BYTES,
            runtime_max_s=wanted.source.time_limit_s,
            stop_timeout_s=2.0,
        )

    def _read(self, outcome: HelperOutcome, source: Source) -> Pulled | str:
        record = outcome.record
        if record is not None and record.stop_reason == "timeout":
            return f"pulling it took longer than {format_duration(source.time_limit_s)}; see time_limit"
        try:
            answer = json.loads(outcome.answer)
            if isinstance(answer.get("error"), str):
                return without_url(" ".join(answer["error"].split())[:_WORDS_MAX], source)
            return self._read_tree(answer["ok"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            last = last_line(outcome.output)
            return f"the process that pulls it {describe_end(record)}" + (f": {last}" if last else "")

    def _read_tree(self, said: Json) -> Pulled:
        commit, directory, outside = said["commit"], said["directory"], said["outside"]
        if not (isinstance(commit, str) and _VERSION.fullmatch(commit)):
            raise ValueError("no commit")
        name = os.path.basename(directory)
        if os.path.normpath(directory) != directory or not name.startswith(f"{commit}-"):
            raise ValueError("no tree of this commit")
        if not directory.startswith(f"{self._place}/") or f"-{self._token}/" not in directory:
            raise ValueError("a directory elsewhere")
        return Pulled(tree=Tree(commit=commit, directory=directory), outside=frozenset(map(str, outside)))


def without_url(words: str, source: Source) -> str:
    """Replace the URL of the source in a message by the one that may be shown."""
    return words.replace(source.url, without_secrets(source.url))
