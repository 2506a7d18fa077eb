"""Several real processes: they train as one process does, and none trains alone."""

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file

from tests.helpers import accelerate_launch, environment, points, run_ranks, two_processes
from wavegan_dist.config import TrainConfig, check_batch_division
from wavegan_dist.errors import UsageError

STEPS = Path(__file__).parent / "steps.py"


def train_steps(out: Path, config: Path, processes: int, *overrides: str) -> list[dict[str, torch.Tensor]]:
    """Return what each rank recorded over five steps."""
    run_ranks(processes, STEPS, out, config, *overrides)
    return [load_file(f"{out}.{rank}") for rank in range(processes)]


@pytest.mark.parametrize("overrides", [("model.norm=batch",), ("model.norm=none", "train.d_steps=2", "optim.clip_norm=1.0")])
def test_two_processes_equal_one_with_the_full_batch(tmp_path, config, overrides):
    (alone,) = train_steps(tmp_path / "one", config, 1, *overrides)
    first, second = train_steps(tmp_path / "two", config, 2, *overrides)
    assert any(name.startswith("4/loss/d_high") for name in alone)
    for name, expected in alone.items():
        assert torch.equal(first[name], second[name]), f"ranks differ in {name}"
        if "loss" in name:
            torch.testing.assert_close(
                first[name], expected, rtol=1e-4, atol=1e-5, msg=f"{name} of rank 0 and of one process differ"
            )
    for module in ("generator", "discriminator", "ema"):
        # Adam turns gradients of rounding noise into full-sized steps: compare with the distance travelled, not elementwise.
        travelled = (alone[f"end/{module}"] - alone[f"start/{module}"]).norm()
        apart = (alone[f"end/{module}"] - first[f"end/{module}"]).norm()
        assert travelled > 0
        assert apart / travelled < 1e-2, module


def test_accelerate_launch_makes_one_run_of_two_processes_and_one_process_resumes(tmp_path, config, wavegan):
    run, uri = tmp_path / "run", f"sqlite:///{tmp_path}/other.db"
    train = ["train", "--config", config, "--run-dir", run, "tracking.enabled=true", "train.report_kimg=0.16"]
    outcome = accelerate_launch(*two_processes(), *train, MLFLOW_TRACKING_URI=uri)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stderr.count("starting at kimg 0") == 1
    assert json.loads((run / "environment.json").read_text())["world_size"] == 2
    outcome = wavegan(*train, "train.total_kimg=0.48")
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads((run / "environment.json").read_text())["world_size"] == 1
    hours = 0.0
    for point, processes in zip(points(run), (2, 2, 1), strict=True):
        hours += processes * 0.16 * point["speed/seconds_per_kimg"] / 3600
        assert point["cost/device_hours"] == pytest.approx(hours)
    client = MlflowClient(uri)  # MLFLOW_TRACKING_URI was honored and stored by the run
    (mlflow_run,) = client.search_runs([client.get_experiment_by_name("wavegan").experiment_id])
    steps = [metric.step for metric in client.get_metric_history(mlflow_run.info.run_id, "lam")]
    assert steps == [160, 320, 480]


@pytest.mark.slow
def test_processes_that_a_launcher_does_not_connect_are_refused(tmp_path, config):
    """`accelerate launch --cpu --num_processes 2` starts one process, or two unconnected ones, without an error."""
    train = ["-m", "wavegan_dist", "train", "--config", config, "--run-dir", tmp_path / "run"]
    outcome = accelerate_launch("--cpu", "--num_processes", 2, *train)
    assert outcome.returncode != 0
    assert "accelerate launch asked for 2 processes but 1 take part" in outcome.stderr
    assert not (tmp_path / "run").exists()


def test_the_batch_must_divide_among_the_processes():
    with pytest.raises(UsageError, match="does not divide among 4"):
        check_batch_division(4, TrainConfig(batch_size=30))
    check_batch_division(4, TrainConfig(batch_size=32))


def test_memory_that_a_step_frees_is_reused_by_the_next():
    """Runs in a new process, because earlier allocations determine where the heap has free memory."""
    code = """if True:
        import resource, torch
        from wavegan_dist.train.launch import keep_freed_memory
        keep_freed_memory()
        for _ in range(11):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.zeros(2**24)
            print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert statistics.median(map(int, ran.stdout.split())) < 100  # of 16,384 pages
