"""Answers of an MLflow server to `wavegan compare mlflow:RUN_ID` and to the delivery of a run's events."""

import json
import os
import re
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import parse_qs, urlsplit

from typing_extensions import override

from tests.compare.helpers import evaluation
from tests.fuzz.harness import Target
from tests.fuzz.mutate import Files, mutated
from wavegan_dist.compare.mlflow_runs import fetch
from wavegan_dist.errors import WaveganError
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.mlflow_page import experiment_tags
from wavegan_dist.tracking.mlflow_run import MlflowRun, MlflowUnavailableError
from wavegan_dist.tracking.spool import metrics_event

RUN_ID = "a" * 32
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts/"
RUN = {
    "info": {"run_id": RUN_ID, "run_uuid": RUN_ID, "run_name": "name", "experiment_id": "1", "status": "RUNNING",
             "start_time": 1, "artifact_uri": "mlflow-artifacts:/1/x", "lifecycle_stage": "active"},
    "data": {"metrics": [{"key": "lam", "value": 0.5, "timestamp": 1, "step": 500}], "params": [], "tags": []},
}  # fmt: skip
EXPERIMENT = {
    "experiment_id": "1", "name": "wavegan", "artifact_location": "mlflow-artifacts:/1", "lifecycle_stage": "active",
    "tags": [{"key": name, "value": value} for name, value in experiment_tags("1").items()],
}  # fmt: skip
ANSWERS: dict[str, Any] = {
    "runs-get": {"run": RUN},
    "runs-search": {"runs": []},
    "runs-create": {"run": RUN},
    "metrics-get-history": {"metrics": [{"key": "lam", "value": 0.5, "timestamp": 1, "step": step} for step in (500, 1000)]},
    "experiments-get-by-name": {"experiment": EXPERIMENT},
    "experiments-create": {"experiment_id": "1"},
    "artifacts-root": {
        "files": [{"path": "config.yaml", "is_dir": False, "file_size": 9}, {"path": "evaluations", "is_dir": True}]
    },
    "artifacts-folder": {"files": [{"path": "kimg-000001.json", "is_dir": False, "file_size": 9}]},
    "artifacts-file": {"files": []},
    "artifact": evaluation(1000),
    "other": {},
}

STEPS = {  # the answers of each step
    "fetch": ("runs-get", "metrics-get-history", "artifacts-root", "artifacts-folder", "artifacts-file", "artifact"),
    "send": ("runs-search", "runs-create", "experiments-get-by-name", "experiments-create", "other"),
}


class Server(ThreadingHTTPServer):
    """Answers each request with one of the files of an input: NAME.json, and its status in NAME.status."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: Files = {}
        self.uri = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=partial(self.serve_forever, 0.01), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients that disconnect are expected."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: otherwise the client delays its acknowledgment of the head by 40 ms

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        name = _name_of(url.path, parse_qs(url.query))
        content = self.server.files.get(f"{name}.json", b"")
        status = int(self.server.files.get(f"{name}.status", b"200"))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


def _name_of(path: str, query: dict[str, list[str]]) -> str:
    if path.startswith(ARTIFACTS):
        return "artifact"
    if path.startswith(ARTIFACTS.rstrip("/")) or path.endswith("artifacts/list"):
        listed = query.get("path", [""])[0].rstrip("/").rpartition("/")[2]
        return {"evaluations": "artifacts-folder", "config.yaml": "artifacts-file"}.get(listed, "artifacts-root")
    name = "-".join(re.sub("^.*/mlflow/", "", path).split("/"))
    return name if name in ANSWERS else "other"


class MlflowAnswers(Target):
    """The answers of a server: a run is fetched, and events are sent. No file may appear outside of the scratch folder."""

    share = 0.2  # each takes ten requests

    @override
    def seeds(self, scratch: Path) -> list[Files]:
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
        self.server, self.scratch = Server(), scratch
        os.environ["MLFLOW_TRACKING_URI"] = self.server.uri
        run = RunFolder(scratch / "run")
        (run.path / "tracking").mkdir(parents=True)
        self.info = {"uri": self.server.uri, "experiment": "wavegan", "name": "run", "key": "k", "started": 1, "run_id": None}
        answers = {f"{name}.json": json.dumps(content).encode() for name, content in ANSWERS.items()}
        return [{**answers, "step": b"fetch"}, {**answers, "step": b"send"}]

    @override
    def mutated(self, files: Files, rng: Random) -> Files:
        step = rng.choice(sorted(STEPS))
        names = [name for name in files if name.removesuffix(".json") in STEPS[step]]
        changed = files | mutated({name: files[name] for name in names}, rng) | {"step": step.encode()}
        if rng.random() < 0.1:
            name = rng.choice(names).removesuffix(".json")
            changed[f"{name}.status"] = b"%d" % rng.choice((204, 206, 301, 400, 401, 404, 429, 500, 503, 599))
        return changed

    @override
    def read(self, folder: Path) -> None:
        self.server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
        before = sorted(path for path in folder.parent.iterdir())
        step = (folder / "step").read_text()
        try:
            {"fetch": self._fetch, "send": self._send}[step](folder)
        finally:
            assert sorted(path for path in folder.parent.iterdir()) == before

    def _fetch(self, folder: Path) -> None:
        fetched = folder / "fetched" / "scratch"
        fetched.mkdir(parents=True)
        fetch(RUN_ID, fetched)
        assert {path.name for path in fetched.parent.iterdir()} == {"scratch"}

    def _send(self, folder: Path) -> None:
        run = RunFolder(self.scratch / "run")
        run.tracking.write_text(json.dumps(self.info))
        try:
            MlflowRun(run).send([metrics_event({"lam": 0.5}, 500) | {"time": 1}])
        except MlflowUnavailableError as error:
            raise WaveganError(str(error)) from error
