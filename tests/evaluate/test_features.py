import sys
import tracemalloc
from math import isfinite
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate import PartialState
from timm import create_model
from torch import Tensor
from torch_fidelity import FeatureExtractorBase, FeatureExtractorInceptionV3, calculate_metrics, register_feature_extractor
from torch_fidelity.metric_kid import kernel_poly
from torch_fidelity.utils import create_feature_extractor

from tests.evaluate.degradations import blurred, noisy
from tests.evaluate.helpers import compare, statistics_of
from wavegan_dist.counted import rng_at
from wavegan_dist.data import Index, images_at, write_shards
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate import extractors
from wavegan_dist.evaluate.accumulate import ImageSource, compute_statistics
from wavegan_dist.evaluate.bootstrap import RESAMPLES
from wavegan_dist.evaluate.extractors import Extractor, dinov2, efflite0, inception
from wavegan_dist.evaluate.metric import Metric
from wavegan_dist.evaluate.network_metrics import (
    FrechetDistance,
    KernelDistance,
    PrecisionRecall,
    kernel_distance,
    resampled_kernel_distances,
)
from wavegan_dist.evaluate.real_images import draw_subsets
from wavegan_dist.evaluate.statistics import FeatureRows
from wavegan_dist.files import sha256
from wavegan_dist.images import save_png


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return efflite0()


@pytest.mark.slow
def test_fd_and_kid_rise_with_blur(extractor: Extractor, photos: Tensor) -> None:
    real = statistics_of(FrechetDistance(extractor, "fd"), photos[:64])
    soft = [statistics_of(FrechetDistance(extractor, "fd"), blurred(photos[:64], sigma)) for sigma in (0.0, 0.7, 1.5)]
    fd = [FrechetDistance(extractor, "fd").compare(real, side).metrics["fd"] for side in soft]
    kid = [KernelDistance(extractor, 64).compare(real, side).metrics["kid_efflite0@128"] for side in soft]
    assert abs(fd[0]) < 1e-2
    assert fd == sorted(fd)
    assert kid == sorted(kid)


class Tiny(FeatureExtractorBase):  # type: ignore[misc]
    """16 features: few enough for a covariance of full rank from few images."""

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = torch.nn.Conv2d(3, 16, 7, 4)

    def forward(self, images: Tensor) -> tuple[Tensor]:
        return (self.network(images.float() / 32).relu().mean(dim=(-2, -1)),)

    @staticmethod
    def get_provided_features_list() -> tuple[str]:
        return ("16",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "16"

    @staticmethod
    def can_be_compiled() -> bool:
        return False

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


register_feature_extractor("tiny", Tiny)


def tiny() -> Extractor:
    return Extractor("tiny", create_feature_extractor("tiny", ["16"], cuda=False, verbose=False), 16, {})


def through_shards(images: Tensor, folder: Path, network: Extractor) -> FeatureRows:
    """Features of images by way of shards and segments; the same images as PNG files, in that order, in `folder`."""
    for number, image in enumerate(images):
        save_png(image.permute(1, 2, 0), folder / "source" / f"{number:04d}.png")
    write_shards(folder / "source", folder / "set", 32, progress=False)
    index = Index.load(folder / "set")
    (rows,) = draw_subsets(index, len(images), 0)
    for number, image in enumerate(next(images_at(index, rows, len(images)))):
        save_png(image.permute(1, 2, 0), folder / "png" / f"{number:04d}.png")
    source: ImageSource = lambda numbers: images_at(index, rows[numbers.start : numbers.stop], 64)  # noqa: E731
    statistics = compute_statistics(source, len(images), [network.feature()], PartialState(cpu=True), "")
    rows = statistics[network.name]
    assert isinstance(rows, FeatureRows)
    return rows


@pytest.mark.parametrize(("name", "count"), [("tiny", 200), ("efflite0@128", 48)])
def test_fd_kid_and_prc_equal_torch_fidelity_run_alone_on_the_same_png_files(
    name: str, count: int, photos: Tensor, tmp_path: Path
) -> None:
    """FD only where the covariances have full rank: otherwise rounding dominates any implementation's result."""
    network = tiny() if name == "tiny" else efflite0()
    full_rank = count > network.dims
    real = through_shards(photos[:count], tmp_path / "real", network)
    made = through_shards(blurred(photos[count : 2 * count], 2.0) // 2, tmp_path / "made", network)
    metrics: list[Metric[FeatureRows]] = [KernelDistance(network, 40, seed=7), PrecisionRecall(network)]
    metrics += [FrechetDistance(network, "fd")] if full_rank else []
    ours = {key: value for metric in metrics for key, value in metric.compare(real, made).metrics.items()}
    expected_metrics = calculate_metrics(
        input1=str(tmp_path / "made" / "png"), input2=str(tmp_path / "real" / "png"), cuda=False, fid=full_rank, kid=True,
        prc=True, kid_subset_size=40, rng_seed=7, feature_extractor=name, verbose=False, cache=False, batch_size=8,
    )  # fmt: skip
    expected = {
        f"kid_{name}": expected_metrics["kernel_inception_distance_mean"],
        f"precision_{name}": expected_metrics["precision"],
        f"recall_{name}": expected_metrics["recall"],
    } | ({"fd": expected_metrics["frechet_inception_distance"]} if full_rank else {})
    assert ours == pytest.approx(expected, rel=1e-6)


def test_efflite0_gives_1280_features_that_do_not_depend_on_the_batch(extractor: Extractor, photos: Tensor) -> None:
    with torch.inference_mode():
        (together,) = extractor.module(photos[:6])
        (alone,) = extractor.module(photos[5:6])
    assert together.shape == (6, extractor.dims) == (6, 1280)
    torch.testing.assert_close(together[5:], alone, rtol=1e-4, atol=1e-4)


def test_protocol_names_extractor_weights_resizer_and_subsets(extractor: Extractor) -> None:
    protocol = KernelDistance(extractor, 8).protocol
    assert protocol["extractor"] == "efflite0@128"
    assert protocol["weights_sha256"] == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert "128 px" in protocol["resizer"]
    assert protocol["kid_subset_size"] == 8


def test_missing_inception_weights_name_the_file_and_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    place = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    with pytest.raises(UsageError) as error:
        inception()
    assert str(place) in str(error.value)
    assert "\n" not in str(error.value)


def test_inception_weights_of_another_hash_are_refused_before_they_are_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"not a pickle")
    with pytest.raises(UsageError, match=r"weights\.pth is not weights-inception.*sha256") as error:
        inception(path)
    assert "\n" not in str(error.value)


def test_fid_is_torch_fidelitys_inception_at_2048(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Tensor) -> None:
    path = tmp_path / "random.pth"
    with monkeypatch.context() as patch:
        patch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        stand_in = create_feature_extractor("inception-v3-compat", ["2048"], cuda=False, verbose=False)
    torch.save(stand_in.state_dict(), path)
    monkeypatch.setattr(extractors, "INCEPTION_SHA256", sha256(path))
    extractor = inception(path)
    metric = FrechetDistance(extractor, "fid")
    torch.testing.assert_close(statistics_of(metric, photos[:2]).rows(), stand_in(photos[:2])[0])
    assert (extractor.dims, metric.minimum) == (2048, 2049)
    assert metric.protocol["weights_sha256"] == sha256(path)


def test_dinov2_loads_the_authors_form_of_checkpoint_by_path(photos: Tensor, tmp_path: Path) -> None:
    """Random weights in the file's form: at 518 px, with the mask token that only training used."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("vit_small_patch14_dinov2", pretrained=False, num_classes=0)
        state = model.state_dict() | {"mask_token": torch.zeros(1, 384)}
    torch.save(state, tmp_path / "dinov2_vits14_pretrain.pth")
    extractor = dinov2(tmp_path / "dinov2_vits14_pretrain.pth")
    assert (extractor.name, extractor.dims) == ("dinov2_vits14@224", 384)
    assert extractor.protocol["weights_sha256"] == sha256(tmp_path / "dinov2_vits14_pretrain.pth")
    with torch.inference_mode():
        features = extractor.features(photos[:2])
    assert features.shape == (2, 384)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])


def test_what_is_no_checkpoint_of_dinov2_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    torch.save({"cls_token": torch.zeros(1, 1, 7)}, tmp_path / "other.pth")
    for name in ("broken.pth", "other.pth"):
        with pytest.raises(UsageError, match=rf"{name} is not a checkpoint of DINOv2") as error:
            dinov2(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="--dinov2-weights"):
        dinov2(None)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wavegan_dist.evaluate.efflite0", None)
    with pytest.raises(UsageError, match=r"pip install 'wavegan-dist\[eval\]'"):
        efflite0()


def test_kid_takes_every_seed_of_the_command_line(photos: Tensor) -> None:
    with torch.inference_mode():
        real, made = tiny().features(photos[:40]), tiny().features(photos[40:70])
    assert kernel_distance(real, made, 20, 2**32 + 5) == kernel_distance(real, made, 20, 5)
    assert isfinite(kernel_distance(real, made, 20, 2**63 - 1))


def test_kid_s_interval_is_that_of_images_drawn_again_pair_by_pair(photos: Tensor) -> None:
    """Against torch-fidelity's kernel and explicit lists of images, where an image and its copies are no pair."""
    network = tiny()
    with torch.inference_mode():
        real, made = network.features(photos[:40]), network.features(noisy(photos[40:70], 20.0))
    found = resampled_kernel_distances(real, made, seed=3)
    draws = rng_at(3, "bootstrap", 0)
    drawn = [[draws.integers(count, size=count) for _ in range(RESAMPLES)] for count in (40, 30)]
    x, y = real.double().numpy(), made.double().numpy()
    for number in (0, 7, RESAMPLES - 1):
        at_x, at_y = (side[number] for side in drawn)
        means = [kernel_poly(side[at], side[at])[at[:, None] != at[None, :]].mean() for side, at in ((x, at_x), (y, at_y))]
        expected = sum(means) - 2 * kernel_poly(x[at_x], y[at_y]).mean()
        assert found[number].item() == pytest.approx(expected, rel=1e-9)


def test_kid_s_interval_holds_the_number_and_narrows_with_more_images(photos: Tensor) -> None:
    network, noise = tiny(), noisy(photos, 20.0)
    widths = []
    for count in (50, 300):
        metric = KernelDistance(network, count)
        outcome = compare(metric, photos[:count], noise[300 : 300 + count])
        low, high = outcome.intervals[metric.name]
        assert low < outcome.metrics[metric.name] < high
        widths.append(high - low)
    assert widths[1] < 0.7 * widths[0]


@pytest.mark.parametrize(("images", "count"), [(2, 1), (10, 5), (11, 5), (1000, 1), (1000, 300), (30_001, 70)])
@pytest.mark.parametrize("seed", [0, 5])
def test_subsets_are_drawn_among_all_images_without_listing_them(images: int, count: int, seed: int) -> None:
    """The floor's subset is drawn from the rows that the first subset lacks, as if they were an array."""
    first, others = draw_subsets(cast("Index", SimpleNamespace(count=images)), count, seed)
    rest = np.setdiff1d(np.arange(images), first)
    assert np.array_equal(others, np.sort(rng_at(seed, "real/floor", 0).choice(rest, count, replace=False)))


def test_a_subset_of_many_images_takes_memory_for_its_own_size() -> None:
    tracemalloc.start()
    draw_subsets(cast("Index", SimpleNamespace(count=10**7)), 1000, 0)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()
