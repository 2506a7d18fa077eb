"""Tensors of every memory layout."""

import torch
from hypothesis import strategies as st


@st.composite
def laid_out(draw, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Random values in [-1, 1) of that shape in a drawn layout: cropped, permuted, expanded, strided or channels last."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))

    def values(*sizes: int) -> torch.Tensor:
        return (torch.rand(sizes, dtype=torch.float64, generator=generator) * 2 - 1).to(dtype)

    layout = draw(st.sampled_from(["contiguous", "last", "crop", "columns", "turned", "expanded", "offset", "bands"]))
    if layout == "last":
        return values(*shape).contiguous(memory_format=torch.channels_last)
    if layout == "crop":
        return values(batch, channels, height + 3, width + 5)[:, :, 1 : 1 + height, 3 : 3 + width]
    if layout == "columns":
        return values(batch, channels, height, 2 * width)[..., ::2]
    if layout == "turned":
        return values(width, height, channels, batch).permute(3, 2, 1, 0)
    if layout == "expanded":
        return values(1, channels, height, 1).expand(shape)
    if layout == "offset":
        return values(batch * channels * height * width + 1)[1:].view(shape)
    if layout == "bands":
        return values(batch, 4 * channels, height, width)[:, channels : 2 * channels]
    return values(*shape)
