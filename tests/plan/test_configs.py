"""Every experiment in configs/ builds, is planned and fits the GPUs that it is meant for."""

from pathlib import Path

import pytest

from wavegan_dist import config
from wavegan_dist.plan import Hardware, predict

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_one_node_of_eight_h100s_holds_it(path: Path, hardware: Hardware) -> None:
    predictions = predict(config.load(path), hardware, [8])
    assert [prediction.strategy for prediction in predictions] == ["ddp", "zero1", "zero2", "zero3"]
    for prediction in predictions:
        assert prediction.fits
        assert prediction.images_per_second > 0


@pytest.mark.parametrize(
    ("full", "part"), [("cifar10", "cifar10_image_only"), ("photos64", "photos64_image_only"), ("demo", "base_only")]
)
def test_an_image_only_counterpart_differs_in_nothing_else(full: str, part: str) -> None:
    one, other = (config.load(CONFIGS[0].with_name(f"{name}.yaml")) for name in (full, part))
    assert config.differences(one, other) == [
        "model.base_only: False -> True",
        "loss.weights.low: 1.0 -> 0.0",
        "loss.weights.high: 1.0 -> 0.0",
    ]
