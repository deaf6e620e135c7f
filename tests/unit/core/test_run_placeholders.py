"""Placeholders of a run in arguments and texts: one line, bounded, and nothing that is no field."""

from __future__ import annotations

import json

from runnerd.core.run_placeholders import DOCUMENT_MAX, document_text, fill, unknown_placeholder


def test_fields_are_filled_in() -> None:
    assert fill("a {{ run.name }}-{{run.id}}", {"name": "fox", "id": 3}) == "a fox-3"


def test_a_field_without_a_value_is_empty() -> None:
    assert fill("[{{ run.pool }}]", {"pool": None}) == "[]"


def test_a_value_is_one_short_line_and_no_placeholder_of_its_own() -> None:
    assert fill("{{ run.name }}", {"name": "a\nb\0{{ run.id }}", "id": "x"}) == "a b {{ run.id }}"
    assert len(fill("{{ run.name }}", {"name": "x" * 5000})) == 1000


def test_what_is_no_field_is_named() -> None:
    assert unknown_placeholder("{{ run.nam }} {{ run.name }}") == "run.nam"
    assert unknown_placeholder("{{ name }}") == "name"
    assert unknown_placeholder("{{ run.exit }}") == "run.exit", "not one value"
    assert unknown_placeholder("{{ run.name }}") is None
    assert fill("{{ name }}", {"name": "x"}) == "{{ name }}"


def test_the_document_is_bounded() -> None:
    assert json.loads(document_text({"id": "a", "tags": ["x"]})) == {"id": "a", "tags": ["x"]}
    long = json.loads(document_text({"id": "a", "words": "w" * 10000, "tags": ["x" * 500] * 1000, "labels": {}}))
    assert (long["tags"], len(long["words"]), long["shortened"]) == ([], 4000, True)
    longest = document_text({"id": "a", **{f"k{number}": "w" * 4000 for number in range(100)}})
    assert len(longest) <= DOCUMENT_MAX
