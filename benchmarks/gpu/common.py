"""What the sections share: their options, their clock, their device, their result file, the data set, other processes."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import torch
from bench_common import argument_parser, write_smooth_noise

from wavegan_dist.data import write_shards
from wavegan_dist.errors import UsageError
from wavegan_dist.files import atomic_file, sha256
from wavegan_dist.provenance import git_commit, provenance

ROOT = Path(__file__).parents[2]
PACKED = ROOT / "build" / "gpu"  # written by pack.sh
SLACK = 12  # seconds of a section's budget that imports and the last measurement may take
ERROR_END = 1500  # characters of a failed command's stderr that are shown


class Section:
    """One run of a section: `run.sh` starts a process for it.

    The result file is written again with each row: a section that runs out of time loses only the row being measured.

    Attributes:
        name: the section's name.
        tiny: whether to measure tiny shapes on the CPU.
        out: folder of the results.
        device: the GPU, or the CPU if `tiny`.
        rows: the rows of the result so far.

    Args:
        name: "haar".
        description: text for `--help`.
    """

    def __init__(self, name: str, description: str | None) -> None:
        parser = argument_parser(description)
        parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
        parser.add_argument("--seconds", type=float, required=True, metavar="S", help="time that the section may take")
        parser.add_argument("--tiny", action="store_true", help="tiny shapes on the CPU")
        options = parser.parse_args()
        self.name, self.out, self.tiny = name, options.out, options.tiny
        self.deadline: float = time.monotonic() + options.seconds - SLACK
        self.device = torch.device("cpu" if self.tiny else "cuda")
        self.rows: list[dict[str, Any]] = []
        self.about = {"section": name, "tiny": self.tiny, "budget_seconds": options.seconds, **describe(self.device)}

    def remaining(self) -> float:
        """Return the seconds left in which the section may begin another measurement."""
        return self.deadline - time.monotonic()

    def add(self, **row: Any) -> dict[str, Any]:
        """Add a row to the result file and return the row."""
        self.rows.append(row)
        self.write()
        return row

    def write(self, **fields: Any) -> None:
        """Write the result file OUT/NAME.json, with further fields beside the rows."""
        self.about |= fields
        with atomic_file(self.out / f"{self.name}.json") as file:
            json.dump(self.about | {"rows": self.rows}, file, indent=1)

    def synchronize(self) -> None:
        """Wait until the GPU has finished all work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def data(self) -> Path:
        """Return the index.json of the packed data set; if `tiny`, of a few patches of noise, written at the first call.

        Raises:
            UsageError: pack.sh did not run.
        """
        folder = self.out / "data" if self.tiny else PACKED / "data"
        if self.tiny and not folder.exists():
            write_smooth_noise(self.out / "pictures")
            write_shards(str(self.out / "pictures"), folder, 32, patches=True, progress=False)
        if not (folder / "index.json").exists():
            raise UsageError(f"{folder} holds no data set; run benchmarks/gpu/pack.sh")
        return folder / "index.json"


class Helper:
    """A process that prepares a measurement and waits for its turn. Starts the process, whose main function is `serve`.

    Args:
        section: the section.
        module: module of the process: "gpu.step_row".
        task: what to do, for JSON.
        env: environment variables, besides those of this process.
    """

    def __init__(self, section: Section, module: str, task: Mapping[str, Any], **env: str) -> None:
        command = [sys.executable, "-m", module, "--out", str(section.out), "--seconds", str(section.remaining() + SLACK)]
        command += ["--tiny"] if section.tiny else []
        self.process = subprocess.Popen(command, env=os.environ | env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
        self._send(json.dumps(dict(task)))

    def is_ready(self, deadline: float) -> bool:
        """Wait until the process is ready or has failed; return False if a time of `time.monotonic` came first."""
        assert self.process.stdout is not None
        return bool(select.select([self.process.stdout], [], [], max(deadline - time.monotonic(), 0))[0])

    def begin(self, seconds: float) -> None:
        """Let the process measure, for some seconds if it trains."""
        self._send(str(seconds))

    def result(self, timeout: float) -> dict[str, Any]:
        """Return what it has measured.

        Raises:
            RuntimeError: the process failed; the reason is on stderr.
            subprocess.TimeoutExpired: it took longer than `timeout` seconds.
        """
        output, _ = self.process.communicate(timeout=timeout)
        if self.process.returncode:
            raise RuntimeError(f"its process ended with code {self.process.returncode}")
        return dict(json.loads(output))

    def kill(self) -> None:
        """Kill the process, if it still runs, and the processes that it has started, such as those that compile for it."""
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.process.pid)
            for process in [*main.children(recursive=True), main]:
                process.kill()

    def _send(self, line: str) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # `result` reports the failure
            self.process.stdin.write(f"{line}\n".encode())
            self.process.stdin.flush()


def serve(run: Callable[[dict[str, Any], Callable[[], float]], dict[str, Any]]) -> None:
    """Run the process of a `Helper`.

    Args:
        run: called with the task and a function that waits for this process's turn and returns the seconds that it lasts;
            returns what it has measured.
    """
    print(json.dumps(run(json.loads(sys.stdin.readline()), _wait_for_turn)))


def _wait_for_turn() -> float:
    print(flush=True)
    line = sys.stdin.readline()
    if not line:
        raise SystemExit("the section has ended")
    return float(line)


def describe(device: torch.device) -> dict[str, Any]:
    """Return what a result depends on: card, driver, versions, date, commit."""
    gpu = device.type == "cuda"
    return {
        "card": torch.cuda.get_device_name() if gpu else "CPU",
        "driver": _driver() if gpu else None,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "git_commit": _commit(),
    }


def run_python(*arguments: object, **variables: str) -> tuple[float, str]:
    """Run Python in a new process.

    Args:
        arguments: of Python.
        variables: environment variables, besides those of this process.

    Returns:
        The seconds that the process took, and its standard output.

    Raises:
        RuntimeError: the process failed; the message ends with the end of its stderr.
    """
    began = time.perf_counter()
    command = [sys.executable, *map(str, arguments)]
    outcome = subprocess.run(command, cwd=ROOT, env=os.environ | variables, capture_output=True, text=True)
    if outcome.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{outcome.stderr[-ERROR_END:]}")
    return time.perf_counter() - began, outcome.stdout


def _driver() -> str | None:
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.CalledProcessError):
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()
    return None


def _commit() -> str:
    """Return the commit of the checkout. In a copy without `.git`: the one that pack.sh recorded, and "+" if files differ."""
    commit, recorded = git_commit(), PACKED / "COMMIT"
    if commit != "unknown" or not recorded.exists():
        return commit
    packed = recorded.read_text().strip()
    return packed if packed.endswith("+") or _is_as_packed() else f"{packed}+"


def _is_as_packed() -> bool:
    sums = [line.split("  ", 1) for line in (PACKED / "SHA256SUMS").read_text().splitlines()]
    return all((ROOT / path).is_file() and sha256(ROOT / path) == digest for digest, path in sums)
