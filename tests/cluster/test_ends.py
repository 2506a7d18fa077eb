"""Jobs that are cancelled or crash."""

import json
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.cluster.helpers import SLURM_CONF, ended, job_of, launchers, log_of, mlflow_run, slurm, states, trainers, until
from tests.helpers import environment


@pytest.fixture(scope="module")
def cancelled(tmp_path_factory, submit, training, profile, store):
    """A run on two nodes that was warned while the profile's setup commands ran, and cancelled while it trained."""
    folder = tmp_path_factory.mktemp("runs")
    run, began, proceed, slow = folder / "cancelled", folder / "began", folder / "proceed", profile()
    wait = f"touch {began}; until [ -e {proceed} ]; do sleep 0.1; done"
    slow.write_text(slow.read_text().replace("setup:", f"setup:\n  - '{wait}'"))
    job = job_of(submit("submit", "train", "--config", training, "--profile", slow, "--run-dir", run, "train.total_kimg=1000"))
    until("setup", began.exists, 60)
    slurm("scancel", "--batch", "--signal=USR2", job)
    usr2, logs = rf"(?i)sent signal 12 to .*StepId={job}\.", list(Path(SLURM_CONF).parent.glob("log/slurmd.*.log"))
    until("signal", lambda: any(re.search(usr2, log.read_text()) for log in logs), 60)
    proceed.touch()
    until("report", (run / "metrics.jsonl").exists, 120)
    until("run in MLflow", lambda: json.loads((run / "tracking.json").read_text()).get("run_id"), 60)
    until("report in MLflow", lambda: "lam" in mlflow_run(run, store).data.metrics, 60)  # creating the tables takes a while
    slurm("scancel", job)
    until("end of the job", lambda: ended(job) and not trainers(run), 60)
    return run, job


def test_a_warning_before_the_job_listens_does_not_end_it(cancelled):
    run, job = cancelled
    assert log_of(run, job).count("processes, rendezvous on") == 1
    assert (run / "metrics.jsonl").exists()


def test_scancel_ends_a_run_cleanly(cancelled, store):
    run, job = cancelled
    assert states(job) == ["CANCELLED"]
    left = json.loads((run / "exit.json").read_text())
    assert (left["state"], left["reason"].split(":")[0]) == ("interrupted", "SIGTERM")
    assert json.loads(next(run.glob(f"checkpoints/*{left['nimg'] % 1000:03d}/state.json")).read_text())["nimg"] == left["nimg"]
    assert not list(run.rglob("*.tmp"))
    until("word in MLflow", lambda: mlflow_run(run, store).info.status == "KILLED", 30)
    assert slurm("squeue", "--noheader", "--jobs", job).strip() == ""


def test_a_job_that_crashes_twice_at_the_same_place_stops_and_says_so(submit, tmp_path, training, profile):
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


def test_a_job_that_reaches_its_time_limit_twice_without_a_new_checkpoint_stops(submit, tmp_path, training, profile):
    run, python, began = tmp_path / "stalled", tmp_path / "python", tmp_path / "began"
    python.write_text(f"#!/bin/sh\ntouch {began}\nexec sleep 300\n")  # a trainer that saves nothing after the warning
    python.chmod(0o755)
    brief = profile(f"python: {python}", "warn_seconds: 30", "sbatch: {begin: now+1hour}", base="local1")
    job = job_of(submit("submit", "train", "--config", training, "--profile", brief, "--time", 1, "--run-dir", run))
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now")  # so that the warnings below are the only ones
    for _ in range(2):
        until("start of the trainer", began.exists, 120)
        began.unlink()
        slurm("scancel", "--batch", "--signal=USR2", job)  # what Slurm sends shortly before the limit
    until("end of the job", lambda: ended(job), 60)
    assert states(job) == ["REQUEUED", "FAILED"]
    assert "not started a third time: no new checkpoint within the time limit of 1 min; submit with" in log_of(run, job)


def test_after_a_launcher_is_killed_the_run_saves_and_is_requeued_at_once(submit, tmp_path, training, profile):
    run = tmp_path / "killed"
    job = job_of(
        submit("submit", "train", "--config", training, "--profile", profile(), "--run-dir", run, "train.total_kimg=1000")
    )
    until("report", (run / "metrics.jsonl").exists, 120)
    launchers(run)[-1].kill()
    until(
        "second start", lambda: log_of(run, job).count("processes, rendezvous on") == 2, 55
    )  # --wait alone would take over 60 s
    assert "interrupted at kimg" in log_of(run, job)
    slurm("scancel", job)
    until("end of the job", lambda: ended(job), 120)
    assert states(job) == ["REQUEUED", "CANCELLED"], log_of(run, job)


def test_a_job_that_ends_while_slurmctld_does_not_answer_is_requeued_later(submit, tmp_path, training, profile):
    run = tmp_path / "unanswered"
    alone = profile(base="local1")
    command = ["submit", "train", "--config", training, "--profile", alone, "--run-dir", run, "train.total_kimg=1000"]
    job = job_of(submit(*command))
    until("report", (run / "metrics.jsonl").exists, 120)
    controller = next(process for process in psutil.process_iter() if process.name() == "slurmctld")
    controller.suspend()
    try:
        for trainer in trainers(run):
            trainer.terminate()
        until("repetition", lambda: "trying again" in log_of(run, job), 120)
    finally:
        controller.resume()
    until("second start", lambda: log_of(run, job).count("processes, rendezvous on") == 2, 120)
    slurm("scancel", job)
    until("end of the job", lambda: ended(job), 120)
    assert states(job) == ["REQUEUED", "CANCELLED"], log_of(run, job)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"nodes": 2}, "Slurm granted 1 nodes where the profile has nodes = 2"),
        ({"gpus_per_node": 2}, "Slurm granted 1 GPUs a node where the profile has 2"),
    ],
)
def test_a_job_that_got_less_than_its_profile_says_does_not_train(cluster, tmp_path, more, said):
    spec = {"run_dir": str(tmp_path / "run"), "profile": {"time": 5, **more}, "arguments": ["--config", "none"]}
    (tmp_path / "job.json").write_text(json.dumps(spec))
    code = f"from wavegan_dist.cluster.train_job import run; run('{tmp_path}/job.json')"
    script = tmp_path / "job.sh"
    script.write_text(f'#!/bin/bash\n{sys.executable} -c "{code}"\n')
    log = tmp_path / "log"
    command = ["sbatch", "--wait", "-N1", "--gpus-per-node=1", "-o", str(log), str(script)]
    subprocess.run(command, env=environment(SLURM_CONF=SLURM_CONF), timeout=60, check=False)
    until("log", log.exists, 10)
    until("word", lambda: said in log.read_text(), 10)
    assert not (tmp_path / "run").exists()
