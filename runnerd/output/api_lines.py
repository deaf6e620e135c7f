"""Cuts output into lines for Prefect's log, and makes any bytes of them readable. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

LINE_MAX_BYTES = 16 * 2**10
# Control characters but the tab, and those that change the direction of what follows; a database refuses U+0000.
_ODD = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def cut_lines(block: bytes, *, is_last: bool) -> Iterator[tuple[str, int]]:
    """Yield each line of the block with the offset of the next one; longer lines in pieces of LINE_MAX_BYTES.

    `is_last`: nothing is written behind the block any more, so that its last line needs no newline.
    """
    at = 0
    while at < len(block):
        end = block.find(b"\n", at, at + LINE_MAX_BYTES + 1)
        if end >= 0:
            behind = end + 1
        elif len(block) - at > LINE_MAX_BYTES:
            end = behind = _between_characters(block, at + LINE_MAX_BYTES)
        elif is_last:
            end = behind = len(block)
        else:
            return
        yield make_readable(block[at:end]), behind
        at = behind


def make_readable(line: bytes) -> str:
    r"""Write what is no text as `\x1b`; a carriage return before the newline is left out."""
    text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    return _ODD.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def _between_characters(block: bytes, end: int) -> int:
    """Return `end`, or up to 3 bytes before, so that no UTF-8 character is cut in two."""
    for back in range(4):
        if block[end - back] & 0xC0 != 0x80:
            return end - back
    return end
