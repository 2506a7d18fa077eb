"""A training job under Slurm's ways to preempt: CANCEL with a grace period, SUSPEND,GANG, CANCEL and REQUEUE without one."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.cluster.helpers import SLURM_CONF, ended, job_of, log_of, slurm, states, until
from tests.helpers import Command, refused
from wavegan_dist.cluster import evaluation_queue
from wavegan_dist.cluster.evaluation_queue import QueueStatus
from wavegan_dist.cluster.job import EvaluateJob
from wavegan_dist.cluster.profile import load_profile
from wavegan_dist.cluster.snapshot_watcher import run_over

WHOLE_NODE = ("sbatch", "--parsable", "-p", "high", "-w", "node1", "--ntasks=4", "-o", "/dev/null", "--wrap")


def restart_slurmctld() -> None:
    """End slurmctld with SIGTERM, start it again and wait until it knows the nodes: it reads PreemptMode only at its start."""
    process = psutil.Process(int(Path(SLURM_CONF).with_name("run").joinpath("slurmctld.pid").read_text()))
    process.send_signal(signal.SIGTERM)
    until("end of slurmctld", lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE, 20)
    subprocess.run(["slurmctld", "-f", SLURM_CONF], stdin=subprocess.DEVNULL, check=True)
    known = {"idle", "mix", "alloc"}
    until("nodes", lambda: set(slurm("sinfo", "-h", "-p", "low", "-o", "%t").split()) <= known, 30)


@pytest.fixture(scope="module")
def suspending(cluster: SimpleNamespace) -> Iterator[Callable[[], None]]:
    """Makes PreemptMode=SUSPEND,GANG the mode of the cluster, under which jobs of the partition `low` are suspended."""
    before = Path(SLURM_CONF).read_text()

    def change() -> None:
        gang = before.replace("\nPreemptMode=REQUEUE", "\nPreemptMode=SUSPEND,GANG")
        Path(SLURM_CONF).write_text(gang.replace("PreemptMode=REQUEUE GraceTime=30", "PreemptMode=SUSPEND"))
        restart_slurmctld()

    yield change
    Path(SLURM_CONF).write_text(before)
    restart_slurmctld()


def nimg(run: Path) -> int:
    """Return the image number of the run's last report; 0 before the first report."""
    lines = (run / "metrics.jsonl").read_text().splitlines() if (run / "metrics.jsonl").exists() else []
    return json.loads(lines[-1])["nimg"] if lines else 0


def state(job: str) -> str:
    return slurm("squeue", "--noheader", "--states", "all", "--jobs", job, "-o", "%T").strip()


@pytest.fixture(scope="module")
def preempted(
    tmp_path_factory: pytest.TempPathFactory,
    submit: Command,
    config: Path,
    profile: Callable[..., Path],
    suspending: Callable[[], None],
) -> SimpleNamespace:
    """A run whose job is cancelled with a grace period, suspended, and cancelled without one; its next job is requeued."""
    run, proceed = tmp_path_factory.mktemp("runs") / "preempted", tmp_path_factory.mktemp("files") / "proceed"
    whole = profile("sbatch: {nodelist: node1}", base="local1")
    whole.write_text(whole.read_text().replace("cpus_per_task: 1", "cpus_per_task: 4"))
    slow = profile("sbatch: {nodelist: node2}", base="local1")
    wait = f"setup:\n  - 'until [ -e {proceed} ]; do sleep 0.1; done'"
    slow.write_text(slow.read_text().replace("setup:", wait).replace("partition: low", "partition: high"))
    command = ["submit", "train", "--config", config, "--profile", whole, "--run-dir", run, "train.total_kimg=1000"]
    command += ["train.snapshot_kimg=1000", "train.checkpoint_kimg=3.2"]
    evaluation = ["--evaluate-profile", slow, "--metrics", "spectrum", "--count", 300]
    job = job_of(submit(*command, *evaluation))
    seen = SimpleNamespace(run=run, job=job)

    until("report", lambda: nimg(run), 60)
    until("evaluation", lambda: evaluation_queue.submitted_jobs(run), 30)
    seen.evaluation = evaluation_queue.submitted_jobs(run)
    slurm("scontrol", "update", "PartitionName=low", "PreemptMode=CANCEL", "GraceTime=30")
    slurm(*WHOLE_NODE, "sleep 1")
    until("second start", lambda: reports_since(run, job, "resuming at"), 90)
    proceed.touch()

    suspending()
    slurm(*WHOLE_NODE, "sleep 3")
    until("suspension", lambda: state(job) == "SUSPENDED", 30)
    seen.suspended_at, seen.second = nimg(run), submit(*command)
    until("report after the suspension", lambda: nimg(run) > seen.suspended_at, 60)
    seen.states_after_suspension = states(job)

    slurm("scontrol", "update", "PartitionName=low", "PreemptMode=CANCEL", "GraceTime=0")
    slurm(*WHOLE_NODE, "sleep 1")
    until("end of the job", lambda: states(job)[-1] == "PREEMPTED" and state(job) in ("", "PREEMPTED"), 60)
    seen.states = states(job)
    until("end of the evaluation", lambda: ended(seen.evaluation["kimg-000000"]), 60)
    copy = shutil.copytree(run, tmp_path_factory.mktemp("copy") / run.name)
    seen.over, seen.queue = after_a_preemption(copy, job)

    seen.again = job_of(submit(*command))
    until("report of the new job", lambda: reports_since(run, seen.again, "resuming at"), 90)
    slurm("scontrol", "update", "PartitionName=low", "PreemptMode=REQUEUE", "GraceTime=0")
    slurm(*WHOLE_NODE, "sleep 1")
    until("second start of the new job", lambda: log_of(run, seen.again).count("resuming at") == 2, 120)
    slurm("scancel", seen.again)
    until("end of the new job", lambda: ended(seen.again), 60)
    seen.states_of_again = states(seen.again)
    return seen


def after_a_preemption(run: Path, job: str) -> tuple[bool, QueueStatus]:
    """Return whether a run counts as over, and the queue of its evaluations if `job` was to evaluate its first snapshot."""
    (run / "evaluations" / "kimg-000000.json").unlink()
    (run / "cluster" / "evaluations.json").write_text(json.dumps({"kimg-000000": job}))
    evaluation = EvaluateJob(run_dir=run, profile=load_profile("local1"), arguments=[])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", SLURM_CONF)
        return run_over(evaluation), evaluation_queue.submit_pending(evaluation)


def reports_since(run: Path, job: str, words: str) -> bool:
    """Return whether the log of a job has a report after the first occurrence of some words."""
    return "rank 0: kimg" in log_of(run, job).partition(words)[2]


def test_a_suspended_run_goes_on_where_it_stopped(preempted):
    assert preempted.states_after_suspension == ["REQUEUED", "RUNNING"]
    assert log_of(preempted.run, preempted.job).count("resuming at kimg") == 1


def test_a_second_submission_of_a_run_whose_job_is_in_the_queue_is_refused(preempted):
    refused(preempted.second, f"job {preempted.job} already trains {preempted.run}", f"scancel {preempted.job} first")


def test_a_job_that_is_to_be_cancelled_requeues_itself_within_the_grace_period(preempted):
    assert preempted.states == ["REQUEUED", "PREEMPTED"]
    assert "interrupted at kimg" in log_of(preempted.run, preempted.job)


def test_a_snapshot_in_evaluation_is_not_submitted_again_by_the_requeued_job(preempted):
    assert log_of(preempted.run, preempted.job).count("submitted the evaluation of kimg-000000") == 1
    until("accounts", lambda: states(preempted.evaluation["kimg-000000"]) == ["COMPLETED"], 60)
    assert (preempted.run / "evaluations" / "kimg-000000.json").exists()


def test_a_preempted_job_counts_neither_as_finished_nor_as_evaluated(preempted):
    assert not preempted.over
    assert preempted.queue == QueueStatus(failed={"kimg-000000": f"job {preempted.job} ended without a result"})


def test_the_same_submission_resumes_a_preempted_run_and_slurm_requeues_a_job_that_has_no_grace_period(preempted):
    assert preempted.states_of_again == ["PREEMPTED", "CANCELLED"]
    assert "requeuing the job" not in log_of(preempted.run, preempted.again)
