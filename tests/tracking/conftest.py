"""A real MLflow server, and a proxy before it that misbehaves as networks and servers do."""

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

from tests.helpers import environment
from wavegan_dist import config as configuration
from wavegan_dist.tracking.record import Record


class Server:
    """`mlflow server` on loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [Path(sys.executable).with_name("mlflow"), "server", "--port", str(self.port), "--workers", "1"]
        stores = ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--artifacts-destination", self.folder / "files"]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [*command, *stores],
                cwd=self.folder,
                env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self.answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=5).ok
        except requests.RequestException:
            return False

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Proxy(ThreadingHTTPServer):
    """Stands before a server.

    `mode`: pass, fail (500), fail PUT (files only), hang, or lose (some answers, their requests done).
    """

    daemon_threads = True

    def __init__(self, server: Server) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.server, self.mode, self.draws = server, "pass", random.Random(0)
        self.uri = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """A client that left is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if proxy.mode == "hang":
            time.sleep(600)
        if proxy.mode in ("fail", f"fail {self.command}"):
            self.send_error(500)
            return
        lose = proxy.mode == "lose" and proxy.draws.random() < 0.5
        connection = http.client.HTTPConnection("127.0.0.1", proxy.server.port)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        if lose:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    def log_message(self, *arguments) -> None:
        """Quiet."""


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server that is there; who kills it starts it again."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server):
    proxy = Proxy(server)
    yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.fixture
def experiment(config):
    """An experiment that is tracked at a URI."""
    return lambda uri: configuration.load(config, [f"tracking.uri={uri}"])


@pytest.fixture
def client(server) -> MlflowClient:
    return MlflowClient(server.uri)


@pytest.fixture
def stored(client):
    """What the server has of a run folder's run."""
    return lambda run: Stored(client, Record.of(run).run_id)


class Stored:
    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.client, self.run_id = client, run_id

    def steps(self, name: str) -> list[int]:
        return [metric.step for metric in self.client.get_metric_history(self.run_id, name)]

    def values(self, name: str) -> list[float]:
        return [metric.value for metric in self.client.get_metric_history(self.run_id, name)]

    def files(self, under: str | None = None) -> list[str]:
        return sorted(file.path for file in self.client.list_artifacts(self.run_id, under))

    @property
    def status(self) -> str:
        return self.client.get_run(self.run_id).info.status
