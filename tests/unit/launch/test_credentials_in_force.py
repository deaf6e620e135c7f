"""credentials_in_force.py: the last credentials that could be read stay in use, for the daemon and for its flows."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied
from runnerd.core.place import Place
from runnerd.core.problems import Problems
from runnerd.core.settings import ApiSettings, Config, Settings
from runnerd.files.bounded_calls import BoundedCalls
from runnerd.launch.api_access import access_reader, credentials_reader
from runnerd.launch.credentials_in_force import CredentialsInForce
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
    assert await credentials.renew() is True
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
    assert await credentials.renew() is True
    hangs = True
    assert await credentials.renew() is False
    (problem,) = problems.all()
    assert problem.message == (
        f"cannot read the credential file {tmp_path / 'key'}: it did not answer within 0.2 s;"
        " the last good one stays in use"
    )
    going_on.set()
