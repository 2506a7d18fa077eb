"""Runs and their sidecars as processes: if either is killed, nothing waits for long and no point is missing or doubled."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import psutil
import pytest

from tests.helpers import environment, points, refused
from wavegan_dist import config as configuration
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import Tracker, log_evaluation, open_tracker, sync
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.tracking.tracker import MlflowTracker
from wavegan_dist.tracking.tracking_info import TrackingInfo

NOWHERE = "http://127.0.0.1:9"


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def all_delivered(tracker: MlflowTracker) -> bool:
    return not tracker.spool.count_undelivered()


def test_a_server_killed_in_mid_run_has_every_point_once_and_in_order(tmp_path, tracked_config, server, stored):
    run = tmp_path / "run"
    lengths = ("train.total_kimg=9.6", "train.snapshot_kimg=1.6", "train.checkpoint_kimg=1000", f"tracking.uri={server.uri}")
    command = [sys.executable, "-m", "wavegan_dist", "train", "--config", tracked_config, "--run-dir", run, *lengths]
    training = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: (run / "tracking" / "train.sent").exists())
    wait_for(lambda: b'"metrics"' in (run / "tracking" / "train.jsonl").read_bytes())
    server.kill()
    before = len(points(run))
    wait_for(lambda: len(points(run)) > before + 30)  # training continues
    server.start()
    _, errors = training.communicate(timeout=120)
    assert "could not be sent" not in errors
    reports = points(run)
    mlflow = stored(run)
    for name in reports[0].keys() - {"nimg", "kimg"}:
        assert mlflow.steps(name) == [point["nimg"] for point in reports]
        assert mlflow.values(name) == [point[name] for point in reports]
    snapshots = sorted(path.name for path in run.glob("snapshots/*"))
    assert len(snapshots) > 1
    assert mlflow.files("snapshots") == [f"snapshots/{name}" for name in snapshots]
    assert len(mlflow.files("images")) == 2 * len(snapshots)  # each with its thumbnail
    assert mlflow.status == "FINISHED"


@pytest.mark.slow
def test_a_server_that_hangs_costs_neither_points_nor_time(tmp_path, experiment, proxy, stored, caplog):
    proxy.mode = "hang"
    began = time.monotonic()
    tracker = MlflowTracker.open(tmp_path, experiment(proxy.uri))
    for nimg in range(1000):
        tracker.log_metrics({f"m{i}": 1.0 for i in range(20)}, nimg)
    assert time.monotonic() - began < 1
    began = time.monotonic()
    tracker.close("SCHEDULED")  # a preempted run has no time
    assert time.monotonic() - began < 12
    assert tracker.sidecar.poll() is not None
    warning = f"1000 points and 3 other entries could not be sent to {proxy.uri}; `wavegan track sync {tmp_path}` sends them"
    assert f"{warning}; {tmp_path / 'tracking' / 'train.log'} has the reason" in caplog.messages
    proxy.mode = "pass"
    assert sync(tmp_path)["metrics"] == 1000
    assert stored(tmp_path).steps("m7") == [*range(1000)]
    assert stored(tmp_path).status == "SCHEDULED"


def test_a_resumed_run_continues_its_mlflow_run_and_repeats_nothing(tmp_path, experiment, server, stored, caplog):
    (tmp_path / "snapshots" / "kimg-1").mkdir(parents=True)
    for end, steps in (("SCHEDULED", (1, 2, 3)), ("FINISHED", (2, 3, 4))):  # the checkpoint was at 1
        (tmp_path / "config.yaml").write_text(end)
        tracker = MlflowTracker.open(tmp_path, experiment(server.uri))
        tracker.log_file(tmp_path / "config.yaml")
        tracker.log_file(tmp_path / "snapshots" / "kimg-1", "snapshots/kimg-1")
        for nimg in steps:
            tracker.log_metrics({"m": float(nimg)}, nimg)
        wait_for(partial(all_delivered, tracker))
        assert stored(tmp_path).status == "RUNNING"
        tracker.close(end)
        assert stored(tmp_path).status == end
    assert [record for record in caplog.records if record.name == "wavegan"] == []
    mlflow = stored(tmp_path)
    assert mlflow.steps("m") == [1, 2, 3, 4]
    assert sum(event["kind"] == "file" and event["under"] is not None for event in tracker.spool.events()) == 1
    assert mlflow.client.download_artifacts(mlflow.run_id, "config.yaml", tmp_path / "snapshots")
    assert (tmp_path / "snapshots" / "config.yaml").read_text() == "FINISHED"


def test_a_sidecar_that_is_killed_is_reported_at_the_next_report_and_once(tmp_path, experiment, server, stored, caplog):
    tracker = MlflowTracker.open(tmp_path, experiment(server.uri))
    tracker.sidecar.kill()
    tracker.sidecar.wait()
    tracker.log_metrics({"m": 1.0}, 1)
    assert caplog.messages == [
        f"the process that delivers to MLflow has ended (exit code -9, {tracker.spool.path.with_suffix('.log')}); "
        f"training continues, `wavegan track sync {tmp_path}` sends the rest"
    ]
    tracker.log_metrics({"m": 2.0}, 2)
    tracker.close("FINISHED")
    assert caplog.text.count("has ended") == 1
    assert f"2 points and 3 other entries could not be sent to {server.uri}" in caplog.text
    sync(tmp_path)
    assert stored(tmp_path).steps("m") == [1, 2]
    assert stored(tmp_path).status == "FINISHED"


TRAINING = """
import sys, time
from pathlib import Path
from wavegan_dist import config
from wavegan_dist.tracking.tracker import MlflowTracker
tracker = MlflowTracker.open(Path(sys.argv[1]), config.load(Path(sys.argv[2]), [f"tracking.uri={sys.argv[3]}"]))
for nimg in range(5):
    tracker.log_metrics({"m": float(nimg)}, nimg)
print(tracker.sidecar.pid, flush=True)
time.sleep(600)
"""


def test_the_sidecar_of_a_killed_run_delivers_and_exits(tmp_path, tracked_config, server, stored):
    command = [sys.executable, "-c", TRAINING, tmp_path, tracked_config, server.uri]
    training = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    sidecar = psutil.Process(int(training.stdout.readline()))
    training.kill()
    training.wait()
    wait_for(lambda: not sidecar.is_running(), 30)
    assert stored(tmp_path).steps("m") == [0, 1, 2, 3, 4]
    assert stored(tmp_path).status == "RUNNING"


def test_a_sidecar_exits_in_time_without_a_server(tmp_path, experiment):
    folder = RunFolder(tmp_path)
    TrackingInfo.create(folder, experiment(NOWHERE)).save(folder)
    spool = Spool(tmp_path / "tracking" / "train.jsonl")
    spool.open()
    spool.append({"kind": "metrics", "nimg": 1, "values": {"m": 1.0}})
    command = [sys.executable, "-m", "wavegan_dist.tracking.sidecar", str(spool.path), "4"]
    sidecar = subprocess.Popen(command, env=environment(), stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    time.sleep(1)
    assert sidecar.poll() is None  # the run continues
    began = time.monotonic()
    _, errors = sidecar.communicate(timeout=15)  # closes its stdin
    assert 3.5 < time.monotonic() - began < 8
    assert b"training continues" in errors


def test_the_run_s_signals_do_not_end_the_sidecar(tmp_path, experiment):
    tracker = MlflowTracker.open(tmp_path, experiment(NOWHERE))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        os.kill(tracker.sidecar.pid, number)
    time.sleep(0.5)
    assert tracker.sidecar.poll() is None
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()  # and the run handles signals as before
    tracker.sidecar.kill()


def test_training_never_imports_mlflow():
    check = "import sys, wavegan_dist.train.loop, wavegan_dist.tracking.sidecar; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env=environment()).returncode == 0


def test_the_sidecar_loads_no_torch():
    check = "import sys, wavegan_dist.tracking.sidecar; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], env=environment()).returncode == 0


def test_a_run_that_is_not_tracked_leaves_no_files_and_starts_no_process(tmp_path, config, wavegan):
    run = tmp_path / "run"
    outcome = wavegan("train", "--config", config, "--run-dir", run, "train.total_kimg=0.064", "tracking.enabled=false")
    assert outcome.returncode == 0, outcome.stderr
    assert not list(run.glob("tracking*"))
    assert type(open_tracker(run, configuration.load(config, ["tracking.enabled=false"]))) is Tracker
    log_evaluation(run, {"eval/fwd": 1.0}, 0, spool="kimg-000000", files={}, images={})
    assert not list(run.glob("tracking*"))
    refused(wavegan("track", "sync", run), "is not tracked", "tracking.enabled")
