from collections.abc import Callable

import numpy as np
import pytest
import pywt
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from tests.evaluate.conftest import blurred, compare, noisy
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate.metric import Outcome
from wavegan_dist.evaluate.wavelet_distance import WaveletDistance, packet_level, packet_names, packets

PYWAVELETS = {"LL": "a", "LH": "h", "HL": "v", "HH": "d"}


def fwd(real: Tensor, generated: Tensor) -> Outcome:
    return compare(WaveletDistance(real.shape[-1]), real.split(64), generated.split(50))


@pytest.mark.parametrize("level", [1, 2, 3])
def test_every_packet_equals_pywavelets_in_sign_and_order(level: int) -> None:
    images = torch.randn(2, 3, 32, 16, dtype=torch.float64)
    ours = packets(images, level)
    tree = pywt.WaveletPacket2D(images.numpy(), "haar", "periodization", maxlevel=level, axes=(-2, -1))
    names = packet_names(level)
    assert [node.path for node in tree.get_level(level, "natural")] == [
        "".join(PYWAVELETS[band] for band in name.split(".")) for name in names
    ]
    for position, name in enumerate(names):
        theirs = tree["".join(PYWAVELETS[band] for band in name.split("."))].data
        np.testing.assert_allclose(ours[:, position], theirs, atol=1e-12, err_msg=name)


def test_distance_equals_a_direct_computation_with_pywavelets(photos: Tensor) -> None:
    def packet(images: Tensor, path: str) -> np.ndarray:
        tree = pywt.WaveletPacket2D(images.numpy() / 255, "haar", "periodization", maxlevel=2, axes=(-2, -1))
        return np.asarray(tree[path].data).reshape(len(images), -1)

    soft = blurred(photos, 1.0)
    table = fwd(photos, soft).tables["fwd_packets"]
    for name, path in {"LL.LL": "aa", "LH.HH": "hd", "HL.LL": "va"}.items():
        real, generated = packet(photos, path), packet(soft, path)
        covs = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
        shift = ((real.mean(0) - generated.mean(0)) ** 2).sum()
        expected = shift + np.trace(covs[0] + covs[1] - 2 * sqrtm(covs[0] @ covs[1]).real)
        assert table[name] == pytest.approx(expected, rel=1e-6)


def test_a_set_is_at_distance_zero_from_itself(photos: Tensor) -> None:
    outcome = fwd(photos, photos.flip(0))
    assert 0 <= outcome.metrics["fwd"] < 1e-6
    assert max(outcome.tables["fwd_packets"].values()) < 1e-6


@pytest.mark.parametrize(("degrade", "strengths"), [(blurred, (0.4, 0.7, 1.0, 2.0)), (noisy, (4.0, 8.0, 16.0, 32.0))])
def test_distance_to_the_originals_rises_with_blur_and_with_noise(
    photos: Tensor, degrade: Callable[[Tensor, float], Tensor], strengths: tuple[float, ...]
) -> None:
    outcomes = [fwd(photos, degrade(photos, strength)).metrics for strength in strengths]
    for part in ("fwd", "fwd_low", "fwd_high"):
        values = [outcome[part] for outcome in outcomes]
        assert 0 < values[0] < values[1] < values[2] < values[3], part


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
