"""Send requests to the spawner over one connection, and start a spawner where no service manager does.

When the connection is lost, every waiting request fails with SpawnerError and `on_lost` is called once; `connect()` may
then be called again. A lost connection ends no run, and every request is safe to repeat.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable

from runnerd.core.errors import NotRecorded, SpawnerError
from runnerd.core.place import Json
from runnerd.core.process import LaunchSpec
from runnerd.core.units import format_duration
from runnerd.processes.protocol import MAX_ANSWER_BYTES, Hello, Record, hello_from_json, record_from_json, spec_to_json
from runnerd.spawner import __file__ as _package_file
from runnerd.system.run_program import run_program

_START_TIMEOUT_S = 30.0
_CLOSE_S = 2.0
_READ_ERRORS = (OSError, EOFError, ValueError)


class SpawnerClient:
    """Calls `on_record` with every record that changed, and `on_lost` when the connection is lost (not by `close`).

    The event loop calls both, in the order of the spawner's messages, and not before the caller of `connect` awaits
    again: so the caller has the records that `connect` returns before the first change.
    """

    def __init__(
        self,
        *,
        socket_path: str,
        on_record: Callable[[Record], None],
        on_lost: Callable[[], None],
        timeout_s: float = 60.0,
    ) -> None:
        self._socket_path = socket_path
        self._on_record = on_record
        self._on_lost = on_lost
        self._timeout_s = timeout_s
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[Json]] = {}
        self._last_id = 0
        self.hello: Hello | None = None  # of this connection, or of the last one

    async def connect(self) -> list[Record]:
        """Connect, and return the spawner's records. Raises SpawnerError when the spawner is absent or refuses us."""
        await self.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await asyncio.open_unix_connection(self._socket_path, limit=MAX_ANSWER_BYTES)
        except (OSError, TimeoutError) as error:
            raise SpawnerError(f"cannot reach the spawner at {self._socket_path}: {_describe(error)}") from error
        try:
            async with asyncio.timeout(self._timeout_s):
                records = self._read_hello(await reader.readline())
        except BaseException as error:
            writer.close()
            if isinstance(error, _READ_ERRORS):
                message = f"cannot read from the spawner at {self._socket_path}: {_describe(error)}"
                raise SpawnerError(message) from error
            raise
        self._writer = writer
        self._reading = asyncio.create_task(self._read(reader, writer), name="spawner connection")
        return records

    def _read_hello(self, line: bytes) -> list[Record]:
        if not line.endswith(b"\n"):
            raise EOFError("the spawner closed the connection")
        hello = json.loads(line)
        if "error" in hello:
            raise SpawnerError(f"cannot use the spawner: {hello['error']['message']}", refused=True)
        self.hello = hello_from_json(hello)
        return [record_from_json(record) for record in hello.get("records", [])]

    async def spawn(self, spec: LaunchSpec) -> Record:
        """Start a run; return its record, also when this key and attempt was started before.

        The record of a run that could not start has an `error`. Raises SpawnerError(refused) when the spec is invalid
        or the spawner cannot write the record; no program ran then.
        """
        return record_from_json(await self._ask("spawn", spec=spec_to_json(spec)))

    async def stop(
        self,
        *,
        key: str,
        attempt: int,
        reason: str,
        timeout_s: float | None = None,
        signal: int | None = None,
        prefect_intent: str | None = None,
    ) -> Record | None:
        """Signal a run to end, and SIGKILL it after `timeout_s` seconds (None: stop_timeout_s of its spec; 0: at once).

        `signal` replaces the stop signal of its spec. `prefect_intent` ("cancel", "reschedule" or "relinquish") is sent
        before the signal, where the run's process has opened Prefect's control channel. None: the run is unknown.
        """
        return await self._ask_about_run(
            "stop", key=key, attempt=attempt, reason=reason, timeout_s=timeout_s, signal=signal, tell=prefect_intent
        )

    async def signal(self, *, key: str, attempt: int, signal: int) -> Record | None:
        """Signal a run's process group, without stopping the run. Returns None for an unknown run."""
        return await self._ask_about_run("signal", key=key, attempt=attempt, signal=signal)

    async def list(self) -> list[Record]:
        """Return all records."""
        return [record_from_json(record) for record in await self._ask("list")]

    async def forget(self, *, key: str, attempt: int) -> bool:
        """Drop the record of a run that has exited; False for an unknown run.

        Raises SpawnerError(refused) while the run lives.
        """
        try:
            await self._ask("forget", key=key, attempt=attempt)
        except UnknownRun:
            return False
        return True

    async def retire(self) -> bool:
        """End the spawner, so that a newer one can replace it; False when a run lives, and the spawner stays."""
        return bool(await self._ask("retire"))

    async def close(self) -> None:
        """Close the connection, without a call of `on_lost`. Runs go on."""
        reading, self._reading = self._reading, None
        writer = self._writer
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        self._fail_waiting("the connection was closed")
        if writer is not None:
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await writer.wait_closed()
            writer.transport.abort()  # a spawner that reads no more would be waited for until all is sent

    async def _ask_about_run(self, op: str, **fields: Json) -> Record | None:
        try:
            return record_from_json(await self._ask(op, **fields))
        except UnknownRun:
            return None

    async def _ask(self, op: str, **fields: Json) -> Json:
        if self._writer is None:
            raise SpawnerError(f"cannot ask the spawner to {op}: not connected")
        self._last_id = number = self._last_id + 1
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(json.dumps({"op": op, "id": number, **fields}).encode() + b"\n")
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError:
            message = f"cannot {op}: the spawner did not answer within {format_duration(self._timeout_s)}"
            raise SpawnerError(message) from None
        finally:
            self._waiting.pop(number, None)

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cause = "the spawner closed the connection"
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                self._handle(json.loads(line))
        except (*_READ_ERRORS, KeyError, TypeError, AttributeError, SpawnerError) as error:
            cause = _describe(error)
        finally:
            if self._writer is writer:
                self._fail_waiting(cause)
        self._reading = None
        asyncio.get_running_loop().call_soon(self._on_lost)  # after the calls of on_record that are queued

    def _handle(self, message: Json) -> None:
        if "event" in message:
            # Queued, so that an exception of the callee does not end this connection, and events keep their order.
            asyncio.get_running_loop().call_soon(self._on_record, record_from_json(message["record"]))
            return
        answer = self._waiting.get(message.get("reply"))
        if answer is None or answer.done():
            return
        if "error" in message:
            answer.set_exception(_refusal(message["error"]))
        else:
            answer.set_result(message["ok"])

    def _fail_waiting(self, cause: str) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(SpawnerError(f"cannot get an answer from the spawner: {cause}"))


class UnknownRun(SpawnerError):
    """The spawner has no such run; the client's methods return None or False for it."""


def _refusal(error: Json) -> SpawnerError:
    kind, message = str(error.get("kind")), str(error.get("message"))
    kinds = {"unknown-run": UnknownRun, "could-not-record": NotRecorded}
    return kinds.get(kind, SpawnerError)(message, refused=True)


def _describe(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


async def start_spawner(
    *, socket_path: str, runtime_dir: str, owner: int | None, log_file: str, users: str | None = None
) -> None:
    """Start a spawner in a session of its own, that exits when idle; return once it serves its socket.

    The spawner is not a child of this process and outlives it. `owner` is the uid that may connect and owns the output
    files, `users` the list of users as whom it may start processes. Raises SpawnerError, with what the spawner printed,
    when it cannot serve.
    """
    program = os.path.join(os.path.dirname(_package_file), "__main__.py")
    # -I: PYTHON* variables must not change a process that may be root. -S: `site` costs memory and is not needed.
    command = [sys.executable, "-I", "-S", program, "--socket", socket_path, "--runtime-dir", runtime_dir]
    command += ["--exit-when-idle", "--background", "--log", log_file]
    command += [] if owner is None else ["--owner", str(owner)]
    command += [] if users is None else ["--users", users]
    environ = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
    started = await run_program(*command, limit_s=_START_TIMEOUT_S, environ=environ)
    if started.status != 0:
        words = started.err.strip() or f"exit status {started.status}"
        raise SpawnerError(f"cannot start the spawner: {words}")
