"""The operators `wavegan_triton::wavedec` and `waverec`: several levels of the transform, or of its inverse, in one launch.

As the transform is orthonormal, each of the two is the other's inverse and transpose, and hence the other's backward, to any
order. `bands` is the list of the low band of the last level and the high bands of all levels, the coarsest first. The callers
have checked the arguments.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from wavegan_dist.wavelet import checks
from wavegan_dist.wavelet.triton import level_kernels
from wavegan_dist.wavelet.triton.kernels import WARPS
from wavegan_dist.wavelet.triton.operators import NAMESPACE, WARP_SIZE, as_pairs, custom_op


@custom_op(f"{NAMESPACE}::wavedec", mutates_args=())
def wavedec(x: Tensor, levels: int) -> list[Tensor]:
    """bands = wavedec(x), of 2 to MAX_LEVELS levels."""
    bands = _empty_bands(x, levels)
    _launch(level_kernels.wavedec, bands, as_pairs(x), bands[0], tuple(bands[1:]))
    return bands


@custom_op(f"{NAMESPACE}::waverec", mutates_args=())
def waverec(bands: list[Tensor]) -> Tensor:
    """x = waverec(bands), of 2 to MAX_LEVELS levels."""
    bands = [band.contiguous() for band in bands]
    x = _empty_image(bands)
    _launch(level_kernels.waverec, bands, bands[0], tuple(bands[1:]), as_pairs(x))
    return x


def _launch(kernel: Any, bands: list[Tensor], *arguments: Any) -> None:
    """Launch a kernel on a 2D grid of tiles that covers the first low band; do nothing if the bands are empty."""
    low, levels = bands[0], len(bands) - 1
    batch, channels, height, width = low.shape
    if low.numel() == 0:
        return
    first_width = width * 2 ** (levels - 1)
    tile_h, tile_w, parts, vector = level_kernels.tile(first_width, levels, low.element_size(), WARP_SIZE)
    grid = triton.cdiv(batch * channels * height, tile_h), triton.cdiv(first_width, tile_w * parts * vector)
    sizes = batch * channels * height, first_width, channels * height
    with torch.accelerator.device_index(low.device.index):
        kernel[grid](*arguments, *sizes, levels, tile_h, tile_w, parts, vector, num_warps=WARPS)


def _empty_bands(x: Tensor, levels: int) -> list[Tensor]:
    batch, channels, height, width = x.shape
    sizes = [(channels, 2**levels), *((3 * channels, 2**level) for level in range(levels, 0, -1))]
    return [torch.empty((batch, c, height // n, width // n), dtype=x.dtype, device=x.device) for c, n in sizes]


def _empty_image(bands: list[Tensor]) -> Tensor:
    low, scale = bands[0], 2 ** (len(bands) - 1)
    batch, channels, height, width = low.shape
    return torch.empty((batch, channels, scale * height, scale * width), dtype=low.dtype, device=low.device)


@wavedec.register_fake
def _fake_wavedec(x: Tensor, levels: int) -> list[Tensor]:
    checks.check_levels(x, levels)
    return _empty_bands(x, levels)


@waverec.register_fake
def _fake_waverec(bands: list[Tensor]) -> Tensor:
    checks.check_waverec(bands[0], bands[1:])
    return _empty_image(bands)


def _wavedec_backward(ctx: Any, grads: list[Tensor]) -> tuple[Tensor, None]:
    return waverec(grads), None


def _save_levels(ctx: Any, inputs: tuple[list[Tensor]], output: Tensor) -> None:
    ctx.levels = len(inputs[0]) - 1


def _waverec_backward(ctx: Any, grad: Tensor) -> list[Tensor]:
    return wavedec(grad, ctx.levels)


wavedec.register_autograd(_wavedec_backward)
waverec.register_autograd(_waverec_backward, setup_context=_save_levels)
