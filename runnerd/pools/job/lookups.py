"""Fills a job configuration with Prefect's blocks and variables, and lists the lookups that this needs. Pure.

Invariants: as in Prefect, blocks come first and are not searched for further blocks, variables come last and may stand
in blocks; a name that no block or variable can have leads to no request; no value of a block is in a message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runnerd.core.json_words import kind
from runnerd.core.place import Json
from runnerd.core.prefect import BlockDocument, Variable
from runnerd.pools.job.variables import NOTHING, Nothing, Path, deep_copy, path_of, reach

PLACEHOLDER = re.compile(r"{{\s*([\w.\-\[\]$]+)\s*}}")
BLOCKS = "prefect.blocks."
VARIABLES = "prefect.variables."

_NAME = re.compile(r"[\w-]+")  # any other would be another path of the API
_ID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class BlockNamed:
    """A block, looked up by its type and name."""

    type_slug: str
    name: str

    def __str__(self) -> str:
        return f"block {self.type_slug}/{self.name}"


@dataclass(frozen=True, slots=True)
class BlockWithId:
    """A block, looked up by its id."""

    id: str

    def __str__(self) -> str:
        return f"the block with the id {self.id}"


@dataclass(frozen=True, slots=True)
class VariableNamed:
    """A Prefect variable, looked up by its name."""

    name: str

    def __str__(self) -> str:
        return f'Prefect variable "{self.name}"'


Lookup = BlockNamed | BlockWithId | VariableNamed
Found = Mapping[Lookup, BlockDocument | Variable | None]  # None: Prefect has none


def is_lookup(placeholder: str) -> bool:
    """Whether the placeholder names a block or a Prefect variable."""
    return placeholder.startswith((BLOCKS, VARIABLES))


def holds_lookups(value: Json) -> bool:
    """Whether a part of the value has to be looked up."""
    if isinstance(value, dict):
        return _reference(value) is not None or any(holds_lookups(one) for one in value.values())
    if isinstance(value, list):
        return any(holds_lookups(one) for one in value)
    return isinstance(value, str) and any(is_lookup(name) for name in PLACEHOLDER.findall(value))


def walk(value: Json, path: Path, text: Callable[[str, Path], Json]) -> Json:
    """Copy the value with every text replaced by what `text` returns; NOTHING leaves out the key or item."""
    if isinstance(value, Mapping):
        pairs = ((key, walk(one, (*path, key), text)) for key, one in value.items())
        return {key: one for key, one in pairs if one is not NOTHING}
    if isinstance(value, list):
        items = (walk(one, (*path, index), text) for index, one in enumerate(value))
        return [one for one in items if one is not NOTHING]
    return text(value, path) if isinstance(value, str) else value


class Lookups:
    """Fills values, blocks first. `wanted`: lookups for the next attempt; `problems`: why some can never be found."""

    def __init__(self, found: Found, where: Callable[[Path], str]) -> None:
        self._found = found
        self._where = where
        self.wanted: set[Lookup] = set()
        self.problems: list[str] = []
        self._from_blocks: set[Path] = set()

    def resolved(self, value: Json, path: Path = ()) -> Json:
        """Copy the value with its blocks and variables filled in. `path`: where the value stands."""
        return walk(self._fill_blocks(value, path), path, self._fill_variables)

    def secret(self, path: Path) -> bool:
        """Whether a part of the text at `path` comes from a block."""
        return any(path[:length] in self._from_blocks for length in range(len(path) + 1))

    # --- blocks -------------------------------------------------------------------------------------------------

    def _fill_blocks(self, value: Json, path: Path) -> Json:
        if isinstance(value, dict):
            block_id = _reference(value)
            if block_id is not None:
                return self._whole_block(block_id, path)
            return {key: self._fill_blocks(one, (*path, key)) for key, one in value.items()}
        if isinstance(value, list):
            return [self._fill_blocks(one, (*path, index)) for index, one in enumerate(value)]
        return self._fill_text(value, path) if isinstance(value, str) else value

    def _whole_block(self, block_id: str, path: Path) -> Json:
        if not _ID.fullmatch(block_id):
            return self._problem("what block_document_id refers to is no block's id", path)
        block = self._block(BlockWithId(block_id), path)
        return None if block is None else dict(block.data)

    def _fill_text(self, text: str, path: Path) -> Json:
        alone = PLACEHOLDER.fullmatch(text)
        if alone is not None and alone[1].startswith(BLOCKS):
            return self._block_value(alone[1], path)

        def embedded(match: re.Match[str]) -> str:
            if not match[1].startswith(BLOCKS):
                return match[0]
            value = self._block_value(match[1], path)
            if isinstance(value, (dict, list)):
                words = f'"{match[0]}" is {kind(value)} and cannot stand in text; name one of its values'
                self._problem(words, path)
            return str(value)

        return PLACEHOLDER.sub(embedded, text)

    def _block_value(self, placeholder: str, path: Path) -> Json:
        """Return what `prefect.blocks.<type>.<name>[.<path>]` stands for; an only attribute `value` may be left out."""
        slug, name, attribute = [*placeholder.removeprefix(BLOCKS).split(".", 2), "", ""][:3]
        if not _NAME.fullmatch(slug) or not _NAME.fullmatch(name):
            return self._problem(f'"{placeholder}" names no block; write prefect.blocks.<type>.<name>', path)
        lookup = BlockNamed(slug, name)
        block = self._block(lookup, path)
        if block is None:
            return None
        steps = path_of(attribute) if attribute else ()
        data: Json = block.data
        if set(data) == {"value"} and steps[:1] != ("value",):
            data = data["value"]
        value = reach(data, steps)
        return self._problem(f'{lookup} has no "{attribute}"', path) if isinstance(value, Nothing) else value

    def _block(self, lookup: BlockNamed | BlockWithId, path: Path) -> BlockDocument | None:
        self._from_blocks.add(path)
        if lookup not in self._found:
            self.wanted.add(lookup)
            return None
        block = self._found[lookup]
        if not isinstance(block, BlockDocument):
            self._problem(f"{lookup} does not exist", path)
            return None
        return block

    # --- variables ----------------------------------------------------------------------------------------------

    def _fill_variables(self, text: str, path: Path) -> Json:
        alone = PLACEHOLDER.fullmatch(text)
        if alone is not None and alone[1].startswith(VARIABLES):
            return deep_copy(self._variable(alone[1], path))

        def embedded(match: re.Match[str]) -> str:
            return str(self._variable(match[1], path)) if match[1].startswith(VARIABLES) else match[0]

        return PLACEHOLDER.sub(embedded, text)

    def _variable(self, placeholder: str, path: Path) -> Json:
        name = placeholder.removeprefix(VARIABLES)
        lookup = VariableNamed(name)
        if _NAME.fullmatch(name) and lookup not in self._found:
            self.wanted.add(lookup)
            return None
        variable = self._found.get(lookup)
        if isinstance(variable, Variable):
            return variable.value
        what = "a Prefect variable that a block names" if self.secret(path) else str(lookup)
        return self._problem(f"{what} does not exist", path)

    def _problem(self, words: str, path: Path) -> None:
        self.problems.append(f"{words} ({self._where(path)})")


def _reference(value: Mapping[str, Json]) -> str | None:
    """Return the id in `{"$ref": {"block_document_id": id}}`; None for any other map."""
    reference = value.get("$ref")
    block_id = reference.get("block_document_id") if isinstance(reference, Mapping) else None
    return str(block_id) if block_id else None
