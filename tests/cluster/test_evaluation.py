"""Evaluation jobs: submitted by the training, by `wavegan watch` and as an array; logged to the training's MLflow run."""

import functools
import json
import shutil
from multiprocessing.pool import ThreadPool
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from tests.cluster.helpers import SLURM_CONF, ended, job_of, log_of, slurm, states, until
from tests.helpers import refused
from wavegan_dist.cluster import evaluation_queue
from wavegan_dist.cluster.evaluation_queue import QueueStatus
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.profile import load_profile

NOT_COPIED = shutil.ignore_patterns("evaluations", "cluster", "tracking*", "checkpoints")
METRICS = ("--metrics", "spectrum", "--count", 300, "--best", "spectrum_db")
SNAPSHOTS = ["kimg-000000", "kimg-000000.320"]


def is_completed(job: str) -> bool:
    """Whether accounting knows the last start of the job as completed."""
    return states(job)[-1] == "COMPLETED"


@pytest.fixture
def copy(walked, tmp_path) -> Path:
    """A copy of the run of docs/cluster.md without its evaluations."""
    return shutil.copytree(walked.run, tmp_path / "copy", ignore=NOT_COPIED)


def results(run: Path) -> dict[str, dict]:
    return {file.stem: json.loads(file.read_text()) for file in run.glob("evaluations/kimg-*.json")}


def evaluators(run: Path) -> list[psutil.Process]:
    """Returns the processes that evaluate a snapshot of the run."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if {"evaluate", "--snapshot"} <= {*(process.info["cmdline"] or [])} and str(run) in str(process.info["cmdline"])
    ]


def test_the_documented_commands_train_over_two_nodes_and_evaluate_each_snapshot(walked):
    assert [f"{name}: evaluated" in walked.output for name in SNAPSHOTS] == [True] * 2
    written = json.loads((walked.run / "environment.json").read_text())
    (code,) = (walked.run / "cluster" / "code").iterdir()
    assert (written["world_size"], written["git_commit"]) == (2, (code / "COMMIT").read_text().strip())
    assert json.loads((walked.run / "exit.json").read_text())["state"] == "finished"
    assert sorted(results(walked.run)) == SNAPSHOTS
    jobs = json.loads((walked.run / "cluster" / "evaluations.json").read_text())
    for name in SNAPSHOTS:
        assert f"submitted the evaluation of {name}" in log_of(walked.run, walked.job)
    assert states(walked.job) == ["COMPLETED"]
    until("accounts", lambda: [states(jobs[name]) for name in SNAPSHOTS] == [["COMPLETED"]] * 2, 30)


def test_metrics_are_in_the_training_s_own_mlflow_run_at_the_snapshot_s_image(walked):
    run_id = json.loads((walked.run / "tracking.json").read_text())["run_id"]
    client = MlflowClient(walked.store)
    for name in ("fwd", "spectrum_db"):
        logged = {metric.step: metric.value for metric in client.get_metric_history(run_id, f"eval/{name}")}
        assert logged == {result["protocol"]["nimg"]: result["metrics"][name] for result in results(walked.run).values()}
        assert set(logged) == {0, 320}
    assert client.get_run(run_id).info.status == "FINISHED"
    assert len(client.search_runs([client.get_run(run_id).info.experiment_id])) == 1


def test_the_best_snapshot_is_tagged(walked):
    values = {name: result["metrics"]["fwd"] for name, result in results(walked.run).items()}
    best = min(values, key=values.__getitem__)
    assert json.loads((walked.run / "best.json").read_text())["snapshot"] == best
    run_id = json.loads((walked.run / "tracking.json").read_text())["run_id"]
    data = MlflowClient(walked.store).get_run(run_id).data
    assert (data.tags["best_snapshot"], data.tags["best_metric"]) == (best, "fwd")
    assert float(data.tags["best_value"]) == data.metrics["best/fwd"] == values[best]


def test_watch_evaluates_new_snapshots_retries_a_failed_one_once_and_lists_it(house, copy, submit, tmp_path):
    (copy / "snapshots" / SNAPSHOTS[0] / "model.safetensors").write_bytes(b"nothing")
    seen = tmp_path / "environment"
    traced = tmp_path / "traced.yaml"
    traced.write_text(f"partition: high\ntime: 10\nsetup: ['export OMP_NUM_THREADS=1', 'env > {seen}']\n")
    outer = {"RANK": "3", "WORLD_SIZE": "7", "MASTER_ADDR": "nowhere", "SLURM_NTASKS": "9", "SLURM_JOB_ID": "99"}
    outcome = submit("watch", copy, "--profile", traced, *METRICS, env=outer, cwd=house)
    refused(outcome, "1 of 2 evaluations failed", SNAPSHOTS[0], exit_code=1)
    assert f"{SNAPSHOTS[1]}: evaluated" in outcome.stdout
    jobs = json.loads((copy / "cluster" / "evaluations.json").read_text())
    assert states(jobs[SNAPSHOTS[0]]) == ["REQUEUED", "FAILED"]
    assert states(jobs[SNAPSHOTS[1]]) == ["COMPLETED"]
    inside = dict(line.split("=", 1) for line in seen.read_text().splitlines() if "=" in line)
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & set(inside)
    assert inside["SLURM_NTASKS"] == "1"
    assert inside["SLURM_JOB_ID"] != "99"


def test_only_so_many_evaluations_are_in_flight_at_a_time(copy, monkeypatch):
    """The jobs stay pending, so that only submissions change the state."""
    monkeypatch.setenv("SLURM_CONF", SLURM_CONF)
    first, second, third = *SNAPSHOTS, "kimg-000000.640"
    shutil.copytree(copy / "snapshots" / second, copy / "snapshots" / third)
    profile = load_profile("local1", sbatch={"begin": "now+1hour"})
    job = EvaluateJob(run_dir=copy, profile=profile, arguments=[], best="fwd", in_flight=1)
    (copy / "evaluations").mkdir()
    (copy / "evaluations" / f"{first}.failed").write_text("in a former submission")
    with ThreadPool(2) as two:  # like a training job and `wavegan watch`
        looks = two.map(evaluation_queue.submit_pending, [job, job])
    assert sorted(looks, key=lambda look: look.in_flight) == [
        QueueStatus(submitted=[first], waiting=[second, third]),
        QueueStatus(in_flight=[first], waiting=[second, third]),
    ]
    assert not (copy / "evaluations" / f"{first}.failed").exists()
    assert evaluation_queue.submit_pending(job) == QueueStatus(in_flight=[first], waiting=[second, third])
    cancelled = evaluation_queue.submitted_jobs(copy)[first]
    slurm("scancel", cancelled)
    until("end of the job", lambda: states(cancelled) == ["CANCELLED"], 30)
    lost = {first: f"job {cancelled} ended without a result"}
    assert evaluation_queue.submit_pending(job, all_at_once=True) == QueueStatus(submitted=[second, third], failed=lost)
    array = evaluation_queue.submitted_jobs(copy)[third].split("_")[0]
    assert "ArrayTaskThrottle=1" in slurm("scontrol", "show", "job", array)
    slurm("scancel", array)


def test_all_snapshots_at_once_are_one_array_and_survive_preemption(house, copy, submit):
    command = ["submit", "evaluate", "--run", copy, "--profile", "local1", "--time", 10, *METRICS, "--snapshots"]
    refused(submit(*command, "kimg-7", cwd=house), "no snapshot kimg-7")
    outcome = submit(*command, "all", cwd=house)
    assert outcome.returncode == 0, outcome.stderr
    jobs = json.loads((copy / "cluster" / "evaluations.json").read_text())
    array = jobs[SNAPSHOTS[0]].split("_")[0]
    assert jobs == {SNAPSHOTS[0]: f"{array}_0", SNAPSHOTS[1]: f"{array}_1"}
    until("evaluations", lambda: len(evaluators(copy)) == 2, 60)
    urgent = slurm("sbatch", "--parsable", "-p", "high", "-N", 2, "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1").strip()
    until("end of the urgent job", lambda: states(urgent) == ["COMPLETED"], 60)
    until("end of the array", lambda: not slurm("squeue", "--noheader", "--jobs", array).strip(), 120)
    assert sorted(results(copy)) == SNAPSHOTS
    for job in jobs.values():
        until("accounts", functools.partial(is_completed, job), 30)
        assert len(states(job)) == 2
    assert not list(copy.glob("evaluations/*.failed"))
    refused(submit(*command, "new", cwd=house), "nothing to submit")


def test_an_evaluation_that_its_time_limit_cuts_is_tried_once_more(house, copy, submit, profile):
    brief = profile("warn_seconds: 30", "sbatch: {begin: now+1hour}", base="local1")
    command = ["submit", "evaluate", "--run", copy, "--profile", brief, "--time", 1, *METRICS, "--snapshots", SNAPSHOTS[1]]
    assert submit(*command, cwd=house).returncode == 0
    job = json.loads((copy / "cluster" / "evaluations.json").read_text())[SNAPSHOTS[1]]
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60", "StartTime=now")  # so that the warning below is the only one
    until("evaluation", lambda: evaluators(copy), 60)
    slurm("scancel", "--batch", "--signal=USR2", job)  # what Slurm sends shortly before the limit
    failed = copy / "evaluations" / f"{SNAPSHOTS[1]}.failed"
    until("note of the failure", failed.exists, 30)
    assert "not done within the profile's time limit of 1 min" in failed.read_text()
    until("end of the job", lambda: states(job)[-1] == "COMPLETED", 120)
    assert not failed.exists()


def test_snapshots_whose_job_is_in_the_queue_are_left_out(house, copy, submit, profile):
    later = profile("sbatch: {begin: now+1hour}", base="local1")
    command = ["submit", "evaluate", "--run", copy, "--profile", later, *METRICS, "--snapshots"]
    first = job_of(submit(*command, SNAPSHOTS[0], cwd=house))
    outcome = submit(*command, "new", cwd=house)
    second = job_of(outcome)
    try:
        assert outcome.stdout == f"job {second}: {SNAPSHOTS[1]}\n"
        assert evaluation_queue.submitted_jobs(copy) == {SNAPSHOTS[0]: first, SNAPSHOTS[1]: second}
        refused(submit(*command, "new", cwd=house), "has a result, or a pending or running job; nothing to submit")
        refused(submit(*command, "all", cwd=house), "each of these snapshots has a pending or running job; nothing to submit")
        slurm("scancel", second)
        until("end of the second", lambda: ended(second), 30)
        second = job_of(outcome := submit(*command, "all", cwd=house))
        assert outcome.stdout == f"job {second}: {SNAPSHOTS[1]}\n"
    finally:
        slurm("scancel", first, second)
    until("end of both", lambda: ended(first) and ended(second), 30)
    again = job_of(submit(*command, "new", cwd=house))
    slurm("scancel", array := again.split("_")[0])
    assert evaluation_queue.submitted_jobs(copy) == {SNAPSHOTS[0]: f"{array}_0", SNAPSHOTS[1]: f"{array}_1"}


def test_a_cancelled_evaluation_stays_cancelled(house, copy, submit):
    command = ["submit", "evaluate", "--run", copy, "--profile", "local1", *METRICS, "--snapshots", SNAPSHOTS[1]]
    job = job_of(submit(*command, cwd=house))
    until("evaluation", lambda: evaluators(copy), 60)
    for process in evaluators(copy):
        process.suspend()  # so that it does not end before; scancel resumes it
    slurm("scancel", job)
    until("end of the job", lambda: ended(job), 60)
    assert states(job) == ["CANCELLED"]
    assert not list(copy.glob("evaluations/kimg-*"))


def test_only_the_failed_task_of_an_array_runs_again(house, copy, submit):
    """Slurm gives the array's own id to its last task, the one that fails here."""
    (copy / "snapshots" / SNAPSHOTS[1] / "model.safetensors").write_bytes(b"nothing")
    command = ["submit", "evaluate", "--run", copy, "--profile", "local1", *METRICS, "--snapshots", "all"]
    assert submit(*command, cwd=house).returncode == 0
    good, bad = (evaluation_queue.submitted_jobs(copy)[name] for name in SNAPSHOTS)
    until("end of both tasks", lambda: ended(good) and ended(bad), 180)
    assert states(bad) == ["REQUEUED", "FAILED"]
    assert states(good) == ["COMPLETED"]
