"""A spawner in memory: its clients speak as SpawnerClient does, its processes are entries in a table.

Its timers are the running loop's, so under a JumpLoop a grace of thirty seconds takes no time. What it does is held
to the real spawner by tests/process/test_fake_spawner.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, cast

from runnerd import __version__
from runnerd.core.errors import NotRecorded, SpawnerError
from runnerd.core.process import Exit, ForkOf, Identity, LaunchSpec, Receipt, Warm
from runnerd.processes.client import SpawnerClient
from runnerd.processes.link import OnLost, OnRecord
from runnerd.processes.protocol import Hello, Record, StartError

BOOT = "boot-1"
Key = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """One stop as it was asked for."""

    key: str
    attempt: int
    reason: str
    timeout_s: float | None
    prefect_intent: str | None = None


class FakeSpawner:
    """Its methods are for tests; `connect` is for a SpawnerLink.

    `stubborn` processes only go by SIGKILL. Those with `intents` acknowledge what they are told if `hears`, and then
    exit 0. `down` lets nobody connect. `refuses` is said to every spawn; `full` is a disk without room for a record.
    `start_error` keeps every process from starting. `hello` is what it says of itself to who connects. A warm
    interpreter gets ready at once, or fails with `warm_problem`; with `imports_for_ever` it does neither.
    `fork_problem` has every run start cold.
    """

    def __init__(self) -> None:
        self.started: list[LaunchSpec] = []
        self.stops: list[Stop] = []
        self.stubborn = False
        self.hears = False
        self.down = False
        self.refuses: str | None = None
        self.full = False
        self.start_error: str | None = None
        self.warm_problem: str | None = None
        self.imports_for_ever = False
        self.fork_problem: str | None = None
        self.hello = Hello(
            version=__version__,
            pid=999,
            limits={"memory_max": "cgroup", "cpu_quota": "cgroup", "tasks_max": "cgroup"},
            why=None,
            boot_id=BOOT,
            build="5eed0001",
            forks=True,
            stdin=True,
        )
        self.successor: Hello | None = None
        self.may_retire = True
        self.retired = 0
        self.records: dict[Key, Record] = {}
        self.kill_at: dict[Key, asyncio.TimerHandle] = {}
        self._clients: list[FakeClient] = []
        self._specs: dict[Key, LaunchSpec] = {}

    def make_client(self, on_record: OnRecord, on_lost: OnLost) -> SpawnerClient:
        """Make a client for one connection, as SpawnerLocation does."""
        return cast(SpawnerClient, FakeClient(self, on_record, on_lost))

    async def start_spawner(self) -> None:
        """What a SpawnerLink calls where nobody answers."""
        if self.down:
            raise SpawnerError("cannot start the spawner: it is down")

    # --- for tests ----------------------------------------------------------------------------------------------

    def runs_of(self, key: str) -> list[LaunchSpec]:
        """Every start of this key, in order."""
        return [spec for spec in self.started if spec.key == key]

    def live(self) -> list[str]:
        return [record.key for record in self.records.values() if record.phase != "exited"]

    def exit(
        self,
        key: str,
        *,
        code: int | None = 0,
        signal: int | None = None,
        oom: bool = False,
        receipt: Receipt | None = None,
    ) -> None:
        """Its latest attempt ends; with neither a code nor a signal nobody saw how."""
        at = max(attempt for name, attempt in self.records if name == key)
        self.records[key, at] = replace(self.records[key, at], receipt=receipt)
        self._end((key, at), Exit(code=None if signal else code, signal=signal, oom=oom, at=datetime.now(UTC)))

    def lose(self) -> None:
        """Every connection breaks."""
        clients, self._clients = self._clients, []
        for client in clients:
            client.break_off()

    def forget_all(self) -> None:
        """As after a reboot: nobody knows of anything."""
        for timer in self.kill_at.values():
            timer.cancel()
        self.records.clear()

    # --- what clients ask ---------------------------------------------------------------------------------------

    def admit(self, client: FakeClient) -> list[Record]:
        if self.down:
            raise SpawnerError("cannot reach the spawner at nowhere: it is down")
        self._clients.append(client)
        return list(self.records.values())

    def leave(self, client: FakeClient) -> None:
        if client in self._clients:
            self._clients.remove(client)

    def spawn(self, spec: LaunchSpec) -> Record:
        key = (spec.key, spec.attempt)
        if key in self.records:
            return self.records[key]
        if self.full:
            raise NotRecorded(f"cannot start run {spec.key}: cannot write its record: No space left", refused=True)
        if self.refuses is not None:
            raise SpawnerError(self.refuses, refused=True)
        pid = 1000 + len(self.started)
        self.started.append(spec)
        self._specs[key] = spec
        record = Record(
            key=spec.key,
            attempt=spec.attempt,
            phase="running",
            identity=Identity(boot_id=BOOT, pid=pid, start_ticks=pid * 10),
            pgid=pid,
            user=spec.user,
            started_at=datetime.now(UTC),
            warm=Warm(state="importing") if spec.forks else None,
        )
        if spec.fork_of is not None:
            problem = self._fork_problem(spec, spec.fork_of)
            record = replace(record, start="cold" if problem else "warm", start_problem=problem)
        if self.start_error is not None:
            error = StartError(stage="exec", errno=2, message=f"cannot start: {self.start_error}")
            record = replace(record, phase="exited", error=error)
        self._tell(record)
        if spec.forks and record.phase == "running" and not self.imports_for_ever:
            asyncio.get_running_loop().call_soon(self.end_imports, key, self.warm_problem)
        if spec.runtime_max_s is not None:
            self._later(
                key,
                spec.runtime_max_s,
                lambda: self.stop(*key, reason="timeout", timeout_s=None, prefect_intent="relinquish", asked=False),
            )
        return record

    def stop(
        self,
        key: str,
        attempt: int,
        *,
        reason: str,
        timeout_s: float | None,
        prefect_intent: str | None = None,
        asked: bool = True,
    ) -> Record | None:
        if asked:
            self.stops.append(
                Stop(key=key, attempt=attempt, reason=reason, timeout_s=timeout_s, prefect_intent=prefect_intent)
            )
        record = self.records.get((key, attempt))
        if record is None or record.phase in ("killing", "exited"):
            return record
        grace_s = self._specs[key, attempt].stop_timeout_s if timeout_s is None else timeout_s
        if record.phase != "stopping":
            record = replace(record, phase="stopping", stop_reason=reason, stop_at=datetime.now(UTC))
            self._tell(record)
            self._later((key, attempt), grace_s, lambda: self._kill((key, attempt)))
            told = prefect_intent is not None and grace_s > 0 and self.hears and self._specs[key, attempt].intents
            if told:
                self._tell(replace(record, told=True))
            if grace_s > 0 and not self.stubborn:
                self._end(
                    (key, attempt), Exit(code=0 if told else None, signal=None if told else 15, at=datetime.now(UTC))
                )
        elif asyncio.get_running_loop().time() + grace_s < self.kill_at[key, attempt].when():
            self._later((key, attempt), grace_s, lambda: self._kill((key, attempt)))
        return self.records[key, attempt]

    def forget(self, key: str, attempt: int) -> bool:
        record = self.records.get((key, attempt))
        if record is not None and record.phase != "exited":
            raise SpawnerError(f"cannot forget run {key}: it is {record.phase}", refused=True)
        return self.records.pop((key, attempt), None) is not None

    def retire(self) -> bool:
        """The next one says of itself what `successor` is, else the same."""
        if not self.may_retire or any(record.phase != "exited" for record in self.records.values()):
            return False
        self.retired += 1
        self.hello = self.successor or self.hello
        self.lose()
        return True

    def end_imports(self, key: Key, problem: str | None = None) -> None:
        """A warm interpreter that imports gets ready, or fails and ends by itself."""
        record = self.records.get(key)
        if record is None or record.phase == "exited" or record.warm != Warm(state="importing"):
            return
        if problem is None:
            warm = Warm(state="ready", python="3.11.7", prefect="3.9.1", import_s=1.5)
            self._tell(replace(record, warm=warm))
            return
        self._tell(replace(record, warm=Warm(state="failed", problem=problem)))
        self._end(key, Exit(code=1, at=datetime.now(UTC)))

    # --- inside -------------------------------------------------------------------------------------------------

    def _fork_problem(self, spec: LaunchSpec, fork_of: ForkOf) -> str | None:
        name = f"warm interpreter {fork_of.key} attempt {fork_of.attempt}"
        warm = self.records.get((fork_of.key, fork_of.attempt))
        if warm is None or warm.phase == "exited":
            return f"{name} does not run"
        if warm.phase != "running" or warm.warm is None or warm.warm.state != "ready":
            return f"{name} is not ready"
        given = self._specs[fork_of.key, fork_of.attempt]
        if (given.user, given.group, given.argv[0]) != (spec.user, spec.group, spec.argv[0]):
            return f"{name} has another user, group or python than the run"
        return self.fork_problem

    def _later(self, key: Key, seconds: float, call: Callable[[], Any]) -> None:
        if key in self.kill_at:
            self.kill_at[key].cancel()
        self.kill_at[key] = asyncio.get_running_loop().call_later(seconds, call)

    def _kill(self, key: Key) -> None:
        self._tell(replace(self.records[key], phase="killing"))
        self._end(key, Exit(signal=9, at=datetime.now(UTC)))

    def _end(self, key: Key, ended: Exit) -> None:
        if key in self.kill_at:
            self.kill_at.pop(key).cancel()
        self._tell(replace(self.records[key], phase="exited", exit=ended))

    def _tell(self, record: Record) -> None:
        self.records[record.key, record.attempt] = record
        for client in self._clients:
            client.hear(record)


class FakeClient:
    """One connection. Each call yields to the loop once, as a real one would."""

    def __init__(self, spawner: FakeSpawner, on_record: Callable[[Record], None], on_lost: Callable[[], None]) -> None:
        self._spawner = spawner
        self._on_record = on_record
        self._on_lost = on_lost
        self._open = False
        self.hello: Hello | None = None

    async def connect(self) -> list[Record]:
        await asyncio.sleep(0)
        records = self._spawner.admit(self)
        self.hello = self._spawner.hello
        self._open = True
        return records

    async def spawn(self, spec: LaunchSpec) -> Record:
        await self._travel("spawn")
        return self._spawner.spawn(spec)

    async def stop(
        self, *, key: str, attempt: int, reason: str, timeout_s: float | None = None, prefect_intent: str | None = None
    ) -> Record | None:
        await self._travel("stop")
        return self._spawner.stop(key, attempt, reason=reason, timeout_s=timeout_s, prefect_intent=prefect_intent)

    async def forget(self, *, key: str, attempt: int) -> bool:
        await self._travel("forget")
        return self._spawner.forget(key, attempt)

    async def list(self) -> list[Record]:
        await self._travel("list")
        return [*self._spawner.records.values()]

    async def retire(self) -> bool:
        await self._travel("retire")
        return self._spawner.retire()

    async def close(self) -> None:
        self._open = False
        self._spawner.leave(self)

    async def _travel(self, op: str) -> None:
        if not self._open:
            raise SpawnerError(f"cannot ask the spawner to {op}: not connected")
        await asyncio.sleep(0)
        if not self._open:
            raise SpawnerError("cannot get an answer from the spawner: the spawner closed the connection")

    def hear(self, record: Record) -> None:
        asyncio.get_running_loop().call_soon(self._on_record, record)

    def break_off(self) -> None:
        self._open = False
        self._on_lost()
