from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from wavegan_dist.evaluate.sample import sample

from wavegan_dist.errors import UsageError, WaveganError
from wavegan_dist.evaluate.generate import generated_images
from wavegan_dist.model.snapshot import Snapshot, load_snapshot


@pytest.fixture(scope="module")
def loaded(snapshot: Path) -> Snapshot:
    return load_snapshot(snapshot)


def images(loaded: Snapshot, count: int) -> Tensor:
    return torch.cat(list(generated_images(loaded.generator, range(count), 0, 16, 16)))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", ["out", "deep/out", "kimg-000002.500"])
def test_a_folder_gets_a_png_for_each_image(loaded: Snapshot, tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    sample(loaded, 3, 0, out)
    assert names(out) == ["000000.png", "000001.png", "000002.png"]
    assert names(tmp_path) == [name.split("/")[0]]
    for number, expected in enumerate(images(loaded, 3)):
        with Image.open(out / f"{number:06d}.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected.permute(1, 2, 0))


def test_a_png_gets_one_grid_row_by_row_and_is_replaced(loaded: Snapshot, tmp_path: Path) -> None:
    (tmp_path / "grid.png").write_text("old")
    sample(loaded, 3, 0, tmp_path / "grid.png")
    expected = images(loaded, 3)
    with Image.open(tmp_path / "grid.png") as picture:
        grid = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    assert grid.shape == (3, 64, 64)
    assert torch.equal(grid[:, :32, 32:], expected[1])
    assert torch.equal(grid[:, 32:, :32], expected[2])
    assert not grid[:, 32:, 32:].any()


def test_an_empty_folder_is_filled_and_one_with_files_is_refused(loaded: Snapshot, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    sample(loaded, 4, 0, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(UsageError, match=r"out already holds files; remove it or choose another folder"):
        sample(loaded, 2, 1, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize("name", ["x.jpg", "x.JPEG", "x.webp", "x.gif", "x.tiff", "x.bmp"])
def test_a_name_of_another_type_of_image_is_refused(loaded: Snapshot, tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--out .*{name}: images are written as PNG only"):
        sample(loaded, 1, 0, tmp_path / name)
    assert not names(tmp_path)


def test_impossible_samples_are_refused(loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(UsageError, match="at least one"):
        sample(loaded, 0, 0, tmp_path / "out")
    with pytest.raises(UsageError, match="is a file"):
        sample(loaded, 1, 0, tmp_path / "file")
    with pytest.raises(UsageError, match="is a folder"):
        sample(loaded, 1, 0, tmp_path / "folder.png")
    with pytest.raises(UsageError, match="the working folder; name a new folder in it"):
        sample(loaded, 1, 0, Path())
    assert names(tmp_path) == ["file", "folder.png", "here"]


class Gray(nn.Module):
    """Makes gray images, and calls `each` with the number of images made so far before it makes more."""

    def __init__(self, each: Callable[[int], None]) -> None:
        super().__init__()
        self.made, self.each = 0, each

    def forward(self, z: Tensor) -> Tensor:
        self.each(self.made)
        self.made += len(z)
        return torch.zeros(len(z), 3, 32, 32)


def gray(loaded: Snapshot, each: Callable[[int], None]) -> Snapshot:
    return Snapshot(loaded.path, Gray(each), loaded.config, 0, "", "", 10.0)  # type: ignore[arg-type]


def test_every_image_of_a_batch_is_on_disk_before_the_next_batch_is_generated(loaded: Snapshot, tmp_path: Path) -> None:
    written: list[tuple[int, int]] = []
    sample(gray(loaded, lambda made: written.append((made, len(list(tmp_path.rglob("*.png")))))), 50, 0, tmp_path / "out")
    assert written == [(0, 0), (16, 16), (32, 32), (48, 48)]


def test_a_failure_midway_leaves_nothing(loaded: Snapshot, tmp_path: Path) -> None:
    def fail(made: int) -> None:
        if made == 32:
            raise WaveganError("the weights are unusable")

    with pytest.raises(WaveganError, match="unusable"):
        sample(gray(loaded, fail), 50, 0, tmp_path / "out")
    assert not names(tmp_path)


def test_files_that_appear_in_the_folder_meanwhile_are_not_overwritten(loaded: Snapshot, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def interfere(made: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "000000.png").write_text("another process wrote this")

    with pytest.raises(OSError, match="not empty") as error:
        sample(gray(loaded, interfere), 20, 0, out)
    assert error.value.filename == str(out)
    assert [path.read_text() for path in out.iterdir()] == ["another process wrote this"]
    assert names(tmp_path) == ["out"]


def test_outside_exact_mode_the_generator_gets_one_batch_that_fills_the_device(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample(loaded, 40, 0, tmp_path / "exact", exact=True)
    monkeypatch.setattr("wavegan_dist.evaluate.sample.uses_exact_mode", lambda *_: False)  # as on a GPU
    monkeypatch.setattr("wavegan_dist.evaluate.sample.batch_that_fills_a_gpu", lambda *_: 32)
    calls: list[int] = []
    sample(gray(loaded, calls.append), 40, 0, tmp_path / "gray")
    assert calls == [0, 32]
    sample(loaded, 40, 0, tmp_path / "filled")
    for path in (tmp_path / "exact").iterdir():
        exact, filled = (
            np.asarray(Image.open(folder / path.name)).astype(int) for folder in (path.parent, tmp_path / "filled")
        )
        assert np.abs(exact - filled).max() <= 1
