"""Take frames from what a run's process sends on its control channel, after its token.

What arrives is the process's own and may be anything: a frame has a length that is known from its first five bytes and
is bounded, and the contents of a receipt are neither read nor trusted here. The layout is Prefect's
(prefect/_internal/attempt_control.py of 3.9).
"""

from __future__ import annotations

ACKNOWLEDGED = b"a"  # of an intent
RECEIVED = b"\x02"  # our acknowledgement of a receipt
RECEIPT_MAX_BYTES = 4096  # of its contents
FRAMES_MAX_BYTES = 5 + 5 + RECEIPT_MAX_BYTES + 1  # a hello, a receipt and an acknowledgement

_HELLO = b"\x00PF"  # then the version and the capabilities, a byte each
_HELLO_BYTES = 5
_RECEIPT = b"\x01"  # then the length of the contents, four bytes, the highest first
_RECEIPT_HEAD_BYTES = 5
_VERSION = 2
_RECEIPTS = 1  # the capability


class Malformed(Exception):
    """The bytes are no frame, and nothing that follows can be understood."""


def take_frame(buffer: bytearray) -> bytes | None:
    """Remove the first frame from the buffer and return it; None while it is incomplete. Raises Malformed."""
    size = _frame_bytes(buffer)
    if size is None or len(buffer) < size:
        return None
    frame = bytes(buffer[:size])
    del buffer[:size]
    return frame


def _frame_bytes(buffer: bytearray) -> int | None:
    first = bytes(buffer[:1])
    if first in (b"", ACKNOWLEDGED):
        return len(first) or None
    if first == _HELLO[:1]:
        if not _HELLO.startswith(buffer[: len(_HELLO)]):
            raise Malformed
        return _HELLO_BYTES
    if first != _RECEIPT:
        raise Malformed
    if len(buffer) < _RECEIPT_HEAD_BYTES:
        return None
    size = int.from_bytes(buffer[1:_RECEIPT_HEAD_BYTES], "big")
    if size > RECEIPT_MAX_BYTES:
        raise Malformed
    return _RECEIPT_HEAD_BYTES + size


def is_hello(frame: bytes) -> bool:
    """Return whether the frame is a hello; one that is neither that nor an acknowledgement is a receipt."""
    return frame.startswith(_HELLO)


def offers_receipts(hello: bytes) -> bool:
    """Return whether the process that sent this hello can send a receipt."""
    return hello[-2] >= _VERSION and bool(hello[-1] & _RECEIPTS)


def answer_to_hello(hello: bytes) -> bytes:
    """Return the hello that selects version 2 with receipts, or version 1."""
    return _HELLO + (bytes((_VERSION, _RECEIPTS)) if offers_receipts(hello) else b"\x01\x00")


def receipt_contents(frame: bytes) -> bytes:
    """Return what a receipt holds: JSON, if the process is Prefect's."""
    return frame[_RECEIPT_HEAD_BYTES:]
