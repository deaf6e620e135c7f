"""Links in the configuration directory: what they may lead to, and what messages show of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runnerd.config import check, describe_config
from runnerd.config.files import MAX_BYTES
from tests.kits.config import DEFAULTS, MAIN, A, ConfigDir, names

SHADOW = "root:$y$j9T$hunter2:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n"
KERNEL = "is not a file on disk, but one of the kernel's; a configuration file is a regular file"
CONCEALED = (
    "is wrong here, in a way that is not shown, because a link leads out of the configuration directory;"
    " see it with: runnerctl config check {}"
)


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/proc/kmsg", KERNEL),
        (
            "/proc/self/environ",
            "is not a file on disk, but one of the kernel's; a configuration file is a regular file",
        ),
        ("/sys/kernel/notes", KERNEL),
        ("/dev/zero", "is not a regular file; a configuration file is a regular file"),
        ("/dev/watchdog", "is not a regular file; a configuration file is a regular file"),
        ("/dev", "is a directory; a configuration file is a regular file"),
        ("a.yaml", "cannot be read: Too many levels of symbolic links"),
        ("/nowhere", "is a link to /nowhere, which does not exist"),
    ],
)
def test_what_is_no_file_is_not_opened(etc: ConfigDir, target: str, words: str) -> None:
    if target.startswith(("/proc", "/sys", "/dev")) and not os.path.exists(target):
        pytest.skip(f"this host has no {target}")
    etc.write("conf.d/b.yaml", A)
    (etc.etc / "conf.d/a.yaml").symlink_to(target)
    config = etc.load()
    assert etc.words(config.problems) == [f"conf.d/a.yaml:1:1: {words}"]
    assert names(config) == ["a"]
    (etc.etc / "conf.d/a.yaml").rename(etc.etc / "runnerd.yaml")
    if target != "a.yaml":
        assert etc.fatal()[0] == f"runnerd.yaml:1:1: {words}"


def test_a_sparse_file_is_not_read(etc: ConfigDir, tmp_path: Path) -> None:
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(2**40)
    (etc.etc / "conf.d/a.yaml").symlink_to(tmp_path / "sparse")
    limit = f"more than the limit of {MAX_BYTES // 2**20}M"
    assert etc.problems() == [f"conf.d/a.yaml:1:1: has {2**40} bytes, {limit}; split it"]


@pytest.mark.parametrize(
    "text",
    [
        SHADOW,
        "hunter2",
        "- hunter2",
        "hunter2: 1",
        "api: hunter2",
        "api: {poll_interval: hunter2}",
        "api: {url: hunter2}",
        "a: [hunter2",
        "a: !hunter2 b",
        "a: &hunter2 b\nc: &hunter2 d",
        "hunter2: 1\nhunter2: 2",
        "*hunter2",
        "deployments: hunter2",
        "deployments: [{hunter2: 1}]",
        "deployments: [{name: a, entrypoint: hunter2}]",
        "deployments: [{name: a, entrypoint: 'm:f', run: {user: hunter2}}]",
        "deployments: [{name: a, entrypoint: 'm:f', pull: [{hunter2: {}}]}]",
        "deployments: [{name: a, entrypoint: 'm:f', schedules: [{cron: hunter2}]}]",
        "pull: [{hunter2: {}}]\ndeployments: [{name: a, entrypoint: 'm:f'}]",
        "pools: [{name: hunter2/}]",
        "run: {python: ./hunter2}",
    ],
)
@pytest.mark.parametrize("where", ["conf.d/a.yaml", "runnerd.yaml"])
def test_what_a_link_leads_out_to_is_not_quoted(etc: ConfigDir, tmp_path: Path, text: str, where: str) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(text)
    good = etc.load()
    (etc.etc / where).unlink(missing_ok=True)
    (etc.etc / where).symlink_to(outside)
    lines = etc.fatal() if where == "runnerd.yaml" and "deployments" not in text and "pools" not in text else None
    if lines is None:
        config = etc.load(last_good=good, defaults=DEFAULTS) if where != "runnerd.yaml" else None
        checked, problems = check(str(etc.etc), defaults=DEFAULTS)
        lines = etc.words(problems)
        if config is not None:
            assert checked is not None
            assert "hunter2" not in json.dumps(describe_config(config))
            assert "hunter2" not in repr([config.invalid, [deployment.problem for deployment in config.deployments]])
    assert lines
    for line in lines:
        assert "hunter2" not in line
        if "PREFECT_API_URL" not in line:  # which is about no file
            place, _, message = line.partition(": ")
            assert place.startswith(f"{where}:")
            one, several = CONCEALED.format(outside), "in a way that is not shown, because a link leads out"
            assert message == one or (message.startswith("is wrong here and at ") and several in message)
    assert sum("PREFECT_API_URL" not in line for line in lines) == 1, "one line, which counts the places"


def test_the_advice_shows_all_of_it(etc: ConfigDir, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("api: {poll_interval: hunter2}")
    (etc.etc / "conf.d/a.yaml").symlink_to(outside)
    _, problems = check(str(outside), defaults=DEFAULTS)
    assert "'hunter2'" in str(problems[0])


def test_a_link_within_the_directory_is_quoted(etc: ConfigDir) -> None:
    etc.write("flows/a.yaml", "api: {poll_interval: soon}")
    (etc.etc / "conf.d/a.yaml").symlink_to("../flows/a.yaml")
    assert "'soon'" in etc.problems()[0]


def test_a_directory_that_is_itself_a_link_is_quoted(etc: ConfigDir, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(etc.etc)
    etc.write("conf.d/a.yaml", "api: {poll_interval: soon}")
    _, problems = check(str(tmp_path / "link"), defaults=DEFAULTS)
    assert "'soon'" in str(problems[0])


def test_what_is_right_outside_is_in_force(etc: ConfigDir, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(A)
    (etc.etc / "conf.d/a.yaml").symlink_to(outside)
    config = etc.load()
    assert (names(config), etc.words(config.problems)) == (["a"], [])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (SHADOW.replace(":", "="), None),
        ("hunter2 =1\n x y=2\n", "line 2: what is before the '=' is not a variable's name; write NAME=value"),
        ("A='hunter2", "line 1: the quote opened here is never closed"),
        (b"A=\xffhunter2", "is not UTF-8 (byte 0xff); save it as UTF-8"),
    ],
)
def test_an_environment_file_is_not_quoted(etc: ConfigDir, content: str | bytes, words: str | None) -> None:
    path = etc.write("env", content)
    etc.write("runnerd.yaml", MAIN)
    etc.write("conf.d/a.yaml", A.replace("description: first", f"run: {{environment_file: {path}}}"))
    expected = [] if words is None else [f"conf.d/a.yaml:2:75: run.environment_file env: {words}"]
    assert etc.problems() == expected


@pytest.mark.parametrize("target", ["/proc/kmsg", "/proc/self/environ"])
def test_an_environment_file_of_the_kernel_is_refused(etc: ConfigDir, target: str) -> None:
    etc.write("conf.d/a.yaml", A.replace("description: first", f"run: {{environment_file: {target}}}"))
    (line,) = etc.problems()
    assert "is not a file on disk, but one of the kernel's" in line


def test_many_problems_of_a_file_that_is_not_quoted_are_one_line(etc: ConfigDir, tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text("deployments:\n" + "- {name: a, entrypoint: 'm:f', nope: 1}\n" * 24)
    (etc.etc / "conf.d/a.yaml").symlink_to(outside)
    config = etc.load()
    (problem,) = etc.words(config.problems)
    assert problem.startswith("conf.d/a.yaml:2:32: is wrong here and at 23 other places, in a way that is not shown,")
    assert problem.endswith(f" of the configuration directory; see them with: runnerctl config check {outside}")
    assert len(config.invalid) == 24
