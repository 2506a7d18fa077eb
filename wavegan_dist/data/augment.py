"""What is done to real images on the way to the discriminators."""

import torch
from torch import Tensor


def flip(images: Tensor, mirrored: Tensor) -> Tensor:
    """Mirror left-right the images whose entry is true.

    Args:
        images: [B, C, H, W] of any dtype.
        mirrored: bool [B] on the same device.

    Returns:
        A new tensor like `images`.
    """
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)
