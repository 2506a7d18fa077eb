"""The Triton kernels: one pass over memory for each operation, computed in float32.

A program processes a tile of TILE_H rows and TILE_W columns of a band. Two horizontal neighbors of a full-resolution row are
loaded and stored as one integer, a pair, so that even and odd columns separate without shuffles. A thread's access is 128 bits
wide: 2 pairs of float32 or 4 pairs of a 16-bit dtype. Images are contiguous, so rows 2r and 2r + 1 of all planes together
correspond to row r of the low band.

Arguments of all kernels: `rows` and `width` are the number of rows of the low band, over the whole batch and all channels, and
its width; `ch` is channels times band height, the number of low rows of one image. `high` has 3 * ch rows of each image: LH,
then HL, then HH.
"""

import triton
import triton.language as tl
from triton import jit

WARPS = 4


def tile(width: int, item_size: int, warp_size: int) -> tuple[int, int]:
    """Choose how many rows and columns of the bands one Triton program computes.

    The tile is the largest in which each of the program's 128 (AMD: 256) threads reads a row of the image with one 128-bit
    load. A thread loads the image in pairs of neighboring pixels, and one pair yields one element of a band row.

    Args:
        width: width of the bands in elements, half the width of the image.
        item_size: size of the dtype in bytes, 2 or 4.
        warp_size: 32 on NVIDIA GPUs, 64 on AMD GPUs.

    Returns:
        (TILE_H, TILE_W) in elements of the bands: powers of two, TILE_W at most the next power of two after `width`.
    """
    elements = warp_size * WARPS * 8 // item_size
    columns = min(triton.next_power_of_2(width), elements)
    return elements // columns, columns


@jit
def dwt(x, low, high, rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    row, column, mask = _tile_indices(rows, width, TILE_H, TILE_W)
    a, b, c, d = _load_block(x, row, column, width, mask, low.dtype.element_ty)
    _store_bands(low, high, row, column, width, ch, mask, _transform(a, b, c, d))


@jit
def idwt(low, high, x, rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    row, column, mask = _tile_indices(rows, width, TILE_H, TILE_W)
    ll, lh, hl, hh = _load_bands(low, high, row, column, width, ch, mask)
    _store_block(x, row, column, width, mask, _transform(ll, lh, hl, hh), low.dtype.element_ty)


@jit
def fuse(base, low, high, lam, out, rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    row, column, mask = _tile_indices(rows, width, TILE_H, TILE_W)
    weight = tl.load(lam).to(tl.float32)
    ll, lh, hl, hh = _load_bands(low, high, row, column, width, ch, mask)
    a, b, c, d = _load_block(base, row, column, width, mask, low.dtype.element_ty)
    p, q, r, s = _transform(ll, lh, hl, hh)
    rest = 1 - weight
    fused = (rest * a + weight * p, rest * b + weight * q, rest * c + weight * r, rest * d + weight * s)
    _store_block(out, row, column, width, mask, fused, low.dtype.element_ty)


@jit
def fuse_backward(
    grad, base, low, high, lam, grad_base, grad_low, grad_high, sums,
    rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """Write the gradients of base, low and high, and each program's part of the gradient of lam to `sums` [grid], float32."""
    row, column, mask = _tile_indices(rows, width, TILE_H, TILE_W)
    weight = tl.load(lam).to(tl.float32)
    a, b, c, d = _load_block(grad, row, column, width, mask, low.dtype.element_ty)
    p, q, r, s = _load_block(base, row, column, width, mask, low.dtype.element_ty)
    ll, lh, hl, hh = _load_bands(low, high, row, column, width, ch, mask)
    g_ll, g_lh, g_hl, g_hh = _transform(a, b, c, d)
    rest = 1 - weight
    _store_block(grad_base, row, column, width, mask, (rest * a, rest * b, rest * c, rest * d), low.dtype.element_ty)
    grad_bands = (weight * g_ll, weight * g_lh, weight * g_hl, weight * g_hh)
    _store_bands(grad_low, grad_high, row, column, width, ch, mask, grad_bands)
    grad_lam = g_ll * ll + g_lh * lh + (g_hl * hl + g_hh * hh) - (a * p + b * q + (c * r + d * s))
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums + program, tl.sum(tl.where(mask, grad_lam, 0.0)))


@jit
def _tile_indices(rows, width, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    """Return row indices [TILE_H, 1], column indices [1, TILE_W] of this program's tile, and a mask of those in the band."""
    row = (tl.program_id(0).to(tl.int64) * TILE_H + tl.arange(0, TILE_H))[:, None]
    column = (tl.program_id(1) * TILE_W + tl.arange(0, TILE_W))[None, :]
    return row, column, (row < rows) & (column < width)


@jit
def _transform(a, b, c, d):
    """Transform 2x2 blocks [[a, b], [c, d]] to (LL, LH, HL, HH); the transform is its own inverse."""
    top, top_difference, bottom, bottom_difference = a + b, a - b, c + d, c - d
    return (
        (top + bottom) * 0.5,
        (top - bottom) * 0.5,
        (top_difference + bottom_difference) * 0.5,
        (top_difference - bottom_difference) * 0.5,
    )


@jit
def _load_block(x, row, column, width, mask, dtype: tl.constexpr):
    offset = 2 * row * width + column
    a, b = _unpack(tl.load(x + offset, mask=mask, other=0), dtype)
    c, d = _unpack(tl.load(x + offset + width, mask=mask, other=0), dtype)
    return a, b, c, d


@jit
def _store_block(x, row, column, width, mask, block, dtype: tl.constexpr):
    offset = 2 * row * width + column
    tl.store(x + offset, _pack(block[0], block[1], dtype), mask=mask)
    tl.store(x + offset + width, _pack(block[2], block[3], dtype), mask=mask)


@jit
def _load_bands(low, high, row, column, width, ch, mask):
    offset, band = _high_offsets(row, column, width, ch)
    ll = tl.load(low + row * width + column, mask=mask, other=0).to(tl.float32)
    lh = tl.load(high + offset, mask=mask, other=0).to(tl.float32)
    hl = tl.load(high + offset + band, mask=mask, other=0).to(tl.float32)
    hh = tl.load(high + offset + 2 * band, mask=mask, other=0).to(tl.float32)
    return ll, lh, hl, hh


@jit
def _store_bands(low, high, row, column, width, ch, mask, bands):
    offset, band = _high_offsets(row, column, width, ch)
    dtype = low.dtype.element_ty
    tl.store(low + row * width + column, bands[0].to(dtype), mask=mask)
    tl.store(high + offset, bands[1].to(dtype), mask=mask)
    tl.store(high + offset + band, bands[2].to(dtype), mask=mask)
    tl.store(high + offset + 2 * band, bands[3].to(dtype), mask=mask)


@jit
def _high_offsets(row, column, width, ch):
    """Return the offsets of LH coefficients in the high tensor, and the distance from LH to HL, equal to that from HL to HH.

    All in elements. `row` counts rows of the low band over the batch and all channels; `ch` is channels times band height.
    """
    image = row // ch
    band = tl.cast(ch, tl.int64) * width  # `ch` is a constant where it is 1
    return (row + 2 * image * ch) * width + column, band


@jit
def _unpack(pairs, dtype: tl.constexpr):
    """Split pairs into left and right pixels in float32. GPUs are little-endian: the left pixel is in the lower bits."""
    if dtype == tl.float32:
        left = pairs.to(tl.int32).to(tl.float32, bitcast=True)
        right = (pairs >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    else:
        left = pairs.to(tl.int16).to(dtype, bitcast=True).to(tl.float32)
        right = (pairs >> 16).to(tl.int16).to(dtype, bitcast=True).to(tl.float32)
    return left, right


@jit
def _pack(left, right, dtype: tl.constexpr):
    """Round left and right float32 pixels to `dtype` and join them to pairs: the inverse of `_unpack`."""
    if dtype == tl.float32:
        low = left.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        pairs = (right.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low
    else:
        low = left.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
        pairs = (right.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) << 16) | low
    return pairs
