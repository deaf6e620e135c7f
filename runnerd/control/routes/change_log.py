"""Logs each change that a client requests, before the change is made."""

from __future__ import annotations

from runnerd.control.contract import Peer
from runnerd.control.http.exchange import Request
from runnerd.control.http.listener import Log
from runnerd.control.http.problem import Problem


def log_change(log: Log, request: Request, verb: str, **about: object) -> Peer:
    """Log the requested change and the peer, and return the peer. Raises Problem 403 over TCP, which has no peer."""
    peer = request.peer
    if peer is None:
        raise Problem(403, "runnerd only takes changes over its Unix socket")
    log.info("control", verb=verb, uid=peer.uid, gid=peer.gid, pid=peer.pid, **about)
    return peer
