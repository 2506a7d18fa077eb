"""Augmentation of real images before the discriminators see them."""

import torch
from torch import Tensor


def flip(images_bchw: Tensor, mask: Tensor) -> Tensor:
    """Mirror the selected images left to right and copy the others.

    Args:
        images_bchw: [B, C, H, W] of any dtype.
        mask: bool [B] on the same device; True selects an image.

    Returns:
        A new tensor of the same shape and dtype.
    """
    return torch.where(mask[:, None, None, None], images_bchw.flip(-1), images_bchw)
