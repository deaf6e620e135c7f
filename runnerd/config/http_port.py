"""Reads the section http, and refuses what would let everybody in the network use this host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping

from runnerd.config.sections import Flaws, Values
from runnerd.core.json_words import show_value
from runnerd.core.place import Json

HTTP_FILES = ("token_file", "certificate", "key")
_ADDRESS = re.compile(r"(?:([0-9.]{7,15}|localhost)|\[([0-9A-Fa-f:.]{2,45})\]):([0-9]{1,5})")
_NEEDED = "every request to it needs a token; set http.token_file in the same file, or write 127.0.0.1:9464"


def read_listen(value: Json) -> tuple[str, int]:
    """Read an address with its port. Raises ValueError."""
    match = _ADDRESS.fullmatch(str(value))
    host = (match[1] or match[2]) if match is not None else ""
    if match is None or not 0 < int(match[3]) < 65536 or not _is_address(host):
        raise ValueError(f"{show_value(value)} is not an address and port; write 127.0.0.1:9464")
    return host, int(match[3])


def _is_address(host: str) -> bool:
    try:
        return host == "localhost" or bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def is_loopback(host: str) -> bool:
    """Whether only this host can connect to this address of http.listen."""
    return host == "localhost" or ipaddress.ip_address(host).is_loopback


def refuse_open_port(
    merged: dict[str, Values], base: Mapping[str, Values], over: Mapping[str, Values], flaws: Flaws
) -> dict[str, Values]:
    """Refuse the http section of `over` if it lacks a token for an address of others, or a certificate for its key."""
    http = merged.get("http", Values())
    listen, own = http.values.get("listen"), over.get("http", Values())
    wrong = None
    if listen is not None and not is_loopback(listen[0]) and http.values.get("token_file") is None:
        key = "listen" if "listen" in own.values else "token_file"
        wrong = key, f"{listen[0]} is no loopback address, so {_NEEDED}"
    elif http.values.get("key") is not None and http.values.get("certificate") is None:
        wrong = "key", "has no effect without http.certificate; set it in the same file"
    if wrong is None or wrong[0] not in own.values:
        return merged
    key, words = wrong
    joint = " " if words.startswith("has ") else ": "
    flaws.add(("http", key), f"http.{key}{joint}{words}", own.places.get(key))
    return {**merged, "http": base.get("http", Values())}
