"""Runs and their sidecars as processes: whoever dies, nobody waits for long and no point is missing or doubled."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil

from tests.helpers import environment
from wavegan_dist.tracking import Tracker, sync
from wavegan_dist.tracking.record import Record
from wavegan_dist.tracking.spool import Spool

NOWHERE = "http://127.0.0.1:9"


def wait_for(what, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def reported(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_server_killed_in_mid_run_has_every_point_once_and_in_order(tmp_path, config, server, stored):
    run = tmp_path / "run"
    lengths = ("train.total_kimg=9.6", "train.snapshot_kimg=1.6", "train.checkpoint_kimg=1000", f"tracking.uri={server.uri}")
    command = [sys.executable, "-m", "wavegan_dist", "train", "--config", config, "--run-dir", run, *lengths]
    training = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "tracking" / "train.sent").exists())
    wait_for(lambda: b'"metrics"' in (run / "tracking" / "train.jsonl").read_bytes())
    server.kill()
    before = len(reported(run))
    wait_for(lambda: len(reported(run)) > before + 30)  # training goes on
    server.start()
    _, errors = training.communicate(timeout=120)
    assert "could not be sent" not in errors
    points = reported(run)
    mlflow = stored(run)
    for name in points[0].keys() - {"nimg", "kimg"}:
        assert mlflow.steps(name) == [point["nimg"] for point in points]
        assert mlflow.values(name) == [point[name] for point in points]
    snapshots = sorted(path.name for path in run.glob("snapshots/*"))
    assert len(snapshots) > 1
    assert mlflow.files("snapshots") == [f"snapshots/{name}" for name in snapshots]
    assert len(mlflow.files("images")) == 2 * len(snapshots)  # each with its thumbnail
    assert mlflow.status == "FINISHED"


def test_a_server_that_hangs_costs_neither_points_nor_time(tmp_path, experiment, proxy, stored, capfd):
    proxy.mode = "hang"
    began = time.monotonic()
    tracker = Tracker.open(tmp_path, experiment(proxy.uri))
    for nimg in range(1000):
        tracker.metrics({f"m{i}": 1.0 for i in range(20)}, nimg)
    assert time.monotonic() - began < 1
    began = time.monotonic()
    tracker.end("SCHEDULED")  # a preempted run has no time
    assert time.monotonic() - began < 12
    assert tracker.sidecar.poll() is not None
    warning = f"1000 points and 3 other entries could not be sent to {proxy.uri}; `wavegan track sync {tmp_path}` sends them"
    assert warning in capfd.readouterr().err
    proxy.mode = "pass"
    assert sync(tmp_path)["metrics"] == 1000
    assert stored(tmp_path).steps("m7") == [*range(1000)]
    assert stored(tmp_path).status == "SCHEDULED"


def test_a_resumed_run_goes_on_in_its_mlflow_run_and_repeats_nothing(tmp_path, experiment, server, stored, capfd):
    (tmp_path / "snapshots" / "kimg-1").mkdir(parents=True)
    for end, steps in (("SCHEDULED", (1, 2, 3)), ("FINISHED", (2, 3, 4))):  # the checkpoint was at 1
        (tmp_path / "config.yaml").write_text(end)
        tracker = Tracker.open(tmp_path, experiment(server.uri))
        tracker.file(tmp_path / "config.yaml")
        tracker.file(tmp_path / "snapshots" / "kimg-1", "snapshots/kimg-1")
        for nimg in steps:
            tracker.metrics({"m": float(nimg)}, nimg)
        wait_for(lambda tracker=tracker: not tracker.spool.left())
        assert stored(tmp_path).status == "RUNNING"
        tracker.end(end)
        assert stored(tmp_path).status == end
    assert capfd.readouterr().err == ""
    mlflow = stored(tmp_path)
    assert mlflow.steps("m") == [1, 2, 3, 4]
    assert sum(event["kind"] == "file" and event["under"] is not None for event in tracker.spool.events()) == 1
    assert mlflow.client.download_artifacts(mlflow.run_id, "config.yaml", tmp_path / "snapshots")
    assert (tmp_path / "snapshots" / "config.yaml").read_text() == "FINISHED"


def test_a_sidecar_that_is_killed_is_not_noticed_until_the_end(tmp_path, experiment, server, stored, capfd):
    tracker = Tracker.open(tmp_path, experiment(server.uri))
    tracker.sidecar.kill()
    tracker.sidecar.wait()
    tracker.metrics({"m": 1.0}, 1)
    tracker.end("FINISHED")
    assert f"1 point and 3 other entries could not be sent to {server.uri}" in capfd.readouterr().err
    sync(tmp_path)
    assert stored(tmp_path).steps("m") == [1]
    assert stored(tmp_path).status == "FINISHED"


TRAINING = """
import sys, time
from pathlib import Path
from wavegan_dist import config
from wavegan_dist.tracking import Tracker
tracker = Tracker.open(Path(sys.argv[1]), config.load(Path(sys.argv[2]), [f"tracking.uri={sys.argv[3]}"]))
for nimg in range(5):
    tracker.metrics({"m": float(nimg)}, nimg)
print(tracker.sidecar.pid, flush=True)
time.sleep(600)
"""


def test_the_sidecar_of_a_killed_run_delivers_and_leaves(tmp_path, config, server, stored):
    command = [sys.executable, "-c", TRAINING, tmp_path, config, server.uri]
    training = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    sidecar = psutil.Process(int(training.stdout.readline()))
    training.kill()
    training.wait()
    wait_for(lambda: not sidecar.is_running(), 30)
    assert stored(tmp_path).steps("m") == [0, 1, 2, 3, 4]
    assert stored(tmp_path).status == "RUNNING"


def test_a_sidecar_leaves_in_time_though_the_server_is_not_there(tmp_path, experiment):
    Record.new(tmp_path, experiment(NOWHERE)).save(tmp_path)
    spool = Spool(tmp_path / "tracking" / "train.jsonl")
    spool.open()
    spool.append({"kind": "metrics", "nimg": 1, "values": {"m": 1.0}})
    command = [sys.executable, "-m", "wavegan_dist.tracking.sidecar", spool.path, "4"]
    sidecar = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    assert sidecar.poll() is None  # the run goes on
    began = time.monotonic()
    _, errors = sidecar.communicate(timeout=15)  # closes its stdin
    assert 3.5 < time.monotonic() - began < 8
    assert b"training goes on" in errors


def test_the_run_s_signals_do_not_end_the_sidecar(tmp_path, experiment):
    tracker = Tracker.open(tmp_path, experiment(NOWHERE))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(tracker.sidecar.pid, number)
    time.sleep(0.5)
    assert tracker.sidecar.poll() is None
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()  # and the run minds them as before
    tracker.sidecar.kill()


def test_training_never_imports_mlflow():
    check = "import sys, wavegan_dist.train.loop, wavegan_dist.tracking.sidecar; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env=environment()).returncode == 0


def test_the_sidecar_loads_no_torch():
    check = "import sys, wavegan_dist.tracking.sidecar; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env=environment()).returncode == 0
