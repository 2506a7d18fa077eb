"""Networks, training steps and a run on the device: precision, no wait for the GPU within a step, exit code and files."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.gpu.device import DEVICE, no_synchronization
from tests.helpers import Command, points
from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.config import TrainConfig
from wavegan_dist.model import WaveletDiscriminator, WaveletGenerator
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train.precision import set_matmul_precision

PRECISIONS = ["fp32", "bf16", "fp16"]


@pytest.fixture(autouse=True)
def _without_tf32() -> Iterator[None]:
    before = torch.backends.fp32_precision  # type: ignore[attr-defined]
    set_matmul_precision(TrainConfig())
    yield
    torch.backends.fp32_precision = before  # type: ignore[attr-defined]


def outputs(weights: torch.dtype, autocast: torch.dtype | None = None) -> list[Tensor]:
    """Return images of a generator and logits of discriminators with weights of a dtype, under autocast if given."""
    torch.manual_seed(0)
    generator, discriminator = WaveletGenerator(width=8), WaveletDiscriminator(width=8)
    torch.nn.init.constant_(generator.lam, 0.3)
    z, real = torch.randn(8, 128), torch.rand(8, 3, 32, 32) * 2 - 1
    generator, discriminator = generator.to(DEVICE, weights), discriminator.to(DEVICE, weights)
    with torch.no_grad(), torch.autocast(DEVICE.type, autocast, enabled=autocast is not None):
        return [generator(z.to(DEVICE, weights)), *discriminator(real.to(DEVICE, weights)).values()]


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual.double() - expected.double()).norm() / expected.double().norm())


def test_the_networks_in_float32_are_close_to_float64() -> None:
    for actual, expected in zip(outputs(torch.float32), outputs(torch.float64), strict=True):
        assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_the_networks_under_autocast_are_close_to_float32(dtype: torch.dtype) -> None:
    images, *logits = zip(outputs(torch.float32, dtype), outputs(torch.float32), strict=True)
    assert relative_error(*images) < 0.02
    for pair in logits:
        assert relative_error(*pair) < 0.05


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_step_does_not_wait_for_the_device(precision: str) -> None:
    trainer = make_trainer({}, {"precision": precision}, cpu=DEVICE.type == "cpu")
    batch = next(random_batches())
    batches = itertools.repeat(batch.pin_memory() if DEVICE.type == "cuda" else batch)
    for _ in range(2):
        trainer.step(batches)
    with no_synchronization():
        for _ in range(3):
            trainer.step(batches)
    assert trainer.nonfinite.item() == 0
    assert all(parameter.device.type == DEVICE.type for parameter in trainer.generator.module.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"] if DEVICE.type == "cuda" else ["bf16"])
def test_a_run_trains_to_its_end(tmp_path: Path, config: Path, wavegan: Command, precision: str) -> None:
    run = tmp_path / "run"
    outcome = wavegan("train", "--config", config, "--run-dir", run, f"train.precision={precision}", "train.total_kimg=0.16")
    assert outcome.returncode == 0, outcome.stderr
    folder = RunFolder(run)
    exit = folder.read_exit()
    assert exit is not None
    assert exit.state == "finished"
    assert all(abs(value) < 1e6 for point in points(run) for value in point.values())
    device = json.loads(folder.environment.read_text())["device"]
    assert device == (torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu")
