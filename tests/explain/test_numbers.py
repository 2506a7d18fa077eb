"""The numbers of an explanation against PyWavelets, the sampler, and values computed by hand."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import pywt
import torch
from torch import Tensor

from tests.explain.helpers import MODELS, make_snapshot
from wavegan_dist.errors import WaveganError
from wavegan_dist.evaluate.spectrum import ROUNDING_NOISE
from wavegan_dist.explain.energy import bands_of, energy_columns, mean_squares, named_bands
from wavegan_dist.explain.measure import statistics_images
from wavegan_dist.explain.parts import Parts, parts_of_images
from wavegan_dist.explain.pictures import columns_of
from wavegan_dist.explain.spectra import spectra
from wavegan_dist.explain.swap import SIDE, change, swap
from wavegan_dist.images import to_uint8
from wavegan_dist.model.generate import latents_of_images
from wavegan_dist.model.snapshot import Snapshot, load_snapshot, snapshot_images


@pytest.fixture(scope="module", params=MODELS)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    return load_snapshot(make_snapshot(tmp_path_factory.mktemp("model") / "kimg-000002", **MODELS[request.param]))


def with_bands(loaded: Snapshot) -> Snapshot:
    if loaded.config.model.base_only:
        pytest.skip("there are no bands")
    return loaded


def coefficients(low: Tensor, highs: list[Tensor]) -> list[object]:
    """Bands as `pywt.waverec2` takes them."""
    return [low.numpy(), *(tuple(band.numpy() for band in high.chunk(3, dim=1)) for high in highs)]


@pytest.mark.parametrize(("count", "classes"), [(3, ()), (20, ()), (18, (2, 0))])
def test_fused_images_are_those_of_sample_to_the_bit(loaded: Snapshot, count: int, classes: tuple[int, ...]) -> None:
    if classes and loaded.classes is None:
        pytest.skip("the model has no classes")
    parts, _ = parts_of_images(loaded, count, 5, classes)
    sampled = torch.cat(list(snapshot_images(loaded, range(count), 5, 16, classes=classes)))
    assert torch.equal(to_uint8(parts.first(count).fused), sampled)
    assert len(parts.fused) == 16 * math.ceil(count / 16)


def test_the_fused_image_is_the_mix_of_the_base_and_of_the_inverse_transform(loaded: Snapshot) -> None:
    snapshot = with_bands(loaded)
    parts, _ = parts_of_images(snapshot, 3, 0)
    assert parts.low is not None
    inverse = torch.from_numpy(pywt.waverec2(coefficients(parts.low, parts.highs), "haar", axes=(-2, -1)))
    assert parts.lam == pytest.approx(1 / (1 + math.exp(0.8)) if snapshot.config.model.lam == "sigmoid" else 0.3)
    torch.testing.assert_close(parts.wavelet_image(), inverse)
    torch.testing.assert_close(parts.fused, (1 - parts.lam) * parts.base + parts.lam * inverse)
    torch.testing.assert_close(parts.difference(), parts.lam * inverse, atol=1e-6, rtol=1e-5)
    terms = parts.contributions()
    torch.testing.assert_close(sum(terms.values()), parts.fused)
    low, *highs = pywt.wavedec2(terms["lam * high network"].numpy(), "haar", axes=(-2, -1), level=len(parts.highs))
    assert np.abs(low).max() < 1e-6
    np.testing.assert_allclose(np.concatenate(highs[-1], axis=1), parts.lam * parts.highs[-1].numpy(), atol=1e-6)


def test_a_model_without_band_networks_has_one_part(tmp_path: Path) -> None:
    parts, _ = parts_of_images(load_snapshot(make_snapshot(tmp_path / "x", base_only=True)), 2, 0)
    assert torch.equal(parts.fused, parts.base)
    assert parts.wavelet_image() is None
    assert [column.name for column in columns_of(parts)] == ["fused"]
    assert list(energy_columns(parts, 1, None)) == list(spectra(parts, None)) == ["fused"]


def test_weights_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    snapshot = load_snapshot(make_snapshot(tmp_path / "x"))
    snapshot.generator.lam.fill_(math.nan)
    with pytest.raises(WaveganError, match=r"x makes images that are not finite: the weights are unusable") as error:
        parts_of_images(snapshot, 2, 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_bands_and_energies_are_those_of_pywavelets(levels: int) -> None:
    images = torch.randn(4, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, *highs = pywt.wavedec2(images.numpy(), "haar", axes=(-2, -1), level=levels)
    expected = {f"LL{levels}": low}
    for level, bands in zip(range(levels, 0, -1), highs, strict=True):
        expected |= {f"{name}{level}": band for name, band in zip(("LH", "HL", "HH"), bands, strict=True)}
    bands = bands_of(images, levels)
    assert list(bands) == list(expected)
    for name, band in bands.items():
        np.testing.assert_allclose(band.numpy(), expected[name], atol=1e-12)
    energies = mean_squares(bands)
    assert energies == pytest.approx({name: np.mean(band**2) for name, band in expected.items()})
    shares = [energy / 4 ** int(name[-1]) for name, energy in energies.items()]  # a band of level j has a 4**j-th of the pixels
    assert sum(shares) == pytest.approx(images.square().mean().item())


def flat_parts() -> Parts:
    """Base images of 0.5, a low band of -2 and high bands of 1, 2, 3 with a lam of 0.25."""
    base, low = torch.full((2, 3, 32, 32), 0.5), torch.full((2, 3, 16, 16), -2.0)
    high = torch.tensor([1.0, 2.0, 3.0]).repeat_interleave(3)[None, :, None, None].expand(2, 9, 16, 16).contiguous()
    image = 0.75 * base + 0.25 * torch.from_numpy(pywt.waverec2(coefficients(low, [high]), "haar", axes=(-2, -1)))
    return Parts(base, low, [high], image, 0.25)


def test_energies_of_parts_are_those_computed_by_hand() -> None:
    real = torch.full((1, 3, 32, 32), 255, dtype=torch.uint8)
    real[:, :, ::2] = 0  # rows of -1 and 1: LH = (-1 - 1 - 1 - 1) / 2 = -2
    columns = energy_columns(flat_parts(), 1, real)
    expected = {  # LL, LH, HL, HH
        "base": [1, 0, 0, 0],
        "(1 - lam) * base": [0.75**2, 0, 0, 0],
        "low and high": [4, 1, 4, 9],
        "lam * low and high": [0.25, 1 / 16, 0.25, 9 / 16],
        "fused": [(0.75 - 0.5) ** 2, 1 / 16, 0.25, 9 / 16],
        "real": [0, 4, 0, 0],
    }
    assert list(columns) == [*expected, "fused / real"]
    for name, values in expected.items():
        assert list(columns[name]) == ["LL1", "LH1", "HL1", "HH1"]
        assert list(columns[name].values()) == pytest.approx(values, rel=1e-5, abs=1e-7), name
    assert columns["fused / real"]["LH1"] == pytest.approx(1 / 64)
    assert math.isnan(columns["fused / real"]["HH1"])


def test_spectra_separate_the_networks() -> None:
    """A wave of 4 periods in the base image and one of 15 in the high bands: each curve has its peak at its wave alone."""
    at = torch.arange(32.0)
    slow, fast = (torch.cos(2 * math.pi * frequency * at / 32).expand(1, 3, 32, 32) for frequency in (4, 15))
    low, (high,) = torch.zeros(1, 3, 16, 16), [named_high(fast)]
    wavelet = torch.from_numpy(pywt.waverec2(coefficients(low, [high]), "haar", axes=(-2, -1)))
    curves = spectra(Parts(slow, low, [high], 0.5 * slow + 0.5 * wavelet, 0.5), to_uint8(slow))
    floor = 10 * math.log10(ROUNDING_NOISE)
    assert list(curves) == ["(1 - lam) * base", "lam * low network", "lam * high network", "fused", "real"]
    assert [int(curve.argmax()) + 1 for curve in curves.values()] == [4, 1, 15, 4, 4]
    assert curves["lam * low network"].tolist() == pytest.approx([floor] * 22)
    at_peak = {name: curve[3].item() for name, curve in curves.items()}
    assert at_peak["real"] - at_peak["(1 - lam) * base"] == pytest.approx(20 * math.log10(2), abs=0.05)
    assert at_peak["fused"] == pytest.approx(at_peak["(1 - lam) * base"], abs=0.1)


def named_high(image: Tensor) -> Tensor:
    _, bands = pywt.wavedec2(image.numpy(), "haar", axes=(-2, -1), level=1)
    return torch.from_numpy(np.concatenate(bands, axis=1))


def test_changes_are_means_over_pairs() -> None:
    grid = torch.randn(SIDE**2, 2, 3, generator=torch.Generator().manual_seed(0))
    sums: dict[str, list[float]] = {"low": [], "high": [], "both": []}
    for (row, column), (other_row, other_column) in itertools.combinations(itertools.product(range(SIDE), repeat=2), 2):
        kind = "high" if row == other_row else "low" if column == other_column else "both"
        pair = grid[SIDE * row + column].double(), grid[SIDE * other_row + other_column].double()
        sums[kind].append((pair[0] - pair[1]).square().mean().item())
    found = change(grid)
    assert (found.low, found.high, found.both) == pytest.approx([np.mean(sums[kind]) for kind in ("low", "high", "both")])


def test_swaps_combine_the_latents_of_the_first_images(loaded: Snapshot) -> None:
    label = None if loaded.classes is None else 1
    swaps = swap(loaded, 3, label)
    sampled = torch.cat(list(snapshot_images(loaded, range(SIDE), 3, 16, classes=() if label is None else (label,))))
    for number in range(SIDE):
        difference = to_uint8(swaps.images[number, number]).int() - sampled[number].int()
        assert difference.abs().max() <= 1
    z, k = latents_of_images(3, loaded.generator.z_dim)(range(SIDE)), loaded.generator.z_low
    z_of_pair = torch.cat((z[2, :k], z[1, k:]))[None]
    image = loaded.generator(z_of_pair, None if label is None else torch.tensor([label]))[0]
    torch.testing.assert_close(swaps.images[2, 1], image, atol=1e-5, rtol=1e-4)


def test_each_band_network_answers_to_its_own_latent_only(loaded: Snapshot) -> None:
    swaps = swap(with_bands(loaded), 0, None if loaded.classes is None else 0)
    assert list(swaps.changes) == ["base", "wavelet", "fused"]
    for name, of_band in swaps.changes["wavelet"].items():
        own, other = (of_band.low, of_band.high) if name.startswith("LL") else (of_band.high, of_band.low)
        assert own == pytest.approx(of_band.both, rel=0.01), "independent pairs differ as much as pairs of one row"
        assert other < 1e-4 * own
    for of_band in swaps.changes["base"].values():
        assert min(of_band.low, of_band.high, of_band.both) > 0


def test_fewer_images_are_measured_of_large_models() -> None:
    assert [statistics_images(2**n) for n in range(7, 11)] == [64, 16, 4, 1]


def test_pictures_have_the_range_that_their_column_states(loaded: Snapshot) -> None:
    parts, _ = parts_of_images(with_bands(loaded), 16, 0)
    columns = {column.name: column for column in columns_of(parts)}
    assert parts.low is not None
    bands = named_bands(parts.low, parts.highs)
    assert list(columns) == ["base", *bands, "inverse transform", "fused", "fused - (1 - lam) * base"]
    levels = len(parts.highs)
    assert (columns["base"].limit, columns["fused"].limit, columns[f"LL{levels}"].limit) == (1, 1, 2**levels)
    for level, high in zip(range(levels, 0, -1), parts.highs, strict=True):
        limits = {columns[f"{name}{level}"].limit for name in ("LH", "HL", "HH")}
        assert limits == {max(np.quantile(high.abs().numpy(), 0.995), 1 / 127.5)}
