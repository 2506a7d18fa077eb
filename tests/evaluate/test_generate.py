from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from wavegan_dist.config import Experiment
from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate.generate import generated_images, sample
from wavegan_dist.model.build import build_generator
from wavegan_dist.model.snapshot import Snapshot


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    torch.manual_seed(0)
    config = Experiment.model_validate({"data": {"index": "x"}, "model": {"width": 8, "z_dim": 16}})
    return Snapshot(Path("runs/x"), build_generator(config).eval(), config, 1000, "0" * 64, "1" * 64)


def images(snapshot: Snapshot, count: int, batch_size: int, seed: int = 0) -> Tensor:
    return torch.cat(list(generated_images(snapshot.generator, range(count), seed, batch_size, 16)))


@pytest.mark.parametrize("batch_size", [1, 7, 16, 100])
def test_image_i_does_not_depend_on_batch_size_or_count(snapshot: Snapshot, batch_size: int) -> None:
    expected = images(snapshot, 40, 64)
    assert expected.dtype == torch.uint8
    assert expected.shape == (40, 3, 32, 32)
    assert torch.equal(images(snapshot, 40, batch_size), expected)
    assert torch.equal(images(snapshot, 5, batch_size), expected[:5])


def test_numbers_may_begin_anywhere(snapshot: Snapshot) -> None:
    some = torch.cat(list(generated_images(snapshot.generator, range(5, 38), 0, 10, 16)))
    assert torch.equal(some, images(snapshot, 40, 64)[5:38])


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


def test_sample_to_a_folder_writes_a_png_for_each_image(snapshot: Snapshot, tmp_path: Path) -> None:
    sample(snapshot, 3, 0, tmp_path / "out")
    expected = images(snapshot, 3, 3)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["000000.png", "000001.png", "000002.png"]
    for number in range(3):
        with Image.open(tmp_path / "out" / f"{number:06d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected[number].permute(1, 2, 0))


def test_sample_to_a_png_writes_one_grid_row_by_row(snapshot: Snapshot, tmp_path: Path) -> None:
    sample(snapshot, 3, 0, tmp_path / "grid.png")
    expected = images(snapshot, 3, 3)
    with Image.open(tmp_path / "grid.png") as picture:
        grid = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert grid.shape == (3, 64, 64)
    assert torch.equal(grid[:, :32, 32:], expected[1])
    assert torch.equal(grid[:, 32:, :32], expected[2])
    assert not grid[:, 32:, 32:].any()


def test_impossible_samples_are_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match="at least one"):
        sample(snapshot, 0, 0, tmp_path / "out")
    with pytest.raises(UsageError, match="is a file"):
        sample(snapshot, 1, 0, tmp_path / "file")
    with pytest.raises(UsageError, match="is a folder"):
        sample(snapshot, 1, 0, tmp_path / "folder.png")
