"""The routes of a deployment's source: pull it now, hold a commit, release it."""

from runnerd.control.contract import Refused
from tests.kits.fakes.raw_http import ask
from tests.kits.fakes.serving import Serving


def test_pull_and_revert(served: Serving) -> None:
    served.call(served.host.deployments.put, "d-1", "nightly")
    place = "/v1/deployments/nightly"
    assert ask(served, "POST", f"{place}/pull")[0] == 200
    assert ask(served, "POST", f"{place}/revert", {"commit": "abc"})[0] == 200
    assert ask(served, "POST", f"{place}/revert", {"release": True})[0] == 200
    assert ask(served, "POST", f"{place}/revert", {"commit": "abc", "release": True})[0] == 422
    assert ask(served, "POST", f"{place}/revert", {"commt": "abc"})[0] == 422
    assert ask(served, "POST", "/v1/deployments/nothing/pull")[0] == 404
    served.host.refusal = Refused(status=409, detail="cannot pull x: there is no such repository")
    assert ask(served, "POST", f"{place}/pull")[0] == 409
    asked = [("pull", None, False), ("revert", "abc", False), ("revert", None, True), ("pull", None, False)]
    assert served.host.asked == [(verb, ["nightly", commit, release]) for verb, commit, release in asked]
