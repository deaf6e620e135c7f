"""frames.py: whatever arrives, in whatever pieces, only whole frames of a bounded length come out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runnerd.spawner.runs import frames

HELLO = b"\x00PF\x02\x01"


def receipt(contents: bytes) -> bytes:
    return b"\x01" + len(contents).to_bytes(4, "big") + contents


FRAME = st.sampled_from([b"a", HELLO, b"\x00PF\x07\x00"]) | st.binary(max_size=60).map(receipt)
STREAM = st.lists(FRAME, max_size=6).map(b"".join)
BYTES = st.builds(lambda good, bad: good + bad, STREAM, st.binary(max_size=20))


def taken(pieces: list[bytes]) -> tuple[list[bytes], bool]:
    """The frames that were taken, and whether something malformed came."""
    buffer, found = bytearray(), []
    for piece in pieces:
        buffer += piece
        try:
            while (frame := frames.take_frame(buffer)) is not None:
                found.append(frame)
        except frames.Malformed:
            return found, True
    return found, False


@given(st.lists(FRAME, max_size=6))
def test_frames_come_out_as_they_went_in(sent: list[bytes]) -> None:
    assert taken([b"".join(sent)]) == (sent, False)


@given(BYTES)
def test_pieces_do_not_matter(data: bytes) -> None:
    assert taken([data]) == taken([data[i : i + 1] for i in range(len(data))])


@given(BYTES)
def test_every_frame_is_one_of_three_kinds(data: bytes) -> None:
    for frame in taken([data])[0]:
        assert frame == frames.ACKNOWLEDGED or frames.is_hello(frame) or len(frames.receipt_contents(frame)) <= 4096


def test_a_length_is_checked_before_its_contents_are_waited_for() -> None:
    assert taken([receipt(b"x" * 4096)]) == ([receipt(b"x" * 4096)], False)
    assert taken([b"\x01\x00\x00\x10\x01"]) == ([], True)
    assert taken([b"\x01\x00\x00\x10\x00"]) == ([], False)
