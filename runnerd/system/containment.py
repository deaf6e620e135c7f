"""Contains what goes wrong with one item of a loop, so that the loop goes on with the other items.

Invariants: what the loop itself acts on passes (ApiError, where nothing else is said); whatever else an item raises is
logged with its traceback and ends there, and is logged once for an item that goes wrong alike at every round (ADR 27).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from runnerd.core.errors import ApiError
from runnerd.log.alerts import Alert
from runnerd.log.log import Log

_REMEMBERED_MAX = 1000  # items that went wrong; the oldest are forgotten first, and logged again


@dataclass(slots=True)
class Item:
    """What became of one item: `why` it went wrong, in one line; None when it did not."""

    why: str | None = None


class Containment:
    """Contains the items of one loop. `passing`: exceptions that the loop acts on; `count`: how often others came."""

    def __init__(self, *, log: Log, loop: str, passing: tuple[type[Exception], ...] = (ApiError,)) -> None:
        self._log = log
        self._loop = loop
        self._passing = passing
        self._logged: dict[str, str] = {}  # by item: how it went wrong when it was last logged
        self.count = 0

    @contextmanager
    def item(self, name: str) -> Iterator[Item]:
        """Contain what the block raises for the item `name`, such as `run <id>`. Raises what is `passing`."""
        item = Item()
        try:
            yield item
        except self._passing:
            raise
        except Exception as error:
            # A TaskGroup would otherwise cancel every other loop, and the next daemon would read the same item.
            item.why = f"{type(error).__name__}: {error}"
            self._note(name, item.why)
        else:
            self._logged.pop(name, None)

    def _note(self, name: str, why: str) -> None:
        self.count += 1
        if self._logged.get(name) == why:
            return
        self._logged[name] = why
        if len(self._logged) > _REMEMBERED_MAX:
            del self._logged[next(iter(self._logged))]
        words = "an item of a loop went wrong; the loop goes on without it"
        self._log.exception(words, loop=self._loop, item=name, alert=Alert.FAULT)
