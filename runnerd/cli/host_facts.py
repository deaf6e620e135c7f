"""Finds on this host what runnerctl init need not ask for: the API's URL and key, and interpreters with Prefect.

Invariant: no interpreter is run and no module imported, because root may be the one who looks, and any user may have
made what is found; that Prefect is there is seen by its folder.
"""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from runnerd.cli.local_checks import may_read
from runnerd.files.regular import read_regular

LOCAL_SERVER = ("127.0.0.1", 4200)
_PROFILES_MAX_BYTES = 2**20
_CANDIDATES_MAX = 500
_SERVER_S = 2.0
_PLACES = ("/opt/*", "/opt/*/venv", "/opt/*/.venv", "/srv/*/venv", "/srv/*/.venv", "/usr/local", "/usr")
_IN_HOME = (".venv", "venv", "*/.venv", "*/venv")


class Api(NamedTuple):
    """The URL of Prefect's API and where it was found; `key` and `auth_string` where a profile has them."""

    url: str
    source: str
    key: str | None = None
    auth_string: str | None = None


class Interpreter(NamedTuple):
    """An interpreter whose folders have Prefect; `version` is that of Prefect, None where its metadata is not found."""

    python: str
    version: str | None


# --- the API ------------------------------------------------------------------------------------------------------


def find_api(
    environ: Mapping[str, str], *, homes: list[str], server: Callable[[], str | None] | None = None
) -> Api | None:
    """Find the API: in the environment, else in the active profile of the first home that has one, else on this host.

    `server` finds a server on this host.
    """
    if url := environ.get("PREFECT_API_URL"):
        key, auth = environ.get("PREFECT_API_KEY"), environ.get("PREFECT_API_AUTH_STRING")
        return Api(url, "PREFECT_API_URL", key or None, auth or None)
    for path in _profile_files(environ, homes):
        found = read_profile(path, named=environ.get("PREFECT_PROFILE"))
        if found is not None:
            return found
    url = (server or find_local_server)()
    return Api(url, "a server on this host") if url is not None else None


def _profile_files(environ: Mapping[str, str], homes: list[str]) -> Iterator[str]:
    if named := environ.get("PREFECT_PROFILES_PATH"):
        yield named
    if named := environ.get("PREFECT_HOME"):
        yield os.path.join(named, "profiles.toml")
    for home in homes:
        yield os.path.join(home, ".prefect", "profiles.toml")


def read_profile(path: str, *, named: str | None) -> Api | None:
    """Read the active profile of this file, or the `named` one; None without a URL in it, or without a readable file.

    No message quotes the file: it has secrets, and may be a link to another user's.
    """
    try:
        content = tomllib.loads(read_regular(path, max_bytes=_PROFILES_MAX_BYTES).decode())
    except (OSError, ValueError, RecursionError):
        return None
    name = named or content.get("active")
    profiles = content.get("profiles")
    profile = profiles.get(name) if isinstance(profiles, dict) and isinstance(name, str) else None
    if not isinstance(profile, dict):
        return None
    url, key, auth = (profile.get(f"PREFECT_API_{word}") for word in ("URL", "KEY", "AUTH_STRING"))
    if not isinstance(url, str) or not url:
        return None
    secrets = [value if isinstance(value, str) and value else None for value in (key, auth)]
    return Api(url, f"profile {name} of {path}", *secrets)


def find_local_server(address: tuple[str, int] = LOCAL_SERVER) -> str | None:
    """Find Prefect's server at the address where `prefect server start` has it."""
    request = b"GET /api/health HTTP/1.0\r\nHost: localhost\r\n\r\n"
    try:
        with socket.create_connection(address, timeout=_SERVER_S) as connection:
            connection.settimeout(_SERVER_S)
            connection.sendall(request)
            answer = b""
            while len(answer) < 4096 and (block := connection.recv(4096)):
                answer += block
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    is_prefect = b" 200 " in head.partition(b"\r\n")[0] and body.strip() == b"true"
    return f"http://{address[0]}:{address[1]}/api" if is_prefect else None


def find_homes(environ: Mapping[str, str], *, root: bool) -> list[str]:
    """List the home of this user, and before it that of the user who has called sudo."""
    homes = [environ["HOME"]] if environ.get("HOME") else []
    if root and (caller := environ.get("SUDO_USER")):
        try:
            homes.insert(0, pwd.getpwnam(caller).pw_dir)
        except KeyError:
            pass  # a name that only the caller's container knows
    return list(dict.fromkeys(homes))


# --- interpreters -------------------------------------------------------------------------------------------------


def find_interpreters(environ: Mapping[str, str], *, homes: list[str]) -> list[Interpreter]:
    """List the interpreters that have Prefect: of the active environment, in PATH, and in the usual places."""
    found: dict[str, Interpreter] = {}
    for number, prefix in enumerate(_prefixes(environ, homes)):
        if number >= _CANDIDATES_MAX:
            break
        one = look_at(prefix)
        if one is not None:
            found.setdefault(os.path.realpath(prefix), one)
    return list(found.values())


def look_at(prefix: str) -> Interpreter | None:
    """Return the interpreter of this environment if it has Prefect."""
    python = next((path for name in ("python", "python3") if _is_program(path := f"{prefix}/bin/{name}")), None)
    if python is None:
        return None
    for packages in _package_folders(prefix):
        if os.path.isdir(os.path.join(packages, "prefect")):
            metadata = glob.glob(os.path.join(glob.escape(packages), "prefect-*.dist-info"))
            version = os.path.basename(metadata[0])[len("prefect-") : -len(".dist-info")] if metadata else None
            return Interpreter(python, version)
    return None


def _package_folders(prefix: str) -> Iterator[str]:
    place = glob.escape(prefix)
    for pattern in ("lib/python3*/site-packages", "lib/python3*/dist-packages", "local/lib/python3*/dist-packages"):
        yield from sorted(glob.glob(f"{place}/{pattern}"))


def _prefixes(environ: Mapping[str, str], homes: list[str]) -> Iterator[str]:
    if active := environ.get("VIRTUAL_ENV"):
        yield active
    path = environ.get("PATH", "")
    for program in ("prefect", "python3"):
        if (place := shutil.which(program, path=path)) is not None:
            yield os.path.dirname(os.path.dirname(os.path.abspath(place)))
    for pattern in (*_PLACES, *(f"{glob.escape(home)}/{its}" for home in homes for its in _IN_HOME)):
        yield from sorted(glob.glob(pattern))


def _is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def can_reach(path: str, user: str | None) -> bool:
    """Return whether this user may run the file by the modes of its folders; None: this process's user."""
    try:
        if user is None:
            return os.access(path, os.R_OK | os.X_OK)
        account = pwd.getpwnam(user)
        groups = os.getgrouplist(user, account.pw_gid)
        places = [os.path.realpath(path)]
        while places[-1] != "/":
            places.append(os.path.dirname(places[-1]))
        # The folders of the name too: a link may lead from a place that is closed.
        own = os.path.abspath(path)
        while own != "/":
            own = os.path.dirname(own)
            places.append(own)
        return all(may_read(os.stat(place), account.pw_uid, groups) for place in places)
    except (KeyError, OSError):
        return False
