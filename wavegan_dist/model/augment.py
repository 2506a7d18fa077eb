"""Differentiable augmentation of the images that enter the discriminators (Zhao et al. 2020; Karras et al. 2020, ADA).

The parameters of every transformation are a row of a float tensor: `draw_parameters` makes it from uniform numbers, `gate`
switches transformations off, `augment` applies what is left. All zeros leave an image as it is, bit for bit.
"""

import torch
from torch import Tensor

from wavegan_dist.config import AugmentConfig

GATES = 4  # one for each transformation: mirror, translation, colour, cutout
# The parameters of an image, in the order of the columns, and the gate of each.
PARAMETERS = {
    "mirror": 0,  # 1: mirrored left to right
    "down": 1,  # translation in pixels
    "right": 1,
    "brightness": 2,  # added to all values
    "saturation": 2,  # relative change of the distance to the pixel's mean over the channels
    "contrast": 2,  # relative change of the distance to the image's mean
    "top": 3,  # first row and first column of the cutout; they may be negative
    "left": 3,
    "side": 3,  # side of the cutout in pixels; 0: no cutout
}
UNIFORMS = GATES + len(PARAMETERS) - 1  # numbers to draw for each image; the side of a cutout is not random


def draw_parameters(uniforms: Tensor, settings: AugmentConfig, resolution: int) -> Tensor:
    """Turn uniform random numbers into the gates and parameters of each image.

    Args:
        uniforms: float32 [b, UNIFORMS] in [0, 1).
        settings: strength of the transformations.
        resolution: side of the images in pixels.

    Returns:
        float32 [b, 2 len(PARAMETERS)]: a gate for each parameter, which `gate` compares with p, then the parameters.
    """
    gates = uniforms[:, list(PARAMETERS.values())]
    mirror, down, right, brightness, saturation, contrast, top, left = uniforms[:, GATES:].unbind(1)
    shift, side = int(settings.translation * resolution), round(settings.cutout * resolution)
    parameters = (
        (mirror < 0.5).float() * settings.mirror,
        _integer(down, -shift, shift),
        _integer(right, -shift, shift),
        (brightness - 0.5) * settings.colour,
        (2 * saturation - 1) * settings.colour,
        (contrast - 0.5) * settings.colour,
        _integer(top, 0, resolution - 1) - side // 2,
        _integer(left, 0, resolution - 1) - side // 2,
        torch.full_like(mirror, side),
    )
    return torch.cat((gates, torch.stack(parameters, dim=1)), dim=1)


def gate(drawn: Tensor, probability: Tensor) -> Tensor:
    """Set the parameters of every transformation to zero, except with a probability.

    Args:
        drawn: what `draw_parameters` returns, with any number of leading dimensions: float32 [..., b, 2 len(PARAMETERS)].
        probability: float32 scalar on the same device; it stays there, so that the host does not wait for it.

    Returns:
        The parameters for `augment`, float32 [..., b, len(PARAMETERS)].
    """
    gates, parameters = drawn.chunk(2, dim=-1)
    return parameters * (gates < probability).to(parameters.dtype)


def augment(images: Tensor, parameters: Tensor) -> Tensor:
    """Mirror and translate images, change their colors and cut a square out of each. Differentiable with respect to `images`.

    A translation reflects the image at its borders: a border of zeros would put edges into the high bands, which the
    discriminators would then learn. A cutout is 0, the middle of the range. Values may leave [-1, 1].

    Args:
        images: floating [n b, 3, R, R] in [-1, 1]; image i gets the parameters i mod b, so that real and generated images share
            them.
        parameters: float32 [b, len(PARAMETERS)], from `gate`.

    Returns:
        A tensor of the shape, dtype and memory format of `images`.
    """
    is_channels_last = images.is_contiguous(memory_format=torch.channels_last)
    x = _mirrored_and_translated(images, parameters.repeat(len(images) // len(parameters), 1))
    x = x.to(torch.promote_types(images.dtype, torch.float32))  # a mean over an image in bfloat16 would be too coarse
    columns = parameters.to(x.dtype).repeat(len(images) // len(parameters), 1)[:, :, None, None, None].unbind(1)
    *_, brightness, saturation, contrast, top, left, side = columns  # each [n b, 1, 1, 1]

    # Brightness, saturation and contrast in one pass, with the mean g of a pixel and the mean m of the image:
    # y = x + brightness; y += saturation (y - (g + brightness)); y += contrast (y - (m + brightness))
    gray = x.mean(dim=1, keepdim=True)
    mean = gray.mean(dim=(2, 3), keepdim=True)
    factor = (1 + contrast) * (1 + saturation)
    rest = brightness - contrast * mean - (1 + contrast) * saturation * gray
    kept = 1 - _between(images.shape[2], top, side)[..., :, None] * _between(images.shape[3], left, side)[..., None, :]
    augmented = torch.addcmul(rest * kept, x, factor * kept)

    memory_format = torch.channels_last if is_channels_last else torch.contiguous_format
    return augmented.to(images.dtype).contiguous(memory_format=memory_format)


def _integer(uniform: Tensor, low: int, high: int) -> Tensor:
    """Turn uniform numbers in [0, 1) into integers from low to high, both included, as floats."""
    return (low + (uniform * (high - low + 1)).floor()).clamp(max=high)


def _mirrored_and_translated(images: Tensor, parameters: Tensor) -> Tensor:
    """Return [B, C, H, W] in channels-last memory; image b has `parameters[b]`.

    Picks rows, then columns: with both in one step, up to four gradients would be added to one pixel, on a GPU in any order.
    """
    batch, channels, height, width = images.shape
    mirror, down, right = parameters[:, :3].unsqueeze(-1).unbind(1)  # each [B, 1]
    rows = _reflected(torch.arange(height, device=images.device) - down, height)
    columns = _reflected(torch.arange(width, device=images.device) - right, width)
    columns = torch.where(mirror > 0, width - 1 - columns, columns)
    of_rows = torch.arange(batch, device=images.device)[:, None] * height + rows.long()
    of_pixels = torch.arange(batch * height, device=images.device).view(batch, height, 1) * width + columns.long()[:, None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(batch * height, width * channels)
    pixels = pixels.index_select(0, of_rows.flatten()).view(batch * height * width, channels)
    pixels = pixels.index_select(0, of_pixels.flatten())
    return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Reflect positions at 0 and at size - 1; they must be from 1 - size to 2 size - 2."""
    return size - 1 - (size - 1 - positions.abs()).abs()


def _between(size: int, first: Tensor, count: Tensor) -> Tensor:
    """Return 1 at the `count` positions from `first` on, else 0: [B, 1, size] for `first` and `count` [B, 1, 1, 1]."""
    positions = torch.arange(size, device=first.device)
    return ((positions >= first[:, 0]) & (positions < (first + count)[:, 0])).to(first.dtype)
