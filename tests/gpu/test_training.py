"""Networks, training steps and a run on the device: precision, no wait for the GPU within a step, exit code and files."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from tests.gpu.device import DEVICE, needs_gpu, no_synchronization, random
from tests.helpers import Command, points
from tests.train.tiny import make_trainer, random_batches
from wavegan_dist.config import TrainConfig
from wavegan_dist.data import ImageBatch
from wavegan_dist.devices import full_float32
from wavegan_dist.model import WaveletDiscriminator, WaveletGenerator
from wavegan_dist.model.sync_batchnorm import SyncBatchNorm
from wavegan_dist.run_folder import RunFolder
from wavegan_dist.train import launch
from wavegan_dist.train.trainer import Trainer

PRECISIONS = ["fp32", "bf16", "fp16"]


@pytest.fixture(autouse=True)
def _without_tf32() -> Iterator[None]:
    with full_float32():
        yield


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


def device_trainer(**train: object) -> Trainer:
    return make_trainer({}, train, cpu=DEVICE.type == "cpu")


def pinned_batches() -> Iterator[ImageBatch]:
    images = next(random_batches()).images
    return itertools.repeat(ImageBatch(images.pin_memory() if DEVICE.type == "cuda" else images))


# Compiling takes a GPU machine 10 to 30 seconds.
@needs_gpu
@pytest.mark.parametrize(("precision", "mode"), [*((precision, "off") for precision in PRECISIONS), ("bf16", "graphs")])
def test_a_step_does_not_wait_for_the_device(precision: str, mode: str) -> None:
    torch._dynamo.reset()
    trainer, batches = device_trainer(precision=precision, compile=mode), pinned_batches()
    for _ in range(5):  # compile, warm up, record CUDA graphs
        trainer.step(batches)
    with no_synchronization():
        for _ in range(3):
            trainer.step(batches)
    assert trainer.nonfinite.item() == 0
    assert all(parameter.device.type == DEVICE.type for parameter in trainer.generator.module.parameters())


@needs_gpu
def test_steps_as_cuda_graphs_equal_eager_steps() -> None:
    torch._dynamo.reset()
    ends = []
    for mode in ("off", "graphs"):
        trainer, batches = device_trainer(compile=mode, accumulation=2, d_steps=2), pinned_batches()
        for _ in range(10):
            trainer.step(batches)
        ends.append(trainer.metrics.drain())
    assert ends[1] == pytest.approx(ends[0], abs=1e-3)


def test_training_uses_deterministic_kernels() -> None:
    torch.backends.cudnn.deterministic = False  # `full_float32` restores it
    launch.init_accelerator(TrainConfig())
    assert torch.backends.cudnn.deterministic


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    backend = "nccl" if DEVICE.type == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_synchronized_batch_norm_is_batch_norm_in_float64(process_group: None, dtype: torch.dtype) -> None:
    norm = SyncBatchNorm(5).to(DEVICE)
    torch.nn.init.normal_(norm.weight)
    exact = torch.nn.BatchNorm2d(5).to(DEVICE, torch.float64)
    exact.load_state_dict({name: value.double() for name, value in norm.state_dict().items()})
    x, dy = (random(6, 5, 8, 4, dtype=dtype, seed=seed).contiguous(memory_format=torch.channels_last) for seed in (0, 1))
    leaves = [x.requires_grad_(), x.detach().double().requires_grad_()]
    outputs = [norm(leaves[0]), exact(leaves[1])]
    assert outputs[0].dtype == dtype
    for output in outputs:
        output.backward(dy.to(output.dtype))
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    pairs = [outputs, [leaf.grad for leaf in leaves], [norm.weight.grad, exact.weight.grad], [norm.bias.grad, exact.bias.grad]]
    pairs += [[norm.running_mean, exact.running_mean], [norm.running_var, exact.running_var]]
    for actual, expected in pairs:
        assert actual is not None
        assert expected is not None
        torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance)


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
