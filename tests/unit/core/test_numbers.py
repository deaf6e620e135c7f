"""numbers.py: whole numbers of command lines and queries, and that all of these say the same of a wrong one."""

from __future__ import annotations

from argparse import ArgumentTypeError

import pytest

from runnerd.cli.command import make_number_parser
from runnerd.control.contract import Peer
from runnerd.control.http.exchange import Request
from runnerd.control.http.problem import HttpProblem
from runnerd.control.routes.resolve import read_number
from runnerd.core.numbers import parse_whole


def test_a_whole_number() -> None:
    assert [parse_whole(text, least=0, most=10) for text in ("0", "10", "07")] == [0, 10, 7]


@pytest.mark.parametrize("text", ["", "0", "11", "-1", "+1", "1.5", "1_0", "\u0663", "x", "9" * 5000])
def test_what_is_none_of_them(text: str) -> None:
    with pytest.raises(ValueError) as refused:
        parse_whole(text, least=1, most=10)
    words = str(refused.value)
    assert words.startswith("must be a whole number from 1 to 10, not '")
    assert len(words) < 120


def test_a_command_line_and_a_query_say_the_same_of_a_wrong_number() -> None:
    def ask(query: dict[str, str]) -> int | None:
        peer = Peer(uid=0, gid=0, pid=1)
        request = Request(method="GET", path=("v1", "runs"), query=query, body=b"", peer=peer)
        return read_number(request, "attempt", least=1, most=9)

    parse = make_number_parser(least=1, most=9)
    assert (ask({}), ask({"attempt": "9"}), parse("9")) == (None, 9, 9)
    with pytest.raises(HttpProblem) as refused:
        ask({"attempt": "10"})
    with pytest.raises(ArgumentTypeError) as wrong:
        parse("10")
    assert refused.value.detail == f"attempt {wrong.value}" == "attempt must be a whole number from 1 to 9, not '10'"
