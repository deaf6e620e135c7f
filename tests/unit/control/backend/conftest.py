"""The two servers that requests about pools are tried at."""

from __future__ import annotations

import pytest

from tests.kits.asked_pools import OWN, TEMPLATE
from tests.kits.fakes.fake_prefect import FakePrefect


@pytest.fixture(params=[2, 3])
def prefect(request: pytest.FixtureRequest) -> FakePrefect:
    fake = FakePrefect(major=request.param)
    fake.pools.add_worker_type("process", "prefect", TEMPLATE)
    fake.pools.add_worker_type("docker", "prefect-docker", OWN)
    return fake
