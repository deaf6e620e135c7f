"""Environment files read by the rules of systemd.exec(5)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runnerd.config import parse_environment_file
from runnerd.core.errors import ConfigError

GOOD = [
    ("A=1\nB=2\n", {"A": "1", "B": "2"}),
    ("A=1\nA=2", {"A": "2"}),
    ("\n  \n# A=1\n; B=2\n   # C=3\nD=4\n", {"D": "4"}),
    ("no equals sign\nA=1\n", {"A": "1"}),
    ("export A=1\nexport\tB=2\nexport=3\n", {"A": "1", "B": "2", "export": "3"}),
    ("  A = x y  \n", {"A": "x y"}),
    ("A=\nB=", {"A": "", "B": ""}),
    ("A='x # y'\n", {"A": "x # y"}),
    ("A=x # y\n", {"A": "x # y"}),
    ("A=x'y'\n", {"A": "x'y'"}),
    ("A='a' \"b\"c\n", {"A": "abc"}),
    ("A='two\nlines'\nB=1", {"A": "two\nlines", "B": "1"}),
    ("A=a\\\nb\n", {"A": "ab"}),
    ("A=a\\ \\\\\\n\n", {"A": "a \\n"}),
    ("A=x\\ \n", {"A": "x "}),
    ('A="\\"\\\\\\`\\$\\n"\n', {"A": '"\\`$\\n'}),
    ('A="a\\\nb"\n', {"A": "ab"}),
    ("A='a\\nb'\n", {"A": "a\\nb"}),
    ("A=1\r\nB='2'\r\n", {"A": "1", "B": "2"}),
    ("\ufeffA=1\n", {"A": "1"}),
    ("A=ü=ö\n", {"A": "ü=ö"}),
    ("# a comment that ends in a backslash \\\nA=1\n", {"A": "1"}),
]


@pytest.mark.parametrize(("text", "variables"), GOOD, ids=[repr(text) for text, _ in GOOD])
def test_what_systemd_reads(text: str, variables: dict[str, str]) -> None:
    assert parse_environment_file(text) == variables


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nB='x\nC=2\n", "env:2:3: the quote opened here is never closed"),
        ('A="x\\"', "env:1:3: the quote opened here is never closed"),
        ("\n\n2A=1\n", "env:3:1: what is before the '=' is not a variable's name; write NAME=value"),
        ("A B=1\n", "env:1:1: what is before the '=' is not a variable's name; write NAME=value"),
        ("=1\n", "env:1:1: what is before the '=' is not a variable's name; write NAME=value"),
        ("A=1\nB=\0\n", "env:2:3: a NUL character, which no variable can have; remove it"),
    ],
)
def test_what_would_run_a_flow_with_half_its_settings(text: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_environment_file(text, file="env")
    assert str(caught.value) == words


@given(
    st.dictionaries(st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,8}\Z"), st.text(st.characters(exclude_characters="\0'")))
)
def test_single_quotes_keep_everything(variables: dict[str, str]) -> None:
    text = "".join(f"{name}='{value}'\n" for name, value in variables.items())
    assert parse_environment_file(text) == variables


@given(st.lists(st.sampled_from([*list("AB='\" \\\n\t#;\r\x00x"), "export "])).map("".join) | st.text())
def test_any_text_is_read_or_is_a_problem_with_a_place(text: str) -> None:
    try:
        variables = parse_environment_file(text)
    except ConfigError as error:
        assert error.problems[0].place is not None
        return
    assert all(name.isascii() and "\0" not in value for name, value in variables.items())
