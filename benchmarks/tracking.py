"""What tracking costs a run: steps a second with an MLflow server, without it for a minute, and without tracking.

    make bench-tracking            or: python benchmarks/tracking.py --outage 60 --window 15

Three real runs of a tiny model, one after the other, one thread each: without tracking, tracked, without tracking. The server
of the tracked one is killed in the middle and started again after `--outage` seconds. Ratios are to the two untracked runs.
Then all that MLflow has is compared with the run's metrics.jsonl. Writes benchmarks/results/tracking.json.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from timeit import timeit
from typing import Any
from urllib.request import urlopen

import numpy as np
import psutil
from PIL import Image

from wavegan_dist.data import write_shards
from wavegan_dist.files import atomic_file
from wavegan_dist.provenance import provenance
from wavegan_dist.tracking.record import Record
from wavegan_dist.tracking.spool import Spool

BATCH = 32
SETTINGS = f"""
data: {{index: SHARDS/index.json, workers: 0}}
model: {{resolution: 32, z_dim: 8, width: 4}}
train: {{batch_size: {BATCH}, total_kimg: 100000, snapshot_kimg: 32, checkpoint_kimg: 100000, report_kimg: 0.32}}
"""
APPENDS = 1000


def main() -> None:
    """Measure, print a table, write JSON."""
    options = parse()
    with TemporaryDirectory() as folder:
        windows, counts = measure(Path(folder), options.window, options.outage)
    floor = statistics.median(windows["untracked, before"].speeds + windows["untracked, after"].speeds)
    rows = [row(name, window, floor) for name, window in windows.items()]
    print(f"{'window':<20} {'reports':>8} {'steps/s':>8} {'quartiles':>14} {'ratio':>6}   cores of sidecar, server")
    for each in rows:
        speeds = "{window:<20} {reports:>8} {steps_per_second:>8.1f} {low:>6.1f}-{high:<7.1f} {ratio:>6.3f}"
        print((speeds + "   {sidecar:.3f}, {server:.3f}").format(**each))
    for name, value in counts.items():
        print(f"{name}: {value:g}")
    out = Path(__file__).parent / "results" / "tracking.json"
    with atomic_file(out) as file:
        setting = {"outage_seconds": options.outage, "window_seconds": options.window, "threads": 1, "cores": os.cpu_count()}
        json.dump(setting | {"rows": rows} | counts | provenance(), file, indent=2)
    print(out)


def measure(folder: Path, seconds: float, outage: float) -> "tuple[dict[str, Window], dict[str, float]]":
    """What was seen in each window, and what MLflow has against what it should have."""
    (folder / "config.yaml").write_text(SETTINGS.replace("SHARDS", str(made_up_shards(folder))))
    server, windows = Server(folder), {}
    server.start()
    with training(folder, "before", "--untracked") as run:
        windows["untracked, before"] = Window(run, server, lambda: time.sleep(seconds))
    with training(folder, "tracked", f"tracking.uri={server.uri}") as run:
        wait_for(lambda: Record.of(run).run_id is not None)  # type: ignore[union-attr]
        windows["server there"] = Window(run, server, lambda: time.sleep(seconds))
        server.kill()
        windows["server killed"] = Window(run, server, lambda: time.sleep(outage))
        windows["server starting"] = Window(run, server, server.start)
        windows["server there again"] = Window(run, server, lambda: time.sleep(seconds))
    counts = compare(run, server.uri) | calls(run, server.uri)
    with training(folder, "after", "--untracked") as run:
        windows["untracked, after"] = Window(run, server, lambda: time.sleep(seconds))
    server.kill()
    return windows, counts


class Window:
    """What a run does meanwhile: steps a second of each report, and the cores that its sidecar and the server use."""

    def __init__(self, run: Path, server: "Server", meanwhile: Callable[[], object]) -> None:
        reports, sidecar, working, began = len(points(run)), cpu(sidecars(run)), cpu(server.processes()), time.perf_counter()
        meanwhile()
        seconds = time.perf_counter() - began
        self.sidecar = (cpu(sidecars(run)) - sidecar) / seconds
        self.server = max(0.0, cpu(server.processes()) - working) / seconds
        # The first report began before.
        self.speeds = [report["speed/images_per_second"] / BATCH for report in points(run)[reports + 1 :]]


def sidecars(run: Path) -> list[psutil.Process]:
    """The process that delivers for a run."""
    found = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"]]
    return [process for process in found if str(run / "tracking" / "train.jsonl") in process.info["cmdline"]]


def cpu(processes: list[psutil.Process]) -> float:
    """Seconds of CPU that they used so far."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def compare(run: Path, uri: str) -> dict[str, float]:
    """Points of metrics.jsonl that MLflow lacks, has twice or has otherwise, over all names."""
    from mlflow import MlflowClient

    client, run_id = MlflowClient(uri), Record.of(run).run_id  # type: ignore[union-attr]
    expected, missing, doubled, wrong = points(run), 0, 0, 0
    names = expected[0].keys() - {"nimg", "kimg"}
    for name in names:
        stored = client.get_metric_history(run_id, name)
        steps = [metric.step for metric in stored]
        wanted = {point["nimg"]: point[name] for point in expected}
        missing += len(wanted.keys() - set(steps))
        doubled += len(steps) - len(set(steps))
        wrong += sum(wanted.get(metric.step) != metric.value for metric in stored) + (steps != sorted(steps))
    return {"points": len(expected) * len(names), "missing": missing, "doubled": doubled, "wrong or out of order": wrong}


def calls(run: Path, uri: str) -> dict[str, float]:
    """Median milliseconds that logging a report takes: appending it to the spool, and calling MLflow."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client, run_id, values = MlflowClient(uri), Record.of(run).run_id, points(run)[0]  # type: ignore[union-attr]
    spool = Spool(run / "tracking" / "bench.jsonl")
    spool.open()
    event = {"kind": "metrics", "nimg": 0, "values": values}
    append = [timeit(lambda: spool.append(event), number=1) for _ in range(APPENDS)]
    call = [timeit(lambda: client.log_batch(run_id, [Metric(name, 1.0, 1, 1) for name in values]), number=1) for _ in range(20)]
    return {"append_ms": 1000 * statistics.median(append), "mlflow_call_ms": 1000 * statistics.median(call)}


def row(name: str, window: Window, floor: float) -> dict[str, Any]:
    """A row of the table."""
    low, median, high = statistics.quantiles(window.speeds, n=4)
    speed = {"steps_per_second": median, "low": low, "high": high, "ratio": median / floor}
    return {"window": name, "reports": len(window.speeds), **speed, "sidecar": window.sidecar, "server": window.server}


class Server:
    """`mlflow server` on loopback."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.uri = folder, f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True)
        wait_for(self._answers)

    def kill(self) -> None:
        """SIGKILL it and its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def processes(self) -> list[psutil.Process]:
        """The server and all that it started; none while it is dead."""
        if self.process.poll() is not None:
            return []
        server = psutil.Process(self.process.pid)
        return [server, *server.children(recursive=True)]

    def _answers(self) -> bool:
        try:
            with urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def training(folder: Path, name: str, *more: str) -> Iterator[Path]:
    """A run that goes on inside the block, past its warm-up; Ctrl-C ends it."""
    run = folder / name
    script = [__file__, "--untracked"] if "--untracked" in more else ["-m", "wavegan_dist"]
    settings = [setting for setting in more if setting != "--untracked"]
    command = [sys.executable, *script, "train", "--config", str(folder / "config.yaml"), "--run-dir", str(run), *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "metrics.jsonl").exists() and len(points(run)) > 5)
    yield run
    process.send_signal(signal.SIGINT)
    print(f"{name}: {process.communicate(timeout=60)[1].strip()}")


def untracked() -> None:
    """`wavegan` with a tracker that does nothing."""
    from unittest.mock import MagicMock

    from wavegan_dist.cli import main as wavegan
    from wavegan_dist.train import run_writer

    run_writer.Tracker = MagicMock()  # type: ignore[misc]
    sys.exit(wavegan(sys.argv[2:]))


def points(run: Path) -> list[dict[str, float]]:
    """The whole lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines(keepends=True) if line.endswith("\n")]


def made_up_shards(folder: Path) -> Path:
    """Shards of noise, 32 px."""
    (folder / "images").mkdir()
    draws = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(draws.integers(0, 256, (288, 288, 3), dtype=np.uint8)).save(folder / "images" / f"{number}.png")
    write_shards(str(folder / "images"), folder / "shards", 32, patches=True)
    return folder / "shards"


def wait_for(condition: Any, seconds: float = 90) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the run or the server did not start")
        time.sleep(0.1)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outage", type=float, default=60, metavar="S", help="seconds without a server (default: 60)")
    parser.add_argument("--window", type=float, default=15, metavar="S", help="seconds of each other window (default: 15)")
    return parser.parse_args()


if __name__ == "__main__":
    untracked() if sys.argv[1:2] == ["--untracked"] else main()
