"""Async tests of this folder run on a clock that jumps."""

from __future__ import annotations

from functools import partial

import pytest

from tests.kits import jump_loop
from tests.kits.async_tests import run_on_loop


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    real_io = pyfuncitem.get_closest_marker("real_io") is not None
    run_on_loop(pyfuncitem, partial(jump_loop.run, real_io=real_io))
