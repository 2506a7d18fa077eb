"""Several real processes: they train as one does, and nobody trains alone."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import environment
from wavegan_dist.config import TrainConfig
from wavegan_dist.errors import UsageError
from wavegan_dist.train.launch import check_world_size

STEPS = Path(__file__).parent / "steps.py"


def train_steps(out: Path, config: Path, processes: int, *overrides: str) -> list[dict[str, torch.Tensor]]:
    """What each rank holds after five steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, STEPS, out, config, *overrides],
            env=environment(**group, RANK=str(rank), LOCAL_RANK=str(rank)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    return [load_file(f"{out}.{rank}") for rank in range(processes)]


@pytest.mark.parametrize("overrides", [("model.norm=batch",), ("model.norm=none", "train.d_steps=2", "optim.clip_norm=1.0")])
def test_two_processes_equal_one_with_the_whole_batch(tmp_path, config, overrides):
    (alone,) = train_steps(tmp_path / "one", config, 1, *overrides)
    first, second = train_steps(tmp_path / "two", config, 2, *overrides)
    assert any(name.startswith("4/loss/d_high") for name in alone)
    for name, expected in alone.items():
        torch.testing.assert_close(first[name], expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert torch.equal(first[name], second[name]), f"ranks differ in {name}"


def test_a_step_changes_the_weights(tmp_path, config):
    """The equality above would hold of a trainer that does nothing."""
    (slow,), (fast,) = (
        train_steps(tmp_path / lr, config, 1, f"optim.lr_g={lr}", f"optim.lr_d={lr}") for lr in ("1e-4", "1e-3")
    )
    weights = [
        name for name in slow if name.startswith(("generator.base", "discriminator")) and name.endswith(("weight", "original0"))
    ]
    assert weights
    assert not any(torch.allclose(slow[name], fast[name], rtol=1e-4, atol=1e-5) for name in weights)


def test_the_launcher_s_lone_processes_are_refused(tmp_path, config):
    """`accelerate launch --cpu --num_processes 2` starts one process (or two lone ones) and says nothing."""
    accelerate = Path(sys.executable).with_name("accelerate")
    command = [accelerate, "launch", "--cpu", "--num_processes", "2", "-m", "wavegan_dist", "train", "--config", config]
    command += ["--run-dir", tmp_path / "run"]
    outcome = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert outcome.returncode != 0
    assert "accelerate launch asked for 2 processes but 1 take part" in outcome.stderr
    assert not (tmp_path / "run").exists()


def test_world_size_and_batch_are_checked(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="WORLD_SIZE asked for 4 processes but 1 take part"):
        check_world_size(1, TrainConfig())
    with pytest.raises(UsageError, match=r"train\.world_size asked for 2 processes but 4"):
        check_world_size(4, TrainConfig(world_size=2))
    with pytest.raises(UsageError, match="does not divide among 4"):
        check_world_size(4, TrainConfig(batch_size=30))
    check_world_size(4, TrainConfig(batch_size=32))
