"""The plain sbatch files, and the scripts of the local cluster."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from tests.cluster.conftest import LOCAL, ROOT, SLURM_CONF, ended, slurm, states, until
from tests.conftest import environment


def sbatch(*command: object, **variables: str) -> str:
    """Submit one of slurm/*.sbatch with less than a real cluster's resources; its job id."""
    small = ["--cpus-per-task=1", "--gpus-per-node=1", "--chdir", str(ROOT)]
    variables = environment(SLURM_CONF=SLURM_CONF, PYTHON=sys.executable, **variables)
    words = ["sbatch", "--parsable", *small, *map(str, command)]
    return subprocess.run(words, check=True, capture_output=True, text=True, env=variables, timeout=60).stdout.strip()


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory, training, short, profile):
    """A run by train.sbatch in two processes of one node, and one by train-nodes.sbatch on two nodes."""
    folder = tmp_path_factory.mktemp("runs")
    pair = profile("processes_per_node: 2", base="local1")
    one, many = folder / "one", folder / "many"
    common = {"CONFIG": str(training)}
    jobs = [
        sbatch("-o", folder / "one.log", "slurm/train.sbatch", *short, RUN=str(one), PROFILE=str(pair), **common),
        sbatch("-o", folder / "many.log", "slurm/train-nodes.sbatch", *short, RUN=str(many), PROFILE="local", **common),
    ]
    until("end of both", lambda: all(map(ended, jobs)), 180)
    for job, run in zip(jobs, (one, many), strict=True):
        assert states(job) == ["COMPLETED"], run.with_suffix(".log").read_text()
    return one, many


def test_one_node_and_many_nodes_train(runs):
    for run in runs:
        assert json.loads((run / "exit.json").read_text())["state"] == "finished"
        assert json.loads((run / "environment.json").read_text())["world_size"] == 2


def test_the_array_evaluates_every_snapshot(runs):
    run = runs[0]
    log = run.parent / "evaluate-%a.log"
    options = ["--metrics", "spectrum", "--count", 200]
    job = sbatch("--array=0-2", "-o", log, "slurm/evaluate.sbatch", *options, RUN=str(run), OMP_NUM_THREADS="1")
    until("end of the array", lambda: not slurm("squeue", "--noheader", "--jobs", job).strip(), 120)
    assert {file.name for file in run.glob("evaluations/*.json")} == {"kimg-000000.json", "kimg-000000.320.json"}
    assert "none for task 2" in (run.parent / "evaluate-2.log").read_text()


def test_the_scripts_pass_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is missing: slurm/local/install.sh installs it")
    files = [*(ROOT / "slurm").glob("*.sbatch"), *LOCAL.glob("*.sh")]
    assert len(files) >= 8
    assert subprocess.run(["shellcheck", *files], cwd=ROOT / "slurm").returncode == 0


def test_the_cluster_is_up_within_a_minute_and_up_again_is_nothing_to_do(cluster):
    assert cluster.seconds < 60
    began = time.monotonic()
    again = subprocess.run([LOCAL / "up.sh"], capture_output=True, text=True, check=True)
    assert time.monotonic() - began < 5
    assert "is up already" in again.stdout
    assert slurm("sinfo", "-h", "-o", "%P %D %G").splitlines() == ["low* 2 gpu:2", "high 2 gpu:2"]
