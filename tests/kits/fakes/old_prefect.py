"""FakePrefects of older versions, as far as they differ in what runnerd sends."""

from __future__ import annotations

from tests.kits.fakes.fake_prefect import FakePrefect, Json


class Prefect300(FakePrefect):
    """A server 3.0.0: no concurrency_options, and no route for the labels of a run."""

    def __init__(self) -> None:
        super().__init__(major=3)

    def _route(self, method: str, path: str, body: Json) -> tuple[int, Json]:
        if path == "/admin/version":
            return 200, "3.0.0"
        if path.endswith("/labels"):
            return 404, {"detail": "Not Found"}
        if path.startswith("/deployments/") and isinstance(body, dict) and "concurrency_options" in body:
            error = {
                "type": "extra_forbidden",
                "loc": ["body", "concurrency_options"],
                "msg": "Extra inputs are not permitted",
            }
            return 422, {"detail": [error]}
        status, data = super()._route(method, path, body)
        if path.startswith("/deployments/") and isinstance(data, dict):
            data = {key: value for key, value in data.items() if key != "concurrency_options"}
        return status, data


class Prefect21421(FakePrefect):
    """A server 2.14.21: no filter of paused deployments."""

    def __init__(self) -> None:
        super().__init__(major=2)

    def _route(self, method: str, path: str, body: Json) -> tuple[int, Json]:
        if path == "/admin/version":
            return 200, "2.14.21"
        if path == "/deployments/filter" and isinstance(body, dict) and "paused" in body.get("deployments", {}):
            error = {
                "type": "value_error.extra",
                "loc": ["body", "deployments", "paused"],
                "msg": "extra fields not permitted",
            }
            return 422, {"detail": [error]}
        return super()._route(method, path, body)
