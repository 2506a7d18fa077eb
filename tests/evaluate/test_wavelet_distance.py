import numpy as np
import pytest
import pywt
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from tests.evaluate.degradations import blurred, noisy
from tests.evaluate.helpers import compare, statistics_of
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate import wavelet_distance
from wavegan_dist.evaluate.frechet import gaussian_frechet_distance
from wavegan_dist.evaluate.metric import MetricResult
from wavegan_dist.evaluate.wavelet_distance import PACKETS, WaveletDistance, packet_level, packet_names

PYWAVELETS = {"LL": "a", "LH": "h", "HL": "v", "HH": "d"}


def fwd(real: Tensor, generated: Tensor, basis: str = "haar") -> MetricResult:
    return compare(WaveletDistance(real.shape[-1], basis), real, generated)


def tree(images: np.ndarray, basis: str, level: int) -> pywt.WaveletPacket2D:
    mode = "periodization" if basis == "haar" else "reflect"
    return pywt.WaveletPacket2D(images, basis, mode, maxlevel=level, axes=(-2, -1))


@pytest.mark.parametrize("size", [512, 1024])
def test_large_images_are_compared_by_tiles_whose_packets_are_those_of_pywavelets_over_the_whole_image(size: int) -> None:
    metric = WaveletDistance(size)
    rows = size // 256
    assert metric.minimum == -(-193 // rows**2)
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = metric.feature.extract(image)
    assert features.shape == (4**5, rows**2, 192)
    whole = tree(image[0].numpy() / 255, "haar", 5)
    for number, name in list(enumerate(packet_names(5)))[::341]:
        packet = whole["".join(PYWAVELETS[band] for band in name.split("."))].data
        for tile in range(rows**2):
            top, left = 8 * (tile // rows), 8 * (tile % rows)
            wanted = packet[:, top : top + 8, left : left + 8].ravel()
            np.testing.assert_allclose(features[number, tile].numpy(), wanted, atol=1e-9)


@pytest.mark.parametrize("basis", ["haar", "db2"])
@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_packet_equals_pywavelets_in_sign_and_order(level: int, basis: str) -> None:
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    ours = PACKETS[basis](images, level)
    pywavelets_tree = tree(images.numpy(), basis, level)
    names = packet_names(level)
    assert [node.path for node in pywavelets_tree.get_level(level, "natural")] == [
        "".join(PYWAVELETS[band] for band in name.split(".")) for name in names
    ]
    for position, name in enumerate(names):
        path = "".join(PYWAVELETS[band] for band in name.split("."))
        np.testing.assert_allclose(ours[:, position], pywavelets_tree[path].data, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(("basis", "variables"), [("haar", 192), ("db2", 300)])
def test_distance_equals_the_published_definition_by_numpy_and_pywavelets(photos: Tensor, basis: str, variables: int) -> None:
    """In [0, 1], unbiased covariances, |m1 - m2|^2 + tr(C1 + C2 - 2 sqrt(C1 C2)) of each packet, their mean."""
    soft = noisy(blurred(photos, 1.0), 3.0)
    outcome = fwd(photos, soft, basis)
    trees = [tree(images.numpy() / 255, basis, 2) for images in (photos, soft)]
    expected = []
    for node in trees[0].get_level(2, "natural"):
        real, generated = (tree_of_set[node.path].data.reshape(len(photos), -1) for tree_of_set in trees)
        assert real.shape[1] == variables
        covs = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
        shift = ((real.mean(0) - generated.mean(0)) ** 2).sum()
        expected.append(shift + np.trace(covs[0] + covs[1] - 2 * sqrtm(covs[0] @ covs[1]).real))
    name = "fwd" if basis == "haar" else "fwd_db2"
    tolerance = 1e-6 if basis == "haar" else 1e-4  # reflected borders make nearly singular covariances: sqrtm loses digits
    np.testing.assert_allclose(list(outcome.tables[f"{name}_packets"].values()), expected, rtol=tolerance)
    assert outcome.metrics[name] == pytest.approx(np.mean(expected), rel=tolerance / 10 if basis == "db2" else tolerance)


def test_a_set_is_at_distance_zero_from_itself(photos: Tensor) -> None:
    outcome = fwd(photos, photos.flip(0))
    assert 0 <= outcome.metrics["fwd"] < 1e-6
    assert max(outcome.tables["fwd_packets"].values()) < 1e-6


def test_parts_average_to_the_whole(photos: Tensor) -> None:
    outcome = fwd(photos, blurred(photos, 1.0))
    table = outcome.tables["fwd_packets"]
    assert len(table) == 16
    assert outcome.metrics["fwd"] == pytest.approx(np.mean(list(table.values())))
    assert outcome.metrics["fwd_low"] == table["LL.LL"]
    assert outcome.metrics["fwd_high"] == pytest.approx((sum(table.values()) - table["LL.LL"]) / 15)


def test_level_leaves_packets_of_eight_pixels() -> None:
    assert [packet_level(size) for size in (16, 32, 64, 128, 256)] == [1, 2, 3, 4, 5]
    for size in (8, 24, 48, 100):
        with pytest.raises(UsageError, match=f"images of {size} px"):
            packet_level(size)


def test_distances_are_computed_in_threads_of_one_core_with_the_same_bits(
    photos: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several cores, LAPACK is slower on matrices of this size, and rounds otherwise."""
    metric, threads = WaveletDistance(32), torch.get_num_threads()
    real, generated = (statistics_of(metric, part) for part in photos.split(300))
    seen = []

    def watched(*gaussians: Tensor) -> Tensor:
        seen.append(torch.get_num_threads())
        return gaussian_frechet_distance(*gaussians)

    monkeypatch.setattr(wavelet_distance, "gaussian_frechet_distance", watched)
    try:
        torch.set_num_threads(1)
        all_at_once = gaussian_frechet_distance(real.mean, real.covariance(), generated.mean, generated.covariance())
        for cores in (1, 3):
            torch.set_num_threads(cores)
            table = metric.compare(real, generated).tables["fwd_packets"]
            assert list(table.values()) == all_at_once.tolist()
            assert torch.get_num_threads() == cores
    finally:
        torch.set_num_threads(threads)
    assert set(seen) == {1}
