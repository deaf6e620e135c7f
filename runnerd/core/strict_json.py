"""Reads JSON that another program wrote, and refuses what JSON does not have or what a reader could trip over. Pure.

Python's own reader accepts NaN and Infinity, numbers of any length, halves of characters (`"\\ud800"`) and repeated
keys, of which it takes the last one. What this module returns can be written again as JSON and as UTF-8.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

from runnerd.core.names import HALF, cut, describe_character

Json = Any  # not from core/place.py, which loads dataclasses: runnerctl reads JSON with this module

DEPTH_MAX = 100
DIGITS_MAX = 300  # a longer whole number fits into no other program's numbers


def read_json(data: bytes | str) -> Json:
    """Return the value that `data` holds. Raises ValueError with what is wrong with it."""
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        value = json.loads(
            text, parse_constant=_no_constant, parse_float=_float, parse_int=_whole, object_pairs_hook=_map
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check(value)
    return value


_TOO_DEEP = f"lists and maps are nested more than {DEPTH_MAX} deep"


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {cut(text)} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > DIGITS_MAX:
        raise ValueError(f"the number {cut(text)} has {len(text)} digits; write at most {DIGITS_MAX}")
    return int(text)


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?(?:NaN|Infinity)|-?[0-9][0-9.eE+-]*', re.DOTALL)


def find_refused(text: str) -> int | None:
    """Return where the first number of the JSON `text` begins that `read_json` refuses; None when there is none."""
    for found in _TOKEN.finditer(text):
        token = found[0]
        try:
            if token.endswith(("NaN", "Infinity")):
                return found.start()
            if not token.startswith('"'):
                _float(token) if set(token) & set(".eE") else _whole(token)
        except ValueError:
            return found.start()
    return None


def _map(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {json.dumps(cut(twice))} is there twice; remove one")
    return found


def _check(value: Json) -> None:
    """Refuse depth, and halves of characters in keys and texts; without recursion."""
    left: list[tuple[Json, int]] = [(value, 0)]
    while left:
        one, depth = left.pop()
        if isinstance(one, str):
            if not one.isascii() and (half := HALF.search(one)):
                raise ValueError(f"a text has {describe_character(half[0])}")
        elif isinstance(one, dict | list):
            if depth >= DEPTH_MAX:
                raise ValueError(_TOO_DEEP)
            items = [*one, *one.values()] if isinstance(one, dict) else one
            left += [(item, depth + 1) for item in items]
