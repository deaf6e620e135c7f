"""Collects what inspections found, and gives it out in the order in which the deployments were begun.

Pure. Of two deployments with one flow and name the one that stands first is in force, whichever is inspected sooner.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

from runnerd.core.settings import key_of
from runnerd.deployments.inspection import InspectionFailure
from runnerd.deployments.inspector import InspectionResult
from runnerd.deployments.registry import Key
from runnerd.deployments.worklist import Begun


class Findings:
    """Collects them for these attempts."""

    def __init__(self, begun: Iterable[Begun]) -> None:
        self._left = deque(begun)
        self._found: dict[Key, InspectionResult] = {}

    def add(self, found: Mapping[Key, InspectionResult]) -> Iterator[tuple[Begun, InspectionResult]]:
        """Add some, and give out each attempt that is the next one, as long as the next one's finding is there."""
        self._found |= found
        while self._left and (finding := self._found.get(key_of(self._left[0].deployment))) is not None:
            yield self._left.popleft(), finding

    def rest(self, otherwise: InspectionResult) -> Iterator[tuple[Begun, InspectionResult]]:
        """Give out all others, with `otherwise` where nothing was found."""
        while self._left:
            begun = self._left.popleft()
            yield begun, self._found.get(key_of(begun.deployment), otherwise)


def failed_inspection(why: str | None) -> InspectionFailure:
    """Make the finding for a flow whose inspection failed by an error of the daemon's own."""
    return InspectionFailure(kind="no-answer", message=f"cannot inspect the flow: {why}")
