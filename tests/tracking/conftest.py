"""A real MLflow server, and a proxy in front of it that fails as networks and servers do."""

import http.client
import random
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_server import MlflowServer

from wavegan_dist import config as configuration
from wavegan_dist.config import Experiment
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.tracking_info import TrackingInfo


class Proxy(ThreadingHTTPServer):
    """Forwards requests to a server, or fails as `mode` says.

    `mode`: `pass`; `fail` (status 500); `fail PUT` (500 for uploads only); `hang`; `lose` (forwards every request, and closes
    the connection without an answer for half of them). `password`: USER:PASSWORD that every request must have, if not empty.
    """

    daemon_threads = True

    def __init__(self, server: MlflowServer) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.server, self.mode, self.draws, self.password = server, "pass", random.Random(0), ""
        self.uri = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients that disconnect are expected."""


class Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if proxy.mode == "hang":
            time.sleep(600)
        if proxy.mode in ("fail", f"fail {self.command}"):
            self.send_error(500)
            return
        if proxy.password and self.headers.get("Authorization") != f"Basic {b64encode(proxy.password.encode()).decode()}":
            self.send_error(401)
            return
        lose = proxy.mode == "lose" and proxy.draws.random() < 0.5
        connection = http.client.HTTPConnection("127.0.0.1", proxy.server.port)
        connection.request(self.command, self.path, body, dict(self.headers))
        response = connection.getresponse()
        content = response.read()
        if lose:
            self.close_connection = True
            return
        self.send_response(response.status)
        self.send_header("Content-Type", response.headers.get("Content-Type", "application/json"))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


class StoredRun:
    """What the server has stored of one MLflow run."""

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


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A running server. A test that kills it starts it again."""
    server = MlflowServer(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: MlflowServer) -> Iterator[Proxy]:
    proxy = Proxy(server)
    yield proxy
    proxy.shutdown()
    proxy.server_close()


@pytest.fixture
def experiment(tracked_config: Path) -> Callable[[str], Experiment]:
    """Make an experiment that is tracked at a URI."""
    return lambda uri: configuration.load(tracked_config, [f"tracking.uri={uri}"])


@pytest.fixture
def client(server: MlflowServer) -> MlflowClient:
    return MlflowClient(server.uri)


@pytest.fixture
def stored(client: MlflowClient) -> Callable[[Path], StoredRun]:
    """Return what the server has stored of a run folder's MLflow run."""
    return lambda run: StoredRun(client, TrackingInfo.load(RunFolder(run)).run_id)
