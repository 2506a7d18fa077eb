"""Build the generator and the discriminator of an experiment."""

from collections.abc import Mapping, Sequence

from wavegan_dist.config import Experiment
from wavegan_dist.model.discriminator import NETWORKS, WaveletDiscriminator
from wavegan_dist.model.generator import WaveletGenerator
from wavegan_dist.model.hub import generator_arguments


def build_generator(experiment: Experiment) -> WaveletGenerator:
    """Build the generator of `experiment.model`, in float32, in train mode, on PyTorch's default device (the CPU).

    The initial weights are drawn from PyTorch's global random number generator.
    """
    return WaveletGenerator(**generator_arguments(experiment.model))


def build_discriminator(experiment: Experiment, band_std: Sequence[Mapping[str, float]]) -> WaveletDiscriminator:
    """Build the discriminator, in float32, in train mode, on PyTorch's default device (the CPU).

    The initial weights are drawn from PyTorch's global random number generator.

    Args:
        experiment: the settings. Only networks whose loss weight is above 0 are built.
        band_std: for each level, the finest first, the standard deviation of each Haar band (`low`, `lh`, `hl`, `hh`) over
            real data; used only if `model.band_scale` is `data`.

    Raises:
        UsageError: `model.band_scale` is `data`, and `band_std` lacks a level of the model or a band.
    """
    model, weights = experiment.model, experiment.loss.weights
    return WaveletDiscriminator(
        model.resolution,
        model.width,
        [name for name in NETWORKS if getattr(weights, name) > 0],
        model.levels,
        model.num_classes,
        model.backbone,
        model.resample,
        band_std if model.band_scale == "data" else None,
        bool(model.spectral_norm),
        model.logit_gain,
    )
