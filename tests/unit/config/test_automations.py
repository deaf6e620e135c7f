"""automations: of the files: read by name, the last file wins, and a broken file keeps its last good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.config import ConfigDir
from tests.unit.config.test_triggers import EVENT

ONE = "{name: one, trigger: {expect: [a]}, actions: [{type: do-nothing}]}"
BODY = {"name": "one", "description": "", "enabled": True, "trigger": {**EVENT, "expect": ["a"]}}
LISTS = {"actions": [{"type": "do-nothing"}], "actions_on_trigger": [], "actions_on_resolve": []}


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def test_they_are_read_by_name_and_the_last_file_wins(etc: ConfigDir) -> None:
    two = "{name: two, enabled: false, tags: [x], trigger: {triggers: [{}]}, actions: [{type: a, b: '{{ event.id }}'}]}"
    etc.write("conf.d/10.yaml", f"automations: [{ONE}, {two}]\n")
    config = etc.load()
    assert etc.words(config.problems) == []
    first, second = config.settings.automations.values()
    assert first == {**BODY, **LISTS}
    assert (second["enabled"], second["tags"], second["actions"][0]["b"]) == (False, ["x"], "{{ event.id }}")
    assert second["trigger"] == {"type": "sequence", "triggers": [EVENT], "within": None}
    etc.write("conf.d/20.yaml", f"automations: [{ONE.replace('do-nothing', 'other')}]\n")
    found = etc.load().settings.automations
    assert (list(found), found["one"]["actions"]) == (["one", "two"], [{"type": "other"}])


def test_a_broken_file_keeps_its_last_good_ones(etc: ConfigDir) -> None:
    etc.write("conf.d/10.yaml", f"automations: [{ONE}]\n")
    good = etc.load()
    etc.write("conf.d/10.yaml", "automations: [{name: one}]\n")
    assert etc.load(last_good=good).settings.automations == good.settings.automations


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{name: a, actions: [{type: b}]}]", "1:15: an automation needs 'trigger'"),
        (
            "[{name: a, trigger: {}, actions: []}]",
            "1:47: automations[0].actions must not be an empty list; name one, or",
        ),
        ("[{name: a, trigger: {}, actions: [{}]}]", "1:48: an action needs 'type'"),
        ("[{name: a, trigger: {name: b}, actions: [{type: b}]}]", "1:35: unknown key 'name' in a trigger"),
        (
            "[{name: a, trigger: {}, actions: [{type: b, c: [.nan]}]}]",
            "1:62: automations[0].actions[0].c[0]: .nan is not a number in JSON; quote it if text is meant",
        ),
        (f"[{ONE}, {ONE}]", "1:90: automations[1].name: an earlier automation of this file has this name; change one"),
    ],
)
def test_what_is_wrong_has_its_place(etc: ConfigDir, text: str, words: str) -> None:
    etc.write("conf.d/a.yaml", f"automations: {text}\n")
    (problem,) = etc.problems()
    assert problem.startswith(f"conf.d/a.yaml:{words}")
