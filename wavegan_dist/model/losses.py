"""Objectives: hinge losses (Lim and Ye 2017; Miyato et al. 2018) and relativistic pairing (Jolicoeur-Martineau 2018)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Objective:
    """How the logits of one discriminator network become losses.

    All functions take (logits of real images [B], logits of generated images [B]) of any floating dtype, and return a float32
    scalar. Real and generated logits of the same position are a pair.

    Attributes:
        d_loss: the loss of the discriminator.
        g_loss: the loss of the generator; the logits of real images may be None unless `g_needs_real`.
        g_needs_real: whether the loss of the generator depends on the logits of real images.
        share: a fraction of the batch, in [0, 1] and without gradient, that is near 1 if the discriminator has won:
            `saturation` for `hinge`, `pair_accuracy` for `relativistic`.
        share_name: name of this fraction in reports, "saturation" or "pair_accuracy".
        overfitting: the mean, in [-1, 1] and without gradient, of sign(D(real)), which is r_t of ADA (Karras et al. 2020), or,
            for `relativistic`, of sign(D(real) - D(fake)).
    """

    d_loss: Callable[[Tensor, Tensor], Tensor]
    g_loss: Callable[[Tensor | None, Tensor], Tensor]
    g_needs_real: bool
    share: Callable[[Tensor, Tensor], Tensor]
    share_name: str
    overfitting: Callable[[Tensor, Tensor], Tensor]


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """Hinge loss of a discriminator, `mean(relu(1 - real)) + mean(relu(1 + fake))`.

    Args:
        real: logits of real images, any shape and floating dtype.
        fake: logits of generated images, any shape and floating dtype.

    Returns:
        A float32 scalar.
    """
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def hinge_g(fake: Tensor) -> Tensor:
    """Hinge loss of the generator, `-mean(fake)`.

    Args:
        fake: logits of generated images, any shape and floating dtype.

    Returns:
        A float32 scalar.
    """
    return -fake.float().mean()


def relativistic_d(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic pairing loss of a discriminator, `mean(softplus(-(real - fake)))`.

    Args:
        real: logits of real images, any shape and floating dtype.
        fake: logits of the generated images that are paired with them, of the same shape.

    Returns:
        A float32 scalar; log 2 if all logits are equal.
    """
    return F.softplus(fake.float() - real.float()).mean()


def relativistic_g(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic pairing loss of the generator, `mean(softplus(-(fake - real)))`.

    Args:
        real: logits of real images, any shape and floating dtype.
        fake: logits of the generated images that are paired with them, of the same shape.

    Returns:
        A float32 scalar; log 2 if all logits are equal.
    """
    return relativistic_d(fake, real)


def saturation(real: Tensor, fake: Tensor) -> Tensor:
    """Fraction of the logits beyond the hinge's margin (real > 1, fake < -1), where the hinge loss has no gradient.

    The mean of the fractions of `real` and of `fake`, which have any shape.

    Returns:
        A float32 scalar in [0, 1] without gradient.
    """
    return ((real.detach() > 1).float().mean() + (fake.detach() < -1).float().mean()) / 2


def pair_accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Fraction of the pairs in which the real image has the larger logit; `real` and `fake` have the same shape.

    Returns:
        A float32 scalar in [0, 1] without gradient.
    """
    return (real.detach() > fake.detach()).float().mean()


def mean_sign(logits: Tensor) -> Tensor:
    """Return the mean of the signs (-1, 0 or 1) of logits of any shape: a float32 scalar in [-1, 1] without gradient."""
    return logits.detach().sign().float().mean()


def _sign_of_real(real: Tensor, _fake: Tensor) -> Tensor:
    return mean_sign(real)


def _sign_of_difference(real: Tensor, fake: Tensor) -> Tensor:
    return mean_sign(real.float() - fake.float())


def _hinge_g_of_pair(_real: Tensor | None, fake: Tensor) -> Tensor:
    return hinge_g(fake)


def _relativistic_g_of_pair(real: Tensor | None, fake: Tensor) -> Tensor:
    assert real is not None
    return relativistic_g(real, fake)


# By `loss.objective`.
OBJECTIVES = {
    "hinge": Objective(hinge_d, _hinge_g_of_pair, False, saturation, "saturation", _sign_of_real),
    "relativistic": Objective(
        relativistic_d, _relativistic_g_of_pair, True, pair_accuracy, "pair_accuracy", _sign_of_difference
    ),
}
