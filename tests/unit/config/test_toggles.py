"""What a file states, and does not state, of the toggles of a deployment and its schedules."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kits.config import ConfigDir


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def test_the_older_key_of_a_pause(etc: ConfigDir) -> None:
    text = "deployments:\n  - {{name: a, entrypoint: 'flows/etl.py:nightly', {}}}\n"
    assert etc.one(text.format("is_schedule_active: false")).paused is True
    assert etc.one(text.format("is_schedule_active: true")).paused is False
    assert etc.one(text.format("is_schedule_active: null")).paused is None
    assert etc.one(text.format("is_schedule_active: true, paused: false")).paused is False
    etc.write("conf.d/10-a.yaml", text.format("paused: true, is_schedule_active: true"))
    (words,) = etc.problems()
    assert words.startswith("conf.d/10-a.yaml:2:") and "is_schedule_active is true and so is paused" in words


def test_what_is_not_stated_of_a_schedule(etc: ConfigDir) -> None:
    text = "deployments:\n  - {name: a, entrypoint: 'flows/etl.py:nightly', schedules: [{cron: '@daily'}, %s]}\n"
    schedules = etc.one(text % "{cron: '@hourly', active: false}").schedules
    assert [schedule.active for schedule in schedules] == [None, False]
