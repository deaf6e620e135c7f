"""HTTP/1.1 written out by hand, for requests that no proper client would send."""

import json
import socket

from tests.kits.fakes.serving import Serving


def connect(served: Serving) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(60)
    client.connect(served.socket)
    return client


def read_all(client: socket.socket) -> bytes:
    answer = b""
    while block := client.recv(65536):
        answer += block
    return answer


def raw(served: Serving, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send these bytes; status, headers and body of the answer."""
    with connect(served) as client:
        client.sendall(request)
        return parse(read_all(client))


def parse(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (field.split(": ", 1) for field in fields)}
    return int(first.split(" ")[1]), headers, body


def ask(served: Serving, method: str, path: str, body: object = None) -> tuple[int, object]:
    data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
    status, headers, answer = raw(served, head.encode() + data)
    if status >= 400 and path != "/v1/health":
        assert headers["content-type"] == "application/problem+json"
        problem = json.loads(answer)
        assert problem["status"] == status
        assert set(problem) >= {"type", "title", "status", "detail"}
    return status, json.loads(answer) if headers["content-type"].endswith("json") else answer.decode()
