"""Neighbors against brute force in NumPy, and generators that copy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.gallery.helpers import GRAY, make_copying_run
from wavegan_dist.data import Index, images_at
from wavegan_dist.evaluate.efflite0 import EffLite0
from wavegan_dist.gallery import neighbors
from wavegan_dist.gallery.measure import measure, newest_snapshot
from wavegan_dist.gallery.neighbors import ROUNDING, RealFeatures, find_neighbors, nearest_other, read_real_features
from wavegan_dist.run_folder import RunFolder


def pixels_of(index: Index) -> Tensor:
    """All images, uint8 [N, 3, R, R]."""
    return torch.cat(list(images_at(index, np.arange(index.count), 16)))


def unit(images: Tensor) -> np.ndarray:
    """Features of unit length from the network itself, float64 [B, 1280]."""
    with torch.no_grad():
        features = EffLite0("test", ["1280"])(images)[0].double().numpy()
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def pixels(data: Index) -> Tensor:
    return pixels_of(data)


@pytest.fixture(scope="module", params=[True, False], ids=["mirror", "no mirror"])
def real(request: pytest.FixtureRequest, data: Index) -> RealFeatures:
    return read_real_features(data, 0, mirror=request.param)


@pytest.fixture(scope="module")
def features(pixels: Tensor) -> np.ndarray:
    """Features of each image and of its mirror image, [N, 2, 1280]."""
    return np.stack((unit(pixels), unit(pixels.flip(-1))), axis=1)


def brute_force(queries: np.ndarray, others: np.ndarray, mirror: bool) -> np.ndarray:
    """Distances [M, N, 1 or 2], for one query and one image at a time: to the image and to its mirror image."""
    others = others if mirror else others[:, :1]
    return np.array([[[1 - query @ other for other in pair] for pair in others] for query in queries])


def test_neighbors_are_those_of_brute_force(
    real: RealFeatures, pixels: Tensor, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = torch.randint(256, (3, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    samples = torch.cat((samples.repeat_interleave(4, -1).repeat_interleave(4, -2), 255 - pixels[7:9]))
    monkeypatch.setattr(neighbors, "QUERIES", 2)
    found = find_neighbors(samples, real)
    mirror = real.mirrored is not None
    expected = brute_force(unit(samples), features, mirror)
    nearest = expected.min(axis=2).argsort(axis=1)[:, :4]
    np.testing.assert_array_equal(found.rows, nearest)
    np.testing.assert_allclose(found.distances, np.take_along_axis(expected.min(axis=2), nearest, 1), atol=1e-5)
    flipped = np.take_along_axis(expected.argmin(axis=2), nearest, 1)
    np.testing.assert_array_equal(found.mirrored, flipped)
    assert 0 < flipped.sum() < flipped.size if mirror else not flipped.any()
    for sample in range(len(samples)):
        for rank, row in enumerate(nearest[sample]):
            shown = pixels[row].flip(-1) if flipped[sample, rank] else pixels[row]
            assert torch.equal(found.pictures[sample, rank], shown)


def test_the_reference_is_the_distance_between_other_real_images(
    real: RealFeatures, features: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = real.mirrored is not None
    expected = brute_force(features[:, 0], features, mirror).min(axis=2)
    np.fill_diagonal(expected, np.inf)
    nearest = np.sort(expected.min(axis=1))
    assert real.median == pytest.approx(nearest[(len(nearest) - 1) // 2], abs=1e-5)
    assert real.quantile == pytest.approx(np.quantile(nearest, 0.05), abs=1e-5)
    assert 10 * ROUNDING < real.quantile < real.median
    monkeypatch.setattr(neighbors, "QUERIES", 7)
    in_parts = nearest_other(real.features, real.mirrored).sort().values
    np.testing.assert_allclose(in_parts, nearest, atol=1e-5)


def test_copies_are_marked_and_other_images_are_not(real: RealFeatures, pixels: Tensor) -> None:
    new = torch.randint(256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    almost = (pixels[5].int() + torch.randint(-1, 2, (3, 32, 32))).clamp(0, 255).to(torch.uint8)
    found = find_neighbors(torch.stack((pixels[3], new, pixels[9].flip(-1), almost)), real)
    assert found.marked[[0, 1, 3]].tolist() == [True, False, True]
    assert found.rows[[0, 2, 3], 0].tolist() == [3, 9, 5]
    assert found.distances[0, 0] == 0
    assert not found.mirrored[0, 0]
    mirror = real.mirrored is not None
    assert [bool(found.distances[2, 0] == 0), bool(found.mirrored[2, 0])] == [mirror, mirror]
    assert torch.equal(found.pictures[2, 0], pixels[9].flip(-1) if mirror else pixels[9])
    assert found.marked[2] or not mirror


def test_copies_are_marked_though_the_data_has_duplicates(data: Index, pixels: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "images_at", lambda index, rows, size: images_at(index, np.asarray(rows) // 2, size))
    real = read_real_features(data, 0, mirror=True)
    assert real.quantile == real.median == 0
    found = find_neighbors(torch.stack((pixels[3], 255 - pixels[3])), real)
    assert found.marked.tolist() == [True, False]


def test_a_generator_that_copies_a_training_image_is_found(data: Index, pixels: Tensor, tmp_path: Path) -> None:
    run = make_copying_run(tmp_path / "copying")
    (pictures,) = measure({run: newest_snapshot(RunFolder(run))}, 2, data)
    assert (pictures.neighbors.samples == GRAY).all()
    assert pictures.neighbors.marked.all()
    assert pictures.neighbors.rows[:, 0].tolist() == [int((pixels == GRAY).flatten(1).all(dim=1).nonzero())] * 2


def test_an_untrained_generator_does_not_copy(made: Path, data: Index) -> None:
    (pictures,) = measure({made: newest_snapshot(RunFolder(made))}, 8, data)
    assert not pictures.neighbors.marked.any()
    assert pictures.neighbors.distances.shape == (8, 4)


def test_at_most_a_fixed_number_of_real_images_is_compared(data: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbors, "MAX_REAL", 20)
    real = read_real_features(data, 0, mirror=False)
    assert len(set(real.rows.tolist())) == 20
    assert real.features.shape == (20, 1280)
    found = find_neighbors(pixels_of(data)[real.rows[:3]], real)
    assert found.rows[:, 0].tolist() == real.rows[:3].tolist()
