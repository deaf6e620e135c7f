"""prefect.py: the API, its version and its clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runnerd.core.prefect import ApiCondition, ApiHealth
from runnerd.core.settings import ApiSettings
from runnerd.doctor.prefect import check_api, check_clock, check_server
from runnerd.prefect_api.clock import Skew
from runnerd.prefect_api.dialect import server_info, version_of
from tests.kits.checks import state_and_words
from tests.kits.nouns import NOON, URL


@pytest.mark.parametrize(
    ("detail", "remedy"),
    [
        ("401: the API key is not accepted", "put a valid credential into /etc/runnerd/key"),
        ("403: the API key may not POST /flows/", "grant this credential the permission"),
        ("cannot read the API key file /etc/runnerd/key: Permission denied", "fix that file"),
        ("HTTP 404 from GET /x: is api.url right? It ends in /api", "set api.url to"),
        ("cannot read a flow run as Prefect sent it: x; is api.url right? It ends in /api", "set api.url to"),
        ("HTTP 503 from POST /x: database is locked", "see the log of the Prefect server"),
    ],
)
def test_a_degraded_api(detail: str, remedy: str) -> None:
    health = ApiHealth(condition=ApiCondition.DEGRADED, since=NOON, detail=detail)
    check = check_api(URL, health, ApiSettings(url=URL, key_file="/etc/runnerd/key"))
    state_and_words(check, "error", f"{URL} answers, but {detail}", remedy)


def test_an_api_that_is_well_or_away() -> None:
    settings = ApiSettings(url=URL)
    state_and_words(check_api(URL, ApiHealth(condition=ApiCondition.OK, since=NOON, detail=""), settings), "ok", URL)
    away = ApiHealth(condition=ApiCondition.UNREACHABLE, since=NOON, detail="connection refused")
    state_and_words(check_api(URL, away, settings), "error", "connection refused", f"curl -sS {URL}/health")
    maintained = ApiHealth(condition=ApiCondition.MAINTENANCE, since=NOON, detail="in maintenance: back at 5")
    words = f"{URL} is in maintenance: back at 5"
    state_and_words(check_api(URL, maintained, settings), "warning", words, "wait until")
    denied = ApiHealth(condition=ApiCondition.DEGRADED, since=NOON, detail="401: a request without credentials is not")
    state_and_words(check_api(URL, denied, settings), "error", "that api.key_file or api.auth_string_file names")


@pytest.mark.parametrize(
    ("version", "state", "words"),
    [
        ("2.20.25", "ok", "Prefect 2.20.25"),
        ("3.8.8", "ok", "Prefect 3.8.8"),
        ("2.20.0", "ok", "Prefect 2.20.0"),
        ("2.19.9", "warning", "older than 2.20"),
        ("2.14.21", "warning", "serves work pools only: deployments of conf.d need 2.19"),
        ("2.18.3", "warning", "serves work pools only"),
        ("2.14.3", "error", "too old"),
        ("4.0.0", "error", "newer than this runnerd"),
        ("nonsense", "error", "'nonsense' is not a version"),
    ],
)
def test_the_server_s_version(version: str, state: str, words: str) -> None:
    state_and_words(check_server(server_info(version)), state, words)


def test_a_server_that_is_not_known_and_the_cloud() -> None:
    state_and_words(check_server("it is away"), "unknown", "it is away")
    assert check_server(replace(server_info("3.0.0"), version="cloud")).detail == "Prefect Cloud"
    assert version_of("3.1.4.dev5+7.gabc") == (3, 1, 4)
    assert version_of("cloud") is None


@pytest.mark.parametrize(
    ("seconds", "doubt_s", "state", "words"),
    [
        (0.4, 0.5, "ok", "within 1s"),
        (2.4, 0.5, "ok", "within 2s"),
        (-2.6, 0.5, "warning", "3s behind the API's"),
        (30.0, 0.5, "warning", "30s ahead of the API's"),
        (-31.0, 0.5, "error", "31s behind the API's"),
        (3600.0, 2.0, "error", "systemd-timesyncd"),
        (10.0, 9.0, "ok", "within 10s"),  # a slow answer says little
    ],
)
def test_the_clock(seconds: float, doubt_s: float, state: str, words: str) -> None:
    state_and_words(check_clock(Skew(seconds=seconds, doubt_s=doubt_s)), state, words)


def test_a_clock_that_nobody_told() -> None:
    assert check_clock(None).state == "unknown"
