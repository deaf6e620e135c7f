"""Reads a `notices:` section, of a deployment or of the host.

Invariant: no message quotes a URL, which may be a secret.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import urlsplit

from runnerd.config.command_lines import read_command, refuse_unknown_placeholder
from runnerd.config.run_settings import make_path_reader
from runnerd.config.sections import Reader, Table, make_duration_reader, sentence
from runnerd.core.json_words import show_value
from runnerd.core.names import UNFIT
from runnerd.core.notices import TEMPLATES, NoticeEvent, Notices, NoticeTarget
from runnerd.core.place import Json
from runnerd.core.run_placeholders import fill, has_placeholder
from runnerd.core.units import format_duration

_KINDS = ("command", "post", "post_file")
_OF_POSTS = ("template", "token_file")
TIMEOUT_MAX_S = 3600.0


def make_notices_table(base: str) -> Table:
    """Make the table of a notices: section; `base` is the configuration directory."""
    return {event.value: (event.value, _make_reader(base)) for event in NoticeEvent}


def _make_reader(base: str) -> Reader:
    path = make_path_reader(base)
    readers: Table = {
        "command": ("command", read_command),
        "post": ("post", read_post_url),
        "post_file": ("post_file", lambda value: _read_post_file(value, path)),
        "token_file": ("token_file", path),
        "template": ("template", _read_template),
        "timeout": ("timeout_s", make_duration_reader(least_s=1, most_s=TIMEOUT_MAX_S)),
    }

    def read(value: Json) -> tuple[NoticeTarget, ...]:
        return tuple(_read_target(f"[{index}]", item, readers) for index, item in enumerate(value))

    return read


def _read_target(where: str, item: Json, readers: Table) -> NoticeTarget:
    said = {key: value for key, value in item.items() if value is not None}
    kinds = [key for key in _KINDS if key in said]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none of them"
        raise ValueError(f"{where} needs exactly one of {', '.join(_KINDS)}, and has {found}")
    vain = next((key for key in _OF_POSTS if key in said and kinds == ["command"]), None)
    if vain is not None:
        raise ValueError(f"{where} has {vain}, which only a post has; remove it")
    values: dict[str, Json] = {}
    for key, value in said.items():
        name, reader = readers[key]
        try:
            values[name] = reader(value)
        except ValueError as error:
            raise ValueError(sentence(f"{where}.{key}", str(error))) from None
    return NoticeTarget(**values)


def _read_post_file(value: Json, path: Reader) -> str:
    if "://" in value:
        raise ValueError("must be the path of a file that holds the URL; a URL itself is written as post")
    read: str = path(value)
    return read


def read_post_url(value: Json) -> str:
    """Read the URL of a post. Raises ValueError, without the URL in its text."""
    text = str(value).strip()
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or UNFIT.search(text) or " " in text or not text.isascii():
        raise ValueError("must be an http or https URL in ASCII, as in https://HOST/PATH")
    return text


def _read_template(value: Json) -> str:
    text = str(value)
    if text in TEMPLATES:
        return text
    if not has_placeholder(text):
        raise ValueError(f"{show_value(text)} is none of {', '.join(TEMPLATES)}, and has no {{{{ run.name }}}}")
    refuse_unknown_placeholder(text)
    if is_json(text):
        try:
            json.loads(fill(text, {}))
        except ValueError:
            raise ValueError("begins like JSON and is none; in JSON, a placeholder stands between quotes") from None
    return text


def is_json(template: str) -> bool:
    """Whether the text of a body is JSON, by its first character."""
    start = template.lstrip()[:2]
    return start[:1] in ("{", "[") and start != "{{"  # which begins a placeholder, and no JSON


def describe_notices(notices: Notices) -> dict[str, Json]:
    """Describe notices as in the files, without secrets."""
    return {event.value: describe_targets(notices.get(event, ())) for event in NoticeEvent}


def describe_targets(targets: Iterable[NoticeTarget]) -> list[Json] | None:
    """Describe the targets of one event; None without one."""
    return [_describe(one) for one in targets] or None


def _describe(target: NoticeTarget) -> dict[str, Json]:
    from_said = {
        "command": list(target.command) or None,
        "post": None if target.post is None else f"{target.shown.removeprefix('POST to ')}/***",
        "post_file": target.post_file,
        "token_file": target.token_file,
        "template": None if target.command else target.template,
        "timeout": format_duration(target.timeout_s),
    }
    return {key: value for key, value in from_said.items() if value is not None}
