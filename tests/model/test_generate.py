from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wavegan_dist import counted
from wavegan_dist.classes import Classes
from wavegan_dist.config import Experiment
from wavegan_dist.errors import WaveganError
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.generate import (
    batch_that_fills_a_gpu,
    chunk_size,
    generated_images,
    labels_by_number,
    uses_exact_mode,
)
from wavegan_dist.model.snapshot import Snapshot


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    torch.manual_seed(0)
    config = Experiment.model_validate({"data": {"index": "x"}, "model": {"width": 8, "z_dim": 16}})
    generator = build_generator(config)
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # its statistics become those of the next forward, so that images have contrast
    with torch.no_grad():
        generator(torch.randn(64, 16))
    return Snapshot(Path("runs/x"), generator.eval(), config, 1000, "0" * 64, "1" * 64, 10.0)


def images(snapshot: Snapshot, count: int, batch_size: int, seed: int = 0) -> Tensor:
    return torch.cat(list(generated_images(snapshot.generator, range(count), seed, batch_size, 16)))


@pytest.fixture(scope="module")
def exact(snapshot: Snapshot) -> Tensor:
    """Images 0..44 of seed 0."""
    return images(snapshot, 45, 64)


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100])
def test_image_i_does_not_depend_on_batch_size_or_count(snapshot: Snapshot, exact: Tensor, batch_size: int) -> None:
    expected = exact[:40]
    assert expected.dtype == torch.uint8
    assert expected.shape == (40, 3, 32, 32)
    assert torch.equal(images(snapshot, 40, batch_size), expected)
    assert torch.equal(images(snapshot, 5, batch_size), expected[:5])


def test_numbers_may_begin_anywhere(snapshot: Snapshot, exact: Tensor) -> None:
    some = torch.cat(list(generated_images(snapshot.generator, range(5, 38), 0, 10, 16)))
    assert torch.equal(some, exact[5:38])


@pytest.mark.parametrize("batch_size", [7, 33, 100])
def test_a_batch_that_fills_the_device_changes_no_pixel_by_more_than_one_gray_level(
    snapshot: Snapshot, exact: Tensor, batch_size: int
) -> None:
    generator, numbers = snapshot.generator, range(5, 45)
    batches = list(generated_images(generator, numbers, 0, batch_size, 16, exact=False))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (40 // batch_size - (40 % batch_size == 0))
    assert exact.float().std() > 15
    difference = (torch.cat(batches).int() - exact[5:].int()).abs()
    assert difference.shape == (40, 3, 32, 32)
    assert difference.max() <= 1
    assert difference.float().mean() < 0.01


class Recorder(nn.Module):
    """Makes gray images; records the latents of each call, and whether TF32 and varying kernels were forbidden."""

    def __init__(self) -> None:
        super().__init__()
        self.latents: list[Tensor] = []
        self.settings: set[tuple[str, bool]] = set()

    def forward(self, z: Tensor) -> Tensor:
        backends: Any = torch.backends
        self.latents.append(z)
        self.settings.add((backends.cudnn.conv.fp32_precision, backends.cudnn.deterministic))
        return torch.zeros(len(z), 3, 32, 32)


@pytest.mark.parametrize(("exact", "sizes"), [(True, [16, 16, 16]), (False, [24, 16])])
def test_exact_mode_always_gives_the_network_sixteen_latents_and_otherwise_no_latent_is_wasted(
    exact: bool, sizes: list[int]
) -> None:
    recorder = Recorder()
    assert sum(map(len, generated_images(recorder, range(40), 0, 24 if not exact else 48, 16, exact=exact))) == 40
    assert [len(z) for z in recorder.latents] == sizes
    for number, z in enumerate(torch.cat(recorder.latents)[:40]):
        assert torch.equal(z, counted.normal(0, "latent/evaluate", range(number, number + 1), 16)[0])


def test_the_network_runs_in_full_float32_and_the_settings_are_restored() -> None:
    def settings() -> tuple[str, str, bool]:
        backends: Any = torch.backends
        return backends.fp32_precision, backends.cudnn.conv.fp32_precision, backends.cudnn.deterministic

    recorder, before = Recorder(), settings()
    for _ in generated_images(recorder, range(4), 0, 2, 16):
        assert settings() == before
    assert recorder.settings == {("ieee", True)}


@pytest.mark.parametrize(
    ("resolution", "width", "batch"),
    [
        (32, 64, 4096),
        (32, 8, 4096),
        (64, 64, 1024),
        (64, 96, 672),
        (128, 64, 256),
        (256, 64, 64),
        (256, 256, 16),
        (256, 1024, 16),
        (512, 64, 16),
        (1024, 64, 4),
        (1024, 1024, 1),
    ],
)
def test_a_batch_on_a_gpu_has_four_million_pixels_at_width_64_and_at_least_a_chunk(
    resolution: int, width: int, batch: int
) -> None:
    assert batch_that_fills_a_gpu(resolution, width) == batch


@pytest.mark.parametrize(("resolution", "latents"), [(32, 16), (256, 16), (512, 4), (1024, 1)])
def test_exact_mode_never_computes_more_pixels_at_once_than_sixteen_images_of_256_px(resolution: int, latents: int) -> None:
    assert chunk_size(resolution) == latents
    recorder = Recorder()
    assert sum(map(len, generated_images(recorder, range(3, 20), 0, 32, 16, chunk=latents))) == 17
    assert {len(z) for z in recorder.latents} == {latents}
    first = 3 - 3 % latents
    assert torch.equal(torch.cat(recorder.latents)[3 - first], counted.normal(0, "latent/evaluate", range(3, 4), 16)[0])


def test_a_cpu_is_always_exact_and_a_gpu_on_request() -> None:
    modes = {(kind, asked): uses_exact_mode(torch.device(kind), asked) for kind in ("cpu", "cuda") for asked in (False, True)}
    assert modes == {("cpu", False): True, ("cpu", True): True, ("cuda", False): False, ("cuda", True): True}


def test_another_seed_gives_other_images(snapshot: Snapshot) -> None:
    assert not torch.equal(images(snapshot, 4, 4, seed=1), images(snapshot, 4, 4, seed=0))


def test_gradients_are_as_the_caller_left_them(snapshot: Snapshot) -> None:
    for _ in generated_images(snapshot.generator, range(4), 0, 2, 16):
        assert torch.is_grad_enabled()


def test_images_that_are_not_finite_are_an_error() -> None:
    class Broken(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return torch.full((len(z), 3, 32, 32), torch.nan)

    with pytest.raises(WaveganError, match=r"generated images 0\.\.3 are not finite"):
        list(generated_images(Broken(), range(4), 0, 4, 16))


@pytest.mark.parametrize("chosen", [[], [1, 0]])
@pytest.mark.parametrize("count", [0, 5])
def test_classes_are_int64_whatever_their_number_and_origin(chosen: list[int], count: int) -> None:
    labels = labels_by_number(Classes([2, 3], []), 0, chosen)(range(count))
    assert (labels.dtype, labels.shape) == (torch.int64, (count,))
