"""client_defaults.py: which settings of Prefect's client a run gets, and which the user's keep away."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from runnerd.files.bounded_calls import BoundedCalls, Unanswered
from runnerd.launch.client_defaults import CERTIFICATE, CERTIFICATE_FILE, VERSION_CHECK, ClientDefaults, over_fitting
from runnerd.launch.environment import Environments
from runnerd.launch.spec import ApiAccess, flow_environment
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import a_deployment, fake_api

T = TypeVar("T")
URL = "http://p/api"
BASE = {CERTIFICATE_FILE: CERTIFICATE, VERSION_CHECK: "false"}


def interpreter(root: Path, *packages: str) -> str:
    for name in packages:
        (root / "lib" / "python3.11" / "site-packages" / name).mkdir(parents=True)
    return str(root / "bin" / "python")


def test_the_file_is_a_certificate_that_vouches_for_nobody() -> None:
    context = ssl.create_default_context(cafile=CERTIFICATE)
    assert len(context.get_ca_certs()) == 0  # none of an authority
    assert context.cert_store_stats()["x509"] == 1
    assert Path(CERTIFICATE).stat().st_mode & 0o444 == 0o444


@pytest.mark.parametrize("major", [2, 3])
async def test_a_run_gets_them_and_the_check_only_where_the_server_is_3(tmp_path: Path, major: int) -> None:
    api = fake_api(FakePrefect(major=major))
    defaults, python = ClientDefaults(api=api), interpreter(tmp_path, "prefect")
    assert VERSION_CHECK not in defaults.variables(python), "the server's version is not known yet"
    await api.server()
    check = {VERSION_CHECK: "false"} if major == 3 else {}
    assert {CERTIFICATE_FILE: CERTIFICATE, **defaults.variables(python)} == {CERTIFICATE_FILE: CERTIFICATE, **check}


@pytest.mark.parametrize("packages", [(), ("requests",), ("prefect", "prefect_dask"), ("prefect", "prefect_ray")])
async def test_an_interpreter_that_may_hand_them_on_gets_none(tmp_path: Path, packages: tuple[str, ...]) -> None:
    api = fake_api(FakePrefect(major=3))
    await api.server()
    assert ClientDefaults(api=api).variables(interpreter(tmp_path, *packages)) == {}


async def test_an_api_of_https_or_elsewhere_keeps_its_authorities(tmp_path: Path) -> None:
    python, api = interpreter(tmp_path, "prefect"), fake_api(FakePrefect(major=3))
    api.transport.redirected = True
    assert CERTIFICATE_FILE not in ClientDefaults(api=api).variables(python)
    api.transport.redirected = False
    api.url = "https://p/api"
    assert CERTIFICATE_FILE not in ClientDefaults(api=api).variables(python)


@pytest.mark.parametrize(
    ("own", "left"),
    [
        ({"PREFECT_API_URL": URL}, {CERTIFICATE_FILE, VERSION_CHECK}),
        ({"PREFECT_API_URL": "https://p/api"}, set()),
        ({"PREFECT_API_URL": "http://other/api"}, set()),
        ({}, set()),
        ({"PREFECT_API_URL": URL, "SSL_CERT_FILE": "/etc/own.pem"}, {VERSION_CHECK}),
        ({"PREFECT_API_URL": URL, "PREFECT_API_TLS_INSECURE_SKIP_VERIFY": "1"}, {VERSION_CHECK}),
    ],
)
def test_what_does_not_fit_is_left_out(own: dict[str, str], left: set[str]) -> None:
    assert over_fitting(BASE, own, url=URL) == {**{key: BASE[key] for key in left}, **own}


def test_a_command_of_the_pool_gets_no_file() -> None:
    own = {"PREFECT_API_URL": URL}
    assert over_fitting(BASE, own, url=URL, is_own_command=False) == {VERSION_CHECK: "false", **own}


def test_the_users_own_values_win() -> None:
    own = {CERTIFICATE_FILE: "/etc/own.pem", VERSION_CHECK: "true"}
    run = a_deployment(run={"environment": own}).run
    access = ApiAccess(url=URL, environment={})
    assert flow_environment(run, access=access, base=BASE, file_environment={}).items() >= own.items()


async def test_only_processes_that_import_a_flow_get_them(tmp_path: Path) -> None:
    api = fake_api(FakePrefect(major=3))
    await api.server()
    run = a_deployment(run={"python": interpreter(tmp_path, "prefect")}).run
    environments = Environments(environ={}, calls=BoundedCalls(), client=ClientDefaults(api=api))
    layers = await environments.build_layers(run)
    assert isinstance(layers, tuple) and layers[0][VERSION_CHECK] == "false"
    built = await environments.build(run)
    assert isinstance(built, dict) and not built.keys() & BASE.keys()


async def test_a_disk_with_an_interpreter_that_does_not_answer_costs_only_them(tmp_path: Path) -> None:
    python, api = interpreter(tmp_path, "prefect"), fake_api(FakePrefect(major=3))
    await api.server()
    run = a_deployment(run={"python": python}).run
    environments = Environments(environ={}, calls=SilentAt(str(tmp_path)), client=ClientDefaults(api=api))
    layers = await environments.build_layers(run)
    assert isinstance(layers, tuple) and not layers[0].keys() & BASE.keys() and layers[0]["PYTHONUNBUFFERED"] == "1"


class SilentAt(BoundedCalls):
    """Gets no answer below a directory."""

    def __init__(self, directory: str) -> None:
        super().__init__()
        self._directory = directory

    async def call(self, place: str, call: Callable[[], T]) -> T | Unanswered:
        silent = place.startswith(self._directory)
        return Unanswered(f"{place} does not answer") if silent else await super().call(place, call)
