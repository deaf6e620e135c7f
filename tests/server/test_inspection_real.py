"""The inspection program under real Prefect interpreters, against what their own clients register."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.kits.inspecting import inspect

pytestmark = pytest.mark.server

FLOWS = '''
import datetime
import enum
from typing import Dict, List, Optional, Union

import pydantic
from prefect import flow

print("imported")


class Colour(enum.Enum):
    red = "red"
    blue = "blue"


class Order(pydantic.BaseModel):
    sku: str
    amount: int = pydantic.Field(1, ge=1)
    colour: Colour = Colour.red


@flow(name="Every Kind", version="2.1", description="Has every kind of parameter.")
def every(
    required: int,
    when: datetime.datetime,
    orders: List[Order],
    untyped,
    text: str = "x",
    maybe: Optional[List[float]] = None,
    either: Union[int, str] = 3,
    colour: Colour = Colour.blue,
    order: Order = Order(sku="a"),
    lasting: datetime.timedelta = datetime.timedelta(seconds=5),
    day: datetime.date = datetime.date(2024, 2, 29),
    table: Dict[str, int] = {"a": 1},
    schema: str = "shadows a method",
    *,
    keyword: bool = False,
):
    """Docstring.

    Args:
        required: what must be given
        text: some text
    """


@flow
def no_parameters():
    """What it does."""


@flow
async def coroutine(n: float = 1.5):
    pass


def helper():
    pass
'''

REGISTER = """
import flows
for flow in (flows.every, flows.no_parameters, flows.coroutine):
    flow.to_deployment("by-prefect").apply()
"""


class Server(Protocol):
    url: str
    python: str
    major: int
    environment: dict[str, str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "flows.py").write_text(FLOWS)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "etl.py").write_text(FLOWS)
    return tmp_path


def registered(server: Server, flow_name: str) -> Any:
    path = f"/deployments/name/{urllib.parse.quote(flow_name)}/by-prefect"
    with urllib.request.urlopen(server.url.rstrip("/") + path, timeout=60) as answer:
        return json.load(answer)


def test_the_schema_is_the_one_prefect_registers(prefect: Server, folder: Path) -> None:
    subprocess.run(
        [prefect.python, "-c", REGISTER],
        cwd=folder,
        env={**prefect.environment, "PREFECT_API_URL": prefect.url},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    done = inspect(prefect.python, folder, ["flows.py:every", "flows.py:no_parameters", "flows.py:coroutine"])
    for function, flow_name in (
        ("every", "Every Kind"),
        ("no_parameters", "no-parameters"),
        ("coroutine", "coroutine"),
    ):
        said, theirs = done.good(f"flows.py:{function}"), registered(prefect, flow_name)
        assert said.flow_name == flow_name
        assert str(said.description) == str(theirs["description"])  # some servers give "None" for null
        assert said.parameter_schema == theirs["parameter_openapi_schema"]
        assert said.prefect_version.startswith(f"{prefect.major}.")
    assert done.good("flows.py:every").version == "2.1"


def test_modules_and_files_say_the_same(prefect: Server, folder: Path) -> None:
    entrypoints = ["package/etl.py:every", "package.etl:every", "package.etl.every", f"{folder}/package/etl.py:every"]
    done = inspect(prefect.python, folder, entrypoints)
    first = done.good(entrypoints[0])
    assert first.file == str(folder / "package" / "etl.py")
    for entrypoint in entrypoints[1:]:
        # The stamps may differ: imports write byte code into the folders of packages.
        assert replace(done.good(entrypoint), dependencies={}) == replace(first, dependencies={})


FAILURES = {
    "absent.py:f": ("missing-file", "absent.py: no such file or directory in {folder}"),
    "package.absent:f": ("missing-file", "package.absent: no such module, neither in {folder} nor among the packages"),
    "flows.py:evry": ("no-such-function", 'flows.py: there is no function "evry"; did you mean "every"?'),
    "package.etl:evry": ("no-such-function", 'package.etl: there is no function "evry"; did you mean "every"?'),
    "flows.py:helper": ("not-a-flow", 'flows.py: "helper" is not a flow; decorate it with @flow'),
    "pandas_.py:f": ("import-failed", "pandas_.py: ModuleNotFoundError: No module named 'pandas' (line 3)"),
    "package.pandas_:f": ("import-failed", "package.pandas_: ModuleNotFoundError: No module named 'pandas' (line 3)"),
    "syntax.py:f": ("import-failed", "syntax.py: SyntaxError: "),
    "attribute.py:f": ("import-failed", "attribute.py: AttributeError: "),
    "package.attribute:f": ("import-failed", "package.attribute: AttributeError: "),
    "below.py:f": ("import-failed", "below.py: ZeroDivisionError: division by zero (line 2, from lib_below.py line 2)"),
    "exit.py:f": ("crashed", "exit.py: it calls sys.exit(2) when imported"),
    "gone.py:f": ("crashed", "gone.py: the interpreter exited 3 while it imported this file"),
}


def test_failures_read_well(prefect: Server, folder: Path) -> None:
    (folder / "pandas_.py").write_text("import os\n\nimport pandas\n")
    (folder / "package" / "pandas_.py").write_text("import os\n\nimport pandas\n")
    (folder / "syntax.py").write_text("def f(:\n")
    (folder / "attribute.py").write_text("import os\nos.no_such_thing\n")
    (folder / "package" / "attribute.py").write_text("import os\nos.no_such_thing\n")
    (folder / "lib_below.py").write_text("def half():\n    return 1 / 0\n")
    (folder / "below.py").write_text("import lib_below\nlib_below.half()\n")
    (folder / "exit.py").write_text("import sys; sys.exit(2)\n")
    (folder / "gone.py").write_text("import os; os._exit(3)\n")
    done = inspect(prefect.python, folder, [*FAILURES, "flows.py:coroutine"])
    for entrypoint, (kind, start) in FAILURES.items():
        failure = done.failure(entrypoint)
        assert failure.message.startswith(start.format(folder=folder)), entrypoint
        assert failure.kind == kind, entrypoint
        assert "\n" not in failure.message
    assert "No module named 'pandas'" in done.failure("pandas_.py:f").traceback_tail
    assert done.good("flows.py:coroutine").flow_name == "coroutine"
    assert "imported" in done.output
