"""`pools:` in the files: what they say, what is wrong with them, what stays in force when an entry or a file breaks."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from runnerd.config import check
from runnerd.core.place import Place
from runnerd.core.settings import Config, PoolSettings, RunSettings
from tests.kits.config import DEFAULTS, MAIN, ConfigDir

A = "pools:\n  - {name: a, limit: 1}\n"
B = "pools:\n  - {name: b}\n"
DEPLOYMENT = "deployments:\n  - {name: d, entrypoint: 'flows/etl.py:nightly'}\n"
WHAT_NAMES_ARE = "must be text without / % & < > and control characters"


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    directory = ConfigDir(tmp_path / "etc")
    directory.write("template.json", '{"variables": {}, "job_configuration": {}}')
    return directory


def names(config: Config) -> list[str]:
    return [pool.name for pool in config.pools]


def one(etc: ConfigDir, text: str, main: str = MAIN) -> PoolSettings:
    """The only pool of a drop-in that has no problem."""
    etc.write("runnerd.yaml", main)
    etc.write("conf.d/a.yaml", text)
    config = etc.load()
    assert etc.words(config.problems) == []
    (pool,) = config.pools
    return pool


# --- what they say --------------------------------------------------------------------------------------------


def test_a_pool_with_everything(etc: ConfigDir) -> None:
    pool = one(
        etc,
        """\
        pools:
          - name: etl
            queues: [high, default]
            type: process
            create: true
            base_job_template: template.json
            limit: 4
            prefetch: 1min
            poll_interval: 1.5s
            install_policy: never
            run: {python: /bin/sh, working_directory: /, environment: {A: 1}, limit: 2, start: warm, stop_timeout: 5s}
        """,
    )
    assert pool == PoolSettings(
        name="etl",
        queues=("high", "default"),
        type="process",
        base_job_template=str(etc.etc / "template.json"),
        limit=4,
        prefetch_s=60.0,
        poll_interval_s=1.5,
        install_policy="never",
        run=RunSettings(
            python="/bin/sh",
            working_directory="/",
            environment={"A": "1"},
            limit=2,
            start="warm",
            stop_timeout_s=5.0,
        ),
        scratch=False,
        place=Place(f"{etc.etc}/conf.d/a.yaml", 2, 5),
    )


@pytest.mark.parametrize(
    "nothing",
    ["", ", queues: null, match: null, type: null, create: null, base_job_template: null, limit: null, run: null"],
)
def test_a_pool_with_its_name_only_is_all_defaults(etc: ConfigDir, nothing: str) -> None:
    pool = one(etc, f"pools: [{{name: etl{nothing}, prefetch: null, poll_interval: null, install_policy: null}}]")
    run = RunSettings(python=sys.executable, working_directory=str(etc.etc))
    assert pool == PoolSettings(name="etl", run=run, place=Place(f"{etc.etc}/conf.d/a.yaml", 1, 9))
    assert (pool.type, pool.create, pool.queues, pool.match, pool.scratch) == (None, True, (), (), True)


@pytest.mark.parametrize(
    ("written", "prefixes"), [("dev-", ("dev-",)), ("[dev-, test-]", ("dev-", "test-")), ("null", ())]
)
def test_match_is_a_text_or_a_list(etc: ConfigDir, written: str, prefixes: tuple[str, ...]) -> None:
    assert one(etc, f"pools: [{{name: a, match: {written}}}]").match == prefixes


@pytest.mark.parametrize("nothing", ["", "pools:\n", "pools: null\n", "pools: []\n"])
def test_no_pools(etc: ConfigDir, nothing: str) -> None:
    etc.write("runnerd.yaml", MAIN + nothing)
    config = etc.load()
    assert (config.pools, config.problems) == ((), ())


def test_pools_stand_in_any_file_beside_deployments(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", MAIN + A)
    etc.write("conf.d/a.yaml", DEPLOYMENT + B)
    config = etc.load()
    assert (names(config), [d.name for d in config.deployments]) == (["a", "b"], ["d"])
    assert config.problems == ()


def test_its_run_section_is_laid_over_the_hosts(etc: ConfigDir) -> None:
    host = "run: {nice: 5, user: root, limit: 3, environment: {A: 1, B: 2, C: 3}, limit_nofile: 10}\n"
    pool = one(etc, "pools: [{name: a, run: {nice: 1, limit: null, environment: {B: x, C: null}}}]", MAIN + host)
    run = pool.run
    assert (run.nice, run.user, run.limit, run.environment) == (1, "root", None, {"A": "1", "B": "x"})
    assert run.rlimits == {"nofile": (10, 10)}


def test_its_flows_run_as_the_host_says_unless_it_does(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "pools: [{name: a}, {name: b, run: {user: root}}]\n")
    told = replace(DEFAULTS, flow_user="nobody")
    assert [pool.run.user for pool in etc.load(defaults=told).pools] == ["nobody", "root"]
    assert [pool.run.user for pool in etc.load().pools] == [None, "root"]


@pytest.mark.parametrize(
    ("host", "own", "scratch"),
    [
        ("", "", True),
        ("run: {nice: 1}", "nice: 2", True),
        ("run: {working_directory: /}", "", False),
        ("", "working_directory: /", False),
        ("run: {working_directory: /}", "working_directory: null", True),
        ("run: {working_directory: null}", "working_directory: flows", False),
    ],
)
def test_a_run_has_a_directory_of_its_own_where_nobody_says_one(
    etc: ConfigDir, host: str, own: str, scratch: bool
) -> None:
    assert one(etc, f"pools: [{{name: a, run: {{{own}}}}}]", f"{MAIN}{host}\n").scratch is scratch


# --- what is wrong --------------------------------------------------------------------------------------------

# (the entry, the problem from its line and column on); {etc} is the directory
WRONG = [
    ("{nam: a}", "2:5: a pool needs 'name'", "2:6: unknown key 'nam' in a pool; did you mean 'name'?"),
    ("{}", "2:5: a pool needs 'name'"),
    ("etl", "2:5: a pool must be a map, not 'etl'"),
    ("null", "2:5: a pool must be a map, not null"),
    ("{name: null}", f"2:12: name {WHAT_NAMES_ARE}, not null"),
    ("{name: 5}", f"2:12: name {WHAT_NAMES_ARE}, not 5; quote it"),
    ("{name: ''}", "2:12: name must not be empty"),
    ("{name: a/b}", f"2:12: name {WHAT_NAMES_ARE}, not 'a/b'"),
    ("{name: 'a%b'}", f"2:12: name {WHAT_NAMES_ARE}, not 'a%b'"),
    ('{name: "a\\n"}', f"2:12: name {WHAT_NAMES_ARE}, not 'a\\n'"),
    ("{name: a, queus: [x]}", "2:15: unknown key 'queus' in a pool; did you mean 'queues'?"),
    ("{name: a, queues: high}", "2:23: queues must be a list, not 'high'"),
    ("{name: a, queues: []}", "2:23: queues must not be an empty list; name one, or remove the key"),
    ("{name: a, queues: [x, 5]}", f"2:27: queues[1] {WHAT_NAMES_ARE}, not 5; quote it"),
    ("{name: a, queues: [x/y]}", f"2:24: queues[0] {WHAT_NAMES_ARE}, not 'x/y'"),
    ("{name: a, queues: ['']}", "2:24: queues[0] must not be empty"),
    ("{name: a, queues: [x, y, x]}", "2:30: queues[2]: 'x' is repeated; remove one"),
    ("{name: a, match: [x, x]}", "2:26: match[1]: 'x' is repeated; remove one"),
    ("{name: a, match: []}", "2:22: match must not be an empty list; name one, or remove the key"),
    ("{name: a, match: ''}", "2:22: match must not be empty"),
    ("{name: a, match: 5}", f"2:22: match {WHAT_NAMES_ARE}, or a list of such texts, not 5; quote it"),
    ("{name: a, match: x/}", f"2:22: match {WHAT_NAMES_ARE}, or a list of such texts, not 'x/'"),
    (
        "{name: a, queues: [x], match: y}",
        "2:28: cannot have both queues and match; remove one",
    ),
    (
        "{name: a, match: [y], queues: [x]}",
        "2:27: cannot have both queues and match; remove one",
    ),
    ("{name: a, type: ''}", "2:21: type must not be empty"),
    ('{name: a, type: "x\\ty"}', "2:21: type must be text without control characters, not 'x\\ty'"),
    ("{name: a, create: maybe}", "2:23: create must be true or false, not 'maybe'"),
    ("{name: a, limit: 0}", "2:22: limit must be at least 1, not 0"),
    ("{name: a, prefetch: -1}", "2:25: prefetch must be between 0 and 86400 seconds, not -1"),
    (
        "{name: a, prefetch: soon}",
        "2:25: prefetch must be a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m, not 'soon'",
    ),
    (
        "{name: a, install_policy: nevr}",
        "2:31: install_policy must be one of always, if-not-present, never, prompt, not 'nevr'; did you mean 'never'?",
    ),
    ("{name: a, base_job_template: none.json}", "2:34: base_job_template {etc}/none.json: no such file"),
    ("{name: a, base_job_template: flows}", "2:34: base_job_template {etc}/flows: is a directory; a configuration"),
    (
        "{name: a, base_job_template: flows/etl.py}",
        "2:34: base_job_template {etc}/flows/etl.py: is not JSON: Expecting",
    ),
    ("{name: a, base_job_template: list.json}", "2:34: base_job_template {etc}/list.json: must hold a JSON object"),
    ("{name: a, base_job_template: deep.json}", "2:34: base_job_template {etc}/deep.json: is not JSON: "),
    ("{name: a, run: 5}", "2:20: run must be a map, not 5"),
    ("{name: a, run: {nice: 99}}", "2:27: run.nice must be between -20 and 19, not 99"),
    ("{name: a, run: {umask: '0o27'}}", "2:28: run.umask must be "),
    ("{name: a, run: {user: nobody-there}}", "2:27: run.user nobody-there: no such user on this host"),
    ("{name: a, run: {python: /no/python}}", "2:29: run.python /no/python: no such file"),
    ("{name: a, run: {working_directory: /no}}", "2:40: run.working_directory /no: no such directory"),
    ("{name: a, run: {environment_file: none}}", "2:39: run.environment_file {etc}/none: no such file"),
    ("{name: a, limit: 0, prefetch: x}", "2:22: limit must be at least 1, not 0", "2:35: prefetch must be a duration"),
]


@pytest.mark.parametrize("row", WRONG, ids=[row[0] for row in WRONG])
def test_a_wrong_entry_costs_itself_only(etc: ConfigDir, row: tuple[str, ...]) -> None:
    etc.write("list.json", "[1]")
    etc.write("deep.json", "[" * 200_000)
    etc.write("conf.d/a.yaml", f"pools:\n  - {row[0]}\n  - {{name: b}}\n{DEPLOYMENT}limits: {{runs: 3}}\n")
    config = etc.load()
    words = etc.words(config.problems)
    expected = [f"conf.d/a.yaml:{line.replace('{etc}/', '')}" for line in row[1:]]
    assert [word[: len(line)] for word, line in zip(words, expected, strict=True)] == expected
    assert names(config) == ["b"]
    assert ([d.name for d in config.deployments], config.invalid, config.settings.limits.runs) == (["d"], (), 3)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("pools: 5\n", "pools must be a list, not 5"),
        ("pools: {name: a}\n", "pools must be a list, not a map"),
        ("pools: [{name: a/b}]\n", "name must be text without"),
    ],
)
def test_wrong_pools_in_runnerd_yaml_are_told_of_and_the_rest_works(etc: ConfigDir, text: str, words: str) -> None:
    etc.write("runnerd.yaml", MAIN + "limits: {runs: 3}\n" + text)
    etc.write("conf.d/a.yaml", B + DEPLOYMENT)
    config = etc.load()
    assert [words in line for line in etc.words(config.problems)] == [True]
    assert (names(config), config.settings.limits.runs) == (["b"], 3)


def test_a_template_that_is_not_used_does_not_matter(etc: ConfigDir) -> None:
    pool = one(etc, "pools: [{name: a, create: false, base_job_template: none.json}]")
    assert pool.base_job_template == str(etc.etc / "none.json")


def test_a_mistake_of_the_hosts_run_section_is_told_where_it_stands(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", MAIN + "run: {user: nobody-there}\n")
    etc.write("conf.d/a.yaml", A)
    assert etc.problems() == ["runnerd.yaml:2:13: run.user nobody-there: no such user on this host"]
    told = replace(DEFAULTS, flow_user="nobody-there")
    etc.write("runnerd.yaml", MAIN)
    assert etc.words(etc.load(defaults=told).problems) == [
        "conf.d/a.yaml:2:5: run.user nobody-there: no such user on this host"
    ]


def test_the_second_of_two_entries_of_one_pool_names_the_first(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", A + "  - {name: a, limit: 2}\n")
    etc.write("conf.d/b.yaml", A.replace("1", "3") + "  - {name: A}\n")
    config = etc.load()
    assert [(pool.name, pool.limit) for pool in config.pools] == [("a", 1), ("A", None)]
    words = "pool 'a' is already defined at conf.d/a.yaml:2:5; merge them, or remove one"
    assert etc.words(config.problems) == [f"conf.d/a.yaml:3:5: {words}", f"conf.d/b.yaml:2:5: {words}"]


def test_check_reads_the_pools_of_one_drop_in(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", MAIN + A + "run: {nice: 7}\n")
    path = etc.write("conf.d/b.yaml", B)
    config, problems = check(str(path), defaults=DEFAULTS)
    assert config is not None
    assert ([(pool.name, pool.run.nice) for pool in config.pools], problems) == ([("b", 7)], [])
