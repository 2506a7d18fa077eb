"""A submission that cannot run fails with one line and leaves nothing behind."""

import subprocess
import sys
from typing import Any

import pytest

from tests.helpers import environment, refused


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
