"""Hypothesis strategies for tensors in every memory layout."""

import torch
from hypothesis import strategies as st
from torch import Tensor

Shape = tuple[int, int, int, int]


@st.composite
def tensors_in_any_layout(draw: st.DrawFn, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Random values in [-1, 1) in a drawn layout: contiguous, channels last, cropped, strided, permuted, expanded, offset."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def values(*sizes: int) -> Tensor:
        return (torch.rand(sizes, dtype=torch.float64, generator=generator) * 2 - 1).to(dtype)

    layout = draw(
        st.sampled_from(
            ["contiguous", "channels_last", "crop", "every_other_column", "permuted", "expanded", "offset", "slice"]
        )
    )
    if layout == "channels_last":
        return values(*shape).contiguous(memory_format=torch.channels_last)
    if layout == "crop":
        return values(batch, channels, height + 3, width + 5)[:, :, 1 : 1 + height, 3 : 3 + width]
    if layout == "every_other_column":
        return values(batch, channels, height, 2 * width)[..., ::2]
    if layout == "permuted":
        return values(width, height, channels, batch).permute(3, 2, 1, 0)
    if layout == "expanded":
        return values(1, channels, height, 1).expand(shape)
    if layout == "offset":
        return values(batch * channels * height * width + 1)[1:].view(shape)
    if layout == "slice":
        return values(batch, 4 * channels, height, width)[:, channels : 2 * channels]
    return values(*shape)


@st.composite
def image_gradient_and_bands(draw: st.DrawFn, shape: Shape, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw an image, an upstream gradient of its shape, and low and high bands; `shape` is that of the low band."""
    batch, channels, height, width = shape
    image_shape, high_shape = (batch, channels, 2 * height, 2 * width), (batch, 3 * channels, height, width)
    x, grad, low, high = (draw(tensors_in_any_layout(s, dtype)) for s in (image_shape, image_shape, shape, high_shape))
    return x, grad, low, high
