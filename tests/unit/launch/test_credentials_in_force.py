"""credentials_in_force.py: the last credentials that could be read stay in use, for the daemon and for its flows."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied
from runnerd.core.place import Place
from runnerd.core.problems import Problems
from runnerd.core.settings import ApiSettings, Config, Settings
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.api_access import access_reader, credentials_reader
from runnerd.launch.credentials_in_force import RETRY_S, CredentialsInForce
from runnerd.prefect_api.credentials import Credentials

PLACE = Place("runnerd.yaml", 3, 13)


def in_force(folder: Path) -> tuple[CredentialsInForce, ConfigInForce, Problems]:
    settings = Settings(name="h", api=ApiSettings(url="http://p/api", key_file=str(folder / "key")))
    config, problems = ConfigInForce(Config(settings=settings, places={"api.key_file": PLACE})), Problems()
    read = credentials_reader(config, environ={}, directory=None)
    calls = BoundedCalls(limit_s=0.2)
    return CredentialsInForce(read=read, config=config, calls=calls, problems=problems), config, problems


def test_a_flow_gets_the_last_key_that_could_be_read(tmp_path: Path) -> None:
    credentials, config, problems = in_force(tmp_path)
    flows = access_reader("http://p/api", config, credentials.read)
    (tmp_path / "key").write_text("first")
    assert flows().environment == {"PREFECT_API_KEY": "first"}
    (tmp_path / "key").unlink()
    assert flows().environment == {"PREFECT_API_KEY": "first"}
    (problem,) = problems.all()
    assert (problem.place, problem.message.endswith("; the last good one stays in use")) == (PLACE, True)
    (tmp_path / "key").write_text("second")
    assert (flows().environment, problems.all()) == ({"PREFECT_API_KEY": "second"}, [])


async def test_without_a_good_one_nothing_is_made_up(tmp_path: Path) -> None:
    credentials, _, problems = in_force(tmp_path)
    with pytest.raises(ApiDenied):
        credentials.read()
    await credentials.renew()
    (problem,) = problems.all()
    assert problem.message.endswith("No such file or directory; no request is made until it can be")


async def test_a_disk_that_does_not_answer_leaves_the_key_in_use(tmp_path: Path) -> None:
    going_on = asyncio.Event()
    loop, hangs = asyncio.get_running_loop(), False

    def read() -> Credentials:
        if hangs:
            asyncio.run_coroutine_threadsafe(going_on.wait(), loop).result()
        return Credentials(key="first")

    _, config, problems = in_force(tmp_path)
    credentials = CredentialsInForce(read=read, config=config, calls=BoundedCalls(limit_s=0.2), problems=problems)
    await credentials.renew()
    assert problems.all() == []
    hangs = True
    await credentials.renew()
    (problem,) = problems.all()
    assert problem.message == (
        f"cannot read the credential file {tmp_path / 'key'}: it did not answer within 0.2 s;"
        " the last good one stays in use"
    )
    going_on.set()


async def test_files_that_cannot_be_read_are_read_again_once_a_minute_and_off_the_loop(tmp_path: Path) -> None:
    on_loop: list[bool] = []
    found: Credentials | ApiDenied = ApiDenied("cannot read the API key file /k: Permission denied")

    def read() -> Credentials:
        on_loop.append(threading.current_thread() is threading.main_thread())
        if isinstance(found, ApiDenied):
            raise found
        return found

    _, config, problems = in_force(tmp_path)
    credentials = CredentialsInForce(read=read, config=config, calls=BoundedCalls(), problems=problems)
    for _ in range(3):
        with pytest.raises(ApiDenied, match="Permission denied"):
            credentials.known()
    assert on_loop == [True], "only the first call reads"
    retrying = asyncio.create_task(credentials.run())
    await asyncio.sleep(2.5 * RETRY_S)
    assert on_loop == [True, False, False]
    found = Credentials(key="first")
    await asyncio.sleep(RETRY_S)
    assert (credentials.known(), credentials.known().outdated, problems.all()) == (found, False, [])
    await asyncio.sleep(5 * RETRY_S)
    assert on_loop == [True, False, False, False], "what can be read is not read again"
    retrying.cancel()


async def test_a_read_for_which_no_thread_can_be_started_is_tried_again(tmp_path: Path) -> None:
    threads = False

    def read() -> Credentials:
        if not threads:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return Credentials(key="first")

    _, config, problems = in_force(tmp_path)
    credentials = CredentialsInForce(read=read, config=config, calls=BoundedCalls(), problems=problems)
    await credentials.renew()
    assert "Resource temporarily unavailable" in problems.all()[0].message
    threads, retrying = True, asyncio.create_task(credentials.run())
    await asyncio.sleep(RETRY_S + 1)
    assert (credentials.known(), problems.all()) == (Credentials(key="first"), [])
    retrying.cancel()


async def test_what_a_reload_reads_is_not_undone_by_a_read_that_began_before(tmp_path: Path) -> None:
    loop, slow, begun = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
    keys = ["old", "new"]

    def read() -> Credentials:
        key = keys.pop(0)
        loop.call_soon_threadsafe(begun.set)
        if key == "old":
            asyncio.run_coroutine_threadsafe(slow.wait(), loop).result()
        return Credentials(key=key)

    _, config, problems = in_force(tmp_path)
    credentials = CredentialsInForce(read=read, config=config, calls=BoundedCalls(), problems=problems)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(credentials.renew())
        await begun.wait()
        reload = tasks.create_task(credentials.renew())
        await asyncio.wait({reload}, timeout=0.1)
        slow.set()
    assert credentials.known() == Credentials(key="new")
