"""parameter_file.py: each fault of a file with parameters has its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnerd.cli.call import UsageError
from runnerd.cli.parameters import read_parameters
from runnerd.control.client import Json


def read(folder: Path, name: str, text: str | bytes) -> dict[str, Json]:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_parameters([], [str(path)])


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", '{"a": 1,\n "b": NaN}', "2:7: NaN is not JSON"),
        ("a.yaml", '{"a": 1,\n "b": -Infinity}', "2:7: -Infinity is not JSON"),
        ("a.json", '{"a": ["\\"NaN", 1e999]}', "1:17: the number 1e999 is too large"),
        ("a.txt", '{"a": 1e999}', "1:7: the number 1e999 is too large"),
        ("a.yaml", "a: 1\nb: [0, .nan]\n", "2:8: b[1]: .nan is not a number in JSON; quote it if text is meant"),
        ("a.yaml", "b: 1.0e+999\n", "1:4: b: .inf is not a number in JSON"),
        ("a.json", '{"a": 1\n "b": 2}', "2:2: not valid JSON: Expecting ',' delimiter"),
        ("a.json", '{"a": None}', "1:7: not valid JSON: Expecting value"),
        ("a.json", '{"a": 1, "a": 2}', "1:10: the key 'a' is already on line 1; remove one"),
        ("a.json", '{"a": "\\ud800"}', "1:10: "),
        ("a.json", b'{"a":\n "\xff"}', "2:3: the text is not UTF-8 here; save the file as UTF-8"),
    ],
)
def test_a_fault_has_its_place(tmp_path: Path, name: str, text: str | bytes, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        read(tmp_path, name, text)
    assert f"cannot read the parameters: {tmp_path}/{name}:{why}" in str(refused.value)


def test_words_that_yaml_has_as_text(tmp_path: Path) -> None:
    assert read(tmp_path, "a.yaml", "a: NaN\nb: [Infinity]\n") == {"a": "NaN", "b": ["Infinity"]}
    assert read(tmp_path, "a.yaml", "{a: NaN, b: 1}") == {"a": "NaN", "b": 1}
    assert read(tmp_path, "a.json", '\ufeff{"NaN": "NaN"}') == {"NaN": "NaN"}


def test_two_files(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot use --params twice; put all parameters into one file"):
        read_parameters([], ["a.json", "b.json"])
    assert read_parameters(["a=2"], []) == {"a": 2}
