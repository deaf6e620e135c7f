"""pool_tables.py: what a preview says about what it does not list."""

from __future__ import annotations

from argparse import Namespace

import pytest

from runnerd.cli.call import Call
from runnerd.cli.console import Console
from runnerd.cli.pool_tables import print_preview
from runnerd.control.client import ControlClient
from tests.kits.nouns import Json


class Answering(ControlClient):
    """Answers every request with the same document."""

    def __init__(self, document: Json) -> None:
        super().__init__("/nowhere")
        self._document = document

    def get(self, path: str, query: object = None) -> Json:
        return self._document


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, []),
        ({"paused_deployments": [], "unchecked_limits": []}, []),
        ({"paused_deployments": None}, ["paused deployments are not listed: the API cannot list them"]),
        ({"unchecked_limits": ["etl/a"]}, ["concurrency limit not checked: etl/a"]),
        (
            {"unchecked_limits": [f"etl/{name}" for name in "abcdefg"]},
            ["concurrency limit not checked: etl/a, etl/b, etl/c, etl/d, etl/e and 2 more"],
        ),
    ],
)
def test_the_remarks_of_a_preview(capsys: pytest.CaptureFixture[str], more: Json, said: list[str]) -> None:
    found = {"runs": [], "paused": [], "whole": True, **more}
    console = Console(json=False, width=None, colour=False)
    print_preview(Call(Namespace(hours=1), Answering(found), console), "/v1/preview", pools=True)
    assert capsys.readouterr().err.splitlines() == ["no runs; use --hours to list runs due later", *said]
