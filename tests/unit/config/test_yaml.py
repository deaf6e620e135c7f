"""One YAML file becomes plain values with places, by either of PyYAML's parsers, or one clear problem."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runnerd.config.yaml_file import MAX_VALUES, parse
from runnerd.config.yaml_nodes import Map, make_plain
from runnerd.core.errors import ConfigError

PARSERS = pytest.mark.parametrize("pure", [False, True], ids=["libyaml", "pure"])

BAD = [
    ("a: 1\na: 2\n", "2:1: the key 'a' is already on line 1; remove one"),
    ("x:\n  a: 1\n  b: 2\n  'a': 3\n", "4:3: the key 'a' is already on line 2; remove one"),
    ("1: x\n", "1:1: a key must be text, not '1' without quotes, which YAML reads as a number; quote it"),
    ("on: x\n", "1:1: a key must be text, not 'on' without quotes, which YAML reads as true or false; quote it"),
    ("null: x\n", "1:1: a key must be text, not 'null' without quotes, which YAML reads as null; quote it"),
    ("? \n: x\n", "1:2: a key must be text, not empty; quote it"),
    ("{a: 1}: x\n", "1:1: a key must be text, not a map; quote a value that starts with { or ["),
    ("[a]: x\n", "1:1: a key must be text, not a list; quote a value that starts with { or ["),
    ("a: {{ x }}\n", "1:5: a key must be text, not a map; quote a value that starts with { or ["),
    ("a: &x [1]\n*x : 1\n", "2:1: a key must be text, not a list; quote a value that starts with { or ["),
    ("a: &x [*x]\n", "1:8: the alias *x is inside the value of &x, without end; remove it"),
    ("a: &x {b: {c: *x}}\n", "1:15: the alias *x is inside the value of &x, without end; remove it"),
    ("a: *x\n", "1:4: the alias *x has no &x above it; add one, or quote the value"),
    ("a: &x 1\nb: &x 2\n", "2:4: the anchor &x is already on line 1; rename one"),
    ("a: !foo 1\n", "1:4: the tag !foo is not allowed here; write plain text, a number, a list or a map"),
    (
        "a: !!python/object/apply:os.system [id]\n",
        "1:4: the tag !!python/object/apply:os.system is not allowed here; write plain text, a number, a list or a map",
    ),
    ("a: !!set {x}\n", "1:4: the tag !!set is not allowed here; write plain text, a number, a list or a map"),
    ("a: !!binary aGk=\n", "1:4: the tag !!binary is not allowed here; write plain text, a number, a list or a map"),
    ("a: !!int x\n", "1:4: 'x' is not a value of the kind !!int; quote it if text is meant"),
    ("a: !e!x 1\n", "1:4: tags (!...) are not allowed here; quote the value if text is meant"),
    ("--- {a: 1}\n--- {b: 2}\n", "2:1: a second document starts here; one file holds one document: remove the '---'"),
    ("a: 1\n...\nb: 2\n", "3:1: text after the end of the document; one file holds one document"),
    ("{a: 1}}\n", "1:7: there is no open '{' for this '}'; remove it"),
    ("a: [1]]\n", "1:7: there is no open '[' for this ']'; remove it"),
    ("a:\n\tb: 1\n", "2:1: a tab in the indentation; use spaces"),
    ("a:\n  b: 1\n  \tc: 1\n", "3:3: a tab in the indentation; use spaces"),
    ("a: |\n x\n\ty: 2\n", "3:1: a tab in the indentation; use spaces"),
    ("a: {x: 1\nb: 2\n", "1:4: the { opened here is never closed; quote the value if text is meant"),
    ("a: [1, 2\nb: 1\n", "1:4: the [ opened here is never closed; quote the value if text is meant"),
    ("a: 'x\nb: 1\n", "1:4: the quote opened here is never closed"),
    ('a: "x\n', "1:4: the quote opened here is never closed"),
    ("a: b: c\n", "1:5: a ':' is not allowed here; quote a value that has ': ' in it, or check the indentation"),
    ("a: 1\n  b: 2\n", "2:4: a ':' is not allowed here; quote a value that has ': ' in it, or check the indentation"),
    ("a: @x\n", "1:4: a value cannot start with '@'; quote it"),
    ("a: %x\n", "1:4: a value cannot start with '%'; quote it"),
    ("a: - b\n", "1:4: a list cannot start on the line of its key; put '- ' on a line of its own"),
    ("a: &\n", "1:5: an anchor (&) or alias (*) without a name; quote a value that starts with & or *"),
    ("%YAML 3.0\n---\na: 1\n", "1:1: this YAML version is not supported; remove the %YAML line"),
    (
        "a:\n  b: 1\n c: 2\n",
        "3:2: this line does not fit the ones above it; keys of one map start in one column, as do the '-' of a list",
    ),
    (
        "- a\nb: 1\n",
        "2:1: this line does not fit the ones above it; keys of one map start in one column, as do the '-' of a list",
    ),
    (
        "a: \x07\n",
        "1:4: the character U+0007 is not allowed in YAML; remove it, or write it as an escape in double quotes",
    ),
    ("a: " + "1" * 300, "1:4: a number of 300 digits is too long; quote it if text is meant"),
    ("a: " + "1" + ":1" * 200, "1:4: a number of 401 digits is too long; quote it if text is meant"),
    ("a: " + "[" * 60 + "]" * 60, "1:53: lists and maps are nested more than 50 deep; flatten them"),
    ("a: &x {b: 1}\nc: {<<: [*x, 5]}\n", "2:9: '<<' needs a map, or a list of maps"),
    ("c: {<<: 5}\n", "1:9: '<<' needs a map, or a list of maps"),
]


def refused(text: str, *, pure: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, file="f", pure=pure)
    (problem,) = caught.value.problems
    return str(problem).removeprefix("f:")


@PARSERS
@pytest.mark.parametrize(("text", "words"), BAD, ids=[text[:30] for text, _ in BAD])
def test_bad_yaml_is_one_clear_problem(text: str, words: str, pure: bool) -> None:
    assert refused(text, pure=pure) == words


@PARSERS
def test_an_alias_bomb_is_refused_before_it_is_built(pure: bool) -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for level in range(1, 30):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    assert f"more than {MAX_VALUES} values, aliases included" in refused(bomb, pure=pure)


@PARSERS
def test_aliases_cannot_nest_deeper_than_lists(pure: bool) -> None:
    chain = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 60))
    assert refused(chain, pure=pure) == "50:12: lists and maps are nested more than 50 deep; flatten them"


@PARSERS
def test_an_escaped_half_character_is_refused(pure: bool) -> None:
    assert refused('a: "\\uD800"\n', pure=pure).startswith("1:")


@PARSERS
def test_keys_and_values_know_their_places(pure: bool) -> None:
    node = parse("a: 1\nb:\n  - x\n  - c: {d: 2}\n", file="f", pure=pure)
    assert str(node.key_place("b")) == "f:2:1"
    assert str(node.value_place("a")) == "f:1:4"
    assert str(node["b"].item_place(1)) == "f:4:5"
    assert str(node["b"][1]["c"].key_place("d")) == "f:4:9"
    assert str(node.key_place("not there")) == "f:1:1"


@PARSERS
def test_scalars_are_what_pyyaml_makes_of_them(pure: bool) -> None:
    node = parse(
        "t: 2026-01-01T00:00:00Z\nu: 2026-01-01\nn: ~\ny: yes\no: 0027\nx: 0x1f\nf: 1.50\ns: '5'\ne: 1e3\nm: <<\n"
        "q: !!str 5\nk: ! 5\n",
        file="f",
        pure=pure,
    )
    assert node == {
        "t": "2026-01-01T00:00:00Z",
        "u": "2026-01-01",
        "n": None,
        "y": True,
        "o": 23,
        "x": 31,
        "f": 1.5,
        "s": "5",
        "e": "1e3",
        "m": "<<",
        "q": "5",
        "k": 5,
    }
    assert {key: node.spelling.get(key) for key in "oyfs"} == {"o": "0027", "y": "yes", "f": "1.50", "s": None}


@PARSERS
def test_merge_keys_fill_in_what_is_not_written_out(pure: bool) -> None:
    node = parse(
        "x: &x {a: 1, b: 1}\ny: &y {b: 2, c: 2}\nz:\n  b: 3\n  <<: [*y, *x]\n",
        file="f",
        pure=pure,
    )
    assert node["z"] == {"a": 1, "b": 3, "c": 2}
    assert str(node["z"].value_place("c")) == "f:2:17"


def test_plain_values_have_no_places_left() -> None:
    value = make_plain(parse("a: {b: [1, {c: 2}]}\n", file="f"))
    assert type(value["a"]["b"][1]) is dict
    assert value == {"a": {"b": [1, {"c": 2}]}}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n"])
def test_an_empty_document_is_none(text: str) -> None:
    assert parse(text, file="f") is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values, st.booleans(), st.booleans())
def test_whatever_pyyaml_writes_is_read_as_pyyaml_reads_it(value: object, flow: bool, pure: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, allow_unicode=True)
    try:
        found = parse(text, file="f", pure=pure)
    except ConfigError as error:
        # PyYAML writes some characters (a lone surrogate cannot come up) that YAML does not allow unescaped.
        assert "is not allowed in YAML" in str(error)
        return
    assert make_plain(found) == yaml.safe_load(text)


@given(st.text(), st.booleans())
def test_any_text_is_read_or_is_one_problem_with_a_place(text: str, pure: bool) -> None:
    check_any(text, pure)


@given(st.lists(st.sampled_from([*list("ab:-[]{},&*!|>'\"#%@`?\n\t \\<1.~"), "<<", "---", "!!", "a: "])), st.booleans())
def test_any_yaml_like_text_is_read_or_is_one_problem_with_a_place(parts: list[str], pure: bool) -> None:
    check_any("".join(parts), pure)


def check_any(text: str, pure: bool) -> None:
    try:
        found = parse(text, file="f", pure=pure)
    except ConfigError as error:
        (problem,) = error.problems
        assert problem.place is not None
        assert 1 <= problem.place.line <= text.count("\n") + text.count("\r") + text.count("\x85") + 3
        assert problem.place.column >= 1
        return
    if isinstance(found, Map):
        for key in found:
            assert found.key_place(key).line >= 1


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("2025-08-27t10:30:00 -05:00", "2025-08-27T10:30:00-05:00"),
        ("2025-08-27 10:30:00Z", "2025-08-27T10:30:00Z"),
        ("2025-08-27 10:30:00.5", "2025-08-27T10:30:00.500000"),
        ("2025-8-7 1:30:00", "2025-08-07T01:30:00"),
        ("2025-08-27", "2025-08-27"),
        ("!!timestamp '2025-08-27 10:30:00'", "2025-08-27T10:30:00"),
        ("'2025-08-27 10:30:00'", "2025-08-27 10:30:00"),  # quoted: text
        ("2025-99-99", "2025-99-99"),  # no date
        ("!!timestamp soon", "soon"),
    ],
)
def test_a_timestamp_is_what_prefect_deploy_sends(written: str, text: str) -> None:
    assert parse(f"a: {written}\n", file="x") == {"a": text}
