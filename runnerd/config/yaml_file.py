"""Parses one YAML document into plain values with their places.

Invariants: the result has only null, true/false, numbers, text, lists, and maps with text keys, resolved as PyYAML's
safe loader does (a timestamp becomes text in ISO 8601, as in Prefect); every fault of the input is a ConfigError with
a place. The parser's events are processed without recursion, and the values that aliases expand to are counted before
they are built, so neither deep nesting nor an alias bomb costs more than the file itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

import yaml
from yaml.constructor import SafeConstructor

from runnerd.config.yaml_errors import find_refused_character, translate_error
from runnerd.config.yaml_nodes import List, Map, Mark
from runnerd.core.errors import ConfigError
from runnerd.core.json_words import name_kind, show_value
from runnerd.core.place import Json, Place, Problem

MAX_DEPTH = 50
MAX_VALUES = 200_000
_MAX_NUMBER_DIGITS = 200  # longer numbers cost quadratic time, and no setting or parameter needs them

_SURROGATE = re.compile("[\ud800-\udfff]")

_YAML = "tag:yaml.org,2002:"
_MERGE = _YAML + "merge"
_TIMESTAMP = _YAML + "timestamp"
_TEXT = frozenset(_YAML + name for name in ("str", "timestamp", "value", "merge"))
_COMPOUND_KEY = "a key must be text, not a {kind}; quote a value that starts with {{ or ["
_SCALARS = _TEXT | {_YAML + "null", _YAML + "bool", _YAML + "int", _YAML + "float"}


def parse(text: str, *, file: str, pure: bool = False) -> Json:
    """Parse the document in `text` into a Map, List or scalar; None when it is empty. Raises ConfigError.

    `pure` uses PyYAML's own parser even where libyaml is available.
    """
    refused = find_refused_character(text, file)
    if refused is not None:
        raise ConfigError([refused])
    loader = yaml.SafeLoader if pure or not yaml.__with_libyaml__ else yaml.CSafeLoader
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.YAMLError as error:
        raise ConfigError([translate_error(error, text, file)]) from None
    return builder.root


def parse_map(text: str, *, file: str, or_empty: bool) -> Map:
    """Parse the map of a file; with `or_empty`, one without text has a map without keys. Raises ConfigError."""
    node = parse(text, file=file)
    if isinstance(node, Map):
        return node
    if node is None and or_empty:
        return Map(file, (1, 1))
    raise ConfigError([Problem(message=_not_a_map(node), place=Place(file))])


def _not_a_map(node: Json) -> str:
    if node is None:
        return "is empty; write deployments: into it, or remove it"
    hint = "; put it under 'deployments:'" if isinstance(node, List) else "; write deployments: into it"
    return f"must hold a map, not {show_value(node)}{hint}"


@dataclass(slots=True)
class _Value:
    """A complete value: how many values it expands to, its depth, and its spelling when it is not text."""

    node: Json
    size: int = 1
    depth: int = 0
    spelling: str | None = None
    is_merge: bool = False
    inset: int | None = 0  # see Map.insets


@dataclass(slots=True)
class _Open:
    """A list or map before its end."""

    node: Map | List
    anchor: str | None
    size: int = 1
    depth: int = 1
    key: str | None = None
    key_at: Mark = (1, 1)
    merging: bool = False
    merges: list[Map] = field(default_factory=list)


class _Builder:
    """Builds the document from the parser's events."""

    def __init__(self, file: str) -> None:
        self.root: Json = None
        self._file = file
        self._open: list[_Open] = []
        self._anchors: dict[str, _Value] = {}
        self._anchored_at: dict[str, Mark] = {}
        self._documents = 0
        self._resolvers = yaml.resolver.Resolver.yaml_implicit_resolvers
        self._constructor = SafeConstructor()

    def take(self, event: yaml.Event) -> None:
        mark = event.start_mark
        assert mark is not None  # every event of a parser has one
        at = (mark.line + 1, mark.column + 1)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, at)
            value.inset = _inset(event)
            if event.anchor is not None:
                self._name(event.anchor, at)
                self._anchors[event.anchor] = value
            self._add(value, at)
        elif isinstance(event, yaml.CollectionStartEvent):
            self._start(event, at)
        elif isinstance(event, yaml.CollectionEndEvent):
            self._end()
        elif isinstance(event, yaml.AliasEvent):
            self._add(self._alias(event.anchor, at), at)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._refuse("a second document starts here; one file holds one document: remove the '---'", at)

    def _refuse(self, message: str, at: Mark) -> NoReturn:
        raise ConfigError([Problem(message=message, place=Place(self._file, *at))])

    # --- scalars ---

    def _scalar(self, event: yaml.ScalarEvent, at: Mark) -> _Value:
        text: str = event.value
        if not text.isascii() and (half := _SURROGATE.search(text)):
            self._refuse(
                f"the unpaired surrogate U+{ord(half[0]):04X} is not a character; write the whole character", at
            )
        tag = event.tag
        if tag is None or (tag == "!" and event.implicit[0]):
            if not event.implicit[0]:
                return _Value(text)
            tag = self._resolve(text)
        elif tag == "!":
            return _Value(text)
        if tag not in _SCALARS:
            self._refuse_tag(tag, at)
        if tag == _TIMESTAMP:
            return self._timestamp(text)
        if tag in _TEXT:
            return _Value(text, is_merge=tag == _MERGE)
        return _Value(self._convert(tag, text, at), spelling=text)

    def _resolve(self, text: str) -> str:
        """Resolve unquoted text by PyYAML's rules, which it indexes by the first character, without making a node."""
        for tag, pattern in self._resolvers.get(text[:1], ()):
            if pattern.match(text):
                return str(tag)
        return _YAML + "str"

    def _timestamp(self, text: str) -> _Value:
        """Write a date or time as `prefect deploy` sends it; text that is none, such as 2026-99-99, stays as it is."""
        try:
            moment = self._constructor.construct_yaml_timestamp(yaml.ScalarNode(_TIMESTAMP, text))
        except (ValueError, OverflowError, AttributeError):  # AttributeError: an explicit tag on any text
            return _Value(text)
        return _Value(moment.isoformat().replace("+00:00", "Z"), spelling=text)

    def _convert(self, tag: str, text: str, at: Mark) -> Json:
        name = tag.removeprefix(_YAML)
        if name == "null":
            return None
        if len(text) > _MAX_NUMBER_DIGITS:
            self._refuse(f"a number of {len(text)} digits is too long; quote it if text is meant", at)
        node = yaml.ScalarNode(tag, text)
        try:
            if name == "bool":
                return self._constructor.construct_yaml_bool(node)
            if name == "int":
                return self._constructor.construct_yaml_int(node)
            return self._constructor.construct_yaml_float(node)
        except (ValueError, OverflowError, KeyError, IndexError):
            self._refuse(f"{text!r} is not a value of the kind !!{name}; quote it if text is meant", at)

    def _refuse_tag(self, tag: str, at: Mark) -> NoReturn:
        shown = tag.replace(_YAML, "!!", 1)
        self._refuse(f"the tag {shown} is not allowed here; write plain text, a number, a list or a map", at)

    # --- lists and maps ---

    def _start(self, event: yaml.CollectionStartEvent, at: Mark) -> None:
        is_map = isinstance(event, yaml.MappingStartEvent)
        if event.tag is not None and event.tag not in ("!", _YAML + ("map" if is_map else "seq")):
            self._refuse_tag(event.tag, at)
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.node, Map) and parent.key is None and not parent.merging:
            self._refuse(_COMPOUND_KEY.format(kind="map" if is_map else "list"), at)
        self._check_depth(1, at)
        if event.anchor is not None:
            self._name(event.anchor, at)
        self._open.append(_Open(Map(self._file, at) if is_map else List(self._file, at), event.anchor))

    def _end(self) -> None:
        done = self._open.pop()
        if isinstance(done.node, Map):
            for merged in done.merges:
                _merge(done.node, merged)
        value = _Value(done.node, done.size, done.depth)
        if done.anchor is not None:
            self._anchors[done.anchor] = value
        self._add(value, done.node.at)

    def _add(self, value: _Value, at: Mark) -> None:
        """Add a complete value: as root, as a list's next item, or as a map's key or value."""
        if not self._open:
            self.root = value.node
            return
        parent = self._open[-1]
        parent.size += value.size
        if value.depth >= parent.depth:
            parent.depth = value.depth + 1
        if value.depth:
            self._check_depth(value.depth, at)
        if parent.size > MAX_VALUES:
            self._refuse(f"more than {MAX_VALUES} values, aliases included; use fewer aliases or split the file", at)
        if isinstance(parent.node, List):
            parent.node.append(value.node)
            parent.node.items_at.append(at)
        elif parent.merging:
            parent.merging = False
            parent.merges.extend(self._merged(value.node, at))
        elif parent.key is None:
            self._take_key(parent, parent.node, value, at)
        else:
            key, parent.key = parent.key, None
            _put(parent.node, key, value.node, parent.key_at, at, value.spelling)
            parent.node.note_inset(key, value.inset)

    def _check_depth(self, depth: int, at: Mark) -> None:
        if len(self._open) + depth > MAX_DEPTH:
            self._refuse(f"lists and maps are nested more than {MAX_DEPTH} deep; flatten them", at)

    def _take_key(self, parent: _Open, node: Map, value: _Value, at: Mark) -> None:
        key = value.node
        if value.is_merge:
            parent.merging = True
            return
        if isinstance(key, (Map, List)):
            self._refuse(_COMPOUND_KEY.format(kind="map" if isinstance(key, Map) else "list"), at)
        if not isinstance(key, str):
            spelt = f"{value.spelling or 'null'!r}"
            reads = "empty" if value.spelling == "" else f"{spelt} without quotes, which YAML reads as {name_kind(key)}"
            self._refuse(f"a key must be text, not {reads}; quote it", at)
        if key in node:
            line = node.keys_at[key][0]
            self._refuse(f"the key {key!r} is already on line {line}; remove one", at)
        parent.key, parent.key_at = key, at

    def _merged(self, node: Json, at: Mark) -> Iterable[Map]:
        """Return the maps that `<<` names; where two have the same key, the first one wins."""
        found = node if isinstance(node, list) else [node]
        if not all(isinstance(item, Map) for item in found):
            self._refuse("'<<' needs a map, or a list of maps", at)
        return found

    # --- anchors ---

    def _name(self, anchor: str, at: Mark) -> None:
        if anchor in self._anchored_at:
            line = self._anchored_at[anchor][0]
            self._refuse(f"the anchor &{anchor} is already on line {line}; rename one", at)
        self._anchored_at[anchor] = at

    def _alias(self, anchor: str | None, at: Mark) -> _Value:
        if anchor is not None and anchor in self._anchors:
            return self._anchors[anchor]
        if anchor in self._anchored_at:
            self._refuse(f"the alias *{anchor} is inside the value of &{anchor}, without end; remove it", at)
        self._refuse(f"the alias *{anchor} has no &{anchor} above it; add one, or quote the value", at)


def _inset(event: yaml.ScalarEvent) -> int | None:
    """Return how far behind its start the text of a quoted scalar begins; None where it is written otherwise."""
    if not event.style:
        return 0
    start, end = event.start_mark, event.end_mark
    assert start is not None and end is not None
    as_it_is = start.line == end.line and end.column - start.column == len(event.value) + 2
    return 1 if as_it_is and event.style in ("'", '"') else None


def _put(node: Map, key: str, value: Json, key_at: Mark, at: Mark, spelling: str | None) -> None:
    node[key] = value
    node.keys_at[key] = key_at
    node.values_at[key] = at
    if spelling is not None:
        node.spelling[key] = spelling


def _merge(node: Map, merged: Map) -> None:
    """Add the keys of `merged` that `node` does not have itself."""
    for key, value in merged.items():
        if key not in node:
            _put(node, key, value, merged.keys_at[key], merged.values_at[key], merged.spelling.get(key))
            node.note_inset(key, merged.insets.get(key, 0))
