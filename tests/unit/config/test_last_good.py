"""last_good.py: what stays in force of deployments and of pools when an entry, a file or a directory breaks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from runnerd.core.codec import Decoder, to_json
from runnerd.core.place import Json
from runnerd.core.settings import Config, Deployment, PoolSettings
from tests.kits.config import ConfigDir
from tests.kits.journal import opened

DEPLOYMENT = "deployments:\n  - {name: d, entrypoint: 'flows/etl.py:nightly'}\n"


@dataclass(frozen=True)
class Kind:
    """One kind of entry: its key, and two drop-ins with one each, of which the first says `first`."""

    key: str
    a: str
    b: str
    first: str

    def found(self, config: Config) -> tuple[Deployment, ...] | tuple[PoolSettings, ...]:
        return config.deployments if self.key == "deployments" else config.pools

    def names(self, config: Config) -> list[str]:
        return sorted(entry.name for entry in self.found(config))


DEPLOYMENTS = Kind(
    "deployments",
    "deployments:\n  - {name: a, entrypoint: 'flows/etl.py:nightly', description: first}\n",
    "deployments:\n  - {name: b, entrypoint: 'flows/etl.py:nightly'}\n",
    "description: first",
)
POOLS = Kind("pools", "pools:\n  - {name: a, limit: 1}\n", "pools:\n  - {name: b}\n", "limit: 1")
A, A_POOL = DEPLOYMENTS.a, POOLS.a


@pytest.fixture(params=[DEPLOYMENTS, POOLS], ids=lambda kind: kind.key)
def kind(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


# --- deployments and pools ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", ["{key}: [", "", "{key}: 5\n", "{key}: [5]\n", "{key}: [{{nam: a}}]\n"])
def test_a_file_that_tells_no_names_keeps_all_it_last_said(etc: ConfigDir, kind: Kind, bad: str) -> None:
    etc.write("conf.d/a.yaml", kind.a)
    etc.write("conf.d/b.yaml", kind.b)
    good = etc.load()
    etc.write("conf.d/a.yaml", bad.format(key=kind.key))
    now = etc.load(last_good=good)
    assert kind.names(now) == ["a", "b"]
    assert [entry.problem for entry in kind.found(now) if entry.name == "a"] == [str(now.problems[0])]


def test_an_entry_goes_with_its_file_or_its_line(etc: ConfigDir, kind: Kind) -> None:
    etc.write("conf.d/a.yaml", kind.a)
    etc.write("conf.d/b.yaml", kind.b)
    good = etc.load()
    (etc.etc / "conf.d/a.yaml").unlink()
    assert kind.names(etc.load(last_good=good)) == ["b"]
    etc.write("conf.d/b.yaml", "limits: {runs: 3}\n")
    assert kind.names(etc.load(last_good=good)) == []


def test_a_drop_in_directory_that_cannot_be_listed_keeps_everything(etc: ConfigDir, kind: Kind) -> None:
    etc.write("conf.d/a.yaml", kind.a + "limits: {runs: 3}\n")
    good = etc.load()
    (etc.etc / "conf.d").rename(etc.etc / "moved")
    etc.write("conf.d", "not a directory")
    now = etc.load(last_good=good)
    assert etc.words(now.problems) == [
        "conf.d:1:1: cannot list the drop-ins: Not a directory; their last good settings stay in force"
    ]
    assert [(entry.name, entry.problem) for entry in kind.found(now)] == [("a", f"cannot list {etc.etc}/conf.d")]
    assert now.settings.limits.runs == 3


def test_a_drop_in_directory_that_is_gone_keeps_everything(etc: ConfigDir, kind: Kind) -> None:
    """It may be a disk that is not mounted: every deployment would be paused."""
    etc.write("conf.d/a.yaml", kind.a + "limits: {runs: 3}\n")
    good = etc.load()
    (etc.etc / "conf.d").rename(etc.etc / "moved")
    now = etc.load(last_good=good)
    kept = "the last good settings of its files stay in force; to remove them, make an empty directory"
    assert etc.words(now.problems) == [f"conf.d:1:1: the directory does not exist; {kept}"]
    assert (kind.names(now), now.settings.limits.runs) == (["a"], 3)
    assert kind.names(etc.load(last_good=now)) == ["a"], "and so at every further reload"
    (etc.etc / "conf.d").mkdir()
    assert (kind.names(etc.load(last_good=now)), etc.load(last_good=now).problems) == ([], ())
    (etc.etc / "conf.d").rmdir()
    assert etc.load().problems == (), "a host without drop-ins needs no directory"


def test_what_moved_to_another_file_is_not_kept_twice(etc: ConfigDir, kind: Kind) -> None:
    etc.write("conf.d/a.yaml", kind.a)
    good = etc.load()
    etc.write("conf.d/a.yaml", f"{kind.key}: [")
    moved = kind.a.replace(kind.first, kind.first.replace("first", "moved").replace("1", "2"))
    etc.write("conf.d/b.yaml", moved)
    found = etc.load(last_good=good)
    assert [entry.description for entry in found.deployments] == ["moved"][: len(found.deployments)]
    assert [entry.limit for entry in found.pools] == [2][: len(found.pools)]
    assert kind.names(found) == ["a"]


# --- deployments ----------------------------------------------------------------------------------------------


def test_a_broken_deployment_keeps_its_last_good_version(etc: ConfigDir) -> None:
    text = A + "  - {name: b, entrypoint: 'flows/etl.py:nightly'}\n"
    etc.write("conf.d/a.yaml", text)
    good = etc.load()
    etc.write("conf.d/a.yaml", text.replace("description: first", "descripton: second"))
    now = etc.load(last_good=good)
    problem = "conf.d/a.yaml:2:51: unknown key 'descripton' in a deployment; did you mean 'description'?"
    assert etc.words(now.problems) == [problem]
    assert [(d.name, d.description) for d in now.deployments] == [("b", None), ("a", "first")]
    assert [d.problem for d in now.deployments] == [None, f"{etc.etc}/{problem}"]
    assert now.invalid == ()
    again = etc.load(last_good=now)
    assert again == now
    etc.write("conf.d/a.yaml", text)
    assert etc.load(last_good=again) == good


def test_without_a_last_good_version_it_is_invalid(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A.replace("description", "descripton"))
    config = etc.load()
    assert (config.deployments, [(bad.name, bad.place.line) for bad in config.invalid]) == ((), [("a", 2)])


def test_flows_do_not_fall_back_to_the_spawners_user_when_a_drop_in_breaks(etc: ConfigDir) -> None:
    etc.write("conf.d/00-run.yaml", "run: {user: nobody}\nlimits: {runs: 3}\n")
    etc.write("conf.d/a.yaml", A)
    good = etc.load()
    for bad in ("run: {user: [\n", "run: {user: 5}\nlimits: {runs: 3}\n"):
        etc.write("conf.d/00-run.yaml", bad)
        now = etc.load(last_good=good)
        assert [d.run.user for d in now.deployments] == ["nobody"]
        assert now.settings.limits.runs == 3
        assert now.said == good.said
    etc.write("conf.d/00-run.yaml", "run: {nice: 1}\n")
    assert [d.run.user for d in etc.load(last_good=now).deployments] == [None]


def test_a_broken_deployment_does_not_hold_back_its_files_settings(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "limits: {runs: 3}\n" + A)
    good = etc.load()
    etc.write("conf.d/a.yaml", "limits: {runs: 4}\n" + A.replace("name: a", "name: a/"))
    assert etc.load(last_good=good).settings.limits.runs == 4


# --- pools -----------------------------------------------------------------------------------------------------


def test_a_broken_pool_keeps_its_last_good_version(etc: ConfigDir) -> None:
    text = A_POOL + "  - {name: b}\n" + DEPLOYMENT
    etc.write("conf.d/a.yaml", text)
    good = etc.load()
    etc.write("conf.d/a.yaml", text.replace("limit: 1", "limit: one"))
    now = etc.load(last_good=good)
    problem = "conf.d/a.yaml:2:22: limit must be a whole number, not 'one'"
    assert etc.words(now.problems) == [problem]
    assert [(pool.name, pool.limit) for pool in now.pools] == [("b", None), ("a", 1)]
    assert [pool.problem for pool in now.pools] == [None, f"{etc.etc}/{problem}"]
    assert [d.problem for d in now.deployments] == [None]
    again = etc.load(last_good=now)
    assert again == now
    etc.write("conf.d/a.yaml", text)
    assert etc.load(last_good=again) == good


def test_a_broken_deployment_leaves_the_pools_of_its_file_alone_and_the_other_way_round(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A_POOL + DEPLOYMENT)
    good = etc.load()
    etc.write("conf.d/a.yaml", A_POOL.replace("limit: 1", "limit: 2") + DEPLOYMENT.replace("etl.py", "none.py"))
    now = etc.load(last_good=good)
    assert [(pool.limit, pool.problem) for pool in now.pools] == [(2, None)]
    assert [d.problem is None for d in now.deployments] == [False]


def test_the_last_good_version_is_kept_in_the_journals_words(etc: ConfigDir) -> None:
    etc.write("template.json", "{}")
    etc.write("conf.d/a.yaml", "pools: [{name: a, match: [x, y], prefetch: 5, run: {limit_nofile: 10, start: auto}}]")
    (pool,) = etc.load().pools
    assert Decoder().decode(PoolSettings, to_json(pool)) == pool
    remembered = Decoder().decode(Config, to_json(etc.load()))
    etc.write("conf.d/a.yaml", "pools: [{name: a, match: 5}]")
    assert [replace(kept, problem=None) for kept in etc.load(last_good=remembered).pools] == [pool]


# --- settings, over a restart ------------------------------------------------------------------------------------

SETTINGS = """\
api: {key_file: key, headers: {X-Team: etl}, poll_interval: 5s}
limits: {runs: 3, tags: {db: 1}}
run: {user: nobody, environment: {A: '1', B: null}, limit_nofile: 10:20}
http: {listen: '127.0.0.1:9464'}
"""


def journalled(folder: Path, config: Config) -> Config:
    """What the next daemon reads in the journal as the last good configuration."""
    with opened(folder / "journal.db") as journal:
        journal.save_last_good(config)
    with opened(folder / "journal.db") as journal:
        found = journal.last_good()
    assert found is not None
    return found


@pytest.mark.parametrize("bad", ["limits: [\n", "limits: {runs: many}\n"])
def test_the_settings_of_a_drop_in_that_is_broken_at_a_start_stay_in_force(
    etc: ConfigDir, tmp_path: Path, bad: str
) -> None:
    etc.write("key", "secret")
    etc.write("conf.d/00-host.yaml", SETTINGS)
    etc.write("conf.d/a.yaml", A)
    good = etc.load()
    assert etc.words(good.problems) == []
    etc.write("conf.d/00-host.yaml", bad)
    now = etc.load(last_good=journalled(tmp_path, good))
    assert (now.settings, now.deployments, now.said) == (good.settings, good.deployments, good.said)
    assert len(now.problems) == 1
    again = etc.load(last_good=journalled(tmp_path, now))
    assert (again.settings, again.said) == (good.settings, good.said)


def test_what_a_directory_that_cannot_be_listed_at_a_start_said_stays_in_force(etc: ConfigDir, tmp_path: Path) -> None:
    etc.write("key", "secret")
    etc.write("conf.d/00-host.yaml", SETTINGS)
    good = etc.load()
    (etc.etc / "conf.d").rename(etc.etc / "moved")
    etc.write("conf.d", "not a directory")
    assert etc.load(last_good=journalled(tmp_path, good)).settings == good.settings


@pytest.mark.parametrize(
    ("said", "runs"),
    [
        ({"limits": {"values": {"runs": 3, "new": 1}, "places": {}}, "sections": {"values": {"a": 1}}}, 3),
        ({"limits": {"said": {"runs": 3}, "places": {"runs": {"file": 5}}}}, 3),
        ({"limits": {"values": {"runs": 3}, "places": 5}}, 3),
        ({"control": {"values": {"admins": []}}}, 10),
        ({"limits": {"values": 5}}, 10),
        ({"limits": 5}, 10),
        (5, 10),
        (None, 10),
    ],
)
def test_the_settings_that_another_version_wrote_end_no_start(etc: ConfigDir, said: Json, runs: int) -> None:
    path = etc.write("conf.d/00-host.yaml", "limits: [\n")
    now = etc.load(last_good=replace(etc.load(), said={str(path): said}))
    assert (now.settings.limits.runs, now.settings.control.narrowed) == (runs, False)


def test_two_ways_to_log_in_are_refused_at_a_start_too(etc: ConfigDir, tmp_path: Path) -> None:
    etc.write("key", "secret")
    etc.write("conf.d/00-host.yaml", "api: {key_file: key}\n")
    good = etc.load()
    etc.write("conf.d/00-host.yaml", "api: [\n")
    etc.write("conf.d/10-host.yaml", "api: {auth_string_file: key}\n")
    now = etc.load(last_good=journalled(tmp_path, good))
    place = f"{etc.etc}/conf.d/00-host.yaml:1:17"
    assert any(f"both api.auth_string_file and api.key_file ({place})" in problem.message for problem in now.problems)
