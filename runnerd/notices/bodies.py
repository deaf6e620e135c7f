"""Makes the body and the headers of the HTTP POST of a notice, by its template. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from email.header import Header

from runnerd.config.notices import is_json
from runnerd.core.notices import Notice, NoticeEvent
from runnerd.core.place import Json
from runnerd.core.run_placeholders import document_text, fill, one_line, quote_in_json

_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"
_SLACK_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # what Slack asks for: all else is plain
_NTFY_PRIORITY = {NoticeEvent.ON_FAILURE: "high", NoticeEvent.ON_CRASH: "high"}
_NTFY_TAGS = {NoticeEvent.ON_SUCCESS: "white_check_mark"}
_DOES = {
    NoticeEvent.ON_FAILURE: "failed",
    NoticeEvent.ON_CRASH: "crashed",
    NoticeEvent.ON_CANCEL: "was cancelled",
    NoticeEvent.ON_SUCCESS: "completed",
    NoticeEvent.ON_LATE: "is late",
}


def make_body(notice: Notice) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers that go with it."""
    document, template = notice.document, notice.target.template
    match template:
        case "raw":
            return document_text(document).encode(), {"Content-Type": _JSON}
        case "slack":
            return json.dumps({"text": _escape(f"{_title(notice)}{_details(document)}")}).encode(), {
                "Content-Type": _JSON
            }
        case "ntfy":
            return _ntfy(notice)
        case "alertmanager":
            return json.dumps([_alert(notice)]).encode(), {"Content-Type": _JSON}
    if is_json(template):
        return fill(template, document, quote=quote_in_json).encode(), {"Content-Type": _JSON}
    return fill(template, document).encode(), {"Content-Type": _TEXT}


def _title(notice: Notice) -> str:
    """Say in one line what has happened: `etl/nightly: run silver-fox failed on build-07`."""
    document = notice.document
    of = "/".join(one_line(document.get(key)) for key in ("flow", "deployment") if document.get(key) not in (None, "?"))
    what = f"run {one_line(document.get('name'))} {_DOES[notice.event]} on {one_line(document.get('host'))}"
    return f"{of}: {what}" if of else what


def _details(document: Mapping[str, Json]) -> str:
    words = one_line(document.get("words"))
    return f": {words}" if words else ""


def _escape(text: str) -> str:
    return "".join(_SLACK_ESCAPES.get(character, character) for character in text)


def _ntfy(notice: Notice) -> tuple[bytes, dict[str, str]]:
    """Make a message of ntfy: a text with headers, of which those in other alphabets are encoded by RFC 2047."""
    title = _title(notice)
    headers = {
        "Content-Type": _TEXT,
        "Title": title if title.isascii() else Header(title, "utf-8", maxlinelen=10**6).encode(),
        "Priority": _NTFY_PRIORITY.get(notice.event, "default"),
        "Tags": _NTFY_TAGS.get(notice.event, "warning"),
    }
    state, words = one_line(notice.document.get("api_state_name")), one_line(notice.document.get("words"))
    return (": ".join(part for part in (state, words) if part) or title).encode(), headers


def _alert(notice: Notice) -> dict[str, Json]:
    """Make an alert of Alertmanager's API v2; one for a success has ended already, which resolves nothing else."""
    document = notice.document
    at = document.get("ended_at") or document.get("due_at") or document.get("created_at")
    labels = {
        "alertname": "RunnerdRun" + _DOES[notice.event].removeprefix("was ").removeprefix("is ").title(),
        "event": notice.event.value,
        "host": one_line(document.get("host")),
        "flow": one_line(document.get("flow")),
        "deployment": one_line(document.get("deployment")),
        "run": one_line(document.get("id")),
    }
    alert: dict[str, Json] = {
        "labels": {name: value for name, value in labels.items() if value},
        "annotations": {"summary": _title(notice), "description": one_line(document.get("words"))},
    }
    if at:
        alert["startsAt"] = at
    if at and notice.event is NoticeEvent.ON_SUCCESS:
        alert["endsAt"] = at
    return alert
