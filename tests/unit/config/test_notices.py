"""notices:, run.before and run.after: what is read, and what is wrong in words with a place and without a URL."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from runnerd.config import describe_config
from runnerd.config.host_changes import list_host_changes
from runnerd.core.codec import Decoder, to_json
from runnerd.core.notices import NoticeTarget
from runnerd.core.settings import Config
from tests.kits.config import MAIN, RIGHT, ConfigDir


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def test_every_key_is_read(etc: ConfigDir) -> None:
    deployment = etc.one(
        RIGHT + '    notices: {on_success: [{command: [page, -x, "{{ run.name }}"], timeout: 5s}], on_crash: null}\n',
        main=MAIN + "notices:\n"
        "  on_failure:\n"
        '    - {post: "https://u:p@h.test/x", template: slack, token_file: token}\n'
        '    - {post_file: /run/url, template: "{{run.id}}"}\n',
    )
    assert deployment.notices == {
        "on_success": (NoticeTarget(command=("page", "-x", "{{ run.name }}"), timeout_s=5.0),)
    }
    assert etc.load().settings.notices == {
        "on_failure": (
            NoticeTarget(post="https://u:p@h.test/x", template="slack", token_file=f"{etc.etc}/token"),
            NoticeTarget(post_file="/run/url", template="{{run.id}}"),
        )
    }


ONE = "4:25: notices.on_crash: [0]"


@pytest.mark.parametrize(("items", "words"), [
    ("on_cancelled: []", "4:15: unknown key 'on_cancelled' in notices; did you mean 'on_cancel'?"),
    ("on_crash: {command: [a]}", "4:25: notices.on_crash must be a list, not a map"),
    ("on_crash: [{}]", f"{ONE} needs exactly one of command, post, post_file, and has none of them"),
    ("on_crash: [{command: [a], post: 'http://hush/'}]",
     f"{ONE} needs exactly one of command, post, post_file, and has command and post"),
    ("on_crash: [{command: [a], template: slack}]", f"{ONE} has template, which only a post has; remove it"),
    ("on_crash: [{command: []}]",
     "4:36: notices.on_crash[0].command must not be an empty list; name one, or remove the key"),
    ("on_crash: [{command: [bin/x]}]",
     f"{ONE}.command must begin with an absolute path, or a name without '/' to look up in PATH, not 'bin/x'"),
    ("on_crash: [{command: ['{{ run.name }}']}]",
     f"{ONE}.command must begin with a program: a placeholder can be in its arguments only"),
    ("on_crash: [{post: 'hush.test/x'}]",
     f"{ONE}.post must be an http or https URL in ASCII, as in https://HOST/PATH"),
    ("on_crash: [{post: 'http://h/', template: slak}]",
     f"{ONE}.template: 'slak' is none of raw, slack, ntfy, alertmanager, and has no {{{{ run.name }}}}"),
    ("on_crash: [{post: 'http://h/', template: '{\"a: \"{{ run.id }}\"}'}]",
     f"{ONE}.template: begins like JSON and is none; in JSON, a placeholder stands between quotes"),
    ("on_crash: [{post_file: 'https://h.test/hush'}]",
     f"{ONE}.post_file must be the path of a file that holds the URL; a URL itself is written as post"),
    ("on_crash: ['https://h.test/hush']", "4:26: notices.on_crash[0] must be a map, not text"),
    ("on_crash: 'https://h.test/hush'", "4:25: notices.on_crash must be a list, not text"),
    ("on_crash: 5", "4:25: notices.on_crash must be a list, not 5"),
    ("on_crash: [{post: 'http://h/', timeout: 2h}]", f"{ONE}.timeout must be at most 1h, not '2h'"),
])  # fmt: skip
def test_what_is_wrong(etc: ConfigDir, items: str, words: str) -> None:
    etc.write("conf.d/a.yaml", f"{RIGHT}    notices: {{{items}}}\n")
    assert etc.problems() == [f"conf.d/a.yaml:{words}"]


def test_an_unknown_placeholder_is_named_with_those_there_are(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", RIGHT + "    notices: {on_crash: [{command: [a, '{{ run.nme }}']}]}\n")
    (problem,) = etc.problems()
    assert "cannot fill in {{ run.nme }}; there are run.id, run.name, " in problem


def test_those_of_the_host_are_in_its_main_file_only(etc: ConfigDir) -> None:
    etc.write("conf.d/a.yaml", "notices: {on_crash: [{command: [a]}]}\n")
    assert etc.problems() == ["conf.d/a.yaml:1:1: notices is read only from runnerd.yaml; move it there"]
    assert etc.load().settings.notices == {}


def test_no_url_is_shown(etc: ConfigDir) -> None:
    etc.one(
        RIGHT + "    notices: {on_late: [{post: 'http://h.test:81/hush'}]}\n",
        main=MAIN + "notices: {on_crash: [{post: 'https://hush:hush@h.test/hush?hush=1'}]}\n",
    )
    config = etc.load()
    shown = describe_config(config)
    assert "hush" not in json.dumps(shown)
    assert "hush" not in repr(config.settings) + repr(config.deployments)
    assert shown["notices"]["on_crash"] == [{"post": "https://h.test/***", "template": "raw", "timeout": "30s"}]
    assert shown["deployments"][0]["notices"]["on_late"][0]["post"] == "http://h.test:81/***"
    too_long = "http://hush/" + "x" * 2001
    etc.write("conf.d/10-a.yaml", RIGHT + f"    notices: {{on_late: [{{post: '{too_long}'}}]}}\n")
    assert "hush" not in str(etc.problems())


def test_another_secret_is_a_change_that_shows_none(etc: ConfigDir) -> None:
    etc.write(
        "runnerd.yaml", MAIN + "notices: {on_crash: [{post: 'https://h.test/hush-1'}], on_late: [{command: [a]}]}\n"
    )
    old = etc.load().settings
    etc.write(
        "runnerd.yaml", MAIN + "notices: {on_crash: [{post: 'https://h.test/hush-2'}], on_late: [{command: [a]}]}\n"
    )
    (change,) = list_host_changes(old, etc.load())
    assert (change.key, change.restart) == ("notices.on_crash", False)
    assert change.place is not None and change.place.line == 2
    assert "hush" not in repr(change) and change.old == change.new


# --- commands around runs -------------------------------------------------------------------------------------------


def test_commands_are_one_or_several(etc: ConfigDir) -> None:
    run = etc.one(
        RIGHT + "    run: {before: [/bin/sh, -c, 'exit 1'], after: [[ls], [ls, /]], before_timeout: 5s}\n"
    ).run
    assert run.before == (("/bin/sh", "-c", "exit 1"),)
    assert run.after == (("ls",), ("ls", "/"))
    assert (run.before_timeout_s, run.after_timeout_s) == (5.0, 60.0)


def test_a_deployment_s_replace_the_host_s_and_may_be_none(etc: ConfigDir) -> None:
    main = MAIN + "run: {before: [/bin/true], after: [/bin/true]}\n"
    run = etc.one(RIGHT + "    run: {before: []}\n", main=main).run
    assert (run.before, run.after) == ((), (("/bin/true",),))


def test_those_of_a_broken_drop_in_stay_in_force(etc: ConfigDir) -> None:
    """Also after a restart, when they come from the journal as JSON."""
    etc.write("conf.d/10-a.yaml", RIGHT)
    etc.write("conf.d/20-b.yaml", "run: {before: [[/bin/true, x]]}\n")
    good = Decoder().decode(Config, json.loads(json.dumps(to_json(etc.load()))))
    etc.write("conf.d/20-b.yaml", "run: [\n")
    (deployment,) = etc.load(last_good=good).deployments
    assert deployment.run.before == (("/bin/true", "x"),)


@pytest.mark.parametrize(("said", "words"), [
    ("before: [/none/check]", "4:19: run.before /none/check: no such file"),
    ("after: [/etc/passwd]", "4:18: run.after /etc/passwd: is not executable"),
    ("before: [[ls], x]",
     "4:19: run.before: has texts and lists; write one command as a list of texts, several as a list of such lists"),
    ("before: ls", "4:19: run.before must be a command as a list of texts, or a list of such commands, not 'ls'"),
    ("before: [ls, 3]", "4:24: run.before[1] must be text or a list, not 3; quote it"),
    ("before_timeout: 0", "4:27: run.before_timeout must be between 1 and 86400 seconds, not 0"),
    ("before_timeout: 2d", "4:27: run.before_timeout must be at most 1d, not '2d'"),
])  # fmt: skip
def test_what_is_wrong_with_commands(etc: ConfigDir, said: str, words: str) -> None:
    etc.write("conf.d/a.yaml", f"{RIGHT}    run: {{{said}}}\n")
    assert etc.problems() == [f"conf.d/a.yaml:{words}"]


def test_a_command_of_a_notice_that_is_not_there_is_warned_of(etc: ConfigDir) -> None:
    notices = "notices: {on_crash: [{command: [page]}, {command: [/none/page, x]}, {command: [/bin/sh]}]}\n"
    etc.one(f"{RIGHT}    {notices}", main=MAIN + notices.replace("/none/page", "/etc/passwd"))
    warnings = [str(one).removeprefix(f"{etc.etc}/") for one in etc.load().warnings]
    assert sorted(warnings) == [
        "conf.d/10-a.yaml:4:55: notices.on_crash[1].command /none/page: no such file",
        "runnerd.yaml:2:51: notices.on_crash[1].command /etc/passwd: is not executable",
    ]
