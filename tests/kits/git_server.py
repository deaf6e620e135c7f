"""A git server on loopback: real repositories behind git http-backend, and ways in which a server can be bad."""

from __future__ import annotations

import base64
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BACKEND = ["git", "http-backend"]
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", os.defpath),
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    **{f"GIT_{who}_{what}": value for who in ("AUTHOR", "COMMITTER") for what, value in (
        ("NAME", "Ada"), ("EMAIL", "ada@example.org"), ("DATE", "2024-01-01T00:00:00Z"))},
}  # fmt: skip


def git(folder: Path, *words: str, given: bytes = b"") -> str:
    done = subprocess.run(["git", *words], cwd=folder, env=ENVIRONMENT, input=given, capture_output=True, check=False)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr.decode()}"
    return done.stdout.decode().strip()


class Repository:
    """A bare repository at `path`, with a work tree beside it for commits."""

    def __init__(self, root: Path, name: str = "etl.git") -> None:
        self.path, self.work = root / name, root / f"{name}-work"
        self.work.mkdir(parents=True)
        git(root, "init", "--quiet", "--bare", "--initial-branch=main", str(self.path))
        git(root, "init", "--quiet", "--initial-branch=main", str(self.work))
        git(self.work, "remote", "add", "origin", str(self.path))
        git(self.path, "config", "http.receivepack", "false")

    def write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def commit(self, files: Mapping[str, str] | None = None, *, branch: str = "main") -> str:
        """Write files, commit everything in the work tree, push it as `branch`; return the commit."""
        self.write(files or {})
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--allow-empty", "--message", "a change")
        git(self.work, "push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}")
        return git(self.work, "rev-parse", "HEAD")


class GitServer:
    """Serves the repositories below `root`. `asked`: paths of the requests; `answer`: what takes one over."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.login: str | None = None  # user:password, without which nothing is served
        self.logins: list[str] = []  # those that were sent
        self.answer: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.serve(self)

            do_POST = do_GET

            def log_message(self, format: str, *words: object) -> None:
                """Say nothing."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.released = threading.Event()  # what hangs ends then
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def url(self, name: str = "etl.git") -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/{name}"

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        sent = request.headers.get("Authorization", "").removeprefix("Basic ")
        if sent:
            self.logins.append(base64.b64decode(sent).decode())
        if self.login is not None and self.login not in self.logins[-1:]:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.end_headers()
        elif not self.answer(request):
            self._run_backend(request)

    def _run_backend(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length) if length else _read_chunks(request)
        variables = {
            **ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        done = subprocess.run(BACKEND, input=body, env=variables, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
        request.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(content)


def _read_chunks(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") != "chunked":
        return b""
    body = b""
    while size := int(request.rfile.readline(), 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


@contextmanager
def serving_git(root: Path) -> Iterator[GitServer]:
    server = GitServer(root)
    try:
        yield server
    finally:
        server.close()
