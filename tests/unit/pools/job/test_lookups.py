"""lookups.py: which blocks and variables a job configuration takes from Prefect, and what is shown of them."""

from __future__ import annotations

import pytest

from runnerd.pools.job.template import (
    BlockNamed,
    BlockWithId,
    Resolved,
    VariableNamed,
    resolve,
)
from tests.kits.templates import (
    DEFAULT,
    ID,
    POOL,
    RUN,
    looked_up,
    outcome,
    sources,
)


def test_what_is_looked_up_when() -> None:
    of = sources(
        {"a": "{{ prefect.blocks.aws.creds.region }}/", "b": ["{{ b }}"], "c": "{{ prefect.variables.four }}"},
        {"b": {"default": {"$ref": {"block_document_id": ID}}}, "unused": {"default": ["{{ $NO }}"]}},
    )
    found, rounds = looked_up(of)
    aws, four, region = BlockNamed("aws", "creds"), VariableNamed("four"), VariableNamed("region")
    assert rounds == [frozenset({aws, BlockWithId(ID), four}), frozenset({region})]
    result = resolve(of, found)
    assert isinstance(result, Resolved)
    assert result.configuration == {"a": "eu/", "b": [{"cpu": "hunter2"}], "c": 4}
    assert result.sources == {"a": f"{POOL}.a", "b": f"{POOL}.b", "c": f"{POOL}.c"}
    with pytest.raises(ValueError, match="looked up"):
        resolve(of, {})


def test_a_result_says_where_each_key_came_from() -> None:
    of = sources(
        {"command": "{{ command }}", "env": {"A": "1"}, "name": "x"},
        {"command": {"default": "c"}, "env": {}},
        run_variables={"env": {"B": "2"}},
    )
    result = outcome(of)
    assert isinstance(result, Resolved)
    assert result.sources == {
        "command": f'variable "command", {DEFAULT}',
        "env": f"{POOL}.env",
        "env.A": f"{POOL}.env.A",
        "env.B": f'variable "env.B", {RUN}',
        "name": f"{POOL}.name",
    }


def test_secrets_are_in_no_repr() -> None:
    of = sources(
        {"a": "{{ prefect.blocks.secret.token }}"}, run_variables={"b": "hunter2"}, environment={"C": "hunter2"}
    )
    assert repr(of) == "Sources(pool='P', deployment='etl/nightly')"
    assert repr(outcome(of)) == "Resolved(a)"
