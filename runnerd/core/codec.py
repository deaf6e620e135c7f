"""Converts frozen dataclasses to JSON and back, by their annotations; for the records in the journal.

Invariants: a key that the class lacks is ignored, and a missing key takes its default, so that a journal written by a
newer or an older runnerd still loads.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from runnerd.core.place import Json

T = TypeVar("T")


def to_json(value: object) -> Json:
    """Convert a dataclass, an enum, a time, or a container of these to plain JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


class Decoder:
    """Converts JSON to dataclasses; caches their annotations, which are slow to resolve."""

    def __init__(self) -> None:
        self._hints: dict[type, dict[str, Any]] = {}

    def decode(self, kind: type[T], document: Json) -> T:
        """Make an instance of `kind`. Raises ValueError, TypeError or KeyError for a document that does not fit."""
        result: T = self._value(kind, document)
        return result

    def _value(self, kind: Any, document: Json) -> Any:
        if document is None or kind is Any:
            return document
        origin = get_origin(kind)
        if origin in (Union, types.UnionType):
            inner = [arg for arg in get_args(kind) if arg is not type(None)]
            return self._value(inner[0], document)
        if origin is tuple:
            return self._tuple(get_args(kind), document)
        if origin is not None and origin is not Literal and issubclass(origin, Mapping):
            item = get_args(kind)[1]
            return {key: self._value(item, entry) for key, entry in _object(document).items()}
        if isinstance(kind, type):
            return self._plain(kind, document)
        return document

    def _tuple(self, args: tuple[Any, ...], document: Json) -> tuple[Any, ...]:
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(self._value(args[0], item) for item in document)
        return tuple(self._value(arg, item) for arg, item in zip(args, document, strict=True))

    def _plain(self, kind: type, document: Json) -> Any:
        if dataclasses.is_dataclass(kind):
            hints = self._hints.get(kind)
            if hints is None:
                hints = self._hints[kind] = get_type_hints(kind)
            known = {key: item for key, item in _object(document).items() if key in hints}
            return kind(**{key: self._value(hints[key], item) for key, item in known.items()})
        if issubclass(kind, Enum):
            return kind(document)
        if kind is datetime:
            return datetime.fromisoformat(document)
        return document


def _object(document: Json) -> dict[str, Json]:
    if not isinstance(document, dict):
        raise TypeError(f"expected an object, not {type(document).__name__}")
    return document
