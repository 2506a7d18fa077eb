"""A run over two nodes, and the same run preempted, at its time limit and after the loss of a node: both end bit-equal."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.cluster.helpers import LOCAL, ended, job_of, log_of, mlflow_run, slurm, states, trainers, until
from wavegan_dist.data import Index

EVERY_REPORT = list(range(128, 6401, 128))


def nimg(run: Path) -> int:
    """Returns the image number of the run's last report; 0 before the first report."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return json.loads(lines[-1])["nimg"] if lines else 0


def reported(run: Path) -> list[int]:
    return [json.loads(line)["nimg"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def last_exit(run: Path) -> dict[str, Any]:
    """Returns the exit.json of the last trainer that ended; zeros before the first end."""
    return json.loads((run / "exit.json").read_text()) if (run / "exit.json").exists() else {"nimg": 0, "time": 0}


def suspended_until(run: Path, what: str, condition: Callable[[], object]) -> None:
    """Suspends the trainers until `condition` returns true, so that the run does not finish before."""
    processes = trainers(run)
    assert len(processes) >= 2  # the loader workers are among them
    for process in processes:
        process.suspend()
    until(what, condition, 90)
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # Slurm has killed it
            process.resume()


def node1_reaches_node2() -> bool:
    """Returns whether a job step on node1 can connect to the slurmd of node2, as srun must to start the trainers there."""
    with suppress(subprocess.CalledProcessError):
        slurm("srun", "-p", "high", "-w", "node1", "timeout", 2, "bash", "-c", "</dev/tcp/node2/16818")
        return True
    return False


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory, submit, training, profile, straight):
    """The run of `straight` with three interruptions, and the state after each."""
    run = tmp_path_factory.mktemp("runs") / "interrupted"
    job = job_of(submit("submit", "train", "--config", training, "--profile", "local", "--run-dir", run))
    seen = SimpleNamespace(run=run, job=job)

    until("report", lambda: nimg(run) >= 960, 90)
    preempted_at = time.time()
    urgent = slurm("sbatch", "--parsable", "-p", "high", "-w", "node2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    until("end of the preempted start", lambda: last_exit(run)["time"] > preempted_at, 60)
    seen.preempted, seen.seconds = last_exit(run), last_exit(run)["time"] - preempted_at
    until("end of the urgent job", lambda: ended(urgent.strip()), 60)
    seen.urgent = states(urgent.strip())

    until("report after the preemption", lambda: nimg(run) > seen.preempted["nimg"], 90)
    # Slurm checks time limits every 30 s and warns up to 30 s early; after the warning the run needs time to save.
    slurm("scontrol", "update", f"JobId={job}", "EndTime=now+75")
    suspended_until(run, "warning of the time limit", lambda: log_of(run, job).count("Slurm will end the job soon") == 2)
    until("end of the start at its limit", lambda: last_exit(run)["time"] > seen.preempted["time"], 60)
    seen.limited = last_exit(run)
    slurm("scontrol", "update", f"JobId={job}", "TimeLimit=60")

    until("report after the time limit", lambda: nimg(run) > seen.limited["nimg"], 90)
    subprocess.run([LOCAL / "node.sh", "kill-slurmd", "2"], check=True)
    suspended_until(run, "requeue after the node's loss", lambda: states(job)[-1] == "PENDING")
    # The node reboots. If its slurmd returned while the step of the old start still lived there, Slurm would abort that step
    # and, because both have the same job and step id, the step of the new start too.
    slurm("scontrol", "hold", job)
    subprocess.run([LOCAL / "node.sh", "crash", "2"], check=True)
    until("end of the old start", lambda: not trainers(run), 30)
    subprocess.run([LOCAL / "node.sh", "start", "2"], check=True)
    until("connection from node1 to node2", node1_reaches_node2, 60)
    slurm("scontrol", "release", job)
    until("end of the training", lambda: ended(job), 400)
    seen.states = states(job)
    return seen


def final(run: Path) -> dict:
    (newest,) = run.glob("checkpoints/kimg-000006.400")
    return {name: tensor for file in sorted(newest.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def tracked(run: Path, store: str) -> tuple[str, list[int]]:
    """Returns the status of this run in MLflow and the steps of one of its metrics."""
    info = mlflow_run(run, store).info
    return info.status, [metric.step for metric in MlflowClient(store).get_metric_history(info.run_id, "lam")]


def test_two_nodes_train_one_run(straight, store):
    assert states(straight.job) == ["COMPLETED"], log_of(straight.run, straight.job)
    assert json.loads((straight.run / "environment.json").read_text())["world_size"] == 2
    steps = slurm("sacct", "--noheader", "--parsable2", "-o", "JobID,NNodes,NTasks", "-j", straight.job)
    assert f"{straight.job}.0|2|2" in steps.splitlines()
    assert tracked(straight.run, store) == ("FINISHED", EVERY_REPORT)


def test_an_exclusive_job_has_all_cores_of_its_nodes_and_starts_as_many_processes_as_its_profile_says(straight):
    granted = slurm("sacct", "-X", "--noheader", "--parsable2", "-o", "AllocCPUS", "-j", straight.job)
    assert granted.split() == ["8"]  # slurm/local: two nodes of four cores
    assert json.loads((straight.run / "environment.json").read_text())["world_size"] == 2


def test_gradients_cross_the_network_at_every_step(straight):
    newest = final(straight.run)
    gradients = sum(
        tensor.numel() * 4
        for name, tensor in newest.items()
        if name.startswith(("optimizer_g.", "optimizer_d.")) and name.endswith(".exp_avg")
    )
    assert gradients > 10_000
    assert straight.crossed > 100 * gradients  # 100 steps; a ring of two sends each gradient once to each


def test_a_job_runs_the_code_the_config_and_the_profile_of_its_submission(straight):
    assert (straight.run / "exit.json").exists()  # the fixture `straight` breaks all three before the job starts
    (code,) = (straight.run / "cluster" / "code").iterdir()
    assert f"PYTHONPATH={code}" in next((straight.run / "cluster" / "jobs").glob("*submission.sh")).read_text()


def test_each_node_trains_in_the_profile_s_container(straight):
    launched = [line for line in straight.contained.splitlines() if "accelerate.commands.launch" in line]
    assert sorted(line.split()[0] for line in launched) == ["node1", "node2"]
    assert all(f"--config {straight.run}" in line for line in launched)


def test_a_preempted_run_saves_itself_in_mid_epoch_within_the_grace_period(interrupted, demo):
    assert interrupted.preempted["state"] == "interrupted"
    assert interrupted.preempted["nimg"] % Index.load(demo).count
    assert interrupted.seconds < 30, "GraceTime"
    assert interrupted.urgent == ["COMPLETED"]
    assert f"resuming at kimg {interrupted.preempted['nimg'] / 1000:g}" in log_of(interrupted.run, interrupted.job)


def test_a_run_at_its_time_limit_saves_itself_and_goes_on(interrupted):
    assert interrupted.limited["state"] == "interrupted"
    assert interrupted.limited["nimg"] > interrupted.preempted["nimg"]
    assert f"resuming at kimg {interrupted.limited['nimg'] / 1000:g}" in log_of(interrupted.run, interrupted.job)


def test_a_run_that_lost_a_node_goes_on_from_its_last_checkpoint(interrupted):
    starts = re.findall(r"(?:starting|resuming) at kimg ([\d.]+)", log_of(interrupted.run, interrupted.job))
    assert len(starts) == 4
    assert float(starts[3]) >= interrupted.limited["nimg"] / 1000
    assert len(interrupted.states) == 4, interrupted.states
    assert interrupted.states[2:] == ["NODE_FAIL", "COMPLETED"]


def test_interruptions_change_no_bit_and_neither_lose_nor_repeat_an_image(interrupted, straight, store):
    expected, actual = final(straight.run), final(interrupted.run)
    assert expected.keys() == actual.keys()
    assert [name for name in expected if not expected[name].equal(actual[name])] == []
    assert reported(interrupted.run) == reported(straight.run) == EVERY_REPORT
    assert tracked(interrupted.run, store) == ("FINISHED", EVERY_REPORT)
