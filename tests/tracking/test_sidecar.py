"""Runs and their sidecars as processes: if either is killed, nothing waits for long and no point is missing or doubled."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.helpers import PATIENCE, deliver, environment, points, refused, running, wait_for, wait_for_points
from wavegan_dist import config as configuration
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.tracking import Tracker, log_evaluation, open_tracker, sync
from wavegan_dist.tracking.spool import Spool
from wavegan_dist.tracking.tracker import FINISH_TIMEOUT, MlflowTracker
from wavegan_dist.tracking.tracking_info import TrackingInfo

NOWHERE = "http://127.0.0.1:9"


def all_delivered(tracker: MlflowTracker) -> bool:
    return not tracker.spool.count_undelivered()


def test_a_server_killed_in_mid_run_has_every_point_once_and_in_order(tmp_path, tracked_config, server, stored):
    run = tmp_path / "run"
    lengths = ("train.total_kimg=1000", "train.report_kimg=0.32", "train.snapshot_kimg=6.4", "train.checkpoint_kimg=1000")
    train = ("train", "--config", tracked_config, "--run-dir", run, *lengths, f"tracking.uri={server.uri}")
    with running(sys.executable, "-m", "wavegan_dist", *train, "--log-level", "warning") as training:
        wait_for_points(run, 1, training)
        spool = Spool(run / "tracking" / "train.jsonl")
        wait_for(lambda: spool.delivered()[0], training)
        server.kill()
        wait_for_points(run, len(points(run)) + 10, training)  # training continues
        behind = spool.path.stat().st_size
        server.start()
        wait_for(lambda: spool.delivered()[0] >= behind and len(list(run.glob("snapshots/*"))) > 1, training)
        training.terminate()
        _, errors = training.communicate(timeout=PATIENCE)
    assert training.returncode == 75, errors
    deliver(run)
    reports = points(run)
    mlflow = stored(run)
    for name in reports[0].keys() - {"nimg", "kimg"}:
        assert mlflow.steps(name) == [point["nimg"] for point in reports]
        assert mlflow.values(name) == [point[name] for point in reports]
    snapshots = sorted(path.name for path in run.glob("snapshots/*"))
    assert mlflow.files("snapshots") == [f"snapshots/{name}" for name in snapshots]
    assert len(mlflow.files("images")) == 2 * len(snapshots)  # each with its thumbnail
    assert mlflow.status == "KILLED"


@pytest.mark.slow
def test_a_server_that_hangs_costs_neither_points_nor_time(tmp_path, experiment, proxy, stored, caplog, monkeypatch):
    proxy.mode = "hang"
    with monkeypatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("training waits for MLflow"))
        tracker = MlflowTracker.open(tmp_path, experiment(proxy.uri))
        for nimg in range(1000):
            tracker.log_metrics({f"m{i}": 1.0 for i in range(20)}, nimg)
    began = time.monotonic()
    tracker.close("SCHEDULED")  # a preempted run has less time than a finished one: 10 s
    assert time.monotonic() - began < FINISH_TIMEOUT
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
tracker.log_metrics({"m": 0.0}, 0)
print(tracker.sidecar.pid, flush=True)
sys.stdin.readline()
for nimg in range(1, 5):
    tracker.log_metrics({"m": float(nimg)}, nimg)
print("logged", flush=True)
time.sleep(600)
"""


def test_the_sidecar_of_a_killed_run_delivers_and_exits(tmp_path, tracked_config, server, stored):
    with running(sys.executable, "-c", TRAINING, tmp_path, tracked_config, server.uri) as training:
        sidecar = psutil.Process(int(training.stdout.readline()))
        wait_for(lambda: Spool(tmp_path / "tracking" / "train.jsonl").delivered()[0], training)  # it has imported MLflow
        print(file=training.stdin, flush=True)
        assert training.stdout.readline() == "logged\n"
        training.kill()
        training.wait()
        wait_for(lambda: not sidecar.is_running())
    assert stored(tmp_path).steps("m") == [0, 1, 2, 3, 4]
    assert stored(tmp_path).status == "RUNNING"


def test_a_sidecar_exits_in_time_without_a_server(tmp_path, experiment):
    folder = RunFolder(tmp_path)
    TrackingInfo.create(folder, experiment(NOWHERE)).save(folder)
    spool = Spool(tmp_path / "tracking" / "train.jsonl")
    spool.open()
    spool.append({"kind": "metrics", "nimg": 1, "values": {"m": 1.0}})
    with running(sys.executable, "-m", "wavegan_dist.tracking.sidecar", spool.path, 4) as sidecar:
        assert any("training continues" in line for line in sidecar.stderr)
        assert sidecar.poll() is None  # the run continues
        began = time.monotonic()
        sidecar.communicate(timeout=PATIENCE)  # closes its stdin
        assert time.monotonic() > began + 3.5
    assert sidecar.returncode == 1


def test_the_run_s_signals_do_not_end_the_sidecar(tmp_path, experiment):
    tracker = MlflowTracker.open(tmp_path, experiment(NOWHERE))
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
    for number in numbers:
        os.kill(tracker.sidecar.pid, number)
    status = Path(f"/proc/{tracker.sidecar.pid}/status").read_text()
    pending = int(re.search(r"^ShdPnd:\t(\w+)$", status, re.M)[1], 16)
    assert pending == sum(1 << (number - 1) for number in numbers)  # they have arrived, and are blocked
    assert tracker.sidecar.poll() is None
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()  # and the run handles signals as before
    tracker.sidecar.kill()
    tracker.sidecar.wait()


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
