"""The cost of tracking: steps per second of a run with an MLflow server, without it for a minute, and without tracking.

    make bench-tracking            or: python benchmarks/tracking.py --outage 60 --window 15

Trains three real runs of a tiny model on one thread each, one after the other: untracked, tracked, untracked. The server of the
tracked run is killed in the middle and started again after `--outage` seconds. Ratios are relative to the two untracked runs.
Then compares everything that MLflow has with the run's metrics.jsonl. Writes benchmarks/results/tracking.json.
"""

import argparse
import json
import os
import signal
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

import psutil
from bench_common import argument_parser, write_result, write_smooth_noise
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow_server import MlflowServer

from wavegan_dist.data import write_shards
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.spool import Spool, metrics_event
from wavegan_dist.tracking.tracking_info import TrackingInfo

BATCH = 32
CONFIG = f"""
data: {{index: SHARDS/index.json, workers: 0}}
model: {{resolution: 32, z_dim: 8, width: 4}}
train: {{batch_size: {BATCH}, total_kimg: 100000, snapshot_kimg: 32, checkpoint_kimg: 100000, report_kimg: 0.32}}
"""
APPENDS, CALLS = 1000, 20
UNTRACKED = "tracking.enabled=false"


def main() -> None:
    """Measure, print a table and write the result."""
    options = parse_arguments()
    with TemporaryDirectory() as folder:
        windows, counts = measure(Path(folder), options.window, options.outage)
    baseline = statistics.median(windows["untracked, before"].speeds + windows["untracked, after"].speeds)
    rows = [make_row(name, window, baseline) for name, window in windows.items()]
    print(f"{'window':<20} {'reports':>8} {'steps/s':>8} {'quartiles':>14} {'ratio':>6}   cores of sidecar, server")
    for row in rows:
        speeds = "{window:<20} {reports:>8} {steps_per_second:>8.1f} {low:>6.1f}-{high:<7.1f} {ratio:>6.3f}"
        print((speeds + "   {sidecar:.3f}, {server:.3f}").format(**row))
    for name, value in counts.items():
        print(f"{name}: {value:g}")
    settings = {"outage_seconds": options.outage, "window_seconds": options.window, "threads": 1, "cores": os.cpu_count()}
    write_result("tracking", settings | {"rows": rows} | counts | provenance())


def measure(folder: Path, seconds: float, outage: float) -> "tuple[dict[str, Window], dict[str, float]]":
    """Train the three runs; return the measured windows by name, and the comparison of MLflow with metrics.jsonl."""
    write_smooth_noise(folder / "images")
    write_shards(str(folder / "images"), folder / "shards", 32, patches=True)
    (folder / "config.yaml").write_text(CONFIG.replace("SHARDS", str(folder / "shards")))
    server, windows = MlflowServer(folder), {}
    server.start()
    with training(folder, "before", UNTRACKED) as run:
        windows["untracked, before"] = Window(run, server, lambda: time.sleep(seconds))
    with training(folder, "tracked", f"tracking.uri={server.uri}") as run:
        wait_for(lambda: run_id(run))
        windows["server up"] = Window(run, server, lambda: time.sleep(seconds))
        server.kill()
        windows["server killed"] = Window(run, server, lambda: time.sleep(outage))
        windows["server starting"] = Window(run, server, server.start)
        windows["server up again"] = Window(run, server, lambda: time.sleep(seconds))
    counts = compare(run, server.uri) | call_times(run, server.uri)
    with training(folder, "after", UNTRACKED) as run:
        windows["untracked, after"] = Window(run, server, lambda: time.sleep(seconds))
    server.kill()
    return windows, counts


class Window:
    """A measurement of a run while `action` runs.

    Attributes:
        speeds: steps per second of each report in the window.
        sidecar: cores that the run's sidecar uses.
        server: cores that the MLflow server uses.
    """

    def __init__(self, run: RunFolder, server: MlflowServer, action: Callable[[], object]) -> None:
        reports, began = len(points(run)), time.perf_counter()
        sidecar, mlflow = cpu_seconds(sidecars(run)), cpu_seconds(processes(server))
        action()
        seconds = time.perf_counter() - began
        self.sidecar = (cpu_seconds(sidecars(run)) - sidecar) / seconds
        self.server = max(0.0, cpu_seconds(processes(server)) - mlflow) / seconds
        # The first report began before the window.
        self.speeds = [report["speed/images_per_second"] / BATCH for report in points(run)[reports + 1 :]]


def sidecars(run: RunFolder) -> list[psutil.Process]:
    """Return the processes that deliver a run's spool: one, or none."""
    spool = str(run.spool("train"))
    return [process for process in psutil.process_iter(["cmdline"]) if spool in (process.info["cmdline"] or [])]


def processes(server: MlflowServer) -> list[psutil.Process]:
    """Return the server's process and all its descendants; none while the server is dead."""
    if server.process.poll() is not None:
        return []
    root = psutil.Process(server.process.pid)
    return [root, *root.children(recursive=True)]


def cpu_seconds(measured: list[psutil.Process]) -> float:
    """Return the CPU time that processes have used so far."""
    total = 0.0
    for process in measured:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:2])
    return total


def compare(run: RunFolder, uri: str) -> dict[str, float]:
    """Count the values of metrics.jsonl that MLflow lacks, has twice, or has with another value or in another order."""
    client, mlflow_id = MlflowClient(uri), run_id(run)
    expected, missing, doubled, wrong = points(run), 0, 0, 0
    names = expected[0].keys() - {"nimg", "kimg"}
    for name in names:
        stored = client.get_metric_history(mlflow_id, name)
        steps = [metric.step for metric in stored]
        wanted = {point["nimg"]: point[name] for point in expected}
        missing += len(wanted.keys() - set(steps))
        doubled += len(steps) - len(set(steps))
        wrong += sum(wanted.get(metric.step) != metric.value for metric in stored) + (steps != sorted(steps))
    return {"points": len(expected) * len(names), "missing": missing, "doubled": doubled, "wrong or out of order": wrong}


def call_times(run: RunFolder, uri: str) -> dict[str, float]:
    """Return the median milliseconds of logging one report: by appending to the spool, and by calling MLflow."""
    client, mlflow_id, values = MlflowClient(uri), run_id(run), points(run)[0]
    spool = Spool(run.spool("bench"))
    spool.open()
    event, metrics = metrics_event(values, 0), [Metric(name, 1.0, 1, 1) for name in values]
    append = [timeit(lambda: spool.append(event), number=1) for _ in range(APPENDS)]
    call = [timeit(lambda: client.log_batch(mlflow_id, metrics), number=1) for _ in range(CALLS)]
    return {"append_ms": 1000 * statistics.median(append), "mlflow_call_ms": 1000 * statistics.median(call)}


def make_row(name: str, window: Window, baseline: float) -> dict[str, Any]:
    """Return one row of the table."""
    low, median, high = statistics.quantiles(window.speeds, n=4)
    speed = {"steps_per_second": median, "low": low, "high": high, "ratio": median / baseline}
    return {"window": name, "reports": len(window.speeds), **speed, "sidecar": window.sidecar, "server": window.server}


@contextmanager
def training(folder: Path, name: str, *overrides: str) -> Iterator[RunFolder]:
    """Start a run, wait for its warm-up, keep it running during the block and end it with SIGINT."""
    run = RunFolder(folder / name)
    options = ["--run-dir", str(run.path), "--log-level", "warning"]  # status lines would fill the pipe
    arguments = ["train", "--config", str(folder / "config.yaml"), *options, *overrides]
    command = [sys.executable, "-m", "wavegan_dist", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: run.metrics.exists() and len(points(run)) > 5)
    yield run
    process.send_signal(signal.SIGINT)
    print(f"{name}: {process.communicate(timeout=60)[1].strip()}")


def run_id(run: RunFolder) -> str:
    """Return the id of a run's MLflow run; empty before it is created."""
    info = TrackingInfo.load(run)
    return (info.run_id or "") if info else ""


def points(run: RunFolder) -> list[dict[str, float]]:
    """Return the complete lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in run.metrics.read_text().splitlines(keepends=True) if line.endswith("\n")]


def wait_for(condition: Callable[[], object], seconds: float = 90) -> None:
    """Wait until a condition holds; raise TimeoutError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the run did not start")
        time.sleep(0.1)


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argument_parser(__doc__)
    parser.add_argument("--outage", type=float, default=60, metavar="S", help="seconds without a server (default: 60)")
    parser.add_argument("--window", type=float, default=15, metavar="S", help="seconds of each other window (default: 15)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
