"""Frames over training and interpolations."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.explain.helpers import MODELS
from tests.gallery.helpers import add_grids, make_run
from wavegan_dist.counted import normal
from wavegan_dist.errors import WaveganError
from wavegan_dist.gallery import frames
from wavegan_dist.gallery.frames import read_frames
from wavegan_dist.gallery.interpolation import ROWS, STEPS, interpolate
from wavegan_dist.gallery.measure import newest_snapshot
from wavegan_dist.images import to_uint8
from wavegan_dist.model.generate import TOLERANCE
from wavegan_dist.model.snapshot import snapshot_images
from wavegan_dist.run_folder import RunFolder


def test_a_frame_is_the_grid_itself_at_its_image_number(trained: Path) -> None:
    shown, grids = read_frames(RunFolder(trained))
    assert ([frame.nimg for frame in shown], grids) == ([0, 160, 320], 3)
    for frame, name in zip(shown, ("kimg-000000", "kimg-000000.160", "kimg-000000.320"), strict=True):
        assert frame.png == (trained / "samples" / f"{name}.png").read_bytes()


def test_of_many_grids_some_at_equal_distances_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_PIXELS", 5 * 32 * 32 + 1)
    run = RunFolder(add_grids(tmp_path, {1000 * number: 32 for number in range(13)}))
    shown, grids = read_frames(run)
    assert ([frame.nimg for frame in shown], grids) == ([0, 3000, 6000, 9000, 12000], 13)
    monkeypatch.setattr(frames, "MAX_PIXELS", 1)
    assert [frame.nimg for frame in read_frames(run)[0]] == [0, 12000]


def test_large_grids_are_shrunk_to_means_of_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_SIDE", 16)
    run = RunFolder(add_grids(tmp_path, {0: 32}))
    (frame,), _ = read_frames(run)
    with Image.open(run.samples(0)) as grid, Image.open(io.BytesIO(frame.png)) as small:
        means = np.asarray(grid, dtype=float).reshape(16, 2, 16, 2, 3).mean(axis=(1, 3))
        np.testing.assert_allclose(np.asarray(small, dtype=float), means, atol=1)


def test_a_damaged_grid_is_named(tmp_path: Path) -> None:
    run = RunFolder(add_grids(tmp_path, {0: 32, 1000: 32}))
    run.samples(0).write_bytes(run.samples(0).read_bytes()[:200])
    with pytest.raises(WaveganError, match=r"kimg-000000\.png is damaged: .*; delete it") as error:
        read_frames(run)
    assert "\n" not in str(error.value)


def close(image: Tensor, other: Tensor) -> bool:
    """Whether uint8 images are equal but for the rounding of another place in the batch."""
    return bool((image.int() - other.int()).abs().max() <= TOLERANCE)


@pytest.mark.parametrize("model", MODELS)
def test_interpolations_go_from_an_image_of_sample_to_the_next(tmp_path: Path, model: str) -> None:
    snapshot = newest_snapshot(RunFolder(make_run(tmp_path / "run", **MODELS[model])))
    for module in snapshot.generator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.fill_(1e-3)  # otherwise the images of an untrained generator hardly depend on the latents
    sampled = torch.cat(list(snapshot_images(snapshot, range(2 * ROWS), 0, 2 * ROWS)))
    rows = interpolate(snapshot, 0)
    assert [row.first for row in rows] == list(range(0, 2 * ROWS, 2))
    for row in rows:
        assert row.images.shape == (STEPS, *sampled.shape[1:])
        assert close(row.images[0], sampled[row.first])
        assert row.images[1:-1].ne(row.images[0]).flatten(1).any(dim=1).all()
        if snapshot.classes is None:
            assert close(row.images[-1], sampled[row.first + 1])
        else:
            end = normal(0, "latent/evaluate", range(row.first + 1, row.first + 2), 8)
            expected = snapshot.generator(end, torch.tensor([row.label]))
            assert close(row.images[-1], to_uint8(expected[0]))
    if snapshot.classes is not None:
        assert [row.label for row in rows] == snapshot.classes.draw(0, "class/evaluate", range(2 * ROWS))[::2].tolist()


def test_a_snapshot_of_unusable_weights_is_refused(made: Path) -> None:
    snapshot = newest_snapshot(RunFolder(made))
    snapshot.generator.lam.fill_(float("nan"))
    with pytest.raises(WaveganError, match="makes images that are not finite"):
        interpolate(snapshot, 0)
