"""Interpolation of latents."""

import torch
from torch import Tensor

PARALLEL = 1e-6  # sine of the angle of two latents below which `slerp` interpolates linearly


def slerp(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Interpolate between two vectors at constant angular speed (Shoemake, SIGGRAPH 1985); returns float32 [z_dim].

    The latents in between are as long as the ends; those on a straight line would be shorter than the latents of training
    (White, "Sampling generative networks", 2016). Vectors of nearly the same or of opposite direction are
    interpolated linearly.

    Args:
        first, second: float [z_dim].
        share: 0 for `first` to 1 for `second`.
    """
    a, b = first.double(), second.double()
    angle = torch.nn.functional.cosine_similarity(a, b, dim=0).clamp(-1, 1).arccos()
    if angle.sin() < PARALLEL:
        return torch.lerp(a, b, share).float()
    return ((((1 - share) * angle).sin() * a + (share * angle).sin() * b) / angle.sin()).float()
