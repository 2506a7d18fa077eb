"""Differentiable augmentation of the images that enter the discriminators (Zhao et al. 2020; Karras et al. 2020, ADA).

The parameters of all transformations of one image are a row of a float tensor. `draw_parameters` computes the rows from uniform
random numbers; `gate` sets the parameters of a transformation to 0 with probability 1 - p; `augment` transforms the images. A
row of zeros leaves an image as it is, bit for bit.
"""

import torch
from torch import Tensor

from wavegan_dist.config import AugmentConfig

GATES = 4  # one uniform number for each transformation, which `gate` compares with p: mirror, translation, color, cutout
# The parameters of an image, in the order of the columns, and the number of the transformation that each belongs to.
PARAMETERS = {
    "mirror": 0,  # 1: mirrored left to right
    "down": 1,  # translation in pixels
    "right": 1,
    "brightness": 2,  # added to all values
    "gain": 2,  # (1 + contrast) (1 + saturation) - 1
    "gray": 2,  # (1 + contrast) saturation
    "contrast": 2,  # relative change of the distance to the mean of the image; saturation: to the mean of the pixel
    "top": 3,  # the cutout has the rows from top to bottom - 1 and the columns from left to end - 1; it may exceed the image
    "left": 3,
    "bottom": 3,
    "end": 3,
}
UNIFORMS = GATES + 8  # numbers to draw for each image


def draw_parameters(uniforms: Tensor, settings: AugmentConfig, resolution: int) -> Tensor:
    """Compute the parameters of each image from uniform random numbers.

    Args:
        uniforms: float32 [b, UNIFORMS] in [0, 1): GATES numbers for the transformations, then those of the parameters.
        settings: strength of the transformations; probability, ramp and target are not used.
        resolution: side of the images in pixels.

    Returns:
        float32 [b, 2 * len(PARAMETERS)] on the device of `uniforms`: for each parameter the uniform number of its
        transformation, which the function `gate` compares with p; then the parameters.
    """
    gates = uniforms[:, list(PARAMETERS.values())]
    mirror, down, right, brightness, saturation, contrast, top, left = uniforms[:, GATES:].unbind(1)
    shift, side = int(settings.translation * resolution), round(settings.cutout * resolution)
    saturation, contrast = (2 * saturation - 1) * settings.colour, (contrast - 0.5) * settings.colour
    top, left = (_integer(corner, 0, resolution - 1) - side // 2 for corner in (top, left))
    parameters = (
        (mirror < 0.5).float() * settings.mirror,
        _integer(down, -shift, shift),
        _integer(right, -shift, shift),
        (brightness - 0.5) * settings.colour,
        (1 + contrast) * (1 + saturation) - 1,
        (1 + contrast) * saturation,
        contrast,
        top,
        left,
        top + side,
        left + side,
    )
    return torch.cat((gates, torch.stack(parameters, dim=1)), dim=1)


def gate(drawn: Tensor, probability: Tensor) -> Tensor:
    """Choose each transformation of each image with probability p; set the parameters of the transformations not chosen to 0.

    Draws nothing: a transformation is chosen if its uniform number in `drawn` is below p.

    Args:
        drawn: what `draw_parameters` returns, with any number of leading dimensions: float32 [..., b, 2 * len(PARAMETERS)].
        probability: p, float32 scalar on the device of `drawn`; a tensor, so that the host does not wait for it.

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
        images: floating [n * b, 3, R, R] in [-1, 1]. Image i gets row i mod b of the parameters, so that a real image and the
            generated image beside it share a row.
        parameters: float32 [b, len(PARAMETERS)] on the device of `images`, from `gate`.

    Returns:
        A tensor of the shape and dtype of `images`; channels last if `images` is, else contiguous.
    """
    is_channels_last = images.is_contiguous(memory_format=torch.channels_last)
    parameters = parameters.repeat(len(images) // len(parameters), 1)
    positions = torch.arange(images.shape[-1], device=images.device)
    x = _mirrored_and_translated(images, positions, parameters[:, 0], parameters[:, 1:3])
    x = x.to(torch.promote_types(images.dtype, torch.float32))  # a mean over an image in bfloat16 would be too coarse

    # Brightness, saturation and contrast in one pass, with the mean g of a pixel and the mean m of the image:
    # y = x + brightness; y += saturation (y - (g + brightness)); y += contrast (y - (m + brightness))
    brightness, gain, gray, contrast = parameters[:, 3:7, None, None, None].to(x.dtype).unbind(1)
    means = x.mean(dim=1, keepdim=True)
    rest = torch.addcmul(brightness, contrast, means.mean(dim=(2, 3), keepdim=True), value=-1)
    x = torch.addcmul(torch.addcmul(rest, gray, means, value=-1), x, 1 + gain)

    corners = parameters[:, 7:].unsqueeze(-1)  # top, left, bottom, end: [n b, 4, 1]
    cut_rows, cut_columns = ((positions >= corners[:, :2]) & (positions < corners[:, 2:])).unbind(1)
    x = x.masked_fill((cut_rows[:, :, None] & cut_columns[:, None, :])[:, None], 0)

    memory_format = torch.channels_last if is_channels_last else torch.contiguous_format
    return x.to(images.dtype).contiguous(memory_format=memory_format)


def _integer(uniform: Tensor, low: int, high: int) -> Tensor:
    """Turn uniform numbers in [0, 1) into integers from low to high, both included, as floats."""
    return (low + (uniform * (high - low + 1)).floor()).clamp(max=high)


def _mirrored_and_translated(images: Tensor, positions: Tensor, mirror: Tensor, shifts: Tensor) -> Tensor:
    """Return images that are mirrored, then translated with reflection at the borders.

    Picks rows, then columns: with both in one step, up to four gradients would be added to one pixel, on a GPU in any order.

    Args:
        images: [B, C, R, R].
        positions: 0 to R - 1, int64 [R].
        mirror: 1 for an image to be mirrored, else 0, [B].
        shifts: down and right, whole numbers of pixels with a magnitude below R, [B, 2].

    Returns:
        [B, C, R, R] in channels-last memory.
    """
    batch, channels, side, _ = images.shape
    from_end = (side - 1 - (positions - shifts.unsqueeze(-1)).abs()).abs()  # [B, 2, R]: distance to the last row or column
    rows, columns = (side - 1 - from_end).unbind(1)
    columns = torch.where(mirror[:, None] > 0, from_end[:, 1], columns)
    of_rows = torch.arange(0, batch * side, side, device=images.device)[:, None] + rows.long()
    of_pixels = torch.arange(0, batch * side**2, side, device=images.device).view(batch, side, 1) + columns.long()[:, None]
    pixels = images.permute(0, 2, 3, 1).reshape(batch * side, side * channels)
    pixels = pixels.index_select(0, of_rows.flatten()).view(batch * side**2, channels)
    return pixels.index_select(0, of_pixels.flatten()).view(batch, side, side, channels).permute(0, 3, 1, 2)
