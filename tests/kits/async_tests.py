"""`async def test_...`: what the conftest of a folder gives it to run on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import pytest


def run_on_loop(item: pytest.Function, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    """Make a plain test of an async one, for pytest to call. Where no conftest does so, pytest fails the test."""
    test = item.obj
    if inspect.iscoroutinefunction(test):
        item.obj = lambda **given: run(test(**given))
