"""Compares the settings of the host before and after a reload, key by key.

Pure. No value that may be a secret leaves this module: what headers and URLs hold is compared, and never shown.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from runnerd.config.notices import describe_targets
from runnerd.config.show import HIDDEN, describe_settings
from runnerd.core.place import Json, Place, Problem, place_document
from runnerd.core.settings import Config, Settings

_FIXED = {"api.url": "url", "api.headers": "headers", "api.request_timeout": "request_timeout_s"}
# Credentials belong to the server of api.url: those of the next one are not sent to the present one.
_OF_THE_URL = {"api.key_file": "key_file", "api.auth_string_file": "auth_string_file"}
_HEADERS = "api.headers"
_NOTICES = "notices."


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """Says that a key of the host has another value; the values are as in `runnerctl config show`.

    `restart`: the change takes effect at a restart of runnerd. `place`: of the new value, None where no file has it.
    """

    key: str
    old: Json
    new: Json
    restart: bool = False
    place: Place | None = None

    def document(self) -> Json:
        """Return the document of this change in the answer to a reload."""
        about = {"key": self.key, "old": self.old, "new": self.new, "restart": self.restart}
        return {**about, **place_document(self.place)}


def list_host_changes(old: Settings, new: Config) -> list[KeyChange]:
    """List the keys of the host that differ, in the order of `runnerctl config show`."""
    before, after = _flat(old), _flat(new.settings)
    fixed = _fixed_fields(old, new.settings)
    return [
        KeyChange(
            key=key,
            old=_shown(key, before.get(key)),
            new=_shown(key, after.get(key)),
            restart=_root(key) in fixed,
            place=new.places.get(_root(key)),
        )
        for key in {**before, **after}
        if before.get(key) != after.get(key)
    ]


def list_restart_needed(changes: Collection[KeyChange]) -> tuple[Problem, ...]:
    """Report the changes that a reload cannot put in force, one problem for each key of the files."""
    found = {_root(change.key): change.place for change in changes if change.restart}
    words = "takes effect at a restart only; until then the old value stays in force: systemctl restart runnerd"
    return tuple(Problem(message=f"{key} {words}", place=place) for key, place in found.items())


def with_fixed_settings(old: Config, new: Config) -> Config:
    """Return `new` with those settings of `old` that change at a restart of the daemon only."""
    fixed = _fixed_fields(old.settings, new.settings)
    values = {field: getattr(old.settings.api, field) for field in fixed.values()}
    api = replace(new.settings.api, **values)
    places = {key: place for key, place in new.places.items() if key not in fixed}
    places |= {key: place for key, place in old.places.items() if key in fixed}
    return replace(new, settings=replace(new.settings, api=api), places=places)


def _fixed_fields(old: Settings, new: Settings) -> dict[str, str]:
    """Return the keys that a reload does not change, each with the name of its field in ApiSettings."""
    return _FIXED if old.api.url == new.api.url else {**_FIXED, **_OF_THE_URL}


def _flat(settings: Settings) -> dict[str, Json]:
    """Return each key with its value; the items of a map, such as a header or the limit of a tag, one by one."""
    found: dict[str, Json] = {}
    for section, content in describe_settings(settings).items():
        for key, value in content.items() if isinstance(content, dict) else [("", content)]:
            name = f"{section}.{key}" if key else section
            found |= {f"{name}.{item}": of for item, of in value.items()} if isinstance(value, dict) else {name: value}
    # As they are, because what is shown of a header or of a URL may be the same for another one.
    headers = {f"{_HEADERS}.{name}": value for name, value in settings.api.headers.items()}
    return found | headers | {f"{_NOTICES}{event}": targets or None for event, targets in settings.notices.items()}


def _root(key: str) -> str:
    """Return the key of the files that has this item: `limits.tags` for `limits.tags.gpu`."""
    return ".".join(key.split(".", 2)[:2])


def _shown(key: str, value: Json) -> Json:
    if key.startswith(_NOTICES):
        return describe_targets(value or ())
    return HIDDEN if value is not None and _root(key) == _HEADERS else value
