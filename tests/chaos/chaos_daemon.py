"""The real daemon with doubles at its edges: a journal that kills it at a chosen write or is full, a clock that jumps.

Takes the daemon's own flags and `--plan FILE`. That file is read at each write and at each look at the clock, so a
daemon that runs can be given another plan: {"id", "write", "when", "full", "jump_s"}; writes are counted from 1 anew
for each id, and count only where they concern a run.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from runnerd.config import find_defaults, load
from runnerd.core.backoff import Backoff
from runnerd.core.errors import ConfigError, RunnerdError
from runnerd.core.machine import RunRecord
from runnerd.daemon.build import Daemon
from runnerd.daemon.options import Options
from runnerd.daemon.service import Service
from runnerd.journal.journal import Journal
from runnerd.log.log import make_log
from runnerd.system.ambient import real_ambient
from runnerd.system.directories import journal_path, lock_state, make_directories
from runnerd.system.paths import Paths, resolve_paths


class Plan:
    """What the driver wants of this process now."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> dict[str, Any]:
        try:
            with open(self._path, encoding="utf-8") as file:
                document: dict[str, Any] = json.load(file)
        except FileNotFoundError:
            return {}
        return document

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.read().get("jump_s", 0.0))


class ChaosJournal(Journal):
    """Dies at a write, before it is on disk or right after; has no room for one while the plan says so."""

    plan: Plan
    counted: Any = None
    writes = 0
    _about_a_run = False

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        plan = self.plan.read()
        deadly = self._about_a_run and self._count(plan) == plan.get("write")
        with super()._writing() as db:
            if plan.get("full"):
                self._fill(db)
            yield db
            if deadly and plan.get("when") == "before":
                os.kill(os.getpid(), signal.SIGKILL)
        if deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    def _count(self, plan: dict[str, Any]) -> int:
        if plan.get("id") != self.counted:
            self.counted, self.writes = plan.get("id"), 0
        self.writes += 1
        return self.writes

    def _fill(self, db: sqlite3.Connection) -> None:
        """Have SQLite itself find that there is no room, inside the transaction."""
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={pages}")
        try:
            db.execute("CREATE TABLE no_room AS SELECT zeroblob(64000000) AS filler")
        finally:
            db.execute("PRAGMA max_page_count=1073741823")

    def save(self, record: RunRecord, event: str, **more: Any) -> None:
        with self._counting():
            super().save(record, event, **more)

    def withdraw_claim(self, run_id: str, before: RunRecord | None) -> None:
        with self._counting():
            super().withdraw_claim(run_id, before)

    @contextlib.contextmanager
    def _counting(self) -> Iterator[None]:
        self._about_a_run = True
        try:
            yield
        finally:
            self._about_a_run = False


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("plan", "config", "runtime-dir", "state-dir", "log-dir"):
        parser.add_argument(f"--{name}", required=True)
    args = parser.parse_args()
    paths = resolve_paths(
        environ=os.environ, root=os.geteuid() == 0, config=args.config, runtime=args.runtime_dir,
        state=args.state_dir, log=args.log_dir,
    )  # fmt: skip
    try:
        return serve(paths, Plan(args.plan))
    except ConfigError as error:
        sys.stderr.writelines(f"runnerd: {problem}\n" for problem in error.problems)
    except RunnerdError as error:
        sys.stderr.write(f"runnerd: {error}\n")
    return 1


def serve(paths: Paths, plan: Plan) -> int:
    log = make_log(log_format="console", journald=False, debug=False)
    defaults = find_defaults(os.environ, root=os.geteuid() == 0)
    make_directories(paths)
    with lock_state(paths):
        journal = ChaosJournal(path=journal_path(paths), now=plan.now, log=log)
        journal.plan = plan
        daemon = Daemon(
            paths=paths,
            options=Options(),
            defaults=defaults,
            config=load(paths.config, defaults=defaults, last_good=journal.last_good()),
            journal=journal,
            environ=dict(os.environ),
            # Little patience, so that a round ends soon after its last fault.
            ambient=replace(real_ambient(log), now=plan.now, backoff=lambda: Backoff(first_s=0.2, cap_s=2.0)),
        )
        return asyncio.run(Service(daemon=daemon, options=Options()).run())


if __name__ == "__main__":
    sys.exit(main())
