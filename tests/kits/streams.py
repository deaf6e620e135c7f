"""Runs whose events and output are streamed, and who asks for them."""

from runnerd.control.client import ControlClient
from tests.kits.fakes.serving import Serving

RUN = "aaaa1111-0000-4000-8000-000000000001"
OTHER = "bbbb1111-0000-4000-8000-000000000002"


def client_of(served: Serving) -> ControlClient:
    return ControlClient(served.socket, timeout_s=60)
