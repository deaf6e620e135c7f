"""A deployment of runnerd is what Prefect registers, field by field; what differs stands in docs/from-prefect.md."""

from __future__ import annotations

import re
from pathlib import Path
from pprint import pformat

import pytest

from tests.kits.checkout import ROOT
from tests.kits.daemon import Api, Host
from tests.kits.prefect_servers import PrefectServer
from tests.kits.registered_fields import POOL, differences, register_by_prefect, register_by_runnerd

pytestmark = pytest.mark.server

HEADING = "### Fields of a deployment"
WAYS = {"prefect deploy": "deploy", "flow.deploy()": "flow.deploy", "flow.serve()": "serve"}
ROW = re.compile(r"\| `([\w.]+)`: (.+?) \|")
WAY = re.compile(r"`([^`]+)`(?: \((2\.20|3) only\))?")


def documented(major: int) -> set[tuple[str, str]]:
    """The fields and ways that docs/from-prefect.md says to differ on this major."""
    text = (ROOT / "docs" / "from-prefect.md").read_text()
    _, found, chapter = text.partition(f"{HEADING}\n")
    assert found
    rows = ROW.findall(re.split(r"^#", chapter, flags=re.M)[0])
    return {
        (field, WAYS[way])
        for field, ways in rows
        for way, only in WAY.findall(ways)
        if not only or int(only[0]) == major
    }


def test_deployments_are_those_of_prefect_field_by_field(prefect: PrefectServer, tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    api = Api(prefect.url)
    api.call("POST", "/work_pools/", {"name": POOL, "type": "process"})
    register_by_prefect(prefect, project)
    host = Host(url=prefect.url, python=prefect.python)
    try:
        register_by_runnerd(host, prefect.major, project)
        found = differences(api, prefect.major)
    finally:
        host.close()
    expected = documented(prefect.major)
    unsaid = {what: values for what, values in found.items() if what not in expected}
    assert unsaid == {}, (
        f"runnerd differs in what {HEADING!r} of the document does not say:\n{pformat(unsaid, width=150)}"
    )
    assert expected - found.keys() == set(), "the document names differences that are none"
