"""A real `mlflow server` on this machine, for benchmarks/tracking.py and the tests in tests/tracking."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

START_TIMEOUT = 300  # seconds; a server that has the machine to itself takes 10


class MlflowServer:
    """`mlflow server` on a free port of 127.0.0.1, with its database, artifacts and log in `folder`."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"
        self.database = f"sqlite:///{folder}/server.db"

    def start(self) -> None:
        """Start the server and wait until it answers; raise TimeoutError with its log if it does not."""
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.database]
        command += ["--artifacts-destination", str(self.folder / "files")]
        variables = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_TRACKING")}
        variables["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        log = self.folder / "server.log"
        with log.open("a") as output:
            self.process = subprocess.Popen(
                command, cwd=self.folder, env=variables, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"mlflow server does not answer: {log.read_text()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """Send SIGKILL to the server and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=5) as response:
                return bool(response.status == 200)
        except OSError:
            return False
