"""Hinge losses of the two training phases (Lim and Ye 2017; Miyato et al. 2018)."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Labels = Tensor | None  # classes, int64 [B]; None for a model without classes
Generator = Callable[[Tensor, Labels], Tensor]  # latents [B, z_dim] -> images [B, 3, R, R]
Discriminator = Callable[[Tensor, Labels], dict[str, Tensor]]  # images [B, 3, R, R] -> logits [B] by network
Losses = dict[str, Tensor]  # float32 scalar by discriminator network
RealFakeLogits = dict[str, tuple[Tensor, ...]]  # (logits of real images [B], logits of generated images [B]) by network


def discriminator_losses(
    generator: Generator, discriminator: Discriminator, real: Tensor, z: Tensor, labels: Labels = None
) -> tuple[Losses, RealFakeLogits]:
    """Compute the losses of the discriminators' phase; no gradient reaches the generator.

    The discriminator is called once, on real and generated images in one batch of 2B.

    Args:
        generator: called without gradients.
        discriminator: called with gradients.
        real: real images, float [B, 3, R, R] in [-1, 1].
        z: latents [B, z_dim].
        labels: classes of the real images and of the generated images, int64 [B].

    Returns:
        The loss of each discriminator network, and the logits behind it.
    """
    with torch.no_grad():
        fake = generator(z, labels)
    both_labels = None if labels is None else torch.cat((labels, labels))
    logits = {name: both.chunk(2) for name, both in discriminator(torch.cat((real, fake)), both_labels).items()}
    return {name: hinge_d(*pair) for name, pair in logits.items()}, logits


def generator_losses(generator: Generator, discriminator: Discriminator, z: Tensor, labels: Labels = None) -> Losses:
    """Compute the losses of the generator's phase: one from each discriminator network.

    Args:
        generator: called with gradients.
        discriminator: called with gradients.
        z: latents [B, z_dim].
        labels: classes of the generated images, int64 [B].
    """
    return {name: hinge_g(fake) for name, fake in discriminator(generator(z, labels), labels).items()}


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of a discriminator, `mean(relu(1 - real)) + mean(relu(1 + fake))`.

    Args:
        real: logits of real images, any shape and floating dtype.
        fake: logits of generated images.

    Returns:
        A float32 scalar.
    """
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def hinge_g(fake: Tensor) -> Tensor:
    """Hinge loss of the generator, `-mean(fake)`, from the logits of generated images (any shape); a float32 scalar."""
    return -fake.float().mean()


def saturation(real: Tensor, fake: Tensor) -> Tensor:
    """Share of the logits beyond the hinge's margin (real > 1, fake < -1), where the discriminator's gradient is zero.

    Returns:
        A float32 scalar in [0, 1] without gradient.
    """
    return ((real.detach() > 1).float().mean() + (fake.detach() < -1).float().mean()) / 2


def overfitting(real: Tensor) -> Tensor:
    """Return the mean sign of the logits of real images, r_t of ADA (Karras et al. 2020): near 1 for an overfit discriminator.

    Returns:
        A float32 scalar in [-1, 1] without gradient.
    """
    return real.detach().float().sign().mean()
