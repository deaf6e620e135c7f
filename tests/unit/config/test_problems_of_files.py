"""Every mistake a whole file can hold, with the exact words and place it is answered with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.kits.config import DEFAULTS, RIGHT, ConfigDir, prefixed

SETTINGS = [
    (
        "limits: {start_rate: 10}\nlate: {after: soon}",
        "2:15: late.after must be a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m, or infinity, not 'soon'",
    ),
    ("limits: {start_rate: 0/s}", "1:22: limits.start_rate must be between 1/h and 1000/s, not '0/s'"),
    (
        "limits: {start_rate: 10/d}",
        "1:22: limits.start_rate must be a rate such as 10/s or 30/m, not '10/d'",
    ),
    ("limits: {tags: {gpu: -1}}", "1:22: limits.tags.gpu must be at least 0, not -1"),
    ("limits: {tags: {gpu: one}}", "1:22: limits.tags.gpu must be a whole number, not 'one'"),
    ("limits: []", "1:9: limits must be a map, not a list"),
    (
        "http: {listen: 0.0.0.0:80}",
        (
            "1:16: http.listen: 0.0.0.0 is no loopback address, so every request to it needs a token; set"
            " http.token_file in the same file, or write 127.0.0.1:9464"
        ),
    ),
    (
        "http: {listen: '127.0.0.1:99999'}",
        "1:16: http.listen: '127.0.0.1:99999' is not an address and port; write 127.0.0.1:9464",
    ),
    (
        "api: {url: 'http://h:4200'}",
        "1:12: api.url: 'http://h:4200' is not Prefect's API; it ends in /api: http://h:4200/api",
    ),
    (
        "api: {url: 'http://h:4200/x'}",
        "1:12: api.url: 'http://h:4200/x' is not Prefect's API; it ends in /api, as in http://HOST:4200/api",
    ),
    (
        "api: {url: 'ftp://h/api'}",
        "1:12: api.url: 'ftp://h/api' is not an http or https URL; write http://HOST:4200/api, or embedded",
    ),
    (
        "api: {url: 'http://u:p@h/api'}",
        (
            "1:12: api.url must not have credentials in it; put user:password into a file "
            "and name the file in auth_string_file"
        ),
    ),
    (
        "api: {url: 'http://h/api?x=1'}",
        "1:12: api.url: 'http://h/api?x=1' has a query or fragment; write http://h/api",
    ),
    (
        "api: {url: 'http://h:99999/api'}",
        (
            "1:12: api.url: 'http://h:99999/api' is not a URL (Port out of range 0-65535); write "
            "http://HOST:4200/api, or embedded"
        ),
    ),
    (
        "api: {url: 'https://app.prefect.cloud/account/x'}",
        (
            "1:12: api.url: 'https://app.prefect.cloud/account/x' is not Prefect's API; write "
            "https://api.prefect.cloud/api/accounts/ACCOUNT/workspaces/WORKSPACE (see: prefect "
            "config view)"
        ),
    ),
    (
        "api: {url: 'h:4200/api'}",
        "1:12: api.url: 'h:4200/api' is not an http or https URL; write http://HOST:4200/api, or embedded",
    ),
    ("api: {url: 5}", "1:12: api.url must be text, not 5; quote it"),
    (
        "api: {key_file: a, auth_string_file: b}",
        "1:38: cannot have both api.auth_string_file and api.key_file (conf.d/a.yaml:1:17); remove one",
    ),
    ("api: {poll_interval: 0}", "1:22: api.poll_interval must be between 0.1 and 86400 seconds, not 0"),
    (
        "api: {poll_interval: infinity}",
        "1:22: api.poll_interval must be a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m, not 'infinity'",
    ),
    ("api: {headers: {A: 5}}", "1:20: api.headers.A must be text, not a number; quote it"),
    ("run: {nice: 99}", "1:13: run.nice must be between -20 and 19, not 99"),
]
FILES = [
    (
        "",
        [
            "1:1: is empty; write deployments: into it, or remove it",
        ],
    ),
    (
        "# x\n",
        [
            "1:1: is empty; write deployments: into it, or remove it",
        ],
    ),
    (
        "[1]\n",
        [
            "1:1: must hold a map, not a list; put it under 'deployments:'",
        ],
    ),
    (
        "5\n",
        [
            "1:1: must hold a map, not 5; write deployments: into it",
        ],
    ),
    (
        "deployments: 5\n",
        [
            "1:14: deployments must be a list, not 5",
        ],
    ),
    (
        "deployments: [5, null, {}]\n",
        [
            "1:15: a deployment must be a map, not 5",
            "1:18: a deployment must be a map, not null",
            "1:24: a deployment needs 'entrypoint' or 'command'",
        ],
    ),
    (
        "deployments:\n  - nam: x\n",
        [
            "2:5: unknown key 'nam' in a deployment; did you mean 'name'?",
            "2:5: a deployment needs 'entrypoint' or 'command'",
        ],
    ),
    (
        "depl: []\n",
        [
            "1:1: unknown key 'depl' in this file",
        ],
    ),
    (
        "deployments:\n- {name: null, entrypoint: null}\n",
        [
            "2:28: entrypoint must be path/to/file.py:function or package.module:function, not null",
        ],
    ),
    (
        "deployments:\n- {name: 5, entrypoint: 'x'}\n",
        [
            "2:10: name must be text without / % & < > and control characters, not 5; quote it",
            "2:25: entrypoint must be path/to/file.py:function or package.module:function, not 'x'",
        ],
    ),
    (
        "deployments:\n- {name: 'a%b', entrypoint: 'x.py'}\n",
        [
            "2:10: name must be text without / % & < > and control characters, not 'a%b'",
            "2:29: entrypoint must be path/to/file.py:function or package.module:function, not 'x.py'",
        ],
    ),
    (
        'deployments:\n- {name: "a\\tb", entrypoint: "a-b:c"}\n',
        [
            "2:10: name must be text without / % & < > and control characters, not 'a\\tb'",
            "2:30: entrypoint must be path/to/file.py:function or package.module:function, not 'a-b:c'",
        ],
    ),
    (
        "deployments: [{name: a, entrypoint: 'flows/none.py:x'}]",
        [
            "1:37: entrypoint flows/none.py: no such file under {etc}",
        ],
    ),
    (
        "deployments: [{name: a, entrypoint: '/nowhere/none.py:x'}]",
        [
            "1:37: entrypoint /nowhere/none.py: no such file",
        ],
    ),
    (
        "deployments: [{name: a, entrypoint: 'flows/etl.py:'}]",
        [
            "1:37: entrypoint must be path/to/file.py:function or package.module:function, not 'flows/etl.py:'",
        ],
    ),
    (
        "deployments: [{name: a, entrypoint: 'flows.etl'}]",
        [
            "1:37: entrypoint must be path/to/file.py:function or package.module:function, not 'flows.etl'",
        ],
    ),
    (
        "deployments: [{name: a, entrypoint: 'flows/etl.py:a b'}]",
        [
            ("1:37: entrypoint must be path/to/file.py:function or package.module:function, not 'flows/etl.py:a b'"),
        ],
    ),
    (
        (
            "pull: [{git_clone: {}}]\ndeployments: [{name: a, "
            "entrypoint: 'flows/etl.py:x'},{name: b, entrypoint: 'flows/etl.py:x', pull: "
            "null},{name: c, entrypoint: 'flows/etl.py:x', pull: []}]"
        ),
        ["1:9: pull[0].git_clone is not the name of a step, such as prefect.deployments.steps.git_clone"] * 2,
    ),
    (
        "deployments: [{name: a, entrypoint: 'flows/etl.py:x'},{name: a, entrypoint: 'flows/etl.py:x'}]",
        [
            "1:55: deployment 'a' of flows/etl.py:x is already defined at conf.d/a.yaml:1:15; rename or remove one",
        ],
    ),
    (
        ("limits: {runs: ten}\nstop: {then: kil}\nlate: {policy: skp}\napi: {key_file: 5}\njournal: {max_runs: 0}\n"),
        [
            "1:16: limits.runs must be a whole number, not 'ten'",
            "2:14: stop.then must be one of cancel, crash, reschedule, not 'kil'",
            "3:16: late.policy must be one of run, skip, latest, not 'skp'; did you mean 'skip'?",
            "4:17: api.key_file must be text, not 5; quote it",
            "5:21: journal.max_runs must be at least 1, not 0",
        ],
    ),
    (
        "run: {user: nobody-there}\ndeployments:\n  - name: a\n    entrypoint: flows/etl.py:nightly\n",
        [
            "1:13: run.user nobody-there: no such user on this host",
        ],
    ),
]
NOTHING_SAYS = (
    "runnerd.yaml:1:1: the URL of Prefect's API is missing; write api: {url: http://HOST:4200/api} into it,"
    " or api: {url: embedded} for a private server, or set PREFECT_API_URL"
)


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


@pytest.mark.parametrize(("text", "words"), SETTINGS, ids=[text for text, _ in SETTINGS])
def test_a_wrong_setting_in_a_drop_in_costs_itself_only(etc: ConfigDir, text: str, words: str) -> None:
    etc.write("conf.d/a.yaml", f"{text}\n{RIGHT}")
    config = etc.load()
    assert etc.words(config.problems) == prefixed(etc, [words])
    assert [deployment.name for deployment in config.deployments] == ["a"]
    assert config.settings.api.url == "http://127.0.0.1:4200/api"


@pytest.mark.parametrize(("text", "words"), SETTINGS, ids=[text for text, _ in SETTINGS])
def test_a_wrong_setting_in_runnerd_yaml_is_fatal(tmp_path: Path, text: str, words: str) -> None:
    etc = ConfigDir(tmp_path / "etc", main=None)
    etc.write("runnerd.yaml", text)
    assert etc.fatal(defaults=replace(DEFAULTS, api_url="http://127.0.0.1:4200/api")) == [
        f"runnerd.yaml:{words.replace('conf.d/a.yaml', 'runnerd.yaml')}"
    ]


@pytest.mark.parametrize(("text", "words"), FILES, ids=[text for text, _ in FILES])
def test_every_problem_of_a_file_is_told_at_once(etc: ConfigDir, text: str, words: list[str]) -> None:
    etc.write("conf.d/a.yaml", text)
    assert etc.problems() == prefixed(etc, words)


def test_every_problem_of_all_files_is_told_at_once(etc: ConfigDir) -> None:
    etc.write("runnerd.yaml", "limits: {runs: 0}\n")
    etc.write("conf.d/b.yaml", RIGHT + "    run: {nice: 99, limit: 0}\n")
    etc.write("conf.d/a.yaml", "deployments: [\n")
    etc.write("conf.d/c.yml", "")
    assert etc.fatal() == [
        NOTHING_SAYS,
        "conf.d/c.yml:1:1: is ignored; rename it to c.yaml",
        "runnerd.yaml:1:16: limits.runs must be at least 1, not 0",
        "conf.d/a.yaml:2:1: a value is missing here; or a [ or { above is never closed",
        "conf.d/b.yaml:4:17: run.nice must be between -20 and 19, not 99",
        "conf.d/b.yaml:4:28: run.limit must be at least 1, not 0",
    ]
