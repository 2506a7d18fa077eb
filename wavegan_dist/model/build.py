"""From the experiment's settings to modules."""

from collections.abc import Mapping

from wavegan_dist.config import Experiment
from wavegan_dist.model.discriminator import NETWORKS, WaveletDiscriminator
from wavegan_dist.model.generator import WaveletGenerator


def build_generator(experiment: Experiment) -> WaveletGenerator:
    """The three generators (or the base alone) with fresh weights from PyTorch's global generator."""
    return WaveletGenerator(**experiment.model.model_dump(exclude={"band_scale"}))


def build_discriminator(experiment: Experiment, band_std: Mapping[str, float]) -> WaveletDiscriminator:
    """The discriminators whose loss weighs more than 0; `band_std` is used when `model.band_scale` is `data`."""
    weights = experiment.loss.weights
    return WaveletDiscriminator(
        experiment.model.resolution,
        experiment.model.width,
        [name for name in NETWORKS if getattr(weights, name) > 0],
        band_std if experiment.model.band_scale == "data" else None,
    )
