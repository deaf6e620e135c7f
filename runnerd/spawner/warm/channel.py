"""Receive the messages of a warm interpreter: few, short, and each of them expected."""

from __future__ import annotations

import socket

from runnerd.spawner.io.messages import Fields, RequestRefused, parse_object

MESSAGE_MAX_BYTES = 4096


class Garbage(Exception):
    """The interpreter has sent what no interpreter sends; the message is one sentence."""


def make_channel() -> tuple[socket.socket, socket.socket]:
    """Make the two ends of a channel, neither of which is inherited by an exec. Raises OSError."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def receive(sock: socket.socket) -> Fields | None:
    """Receive one message; None while there is none. Raises Garbage, EOFError at the end, and OSError."""
    try:
        # Descriptors that come with a message are discarded by the kernel: no room is offered for them.
        data, _, flags, _ = sock.recvmsg(MESSAGE_MAX_BYTES, 0, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    if flags & socket.MSG_TRUNC:
        raise Garbage(f"it has sent a message of more than {MESSAGE_MAX_BYTES} bytes")
    if not data:
        raise EOFError
    try:
        return parse_object(data)
    except RequestRefused:
        raise Garbage("it has sent what is not JSON") from None
