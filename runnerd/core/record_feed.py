"""Publishes changed run records; built before the parts that subscribe."""

from __future__ import annotations

from collections.abc import Callable

from runnerd.core.machine import RunRecord

Listener = Callable[[RunRecord], None]


class RecordFeed:
    """Calls its listeners with each new record of a run, after the record is on disk.

    A listener neither blocks nor raises: an exception would end up in the run that has changed.
    """

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Call `listener` with each record from now on; return a function that ends the subscription."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def publish(self, record: RunRecord) -> None:
        for listener in list(self._listeners):  # a copy: a listener may end its own subscription
            listener(record)
