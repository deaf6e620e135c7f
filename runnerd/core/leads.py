"""Learns per deployment how long before a run is due its process has to be started. Pure.

Invariants: a deployment without a measured start is started as early as is allowed; one odd start changes no more than
the next one; what is remembered is bounded.
"""

from __future__ import annotations

from collections import deque

STARTS = 10  # that are remembered of a deployment
DEPLOYMENTS = 10_000
_LONGER = 1.25  # a start may take so much longer than those before
_SLACK_S = 0.5


class Leads:
    """Remembers how long the latest starts of each deployment took, from the claim until the flow could begin.

    `processors`: how many of them the starts of this host share.
    """

    def __init__(self, *, processors: int) -> None:
        self._processors = processors
        self._starts: dict[str, deque[float]] = {}  # by deployment id; the deployment heard of last comes last

    def learn(self, deployment_id: str | None, ready_s: float) -> None:
        """Note that a start took so long."""
        starts = self._starts.pop(deployment_id or "", None) or deque(maxlen=STARTS)
        starts.append(ready_s)
        self._starts[deployment_id or ""] = starts
        if len(self._starts) > DEPLOYMENTS:
            del self._starts[next(iter(self._starts))]

    def lead_s(self, deployment_id: str | None, *, most_s: float, together: int = 1) -> float:
        """Return how long before it is due a run is to be claimed, at most `most_s`.

        `together`: how many runs are due at that time; where they share a processor, each start takes longer. The
        longest of the remembered starts does not count, unless it is the latest: it may have been an outlier. The more
        the others differ, the more the next one may.
        """
        starts = self._starts.get(deployment_id or "")
        if not starts:
            return most_s
        usual_s = max(starts[-1], sorted(starts)[-2] if len(starts) > 1 else 0.0)
        needed_s = usual_s * _LONGER + (usual_s - min(starts)) + _SLACK_S
        return min(most_s, needed_s * max(1.0, together / self._processors))
