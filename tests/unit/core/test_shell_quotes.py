"""Placeholders of a shell line are refused where a quoted value would be read as something else."""

from __future__ import annotations

import pytest

from runnerd.core.shell_quotes import find_unsafe


@pytest.mark.parametrize(
    "line",
    [
        "echo {{ x }}",
        "echo 'a' \"b\" {{ x }} | cat",
        "echo a\\'b {{ x }}",
        'echo "a\\"b" {{ x }}',
        "A={{ x }} cmd --to={{ x }}.txt # it's said",
        "echo $(basename {{ x }})",
        "echo a#b {{ x }}",
        "# it's a comment\necho {{ x }}",
        "echo 'a\\' {{ x }}",
        'echo "$HOME" {{ x }}',
        "echo no placeholder `date` <<EOF",
    ],
)
def test_between_words_it_is_safe(line: str) -> None:
    assert list(find_unsafe(line)) == []


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ('echo "{{ x }}"', "inside double quotes"),
        ("echo '{{ x }}'", "inside single quotes"),
        ('echo "it\'s {{ x }}"', "inside double quotes"),
        ("echo a # {{ x }}", "in a comment"),
        ("echo \\{{ x }}", "after a backslash"),
        ('echo "\\\\{{ x }}"', "inside double quotes"),
        ("echo `date {{ x }}`", "after `"),
        ("cat <<EOF\n{{ x }}\nEOF", "after <<"),
        ('echo "$(echo "{{ x }}")"', "after $("),
        ('echo "`echo "{{ x }}"`"', "after `"),
        ("echo $(( {{ x }} + 1 ))", "after $(("),
        ("echo ${a:-{{ x }}}", "after ${"),
        ("echo $'it\\'s' {{ x }}", "after $'"),
        ('echo $"a" {{ x }}', 'after $"'),
        ('# "\necho "{{ x }}"', "inside double quotes"),
    ],
)
def test_elsewhere_it_is_refused(line: str, where: str) -> None:
    assert list(find_unsafe(line)) == [("x", line.index("{{"), where)]


def test_each_placeholder_is_named() -> None:
    line = "echo {{ a }} '{{ b }}' {{ c }} \"{{ d }}\""
    assert [name for name, _, _ in find_unsafe(line)] == ["b", "d"]
