"""The doctor of a real daemon with a real spawner, whose API is a fake one on a loopback port."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from runnerd import __version__
from tests.kits.daemon import FLOWS_AS_ROOT, Host, host_at
from tests.kits.fakes.fake_prefect import FakePrefect
from tests.kits.nouns import Json


@pytest.fixture
def host() -> Iterator[Host]:
    with host_at(FakePrefect(major=3)) as host:
        yield host


def with_prefect(host: Host, name: str, version: str) -> str:
    """A directory for PYTHONPATH, by which an interpreter has this Prefect."""
    info = host.root / name / f"prefect-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: prefect\nVersion: {version}\n")
    return str(info.parent)


AS_USER = " as root" if FLOWS_AS_ROOT else ""


def script(host: Host, name: str, text: str) -> str:
    path = host.root / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def test_what_a_host_has_and_lacks(host: Host) -> None:
    right, wrong = with_prefect(host, "right", "3.9.1"), with_prefect(host, "wrong", "2.20.27")
    old = script(host, "old-python", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    bare = script(host, "bare-python", f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    breaks = script(host, "broken-python", "#!/bin/sh\necho it is broken >&2\nexit 3\n")
    host.drop_in(
        "10-a.yaml",
        f"""deployments:
  - {{name: right, entrypoint: 'flows.py:greet', run: {{environment: {{PYTHONPATH: {right}}}}}}}
  - {{name: wrong, entrypoint: 'flows.py:greet', run: {{python: {old}, environment: {{PYTHONPATH: {wrong}}}}}}}
  - {{name: bare, entrypoint: 'flows.py:greet', run: {{python: {bare}}}}}
  - {{name: broken, entrypoint: 'flows.py:greet', run: {{python: {breaks}}}}}
""",
    )
    host.start()
    asked = host.ctl("doctor", "--json")
    assert asked.returncode == 1
    found = checks_of(host.json("doctor"))
    for name in ("api", "server version", "clock", "loops", "spawner", "journal", "state directory", "open files"):
        assert found[name]["state"] == "ok", found[name]
    assert found["server version"]["detail"] == "Prefect 3.9.1"
    assert f"version {__version__}" in found["spawner"]["detail"]
    assert found[f"python {sys.executable}{AS_USER}"]["state"] in ("ok", "error")  # the stand-in cannot be imported
    assert "Prefect 3.9.1" in found[f"python {sys.executable}{AS_USER}"]["detail"]
    assert "Prefect 2.20.27 with a server of 3.9.1 does not work" in found[f"python {old}{AS_USER}"]["detail"]
    assert "Prefect is not installed" in found[f"python {bare}{AS_USER}"]["detail"]
    assert found[f"python {breaks}{AS_USER}"]["detail"].endswith(
        "cannot run the interpreter of broken: it exited 3: it is broken"
    )


def test_a_host_whose_daemon_is_gone_says_so(host: Host) -> None:
    host.start()
    host.kill()
    gone = host.ctl("doctor")
    assert gone.returncode == 1
    assert gone.stdout.startswith("error    runnerd  runnerd is not running: ")


def checks_of(document: Json) -> dict[str, Json]:
    return {check["name"]: check for check in document["checks"]}
