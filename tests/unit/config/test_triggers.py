"""triggers of a deployment: what Prefect fills in is filled in, what it ignores is refused with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from runnerd.config import describe_config
from runnerd.core.settings import Deployment
from tests.kits.config import RIGHT, ConfigDir

EVENT = {
    **{"type": "event", "match": {}, "match_related": {}, "after": [], "expect": [], "for_each": []},
    **{"posture": "Reactive", "threshold": 1, "within": 0.0},
}
OWN = {
    **{"name": "a__automation_1", "description": "", "enabled": True},
    **{"parameters": None, "job_variables": None, "schedule_after": 0.0},
}


@pytest.fixture
def etc(tmp_path: Path) -> ConfigDir:
    return ConfigDir(tmp_path / "etc")


def with_triggers(text: str) -> str:
    return f"{RIGHT}    triggers: {text}\n"


def one(etc: ConfigDir, text: str) -> Deployment:
    return etc.one(with_triggers(text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("[{}]", {}),
        ("[{name: n, description: d, enabled: false}]", {"name": "n", "description": "d", "enabled": False}),
        (
            "[{expect: [b, a, b], match: {prefect.resource.id: 'x.*'}, within: 5m, threshold: 3}]",
            {"expect": ["a", "b"], "match": {"prefect.resource.id": "x.*"}, "within": 300.0, "threshold": 3},
        ),
        (
            "[{match: {a: [x, y]}, match_related: [{b: z}]}]",
            {"match": {"a": ["x", "y"]}, "match_related": [{"b": "z"}]},
        ),
        ("[{within: PT1H5M, schedule_after: P1DT0.5S}]", {"within": 3900.0, "schedule_after": 86400.5}),
        ("[{posture: Proactive}]", {"posture": "Proactive", "within": 10.0}),
        ("[{posture: Proactive, within: 60}]", {"posture": "Proactive", "within": 60.0}),
        ("[{parameters: {at: '{{ event.occurred }}'}}]", {"parameters": {"at": "{{ event.occurred }}"}}),
        ("[{job_variables: {image: '{{ $HOME }}'}}]", {"job_variables": {"image": "{{ $HOME }}"}}),
    ],
)
def test_an_event_trigger_has_every_key(etc: ConfigDir, text: str, wanted: dict[str, Any]) -> None:
    assert one(etc, text).triggers == ({**OWN, **EVENT, **wanted},)


def test_triggers_are_numbered_and_their_kinds_inferred(etc: ConfigDir) -> None:
    text = """
    - {triggers: [{}, {type: sequence, triggers: [{expect: [x]}]}], require: all, within: 10}
    - {triggers: [{}]}
    - posture: Metric
      metric: {name: lateness, threshold: 1.5, operator: '>', range: 10m}"""
    compound, sequence, metric = one(etc, text).triggers
    inner = {"type": "sequence", "triggers": [{**EVENT, "expect": ["x"]}], "within": None}
    assert compound == {**OWN, "type": "compound", "triggers": [EVENT, inner], "within": 10.0, "require": "all"}
    assert sequence == {**OWN, "name": "a__automation_2", "type": "sequence", "triggers": [EVENT], "within": None}
    query = {"name": "lateness", "threshold": 1.5, "operator": ">", "range": 600.0, "firing_for": 300.0}
    about = {"type": "metric", "match": {}, "match_related": {}, "posture": "Metric", "metric": query}
    assert metric == {**OWN, "name": "a__automation_3", **about}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{expects: [a]}]", "4:17: unknown key 'expects' in a trigger; did you mean 'expect'?"),
        ("[{expect: a}]", "4:25: triggers[0].expect must be a list, not 'a'"),
        ("[{match: {a: 1}}]", "4:28: triggers[0].match.a must be text, or a list of texts, not 1; quote it"),
        (
            "[{posture: proactive}]",
            (
                "4:26: triggers[0].posture must be one of Reactive, Proactive, Metric, not 'proactive'; "
                "did you mean 'Proactive'?"
            ),
        ),
        ("[{posture: Proactive, within: 9}]", "4:45: triggers[0].within must be at least 10s for posture Proactive"),
        ("[{within: infinity}]", "4:25: triggers[0].within must be a time that ends, not 'infinity'"),
        (
            "[{within: soon}]",
            ("4:25: triggers[0].within: 'soon' is not a duration such as 90 (seconds), 10s, 5m, 2h or 1h 30m"),
        ),
        ("[{within: -1}]", "4:25: triggers[0].within must be at least 0 seconds, not -1"),
        ("[{type: compound, triggers: [{}]}]", "4:16: triggers[0]: a trigger of type compound needs 'require'"),
        ("[{type: metric}]", "4:16: triggers[0]: a trigger of type metric needs 'metric'"),
        ("[{triggers: [{}], require: 2}]", "4:42: triggers[0].require must be at most 1, the number of its triggers"),
        ("[{triggers: [{}], require: no}]", "4:42: triggers[0].require must be any, all or a whole number, not no"),
        ("[{triggers: [{name: x}]}]", "4:29: unknown key 'name' in a trigger"),
        (
            "[{triggers: [{threshold: 2, type: sequence, triggers: [{}]}]}]",
            ("4:29: triggers[0].triggers[0].threshold does not belong to a trigger of type sequence; remove it"),
        ),
        (
            "[{type: event, metric: {name: a, threshold: 1, operator: '<'}}]",
            "4:30: triggers[0].metric does not belong to a trigger of type event; remove it",
        ),
        (
            "[{posture: Metric, metric: {name: a, threshold: 1, operator: '<', range: 1m}}]",
            "4:88: triggers[0].metric.range must be at least 5min",
        ),
        ("[{posture: Metric, metric: {name: a, threshold: 1}}]", "4:42: metric needs 'operator'"),
        (
            "[{expect: ['{{ $EVENT }}']}]",
            (
                "4:26: triggers[0].expect[0]: cannot use {{ $EVENT }}: the environment of prefect deploy "
                "is not that of this host; write the value"
            ),
        ),
        (
            "[{parameters: {a: .nan}}]",
            "4:33: triggers[0].parameters.a: .nan is not a number in JSON; quote it if text is meant",
        ),
        ("[null]", "4:16: triggers[0] must be a map, not null"),
        ("{}", "4:15: triggers must be a list, not a map"),
    ],
)
def test_what_is_wrong_with_a_trigger_has_its_place(etc: ConfigDir, text: str, words: str) -> None:
    etc.write("conf.d/a.yaml", with_triggers(text))
    assert etc.problems() == [f"conf.d/a.yaml:{words}"]


def test_what_is_shown_reads_back_to_the_same(etc: ConfigDir, tmp_path: Path) -> None:
    text = "[{expect: [a], within: 5m}, {triggers: [{}, {posture: Proactive}], require: 1}]"
    deployment = one(etc, text)
    (shown,) = describe_config(etc.load())["deployments"]
    again = {"name": "a", "entrypoint": "flows/etl.py:nightly", "triggers": shown["triggers"]}
    assert ConfigDir(tmp_path / "again").one(yaml.safe_dump({"deployments": [again]})).triggers == deployment.triggers
