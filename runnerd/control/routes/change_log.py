"""Logs each change that a client requests, before the change is made."""

from __future__ import annotations

from runnerd.control.contract import Peer
from runnerd.control.http.exchange import Request
from runnerd.control.http.listener import RequestLog
from runnerd.control.http.problem import HttpProblem


def log_change(log: RequestLog, request: Request, verb: str, **about: object) -> Peer:
    """Log the requested change and the peer; return the peer. Raises HttpProblem 403 over TCP, which has no peer."""
    peer = request.peer
    if peer is None:
        raise HttpProblem(403, "cannot make changes over TCP; use the Unix socket")
    log.info("control", verb=verb, uid=peer.uid, gid=peer.gid, pid=peer.pid, **about)
    return peer
