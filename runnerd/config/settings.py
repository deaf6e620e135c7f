"""Reads the sections of a file that are about the host, and merges those of all files into Settings.

Invariant: sections are merged in the order of the files; when an api section would leave two ways to log in, that
section is refused, not the whole configuration.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from runnerd.config.automations import FIELD as AUTOMATIONS
from runnerd.config.automations import read_automations
from runnerd.config.http_port import HTTP_FILES, read_listen, refuse_open_port
from runnerd.config.notices import make_notices_table
from runnerd.config.run_settings import make_path_reader, make_run_table, read_run
from runnerd.config.sections import (
    Flaws,
    Table,
    Values,
    make_duration_reader,
    read_as_is,
    read_duration,
    read_finite_size,
    read_line,
    read_positive_size,
    read_section,
    read_text_map,
    read_whole,
    restore_values,
)
from runnerd.config.units import parse_rate
from runnerd.config.yaml_nodes import Map
from runnerd.core.place import Json, Place
from runnerd.core.settings import (
    EMBEDDED,
    UNBOUNDED_BYTES,
    ApiSettings,
    ControlSettings,
    HttpSettings,
    JournalSettings,
    LateSettings,
    LimitSettings,
    OutputSettings,
    Settings,
    StopSettings,
    WarmSettings,
)

Sections = Mapping[str, Values]

DAY_S = 86400.0
_MAIN_ONLY = ("control", "notices")
_RATE_MIN_PER_S, _RATE_MAX_PER_S = 1 / 3600, 1000
# Headers that the HTTP library makes for each request; another value would break the connection.
_FRAMING = frozenset(("connection", "content-length", "expect", "te", "trailer", "transfer-encoding", "upgrade"))
_CLOUD = re.compile(r"/api/accounts/[^/]+/workspaces/[^/]+")


class SettingsReader:
    """Reads the sections of the files of one configuration directory."""

    def __init__(self, base: str) -> None:
        path = make_path_reader(base)
        self.run_table = make_run_table(base)
        self.tables: dict[str, Table] = {
            "api": {
                "url": ("url", read_api_url),
                "key_file": ("key_file", path),
                "auth_string_file": ("auth_string_file", path),
                "headers": ("headers", _headers),
                "poll_interval": ("poll_interval_s", make_duration_reader(least_s=0.1, most_s=DAY_S)),
                "poll_burst": ("poll_burst_per_s", _rate),
                "prefetch": ("prefetch_s", make_duration_reader(least_s=0, most_s=DAY_S)),
                "request_timeout": ("request_timeout_s", make_duration_reader(least_s=1, most_s=DAY_S)),
            },
            "limits": {
                "runs": ("runs", read_whole),
                "start_rate": ("start_rate_per_s", _rate),
                "tags": ("tags", dict),
            },
            "stop": {
                "drain_timeout": ("drain_timeout_s", read_duration),
                "then": ("then", read_as_is),
                "pause_schedules": ("pause_schedules", read_as_is),
            },
            "late": {"after": ("after_s", read_duration), "policy": ("policy", read_as_is)},
            "journal": {"keep": ("keep_s", read_duration), "max_runs": ("max_runs", read_whole)},
            "output": {"journal": ("journal", read_as_is), "max_total": ("max_total_bytes", _total_size)},
            "warm": {
                "idle": ("idle_s", make_duration_reader(least_s=1)),
                "interpreters": ("interpreters", read_whole),
                "min_free_memory": ("min_free_memory_bytes", read_finite_size),
            },
            "control": {key: (key, _groups) for key in ("admins", "operators", "readers")},
            "http": {"listen": ("listen", read_listen), **{key: (key, path) for key in HTTP_FILES}},
            "notices": make_notices_table(base),
        }

    def sections(self, node: Map, flaws: Flaws, *, is_main: bool) -> dict[str, Values]:
        """Read the sections; `name` only in runnerd.yaml, because a prefect.yaml has the project's name there."""
        found = {name: read_section(node.get(name), table, (name,), flaws) for name, table in self.tables.items()}
        found["run"] = read_run(node.get("run"), self.run_table, ("run",), flaws)
        found["automations"] = read_automations(node, flaws)
        # A drop-in that cannot be read is left out: a host must not open up by that, nor fall silent.
        for name in _MAIN_ONLY if not is_main else ():
            if found[name].values:
                flaws.add((name,), f"{name} is read only from runnerd.yaml; move it there", node.key_place(name))
                del found[name]
        if is_main:
            found["host"] = read_section(node, {"name": ("name", _host_name)}, (), flaws)
        if found["api"].values.get("url", "") is None:
            found["api"] = found["api"].without("url")  # null cannot unset the URL, because every host needs one
        return {name: values for name, values in found.items() if values.values}

    def places(self, sections: Sections) -> dict[str, Place]:
        """Return where each key about the host is written, by its name, such as `api.key_file`; unset ones are not."""
        found = {}
        for name, table in self.tables.items():
            values = sections.get(name, Values())
            for key, (field, _) in table.items():
                if values.values.get(field) is not None and field in values.places:
                    found[f"{name}.{key}"] = values.places[field]
        host = sections.get("host", Values())
        if (its := sections.get("automations", Values()).places.get(AUTOMATIONS)) is not None:
            found["automations"] = its
        return {**found, **host.places}

    def restore(self, path: str, said: Json) -> dict[str, Values]:
        """Restore the sections that the drop-in at `path` had at an earlier load, as that load's Config holds them.

        They come from memory, or as plain JSON from the journal. What this version does not know is left out: another
        version may have written the journal, and what cannot be restored must not end a start.
        """
        if not isinstance(said, Mapping):
            return {}
        tables = {**self.tables, "run": self.run_table, "automations": {"": (AUTOMATIONS, read_as_is)}}
        known = {
            name: {field for field, _ in table.values()} for name, table in tables.items() if name not in _MAIN_ONLY
        }
        found = {name: restore_values(path, said[name], names) for name, names in known.items() if name in said}
        return {name: values for name, values in found.items() if values.values}


def overlay(base: Sections, over: Sections, flaws: Flaws) -> dict[str, Values]:
    """Merge `over` over `base`; refuse an api section that would leave two ways to log in."""
    merged = {name: over.get(name, Values()).over(base.get(name, Values())) for name in {**base, **over}}
    api = merged.get("api", Values())
    if api.values.get("key_file") and api.values.get("auth_string_file"):
        key = next(key for key in ("auth_string_file", "key_file") if key in over["api"].values)
        other = "key_file" if key == "auth_string_file" else "auth_string_file"
        message = f"cannot have both api.{key} and api.{other} ({api.places[other]}); remove one"
        flaws.add(("api", key), message, api.places[key])
        merged["api"] = base.get("api", Values())
    return refuse_open_port(merged, base, over, flaws)


def make_settings(sections: Sections, *, hostname: str, api_url: str) -> Settings:
    """Make the Settings of all sections; `hostname` and `api_url` are the defaults of name and api.url."""

    def said(name: str) -> dict[str, Json]:
        return sections.get(name, Values()).arguments()

    return Settings(
        name=said("host").get("name", hostname),
        api=ApiSettings(**{"url": api_url, **said("api")}),
        limits=LimitSettings(**said("limits")),
        stop=StopSettings(**said("stop")),
        late=LateSettings(**said("late")),
        journal=JournalSettings(**said("journal")),
        output=OutputSettings(**said("output")),
        warm=WarmSettings(**said("warm")),
        control=ControlSettings(**said("control")),
        notices=said("notices"),
        http=HttpSettings(**said("http")),
        automations=said("automations").get(AUTOMATIONS, {}),
    )


def read_api_url(value: Json) -> str:
    """Read a URL, without a trailing slash. Raises ValueError for one that is not Prefect's API."""
    text = read_line(value).strip().rstrip("/")
    if text == EMBEDDED:
        return text
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is not a URL ({error}); write http://HOST:4200/api, or embedded") from None
    if parts.scheme not in ("http", "https") or not host or " " in text:
        raise ValueError(f"{str(value)!r} is not an http or https URL; write http://HOST:4200/api, or embedded")
    if "@" in parts.netloc:
        raise ValueError(
            "must not have credentials in it; put user:password into a file and name the file in auth_string_file"
        )
    if parts.query or parts.fragment:
        raise ValueError(f"{text!r} has a query or fragment; write {_bare(text)}")
    if not (parts.path.endswith("/api") or _CLOUD.fullmatch(parts.path)):
        raise ValueError(f"{text!r} is not Prefect's API; {_right_url(host, parts.path, _bare(text))}")
    return text


def _bare(text: str) -> str:
    return text.split("?")[0].split("#")[0]


def _right_url(host: str, path: str, text: str) -> str:
    if host.endswith("prefect.cloud"):
        return "write https://api.prefect.cloud/api/accounts/ACCOUNT/workspaces/WORKSPACE (see: prefect config view)"
    return f"it ends in /api: {text}/api" if not path else "it ends in /api, as in http://HOST:4200/api"


def _host_name(value: Json) -> str:
    name = read_line(value)
    if "/" in name or "%" in name:
        raise ValueError(f"must not have '/' or '%' in it, as in {name!r}")
    return name


def _rate(value: Json) -> float:
    rate = parse_rate(value)
    if not _RATE_MIN_PER_S <= rate <= _RATE_MAX_PER_S:
        raise ValueError(f"must be between 1/h and {_RATE_MAX_PER_S}/s, not {value!r}")
    return rate


def _headers(value: Json) -> dict[str, str | None]:
    framing = next((name for name in value if name.lower() in _FRAMING), None)
    if framing is not None:
        raise ValueError(f"{framing!r} cannot be set: it says where a request ends; remove it")
    return read_text_map(value)


def _total_size(value: Json) -> int:
    size = read_positive_size(value)
    return UNBOUNDED_BYTES if size is None else size


def _groups(value: Json) -> tuple[str, ...]:
    return tuple(read_line(item) for item in value)
