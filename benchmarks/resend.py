"""What lost answers cost: sends a run's values to an MLflow server, a random half of the batches twice, as after a lost answer.

    python benchmarks/resend.py [--values 200000] [--names 40]

A server that finds a value of a batch already stored reads the whole history of the batch's metrics and then stores the rest
(MLflow 24577). Prints, for each tenth of the values, the median milliseconds of a batch of 1,000 values sent for the first time
and again, and the resident memory of the server and of the sender; then counts the values that MLflow has. Writes
benchmarks/results/resend.json.
"""

import random
import signal
import statistics
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from bench_common import argument_parser, write_result
from mlflow import MlflowClient
from mlflow_server import MlflowServer
from tracking import processes

from wavegan_dist.config import parse
from wavegan_dist.provenance import provenance
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking.mlflow_run import MlflowRun
from wavegan_dist.tracking.sender import REQUEST_TIMEOUT, batches
from wavegan_dist.tracking.spool import Spool, metrics_event
from wavegan_dist.tracking.tracking_info import TrackingInfo


def make_spool(run: RunFolder, uri: str, values: int, names: int) -> Spool:
    """Write the spool of a run with `values` values of `names` metrics."""
    run.path.mkdir()
    TrackingInfo.create(run, parse({"data": {"index": "none"}, "tracking": {"uri": uri}}, "benchmarks/resend.py")).save(run)
    spool = Spool(run.spool("train"))
    spool.open()
    for report in range(values // names):
        spool.append(metrics_event({f"m{name}": report + name / 7 for name in range(names)}, report))
    return spool


def send(spool: Spool, server: MlflowServer) -> list[dict[str, float]]:
    """Send the spool, a random half of the batches twice; return a row for each batch."""
    mlflow_run, draws, rows = MlflowRun(spool.folder), random.Random(0), []
    mlflow_run.set_timeout(32 * REQUEST_TIMEOUT)
    own = psutil.Process()
    for events, _ in batches(spool.undelivered()):
        row = {}
        for name in ("first", "again")[: 1 + (draws.random() < 0.5)]:
            began = time.perf_counter()
            rejected = mlflow_run.send(events)
            row[f"{name}_ms"] = 1000 * (time.perf_counter() - began)
            assert not rejected
        row["server_mb"] = sum(process.memory_info().rss for process in processes(server)) / 2**20
        row["sender_mb"] = own.memory_info().rss / 2**20
        rows.append(row)
        if len(rows) % 20 == 0:
            print(f"{len(rows)} batches: {row}", file=sys.stderr, flush=True)
    return rows


def summary(rows: list[dict[str, float]], values: int) -> list[dict[str, Any]]:
    """Return one row for each tenth of the batches: medians of the times, the largest memory."""
    tenths, result = [rows[len(rows) * part // 10 : len(rows) * (part + 1) // 10] for part in range(10)], []
    for part, tenth in enumerate(tenths):
        row: dict[str, Any] = {"values": values * (part + 1) // 10}
        for name in ("first_ms", "again_ms"):
            row[name] = statistics.median([batch[name] for batch in tenth if name in batch] or [float("nan")])
        result.append(row | {name: max(batch[name] for batch in tenth) for name in ("server_mb", "sender_mb")})
    return result


def main() -> int:
    """Measure, print a table and write the result; return 1 if MLflow lacks a value or has one twice."""
    parser = argument_parser(__doc__)
    parser.add_argument("--values", type=int, default=200_000)
    parser.add_argument("--names", type=int, default=40, help="number of metrics")
    options = parser.parse_args()
    with TemporaryDirectory() as name:
        folder = RunFolder(Path(name) / "run")
        server = MlflowServer(Path(name))
        server.start()
        try:
            spool = make_spool(folder, server.uri, options.values, options.names)
            began = time.perf_counter()
            rows = send(spool, server)
            seconds = time.perf_counter() - began
            info = TrackingInfo.load(folder)
            assert info is not None
            assert info.run_id is not None
            stored = [len(MlflowClient(server.uri).get_metric_history(info.run_id, f"m{n}")) for n in range(options.names)]
        finally:
            server.kill()
    table = summary(rows, options.values)
    print(" | ".join(table[0]))
    for row in table:
        print(" | ".join(f"{value:.0f}" for value in row.values()))
    wrong = sum(abs(count - options.values // options.names) for count in stored)
    twice = sum("again_ms" in row for row in rows)
    print(f"{seconds:.0f} s, {twice} of {len(rows)} batches sent twice, {wrong} values missing or doubled")
    write_result("resend", {"rows": table, "seconds": seconds, "wrong": wrong, "about": provenance()})
    return int(wrong > 0)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the server ends, too
    sys.exit(main())
