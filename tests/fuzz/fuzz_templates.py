"""Base job templates and job variables: each combination gives a job or one sentence, and shows no secret."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from runnerd.pools.job.process_job import process_job
from runnerd.pools.job.template import Resolved, Sources, Unresolvable, resolve
from tests.kits.fuzzing import NUMBERS, TEXTS, answered_in_time, fuzz
from tests.kits.templates import ID, KNOWN, looked_up

Json = Any
SECRET = "hunter2"  # the value of the blocks of tests/kits/templates.py
NAMES = ["env", "command", "name", "working_dir", "labels", "a", "b", "a.b", "env.A", "grace_period_seconds", "ctx"]
PLACEHOLDERS = [
    "a",
    "env",
    "env.A",
    "b.c[0]",
    "b[-1]",
    "b[" + "9" * 5000 + "]",
    "a" + ".a" * 2000,
    " ",
    "{{",
    "$HOME",
    "$",
    "$$PATH",
    "ctx.flow.name",
    "ctx",
    "prefect.variables.region",
    "prefect.variables.none",
    "prefect.variables.",
    "prefect.variables.four",
    "prefect.blocks.secret.token",
    "prefect.blocks.secret.lines",
    "prefect.blocks.json.map.a",
    "prefect.blocks.aws.creds",
    "prefect.blocks.aws.creds.region",
    "prefect.blocks.x",
    "prefect.blocks.",
    "prefect.blocks." + "x" * 5000 + ".y",
]
TYPES = ["string", "integer", "number", "boolean", "object", "array", "null", "no-such-type", ["string", "null"]]
RULES: dict[str, list[Json]] = {
    "type": TYPES,
    "minimum": [0, -1, 10**400, "x", None],
    "maxLength": [0, -1, 1.5, "x"],
    "pattern": ["(a+)+$", "(", "[", ""],
    "format": ["date-time", "email", "x" * 1000],
    "enum": [[], ["a"], "a", [None]],
    "const": [1, None],
    "multipleOf": [0, 1e-320, -1],
    "required": [["a"], "a", [1], None],
    "$ref": [
        "#/properties/a",
        "#",
        "#/nowhere",
        "http://127.0.0.1:1/x",
        "file:/etc/passwd",
        "#/%",
        "#/" + "x/" * 500,
    ],
    "$id": ["http://127.0.0.1:1/", 1],
    "$schema": ["x", 1],
    "$dynamicRef": ["#x", "#"],
    "additionalProperties": [False, True, {}, "x"],
    "propertyNames": [{"pattern": "a"}, False, 1],
    "uniqueItems": [True],
    "items": [[], {}, [{}], "x"],
    "default": ["{{ a }}", None, 1, {"A": "b"}, [1]],
}


def shown(value: Json, levels: int = 12) -> str:
    if levels == 0:
        return "..."
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key[:500]!r}: {shown(value[key], levels - 1)}" for key in value) + "}"
    return f"[{', '.join(shown(one, levels - 1) for one in value)}]" if isinstance(value, list) else repr(value)[:5000]


@dataclass(frozen=True, repr=False)
class Case:
    """What a job is made from."""

    template: Json
    deployment: Json
    run: Json

    def __repr__(self) -> str:
        # Python's own repr of a value that is nested so deeply fails, or not, by how deep the caller is.
        return f"Case({', '.join(shown(part) for part in (self.template, self.deployment, self.run))})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))  # or Hypothesis goes through the fields itself, as deep as they are


def flat(*values: Json) -> list[str]:
    """All that the values hold, to compare; nesting costs no recursion here."""
    left, held = list(values), []
    while left:
        value = left.pop()
        if isinstance(value, dict | list):
            left += value.values() if isinstance(value, dict) else value
            value = list(value) if isinstance(value, dict) else len(value)
        held.append(repr(value))
    return held


def make_a_job(case: Case) -> None:
    sources = Sources(
        pool="P",
        template=case.template,
        deployment="etl/nightly",
        deployment_variables=case.deployment,
        run_variables=case.run,
        environment={"HOME": "/root"},
        context={"flow": {"name": "etl"}},
    )
    before = flat(case.template, case.deployment, case.run, KNOWN)
    with answered_in_time(case):
        result = resolve(sources, looked_up(sources)[0])
        job = process_job(result.configuration, sources=result.sources) if isinstance(result, Resolved) else result
    assert flat(case.template, case.deployment, case.run, KNOWN) == before
    if isinstance(job, Unresolvable):
        assert job.problem
        assert SECRET not in job.problem
    else:
        assert SECRET not in repr(job)


texts = (
    st.sampled_from(PLACEHOLDERS).map(lambda name: f"{{{{ {name} }}}}")
    | st.sampled_from(PLACEHOLDERS).map(lambda name: f"a{{{{{name}}}}}b{{{{ a }}}}")
    | st.sampled_from(TEXTS)
    | st.text(max_size=5)
)
scalars = st.none() | st.booleans() | st.sampled_from(NUMBERS) | texts
values = st.recursive(
    scalars | st.just({"$ref": {"block_document_id": "0d3b5c1e-5a53-4d2a-9f0e-0c8a3f6f2a11"}}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | texts, inner, max_size=3),
    max_leaves=6,
)


def nested(levels: int) -> Json:
    value: Json = "{{ a }}"
    for _ in range(levels):
        value = {"a": [value]}
    return value


maps = st.dictionaries(st.sampled_from(NAMES) | texts, values, max_size=4)
variables = maps | st.just({"a": nested(90)}) | st.just({"a": nested(600)}) | st.just({"a" + ".a" * 2000: 1})
rules = st.lists(st.sampled_from(sorted(RULES)), max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: st.sampled_from(RULES[name]) for name in names})
)
schemas = st.recursive(
    rules | values,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
            "$defs": st.dictionaries(st.sampled_from(NAMES), inner, max_size=2),
            "anyOf": st.lists(inner, max_size=2),
            "allOf": st.lists(inner, max_size=2),
            "not": inner,
            "if": inner,
            "patternProperties": st.dictionaries(st.sampled_from(["a", "("]), inner, max_size=1),
            "items": inner,
            "required": st.sampled_from(RULES["required"]),
        },
    ),
    max_leaves=6,
)
tops = st.fixed_dictionaries(
    {"type": st.just("object"), "properties": st.dictionaries(st.sampled_from(NAMES), schemas, max_size=4)},
    optional={"required": st.lists(st.sampled_from(NAMES), max_size=2), "$defs": schemas},
)
templates = st.fixed_dictionaries({"job_configuration": maps, "variables": tops}) | st.fixed_dictionaries(
    {}, optional={"job_configuration": values, "variables": schemas}
)


@st.composite
def drawn_cases(draw: st.DrawFn) -> Case:
    # Not builds(): of what that makes, Hypothesis shows the arguments, with a printer of its own that recurses.
    return Case(template=draw(templates), deployment=draw(variables), run=draw(variables))


cases = drawn_cases()


def test_templates() -> None:
    fuzz(cases, make_a_job, examples=60, found=FOUND)


INDEX = "{{ b[" + "9" * 5000 + "] }}"
FOUND = [
    Case(template={"job_configuration": {"env": INDEX}}, deployment={}, run={}),
    Case(template={"job_configuration": {}, "variables": {"required": None}}, deployment={}, run={}),
    Case(template={"job_configuration": {}, "variables": {"required": [1]}}, deployment={}, run={}),
    Case(template={"job_configuration": {"$ref": {"block_document_id": ID}}}, deployment={}, run={}),
    Case(template={"job_configuration": {"$ref": {"block_document_id": "x"}}}, deployment={}, run={}),
    Case(template={"job_configuration": {"env": "{{ b }}"}}, deployment={"b": INDEX}, run={"b[" + "9" * 5000: 1}),
]


def test_the_secret_is_one() -> None:
    assert SECRET in json.dumps([one.data for one in KNOWN.values() if hasattr(one, "data")])
