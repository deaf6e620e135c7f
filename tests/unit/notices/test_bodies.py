"""notices/bodies.py: what Slack, ntfy and Alertmanager get, and bodies of one's own."""

from __future__ import annotations

import json

import pytest

from runnerd.core.notices import NoticeEvent
from runnerd.notices.bodies import make_body
from tests.kits.notices import DOCUMENT, a_notice, a_target


def body(template: str, event: NoticeEvent = NoticeEvent.ON_CRASH, **changes: object) -> tuple[str, dict[str, str]]:
    notice = a_notice(target=a_target(template=template), event=event, document={**DOCUMENT, **changes})
    content, headers = make_body(notice)
    return content.decode(), headers


def test_raw_is_the_run() -> None:
    content, headers = body("raw")
    assert (json.loads(content), headers) == (DOCUMENT, {"Content-Type": "application/json"})


def test_slack_gets_a_text_that_is_no_markup_of_the_run_s() -> None:
    content, _ = body("slack", words="<!channel> & more")
    assert json.loads(content) == {
        "text": "etl/nightly: run silver-fox crashed on host-1: &lt;!channel&gt; &amp; more",
    }


def test_ntfy_gets_headers_in_ascii() -> None:
    content, headers = body("ntfy", name="später\nX-Evil: 1")
    assert content == "Crashed: killed by SIGKILL"
    assert headers["Title"].isascii()
    assert "\n" not in headers["Title"]
    assert (headers["Priority"], headers["Tags"]) == ("high", "warning")
    assert body("ntfy")[1]["Title"] == "etl/nightly: run silver-fox crashed on host-1"
    assert body("ntfy", NoticeEvent.ON_SUCCESS)[1]["Priority"] == "default"


def test_alertmanager_gets_an_alert_with_labels() -> None:
    (alert,) = json.loads(body("alertmanager")[0])
    assert alert["labels"] == {
        "alertname": "RunnerdRunCrashed",
        "event": "on_crash",
        "host": "host-1",
        "flow": "etl",
        "deployment": "nightly",
        "run": "r-1",
    }
    assert alert["annotations"]["description"] == "killed by SIGKILL"
    assert (alert["startsAt"], "endsAt" in alert) == ("2025-01-01T12:00:00.000Z", False)
    (done,) = json.loads(body("alertmanager", NoticeEvent.ON_SUCCESS)[0])
    assert done["endsAt"] == done["startsAt"], "a success is no alert that goes on"


@pytest.mark.parametrize("event", NoticeEvent)
def test_every_event_has_its_words(event: NoticeEvent) -> None:
    for template in ("slack", "ntfy", "alertmanager"):
        assert body(template, event)[0]


def test_a_text_of_one_s_own() -> None:
    content, headers = body("{{ run.name }} is {{run.api_state_name}}{{ run.pool }}")
    assert (content, headers) == ("silver-fox is Crashed", {"Content-Type": "text/plain; charset=utf-8"})


def test_json_of_one_s_own_stays_json_whatever_a_run_is_named() -> None:
    content, headers = body('{"message": "{{ run.name }}"}', name='a"b\\c\nd')
    assert json.loads(content) == {"message": 'a"b\\c d'}
    assert headers == {"Content-Type": "application/json"}
