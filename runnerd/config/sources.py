"""Reads `source:` of a deployment: where its code is pulled from."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from runnerd.config.run_settings import make_path_reader
from runnerd.config.sections import (
    Flaws,
    Table,
    Values,
    make_duration_reader,
    read_as_is,
    read_finite_size,
    read_line,
    read_section,
)
from runnerd.config.yaml_nodes import Map
from runnerd.core.place import Json
from runnerd.core.source import Source

_KINDS = ("git", "remote", "directory")
_ONE_OF = (("branch", "tag", "commit"), ("credentials_file", "credential", "credentials_block"))
_DAY_S = 86400.0
_SIZE_LEAST, _SIZE_MOST = 2**10, 2**40


def read_source(deployment: Map, base: str, flaws: Flaws) -> Source | None:
    """Read the source of a deployment; None without one, and where it has flaws, which are added to `flaws`."""
    node = deployment.get("source")
    if not isinstance(node, Map) or flaws.at("source"):
        return None
    kinds = [kind for kind in _KINDS if node.get(kind) is not None]
    if len(kinds) != 1:
        flaws.add(("source",), "source: write exactly one of git, remote and directory", node.place())
        return None
    (kind,) = kinds
    values = read_section(node, _table(base), ("source",), flaws)
    if kind == "git":
        values = _read_git(node["git"], base, flaws).over(values)
    _refuse_by_kind(node, kind, flaws)
    if flaws.any_in("source"):
        return None
    return Source(**{"kind": kind, **values.arguments()})


def check_source(deployment: Map, source: Source, flaws: Flaws) -> None:
    """Refuse what a deployment with a source cannot have."""
    code = str(deployment.get("entrypoint") or "")
    path = code.rpartition(":")[0]
    leaves = os.path.isabs(path) or os.path.normpath(path).startswith("..")
    if source.is_pulled and path.endswith(".py") and leaves:
        message = f"entrypoint: {path!r} is not in the tree of the source; write a path relative to that"
        flaws.add(("entrypoint",), message, deployment.value_place("entrypoint"))
    run = deployment.get("run")
    if isinstance(run, Map) and run.get("working_directory") is not None:
        message = "run.working_directory: the flow runs in the tree of its source; remove one of the two"
        flaws.add(("run", "working_directory"), message, run.key_place("working_directory"))
    for key, words in (("pull", "pull steps"), ("work_pool", "a work pool, whose workers run pull steps")):
        holder = deployment.get(key)
        if holder and not (key == "work_pool" and isinstance(holder, Map) and not holder.get("name")):
            flaws.add(("source",), f"source: cannot be with {words}; remove one", deployment.key_place("source"))


def in_source(values: Values, source: Source | None) -> Values:
    """Return the values of run: with the directory of the source; of one that is pulled, the tree comes later."""
    if source is None:
        return values
    return Values({"working_directory": source.url if source.kind == "directory" else "/"}).over(
        values.without("working_directory")
    )


def _table(base: str) -> Table:
    interval = make_duration_reader(least_s=1, most_s=_DAY_S)
    return {
        "remote": ("url", _read_url),
        "directory": ("url", make_path_reader(base)),
        "pull_interval": ("pull_interval_s", interval),
        "time_limit": ("time_limit_s", interval),
        "size_max": ("size_max_bytes", _read_size),
    }


def _read_size(value: Json) -> int:
    size = read_finite_size(value)
    if not _SIZE_LEAST <= size <= _SIZE_MOST:
        raise ValueError(f"must be between 1K and 1T, not {value!r}")
    return size


def _read_git(node: Map, base: str, flaws: Flaws) -> Values:
    path = ("source", "git")
    table: Table = {
        "url": ("url", _read_url),
        **{key: (key, read_line) for key in ("branch", "tag", "commit", "credential", "credentials_block")},
        "include_submodules": ("include_submodules", read_as_is),
        "directories": ("directories", lambda value: tuple(read_line(one) for one in value)),
        "credentials_file": ("credentials_file", make_path_reader(base)),
    }
    for keys in _ONE_OF:
        said = [key for key in keys if node.get(key) is not None]
        if len(said) > 1:
            message = f"source.git: {said[1]} excludes {said[0]}; remove one"
            flaws.add((*path, said[1]), message, node.key_place(said[1]))
    values = read_section(node, table, path, flaws)
    needs_http = next((key for key in _ONE_OF[1] if node.get(key) is not None), None)
    if needs_http and not str(values.values.get("url", "http")).startswith("http"):
        message = f"source.git.{needs_http} is for http and https; over ssh the keys of the user in ~/.ssh are used"
        flaws.add((*path, needs_http), message, node.key_place(needs_http))
    return values


def _read_url(value: Json) -> str:
    """Read a URL that has no password. Raises ValueError."""
    text = read_line(value)
    try:
        parts = urlsplit(text)
        has_password = parts.password is not None
    except ValueError as error:
        raise ValueError(f"is not a URL: {error}") from None
    if has_password or (parts.username and parts.scheme in ("http", "https")):
        raise ValueError(
            "must not have credentials in it; put user:password into a file and name it in credentials_file"
        )
    if parts.scheme in ("http", "https", "ssh") and (not parts.hostname or parts.hostname.startswith("-")):
        raise ValueError("has no host")
    return text


def _refuse_by_kind(node: Map, kind: str, flaws: Flaws) -> None:
    if kind != "directory":
        return
    for key in ("pull_interval", "time_limit", "size_max"):
        if node.get(key) is not None:
            flaws.add(("source", key), f"source.{key}: a directory is not pulled; remove it", node.key_place(key))
