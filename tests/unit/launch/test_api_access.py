"""api_access.py: where the API is and which credentials the daemon and its flows get."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config.in_force import ConfigInForce
from runnerd.core.errors import ApiDenied
from runnerd.core.settings import ApiSettings, Config, Settings
from runnerd.launch.api_access import access_reader, credentials_reader
from runnerd.prefect_api.credentials import Credentials, credential_files

API = ApiSettings(url="http://p/api")


def in_force(api: ApiSettings) -> ConfigInForce:
    return ConfigInForce(Config(settings=Settings(name="h", api=api)))


def test_files_win_over_everything(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "prefect-api-key").write_text("from-systemd")
    settings = replace(API, key_file=str(tmp_path / "key"))
    read = credentials_reader(in_force(settings), environ={"PREFECT_API_KEY": "env"}, directory=str(tmp_path))
    assert read() == Credentials(key="from-file")
    (tmp_path / "key").write_text("rotated\n")
    assert read() == Credentials(key="rotated")


def test_systemd_s_credential_wins_over_the_environment(tmp_path: Path) -> None:
    environ = {"PREFECT_API_KEY": "env", "PREFECT_API_AUTH_STRING": "u:p"}
    read = credentials_reader(in_force(API), environ=environ, directory=str(tmp_path))
    assert read() == Credentials(key="env", auth_string="u:p")
    (tmp_path / "prefect-api-key").write_text("from-systemd")
    assert read() == Credentials(key="from-systemd")


def test_no_credentials_at_all() -> None:
    assert credentials_reader(in_force(API), environ={"PREFECT_API_KEY": ""}, directory=None)() == Credentials()


def test_flows_get_the_same_access() -> None:
    found = Credentials(key="k", auth_string="u:p")
    access = access_reader("http://p/api", in_force(replace(API, headers={"X-A": "1"})), lambda: found)()
    assert access.url == "http://p/api"
    assert dict(access.environment) == {
        "PREFECT_API_KEY": "k",
        "PREFECT_API_AUTH_STRING": "u:p",
        "PREFECT_CLIENT_CUSTOM_HEADERS": '{"X-A": "1"}',
    }


def test_credentials_that_cannot_be_read_keep_no_flow_from_starting(tmp_path: Path) -> None:
    settings = replace(API, key_file=str(tmp_path / "none"))
    read = credentials_reader(in_force(settings), environ={}, directory=None)
    with pytest.raises(ApiDenied):
        read()
    assert dict(access_reader("u", in_force(settings), read)().environment) == {}


def test_a_key_file_that_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(ApiDenied, match=r"cannot read the API key file .*: it is not a regular file"):
            credential_files(ApiSettings(url="x", key_file=str(path)))()


@pytest.mark.parametrize("name", ["PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"])
@pytest.mark.parametrize("text", ["secret\r\nX: 1", "secret\n", "s\udc80cret", "secr\u00e9t", "secret\x85"])
def test_a_variable_that_no_header_can_carry_is_a_denial_without_the_secret(name: str, text: str) -> None:
    with pytest.raises(ApiDenied, match=f"in {name}: it must be one line of printable ASCII text") as caught:
        credentials_reader(in_force(API), environ={name: text}, directory=None)()
    assert "cret" not in str(caught.value)
