"""credentials.py: where a login comes from, and what is said when it cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.core.errors import ApiAway
from runnerd.core.prefect import BlockDocument
from runnerd.deployments.sources.credentials import Login, SourceCredentials, login_of_block, parse_login
from runnerd.files.bounded_calls import BoundedCalls
from tests.kits.nouns import Json
from tests.kits.sources import a_source

URL = "https://git.example/etl.git"


@pytest.mark.parametrize(
    ("text", "url", "login"),
    [
        ("ada:secret\n", URL, Login("ada", "secret")),
        ("ada:with:colon\r\n", URL, Login("ada", "with:colon")),
        ("tok3n", URL, Login("x-access-token", "tok3n")),
        ("tok3n", "https://gitlab.example/x", Login("oauth2", "tok3n")),
        ("tok3n", "https://bitbucket.org/x", Login("x-token-auth", "tok3n")),
        ("", URL, None),
        ("\n", URL, None),
        ("one\ntwo", URL, None),
    ],
)
def test_what_a_file_says(text: str, url: str, login: Login | None) -> None:
    assert parse_login(text, url=url) == login


@pytest.mark.parametrize(
    ("data", "login"),
    [
        ({"value": "tok3n"}, Login("x-access-token", "tok3n")),
        ({"token": "tok3n"}, Login("x-access-token", "tok3n")),
        ({"username": "ada", "password": "secret"}, Login("ada", "secret")),
        ({"username": "ada"}, None),
        ({"value": {"a": 1}}, None),
        ({"value": "a\nhost=other"}, None),
        ({"value": "a", "username": "b\nhost=other"}, Login("x-access-token", "a")),
    ],
)
def test_what_a_block_says(data: Json, login: Login | None) -> None:
    assert login_of_block(data, url=URL) == login


class Blocks:
    """Has one block, or is away."""

    def __init__(self, data: Json) -> None:
        self.data = data

    async def block_by_name(self, type_slug: str, name: str) -> BlockDocument | None:
        if self.data == "away":
            raise ApiAway("connection refused")
        if (type_slug, name) != ("secret", "etl"):
            return None
        return BlockDocument(id="1", name=name, type_slug=type_slug, data=self.data)


def credentials(data: Json = None, directory: str | None = None) -> SourceCredentials:
    return SourceCredentials(pools=Blocks(data), calls=BoundedCalls(), directory=directory)  # type: ignore[arg-type]


@pytest.mark.real_io
async def test_from_a_file_a_credential_and_a_block(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("ada:secret\n")
    path = str(tmp_path / "token")
    login = Login("ada", "secret")
    assert await credentials().read(a_source(credentials_file=path)) == login
    assert await credentials(directory=str(tmp_path)).read(a_source(credential="token")) == login
    block = a_source(credentials_block="secret/etl")
    assert await credentials({"value": "ada:secret"}).read(block) == login
    assert await credentials().read(a_source()) is None
    assert "secret" not in repr(login)


@pytest.mark.real_io
async def test_what_cannot_be_read(tmp_path: Path) -> None:
    gone, empty = str(tmp_path / "gone"), tmp_path / "empty"
    empty.touch()
    said = [
        await credentials().read(a_source(credentials_file=gone)),
        await credentials().read(a_source(credentials_file=str(empty))),
        await credentials().read(a_source(credential="token")),
        await credentials({}).read(a_source(credentials_block="secret/etl")),
        await credentials({}).read(a_source(credentials_block="secret/other")),
        await credentials("away").read(a_source(credentials_block="secret/etl")),
    ]
    assert said == [
        f"cannot read the credentials {gone}: No such file or directory",
        f"the credentials {empty}: the file is empty",
        "systemd has passed no credential token to runnerd; see LoadCredential=",
        "the block secret/etl has no token and no password",
        "there is no block secret/other in Prefect",
        "cannot read the block secret/etl: connection refused",
    ]
