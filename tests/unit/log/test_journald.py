"""journald.py: entries reach the journal whole and in order, logging never blocks, and lost entries are counted."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runnerd.log.journald import Journald, encode, is_journal_stream, open_journald
from tests.kits.fakes.fake_journald import FakeJournald, journald_at, parse


@pytest.fixture
def home(tmp_path: Path) -> Path:
    assert len(str(tmp_path)) < 90  # a socket's path is short
    return tmp_path


@pytest.fixture
def fake(home: Path) -> Iterator[FakeJournald]:
    with journald_at(home / "s") as it:
        yield it


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "",
        "two\nlines",
        "\n",
        "ümläut",
        "a=b",
        b"\xff\xfe",
        b"\0",
        "MESSAGE=x\nPRIORITY=0",
        "\ud800",
        "x" * 300,
    ],
)
def test_any_value_comes_back_as_it_was(value: str | bytes) -> None:
    told = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    assert parse(encode({"A": value, "B": "b"})) == {"A": told, "B": b"b"}


def test_only_what_has_to_be_is_binary() -> None:
    assert encode({"A": "x", "B": "y z"}) == b"A=x\nB=y z\n"


@pytest.mark.parametrize(
    ("name", "told"), [("run", "RUN"), ("_PID", "PID"), ("a-b.c", "A_B_C"), ("9lives", "LIVES"), ("__", "UNNAMED")]
)
def test_names_are_ones_journald_takes(name: str, told: str) -> None:
    assert parse(encode({name: "x"})) == {told: b"x"}


@pytest.mark.parametrize("size", [200_000, 20_000_000])
def test_an_entry_of_any_size(fake: FakeJournald, size: int) -> None:
    """The kernel lets a datagram be as long as the send buffer, of which we ask for 8 MiB, and may have less."""
    journald = Journald(path=fake.path)
    long = ("0123456789 ümläut\n" * (size // 20))[:-1]
    assert journald.send(encode({"MESSAGE": long, "SYSLOG_IDENTIFIER": "x"}))
    fake.until(lambda: fake.entries, "the entry")
    assert fake.entries[0]["MESSAGE"].decode() == long
    assert fake.files == (size > 10_000_000)
    journald.close()


def test_a_stuck_journald_is_not_waited_for_and_nothing_is_lost(home: Path) -> None:
    with journald_at(home / "s", stuck=True) as fake:
        journald = Journald(path=fake.path)
        for number in range(1000):
            journald.log({"MESSAGE": str(number)})
        fake.unstick()
        fake.until(journald.flush, "journald to take them")
        journald.log({"MESSAGE": "last"})
        fake.until(lambda: journald.flush() and "last" in fake.messages(), "the last entry")
        assert fake.messages("runnerd") == [*map(str, range(1000)), "last"]
        journald.close()


def test_what_is_lost_is_counted_and_said(home: Path) -> None:
    with journald_at(home / "s", stuck=True) as fake:
        journald = Journald(path=fake.path)
        for number in range(5000):
            journald.log({"MESSAGE": str(number)})
        fake.unstick()
        fake.until(journald.flush, "journald to take them")
        fake.until(lambda: "lost" in fake.messages()[-1:][0] if fake.entries else False, "word of those lost")
        *kept, told = fake.messages("runnerd")
        assert kept == [str(number) for number in range(len(kept))]
        assert len(kept) >= 1000
        assert told == f"{5000 - len(kept)} entries of this log were lost: journald did not take them"
        assert fake.entries[-1]["PRIORITY"] == b"4"
        journald.close()


def test_what_is_kept_has_a_bound_in_bytes_too(home: Path) -> None:
    with journald_at(home / "s", stuck=True) as fake:
        journald = Journald(path=fake.path)
        for _ in range(300):
            journald.log({"MESSAGE": "x" * 40_000})
        fake.unstick()
        fake.until(journald.flush, "journald to take them")
        fake.until(lambda: fake.messages()[-1].endswith("did not take them"), "word of those lost")
        assert 100 <= len(fake.entries) < 200
        journald.close()


@pytest.mark.real_io
async def test_what_waits_is_sent_also_when_nothing_new_is_logged(home: Path) -> None:
    with journald_at(home / "s", stuck=True) as fake:
        journald = Journald(path=fake.path)
        for number in range(100):
            journald.log({"MESSAGE": str(number)})
        keeping = asyncio.create_task(journald.run())
        fake.unstick()
        await asyncio.to_thread(fake.until, lambda: len(fake.entries) == 100, "all entries")
        keeping.cancel()
        await asyncio.wait([keeping])
        journald.close()


def test_the_last_words_are_said_at_the_end(home: Path) -> None:
    with journald_at(home / "s", stuck=True) as fake:
        journald = Journald(path=fake.path)
        for number in range(100):
            journald.log({"MESSAGE": str(number)})
        fake.unstick()
        journald.close()
        fake.until(lambda: fake.messages()[-1:] == ["99"], "the last entry")


def test_a_journald_that_was_started_anew_is_found_again(home: Path) -> None:
    with journald_at(home / "s") as first:
        journald = Journald(path=first.path)
        assert journald.send(encode({"MESSAGE": "one", "SYSLOG_IDENTIFIER": "x"}))
    assert not journald.send(encode({"MESSAGE": "nobody"}))
    journald.log({"MESSAGE": "waits"})
    with journald_at(home / "s") as second:
        assert journald.flush()
        second.until(lambda: second.messages() == ["waits"], "what waited")
    journald.close()


def test_it_is_known_where_there_is_no_journal(home: Path) -> None:
    assert open_journald(str(home / "nothing")) is None
    (home / "file").touch()
    assert open_journald(str(home / "file")) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as gone:
        gone.bind(str(home / "gone"))
    assert open_journald(str(home / "gone")) is None


def test_the_stream_that_is_named_has_to_be_ours(home: Path) -> None:
    with open(home / "log", "w") as log, open(home / "other", "w") as other:
        facts = os.fstat(log.fileno())
        named = f"{facts.st_dev}:{facts.st_ino}"
        assert is_journal_stream(named, log.fileno())
        assert not is_journal_stream(named, other.fileno())  # redirected: whoever did that wants it there
        assert not is_journal_stream(None, log.fileno())
        assert not is_journal_stream("", log.fileno())
        closed = log.fileno()
    assert not is_journal_stream(named, closed)
