"""Hinge losses (Lim and Ye 2017; Miyato et al. 2018)."""

from torch import Tensor
from torch.nn import functional as F


def hinge_d(real: Tensor, fake: Tensor) -> Tensor:
    """One discriminator's loss, `mean(relu(1 - real)) + mean(relu(1 + fake))`; logits of any equal shape -> scalar."""
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def hinge_g(fake: Tensor) -> Tensor:
    """The generators' loss from one discriminator, `-mean(fake)`; logits of any shape -> scalar."""
    return -fake.float().mean()


def saturation(real: Tensor, fake: Tensor) -> Tensor:
    """Share of the logits beyond the hinge's margin, from which a discriminator learns nothing: scalar in [0, 1]."""
    return ((real.detach() > 1).float().mean() + (fake.detach() < -1).float().mean()) / 2
