"""A submission that cannot run fails with one line and leaves nothing behind."""

import os
import shutil
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from typing import Any

import pytest

from tests.cluster.helpers import job_of, slurm
from tests.helpers import environment, refused
from wavegan_dist import config


@pytest.fixture
def train(submit, training, tmp_path):
    """Submits a training with further options."""

    def run(*options: object, **settings: Any) -> subprocess.CompletedProcess[str]:
        profile = [] if "--profile" in options else ["--profile", "local"]
        where = [] if "--run-dir" in options else ["--run-dir", tmp_path / "run"]
        return submit("submit", "train", "--config", training, *where, *profile, *options, **settings)

    return run


def test_what_slurm_refuses_is_one_line_and_nothing_is_left(train, tmp_path):
    refused(train("--partition", "nosuch"), "Slurm refuses the job", "invalid partition")
    refused(train("--gpus-per-node", 9, "train.batch_size=36"), "Slurm refuses the job", "node configuration is not available")
    assert list(tmp_path.iterdir()) == []


def test_wrong_profiles_are_refused(train, profile, tmp_path):
    refused(train("--profile", "nosuch"), "no profile is called 'nosuch'", "local")
    refused(train("--profile", profile("partitoin: low")), "unknown key 'partitoin'", "did you mean 'partition'?")
    refused(train("--time", "soon"), "'soon' is not a time")
    refused(train("--nodes", 3), "train.batch_size = 64 does not divide among 3 processes")
    assert list(tmp_path.iterdir()) == []


def test_what_the_job_would_refuse_is_refused_at_submission(train, training, tmp_path):
    refused(train("train.accumulation=3"), "train.batch_size = 64 does not divide among 2 processes in 3 micro-batches each")
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text(config.load(training).to_yaml())
    refused(train("seed=7", "train.checkpoint_kimg=1"), f"{run} holds a run of another config (seed: 0 -> 7)")
    assert [path.name for path in run.iterdir()] == ["config.yaml"]


def test_wrong_options_of_the_evaluation_are_refused(train, tmp_path):
    for option in (["--metrics", "fwd"], ["--count", 300], ["--best", "fwd"], ["--exact"], ["--in-flight", 3]):
        refused(train(*option), f"{option[0]} is for evaluations; add --evaluate-profile NAME")
    evaluated = ("--evaluate-profile", "local1", "--dry-run")
    refused(train(*evaluated, "--metrics", "fdw"), "unknown metric 'fdw'; did you mean ")
    refused(
        train(*evaluated, "--metrics", "fd,kid", "--best", "fd"), "--best fd is no value", "fd_efflite0@128, kid_efflite0@128"
    )
    refused(train(*evaluated, "--best", "fid"), "--best fid is no value of these metrics")
    assert train(*evaluated, "--metrics", "fd", "--best", "fd_efflite0@128").returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_profile_of_several_processes_is_refused_for_evaluations(train, submit, walked):
    told = "an evaluation is one process, and profile {} has {}"
    refused(train("--evaluate-profile", "gpu8"), told.format("gpu8", "8 (1 nodes x 8)"), "such as gpu1")
    refused(submit("watch", walked.run, "--profile", "local"), told.format("local", "2 (2 nodes x 1)"))
    command = ["submit", "evaluate", "--run", walked.run, "--snapshots", "all", "--profile", "gpu8", "--dry-run"]
    refused(submit(*command), told.format("gpu8", 8))
    assert submit(*command, "--gpus-per-node", 1).returncode == 0


def test_of_two_submissions_at_once_one_is_accepted_and_keeps_its_files(train, profile, tmp_path):
    later = profile("sbatch: {begin: now+1hour}")
    with ThreadPool(2) as two:
        refusal, accepted = sorted(two.map(lambda _: train("--profile", later), range(2)), key=lambda one: one.returncode == 0)
    job = job_of(accepted)
    try:
        refused(refusal, f"job {job} already trains {tmp_path / 'run'}")
        assert (tmp_path / "run" / "cluster" / "jobs" / f"{job}_submission.sh").exists()
    finally:
        slurm("scancel", job)


def test_a_run_whose_name_has_commas_is_submitted_once(train, profile, tmp_path):
    options = ("--profile", profile("sbatch: {begin: now+1hour}"), "--run-dir", tmp_path / "lr=1e-4,bs=64")
    job = job_of(train(*options))
    try:
        refused(train(*options), f"job {job} already trains")
    finally:
        slurm("scancel", job)


def test_ctrl_c_after_slurm_has_accepted_the_job_leaves_the_run_folder(train, profile, tmp_path):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f"#!/bin/sh\n{shutil.which('sbatch')} --parsable $* >{tmp_path}/job\nkill -INT $PPID\nsleep 5\n")
    sbatch.chmod(0o755)
    env = {"PATH": f"{sbatch.parent}:{os.environ['PATH']}"}
    outcome = train("--profile", profile("sbatch: {begin: now+1hour}"), env=env)
    job = (tmp_path / "job").read_text().strip()
    slurm("scancel", job)
    assert outcome.returncode == 130, outcome.stderr
    assert list((tmp_path / "run" / "cluster").glob("TrainJob-*.json"))


def test_an_unwritable_run_folder_is_refused(train, tmp_path):
    (tmp_path / "file").write_text("")
    refused(train("--run-dir", tmp_path / "file" / "run"), f"{tmp_path / 'file'} is not a folder; choose another name")
    refused(train("--run-dir", tmp_path / "run.zip"), "run.zip is the name of a file")
    refused(train("--run-dir", "/sys/run"), "/sys/run", "not permitted", exit_code=1)  # where root may not write either


def test_a_missing_slurm_or_submitit_is_named(train, tmp_path, monkeypatch):
    refused(train(env={"PATH": "/nonexistent"}), "Slurm is missing", "slurm/local/up.sh")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "submitit.py").write_text("raise ImportError")
    path = f"{tmp_path / 'hidden'}:{environment().get('PYTHONPATH', '')}"
    refused(train(env={"PYTHONPATH": path}), "submitit is missing", "wavegan-dist[slurm]")


def test_a_dry_run_prints_the_script_and_submits_nothing(train, submit, training, tmp_path):
    outcome = train("--dry-run", "--nodes", 4, "--gpus-per-node", 8, "--time", "1-0", "train.batch_size=64")
    assert outcome.returncode == 0, outcome.stderr
    for line in ("#SBATCH --nodes=4", "#SBATCH --gpus-per-node=8", "#SBATCH --time=1440", "#SBATCH --signal=B:USR2@60"):
        assert line in outcome.stdout.splitlines()
    for words in ("srun --nodes=4 --ntasks=4", "--num_processes 32", '--machine_rank "$SLURM_NODEID"', "train.world_size=32"):
        assert words in outcome.stdout
    assert "ACCELERATE_USE_CPU" not in outcome.stdout
    script = tmp_path / "job.sh"
    script.write_text(outcome.stdout)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert not (tmp_path / "run").exists()


def test_the_job_module_outside_a_job_says_what_it_is_for(submit, tmp_path):
    command = [sys.executable, "-m", "wavegan_dist.cluster.train_job", "--profile", "local", "--run-dir", tmp_path, "--", "x"]
    outcome = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment())
    refused(outcome, "not in a Slurm job", exit_code=1)
