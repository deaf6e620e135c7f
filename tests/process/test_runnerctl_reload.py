"""runnerctl reload against the real control server: what it prints of the answer."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kits.fakes.runnerctl import runnerctl
from tests.kits.fakes.serving import Serving, serving

PARTLY = (
    "the configuration is in force, except for what has a problem: of that, the last good version stays in force"
    " where there is one"
)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    with serving(tmp_path) as it:
        yield it


def test_a_reload_with_problems_fails_and_shows_them(served: Serving) -> None:
    problem = {"message": "unknown key", "file": "a.yaml", "line": 1, "column": 2, "deployment": None}
    served.host.reloaded = {**served.host.reloaded, "ok": False, "problems": [problem]}
    result = runnerctl(served, "reload")
    assert result.status == 1
    assert result.err.splitlines() == [
        "a.yaml:1:2: unknown key",
        f"runnerctl: {PARTLY}",
    ]
    as_json = runnerctl(served, "reload", "--json")
    assert (as_json.status, as_json.err, json.loads(as_json.out)) == (1, "", served.host.reloaded)


def test_a_reload_that_applied_nothing_says_so_and_nothing_else(served: Serving) -> None:
    problem = {"message": "unknown key", "file": "runnerd.yaml", "line": 1, "column": 2, "deployment": None}
    none: dict[str, object] = {"added": [], "changed": [], "removed": [], "unchanged": 0}
    served.host.reloaded = {**none, "ok": False, "applied": False, "settings": [], "pools": none, "problems": [problem]}
    result = runnerctl(served, "reload")
    assert (result.status, result.out) == (1, "")
    assert result.err.splitlines() == [
        "runnerd.yaml:1:2: unknown key",
        "runnerctl: nothing of the configuration was applied; the last good configuration stays in force",
    ]


def test_a_reload_names_the_changed_keys_of_the_host(served: Serving) -> None:
    place = {"file": "runnerd.yaml", "line": 1, "column": 2}
    values = [("limits.runs", 4, 8), ("control.admins", None, ["wheel", "dev"]), ("control.readers", ["x"], [])]
    settings = [{"key": key, "old": old, "new": new, "restart": False, **place} for key, old, new in values]
    settings.append({"key": "api.url", "old": "http://a/api", "new": "http://b/\x1b[31m", "restart": True, **place})
    served.host.reloaded = {**served.host.reloaded, "settings": settings}
    assert runnerctl(served, "reload").out.splitlines()[:5] == [
        "changed  limits.runs: 4 -> 8",
        "changed  control.admins: unset -> wheel, dev",
        "changed  control.readers: x -> none",
        "changed  api.url: http://a/api -> http://b/?[31m, at a restart of runnerd",
        "added    fresh",
    ]
    del served.host.reloaded["settings"], served.host.reloaded["applied"]
    assert runnerctl(served, "reload").out.startswith("added    fresh\n"), "an older daemon"
