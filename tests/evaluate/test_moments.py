import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from wavegan_dist.evaluate.frechet import gaussian_frechet_distance
from wavegan_dist.evaluate.statistics import FeatureRows, Moments


def rows(count: int, dims: int, seed: int) -> Tensor:
    """Correlated variables with a large mean, the case in which a naive sum of squares loses its digits."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dims, dims, generator=random, dtype=torch.float64)
    return torch.randn(count, dims, generator=random, dtype=torch.float64) @ mixing + 1000


def gaussian(data: Tensor) -> tuple[Tensor, Tensor]:
    return data.mean(0), torch.from_numpy(np.cov(data.numpy(), rowvar=False))


@pytest.mark.parametrize("batch", [1, 7, 100, 1000])
def test_streamed_moments_equal_numpy_for_every_batch_size(batch: int) -> None:
    data = rows(1000, 5, seed=0)
    moments = Moments()
    for part in data.split(batch):
        moments.update(part)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, data.numpy().mean(0), rtol=1e-13)
    np.testing.assert_allclose(moments.covariance(), np.cov(data.numpy(), rowvar=False), rtol=1e-11)


def test_merged_moments_equal_those_of_one_pass() -> None:
    data = rows(900, 4, seed=1)
    parts = [Moments() for _ in range(3)]
    for part, share in zip(parts, data.split([500, 399, 1]), strict=True):
        part.update(share)
    merged = Moments()
    for part in [*parts, Moments()]:  # an empty one changes nothing
        merged.merge(part)
    assert merged.count == 900
    np.testing.assert_allclose(merged.covariance(), np.cov(data.numpy(), rowvar=False), rtol=1e-11)


def test_leading_axes_are_independent_gaussians() -> None:
    data = torch.stack([rows(50, 3, seed=2), rows(50, 3, seed=3)])
    moments = Moments()
    moments.update(data)
    for i in range(2):
        np.testing.assert_allclose(moments.covariance()[i], np.cov(data[i].numpy(), rowvar=False), rtol=1e-11)


@pytest.mark.parametrize("dims", [1, 3, 40])
def test_frechet_distance_equals_the_definition_by_sqrtm(dims: int) -> None:
    mean1, cov1 = gaussian(rows(500, dims, seed=4).reshape(-1, dims))
    mean2, cov2 = gaussian(rows(500, dims, seed=5).reshape(-1, dims))
    cov1, cov2 = cov1.reshape(dims, dims), cov2.reshape(dims, dims)
    root = sqrtm((cov1 @ cov2).numpy()).real
    expected = ((mean1 - mean2) ** 2).sum().item() + np.trace((cov1 + cov2).numpy() - 2 * root)
    assert gaussian_frechet_distance(mean1, cov1, mean2, cov2).item() == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_has_the_closed_form_of_one_dimension() -> None:
    mean = torch.tensor([[1.0], [4.0]], dtype=torch.float64)
    cov = torch.tensor([[[9.0]], [[25.0]]], dtype=torch.float64)
    assert gaussian_frechet_distance(mean[0], cov[0], mean[1], cov[1]).item() == pytest.approx((4 - 1) ** 2 + (5 - 3) ** 2)


def test_frechet_distance_survives_singular_covariances() -> None:
    mean, cov = gaussian(rows(10, 40, seed=6))
    assert 0 <= gaussian_frechet_distance(mean, cov, mean, cov).item() < 1e-9 * cov.trace()
    assert gaussian_frechet_distance(mean, cov, mean, torch.zeros_like(cov)).item() == pytest.approx(cov.trace().item())


@pytest.mark.parametrize("threads", [1, 2])
def test_images_that_are_equal_but_for_rounding_errors_have_a_frechet_distance(threads: int) -> None:
    """MKL with two threads does not find the eigenvalues of this matrix."""
    covariance, pixels = torch.zeros(192, 192, dtype=torch.float64), torch.tensor([64, 135, 191])
    covariance[pixels[:, None], pixels] = float.fromhex("0x1.00dff12e283d6p-114")
    mean, before = torch.zeros(192, dtype=torch.float64), torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        distance = gaussian_frechet_distance(mean, covariance, mean, torch.eye(192, dtype=torch.float64))
        itself = gaussian_frechet_distance(mean, covariance, mean, covariance)
    finally:
        torch.set_num_threads(before)
    assert distance.item() == pytest.approx(192, rel=1e-12)
    assert itself.item() < 1e-40


def test_the_frechet_distance_is_the_same_if_pytorchs_library_does_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(matrix: Tensor) -> Tensor:
        raise LinAlgError("the algorithm failed to converge")

    gaussians = [*gaussian(rows(200, 40, seed=4)), *gaussian(rows(200, 40, seed=5))]
    expected = gaussian_frechet_distance(*gaussians)
    for name in ("eigh", "svdvals"):
        monkeypatch.setattr(torch.linalg, name, fail)
        assert gaussian_frechet_distance(*gaussians).item() == pytest.approx(expected.item(), rel=1e-12)


def test_rows_are_in_memory_once() -> None:
    statistics = FeatureRows(torch.zeros(2, 3), torch.ones(1, 3))
    rows = statistics.rows()
    assert rows.tolist() == [[0.0] * 3, [0.0] * 3, [1.0] * 3]
    assert statistics.rows() is rows
    assert [id(batch) for batch in statistics.batches] == [id(rows)]
    statistics.update(torch.full((1, 3), 2.0))
    assert statistics.rows()[:, 0].tolist() == [0.0, 0.0, 1.0, 2.0]
