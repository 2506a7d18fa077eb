"""Folders of PNG files, and grids."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch_fidelity.utils import glob_samples_paths

import wavegan_dist.sample.folder
from tests.sample.snapshots import CLASSES, conditional, gray
from wavegan_dist.data.sources import list_pictures
from wavegan_dist.errors import WaveganError
from wavegan_dist.model.generate import generated_images
from wavegan_dist.model.snapshot import Snapshot
from wavegan_dist.sample import sample
from wavegan_dist.sample.folder import file_names


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


def test_more_than_ten_thousand_images_are_in_subfolders_of_as_many() -> None:
    assert file_names(range(10_000))[::9_999] == ["000000.png", "009999.png"]
    assert file_names(range(20_001))[::10_000] == ["00000/000000.png", "00001/010000.png", "00002/020000.png"]
    assert file_names([7, 123_456]) == ["000007.png", "123456.png"]  # seeds


def test_subfolders_are_read_by_shards_write_and_torch_fidelity(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wavegan_dist.sample.folder, "FOLDER_IMAGES", 10)
    out = tmp_path / "out"
    sample(conditional(loaded), 25, 0, out, classes="cat,ant")
    assert names(out) == ["00000", "00001", "00002", "labels.json"]
    assert len(list_pictures(str(out), 32, cut_patches=False, labels=False).pictures) == 25
    assert len(glob_samples_paths(str(out), True, "png", verbose=False)) == 25
    labels = json.loads((out / "labels.json").read_text())
    assert list(labels.items())[9:11] == [("00000/000009.png", 0), ("00001/000010.png", 2)]
    for name, label in labels.items():
        assert np.asarray(Image.open(out / name)).ravel().tolist() == [100 * label] * 3 * 32 * 32
    assert CLASSES.names[2] == "cat"


def test_images_are_written_while_others_are_generated(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavegan_dist.sample.workers.cores", lambda: 2)
    written: list[tuple[int, int]] = []
    sample(gray(loaded, lambda made: written.append((made, len(list(tmp_path.rglob("*.png")))))), 400, 0, tmp_path / "out")
    assert len(written) == 25
    for made, files in written:
        assert made - files <= 5 * 16  # two threads and four batches in the queue


def test_a_failure_midway_leaves_only_the_work_folder_and_without_an_image_nothing(loaded: Snapshot, tmp_path: Path) -> None:
    def fail(made: int) -> None:
        if made >= last:
            raise WaveganError("the weights are unusable")

    last = 0
    with pytest.raises(WaveganError, match="unusable"):
        sample(gray(loaded, fail), 500, 0, tmp_path / "out")
    assert not names(tmp_path)
    last = 320
    with pytest.raises(WaveganError, match="unusable"):
        sample(gray(loaded, fail), 500, 0, tmp_path / "out")
    assert names(tmp_path) == [".out.partial"]


def test_files_that_appear_in_the_folder_meanwhile_are_not_overwritten(loaded: Snapshot, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def interfere(made: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "000000.png").write_text("another process wrote this")

    with pytest.raises(OSError, match="not empty") as error:
        sample(gray(loaded, interfere), 20, 0, out)
    assert error.value.filename == str(out)
    assert [path.read_text() for path in out.iterdir()] == ["another process wrote this"]
    assert names(tmp_path) == [".out.partial", "out"]


def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Generate outside exact mode, in the main thread."""
    monkeypatch.setattr("wavegan_dist.sample.write.uses_exact_mode", lambda *_: False)
    monkeypatch.setattr("wavegan_dist.sample.images.batch_that_fills_a_gpu", lambda *_: batch)
    monkeypatch.setattr("wavegan_dist.sample.workers._whole_batches", wavegan_dist.sample.workers._parts)
    monkeypatch.setattr("wavegan_dist.sample.workers.ENCODED_AT_ONCE", 5)


def test_outside_exact_mode_the_generator_gets_one_batch_that_fills_the_device(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample(loaded, 40, 0, tmp_path / "exact", exact=True)
    as_on_a_gpu(monkeypatch, 32)
    calls: list[int] = []
    sample(gray(loaded, calls.append), 40, 0, tmp_path / "gray")
    assert calls == [0, 32]
    sample(loaded, 40, 0, tmp_path / "filled")
    assert names(tmp_path / "filled") == names(tmp_path / "exact")
    for path in (tmp_path / "exact").iterdir():
        exact, filled = (
            np.asarray(Image.open(folder / path.name)).astype(int) for folder in (path.parent, tmp_path / "filled")
        )
        assert np.abs(exact - filled).max() <= 1


def test_outside_exact_mode_a_batch_of_which_a_part_is_missing_is_generated_as_a_whole(
    loaded: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_on_a_gpu(monkeypatch, 32)
    work = tmp_path / ".out.partial" / "images"

    def stop(made: int) -> None:
        if made == 32:
            raise WaveganError("stop")

    with pytest.raises(WaveganError, match="stop"):
        sample(gray(loaded, stop), 70, 0, tmp_path / "out")
    for path in sorted(work.glob("*.png"))[10:]:
        path.unlink()
    assert len(names(work)) == 10
    calls: list[int] = []
    sample(gray(loaded, calls.append), 70, 0, tmp_path / "out")
    assert calls == [0, 32, 64]
    assert len(names(tmp_path / "out")) == 70
