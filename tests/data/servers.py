"""Servers that datasets are read from: an HTTP server that injects faults, and an S3 server (moto) in a process of its own."""

import hashlib
import http.server
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fsspec.registry import _registry

from tests.helpers import environment, free_port

S3_VARIABLES = {
    "AWS_ACCESS_KEY_ID": "name",
    "AWS_SECRET_ACCESS_KEY": "word",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class WebServer:
    """Serves the files of a folder.

    Attributes:
        url: of the folder.
        faults: by file name, what is wrong with the next responses: a status code; "cut" (half of the content); "slow" (a
            pause of 0.2 s in the middle); "stuck" (a pause in the middle until `released` is set); "chunked" (no
            Content-Length); "whole". Further responses are whole.
        always: by file name, the same for all responses.
        requests: number of requests by "METHOD NAME".
        released: ends the pauses of "stuck".
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.faults: dict[str, list[str]] = {}
        self.always: dict[str, str] = {}
        self.requests: Counter[str] = Counter()
        self.released = threading.Event()

    def fault(self, name: str) -> str:
        return self.faults[name].pop(0) if self.faults.get(name) else self.always.get(name, "whole")

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        name = unquote(urlsplit(request.path).path)[1:]
        self.requests[f"{request.command} {name}"] += 1
        kind, path = self.fault(name), self.folder / name
        if kind.isdigit() or not path.is_file():
            request.send_error(int(kind) if kind.isdigit() else 404)
            return
        content = path.read_bytes()
        request.send_response(200)
        request.send_header("ETag", f'"{hashlib.md5(content).hexdigest()}"')
        if kind != "chunked":
            request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        if request.command == "GET":
            half = len(content) // 2
            request.wfile.write(content[:half])
            if kind == "stuck":
                self.released.wait(60)
            time.sleep(0.2 if kind == "slow" else 0)
            request.wfile.write(content[half:] if kind != "cut" else b"")


def without_package(monkeypatch: pytest.MonkeyPatch, package: str, protocol: str) -> None:
    """Make the import of a package of fsspec fail, even if it is installed and was imported before."""
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(_registry, protocol, raising=False)


@contextmanager
def serve(folder: Path) -> Iterator[WebServer]:
    """Serve a folder while the block runs."""
    web = WebServer(folder)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            web.answer(self)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        web.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield web
        server.shutdown()


@contextmanager
def serve_s3() -> Iterator[str]:
    """Run an S3 server while the block runs; yield its URL, which AWS_ENDPOINT_URL takes beside S3_VARIABLES."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            deadline = time.monotonic() + 60
            while not _listens(int(port)):
                assert server.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
