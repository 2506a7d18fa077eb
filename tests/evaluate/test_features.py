import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorInceptionV3, calculate_metrics
from torch_fidelity.utils import create_feature_extractor

from tests.evaluate.conftest import blurred, compare
from wavegan_dist.errors import UsageError
from wavegan_dist.evaluate import features
from wavegan_dist.evaluate.features import Extractor, FeatureDistance, efflite0, inception
from wavegan_dist.evaluate.metric import Outcome
from wavegan_dist.files import sha256


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return efflite0()


def distances(extractor: Extractor, real: Tensor, generated: Tensor) -> Outcome:
    return compare(FeatureDistance(extractor, "fd", "kid"), real.split(64), generated.split(64))


def test_fd_and_kid_rise_with_blur(extractor: Extractor, photos: Tensor) -> None:
    outcomes = [distances(extractor, photos[:64], blurred(photos[:64], sigma)).metrics for sigma in (0.0, 0.7, 1.5)]
    assert abs(outcomes[0]["fd"]) < 1e-2
    assert outcomes[0]["fd"] < outcomes[1]["fd"] < outcomes[2]["fd"]
    assert outcomes[0]["kid"] < outcomes[1]["kid"] < outcomes[2]["kid"]


class Tensors(torch.utils.data.Dataset[Tensor]):
    """Images as torch-fidelity reads them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_fd_and_kid_equal_torch_fidelity_run_alone(extractor: Extractor, photos: Tensor) -> None:
    real, soft = photos[:48], blurred(photos[48:96], 1.0)
    ours = compare(FeatureDistance(extractor, "fd", "kid", seed=7), real.split(16), soft.split(16)).metrics
    theirs: dict[str, Any] = calculate_metrics(
        input1=Tensors(real), input2=Tensors(soft), cuda=False, fid=True, kid=True, kid_subset_size=48, rng_seed=7,
        feature_extractor=extractor.name, verbose=False, cache=False, batch_size=8,
    )  # fmt: skip
    assert ours["fd"] == pytest.approx(theirs["frechet_inception_distance"], rel=1e-5)
    assert ours["kid"] == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_efflite0_gives_1280_features_that_do_not_depend_on_the_batch(extractor: Extractor, photos: Tensor) -> None:
    with torch.inference_mode():
        (together,) = extractor.module(photos[:6])
        (alone,) = extractor.module(photos[5:6])
    assert together.shape == (6, extractor.dims) == (6, 1280)
    torch.testing.assert_close(together[5:], alone, rtol=1e-4, atol=1e-4)


def test_protocol_names_extractor_weights_resizer_and_subsets(extractor: Extractor, photos: Tensor) -> None:
    protocol = distances(extractor, photos[:8], photos[8:16]).protocol
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
    monkeypatch.setattr(features, "INCEPTION_SHA256", sha256(path))
    extractor = inception(path)
    metric = FeatureDistance(extractor, "fid", None)
    metric.real.update(photos[:2])
    torch.testing.assert_close(metric.real.all(), stand_in(photos[:2])[0])
    assert (extractor.dims, metric.minimum) == (2048, 2049)
    assert extractor.protocol["weights_sha256"] == sha256(path)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wavegan_dist.evaluate.efflite0", None)
    with pytest.raises(UsageError, match=r"pip install 'wavegan-dist\[eval\]'"):
        efflite0()
