"""Jobs that end otherwise: cancelled, or crashing at the same place."""

import json
import subprocess
import sys
import time

import pytest
from mlflow import MlflowClient

from tests.cluster.conftest import SLURM_CONF, ended, job_of, log_of, slurm, states, trainers, until
from tests.conftest import environment


@pytest.fixture(scope="module")
def cancelled(tmp_path_factory, submit, training, profile):
    """A run of one process after scancel in mid-run."""
    run, alone = tmp_path_factory.mktemp("runs") / "cancelled", profile(base="local1")
    job = job_of(submit("submit", "train", "--config", training, "--profile", alone, "--run-dir", run, "train.total_kimg=1000"))
    until("report", (run / "metrics.jsonl").exists, 90)
    slurm("scancel", job)
    until("end of the job", lambda: ended(job) and not trainers(run), 60)
    return run, job


def test_scancel_ends_a_run_cleanly(cancelled, store):
    run, job = cancelled
    assert states(job) == ["CANCELLED"]
    left = json.loads((run / "exit.json").read_text())
    assert (left["state"], left["reason"].split(":")[0]) == ("interrupted", "SIGTERM")
    assert json.loads(next(run.glob(f"checkpoints/*{left['nimg'] % 1000:03d}/state.json")).read_text())["nimg"] == left["nimg"]
    assert not list(run.rglob("*.tmp"))
    run_id = json.loads((run / "tracking.json").read_text())["run_id"]
    until("word in MLflow", lambda: MlflowClient(store).get_run(run_id).info.status == "KILLED", 30)
    assert slurm("squeue", "--noheader", "--jobs", job).strip() == ""


def test_a_job_that_crashes_twice_at_the_same_place_stops_and_says_so(tmp_path, submit, training, profile):
    run = tmp_path / "crashing"
    alone = profile(base="local1")
    command = ["submit", "train", "--config", training, "--profile", alone, "--run-dir", run, "optim.lr_d=1e30", "seed=1"]
    job = job_of(submit(*command))
    until("end of the job", lambda: ended(job), 120)
    assert states(job) == ["REQUEUED", "FAILED"]
    crashes = [json.loads(line) for line in (run / "cluster" / "crashes.jsonl").read_text().splitlines()]
    assert len(crashes) == 2
    assert crashes[0]["nimg"] == crashes[1]["nimg"]
    assert "not started a third time" in log_of(run, job)
    assert crashes[1]["reason"] in log_of(run, job)


def test_a_job_that_got_other_nodes_than_its_profile_says_does_not_train(cluster, tmp_path):
    spec = {"run_dir": str(tmp_path / "run"), "profile": {"time": 5, "nodes": 2}, "arguments": ["--config", "none"]}
    (tmp_path / "job.json").write_text(json.dumps(spec))
    code = f"from wavegan_dist.cluster.train_job import run; run('{tmp_path}/job.json')"
    script = tmp_path / "job.sh"
    script.write_text(f'#!/bin/bash\n{sys.executable} -c "{code}"\n')
    log = tmp_path / "log"
    command = ["sbatch", "--wait", "-N1", "-o", str(log), str(script)]
    subprocess.run(command, env=environment(SLURM_CONF=SLURM_CONF), timeout=60, check=False)
    until("log", log.exists, 10)
    time.sleep(0.2)
    assert "Slurm granted 1 nodes where the profile has nodes = 2" in log.read_text()
    assert not (tmp_path / "run").exists()
