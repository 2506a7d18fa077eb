"""One pass over memory for each operation, in Triton.

A program works on a tile of TILE_H rows and TILE_W columns of a band. Two neighbours of a full-resolution row are loaded and
stored as one integer (`pairs`), so that the columns need no shuffles: 2 pairs of float32, or 4 of 16 bits, are 128 bits for
each thread. Images are contiguous: row 2r and 2r + 1 of all planes together make row r of the low band. Computed in float32.

`ch` is channels times band height: low's rows of one image; high has 3 ch, LH's before HL's before HH's.
"""

import triton
import triton.language as tl
from triton import jit

WARPS = 4


def tile(width: int, item_size: int, lanes: int) -> tuple[int, int]:
    """TILE_H and TILE_W for bands of that width: as many elements as make 128-bit accesses of pairs, no more.

    `lanes` are the threads of a warp: 32 (NVIDIA) or 64 (AMD's wavefront).
    """
    elements = lanes * WARPS * 8 // item_size
    columns = min(triton.next_power_of_2(width), elements)
    return elements // columns, columns


@jit
def dwt(x, low, high, rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    row, column, mask = _places(rows, width, TILE_H, TILE_W)
    a, b, c, d = _load_block(x, row, column, width, mask, low.dtype.element_ty)
    _store_bands(low, high, row, column, width, ch, mask, _four(a, b, c, d))


@jit
def idwt(low, high, x, rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    row, column, mask = _places(rows, width, TILE_H, TILE_W)
    ll, lh, hl, hh = _load_bands(low, high, row, column, width, ch, mask)
    _store_block(x, row, column, width, mask, _four(ll, lh, hl, hh), low.dtype.element_ty)


@jit
def fuse(base, low, high, lam, out, rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    row, column, mask = _places(rows, width, TILE_H, TILE_W)
    mix = tl.load(lam).to(tl.float32)
    ll, lh, hl, hh = _load_bands(low, high, row, column, width, ch, mask)
    a, b, c, d = _load_block(base, row, column, width, mask, low.dtype.element_ty)
    p, q, r, s = _four(ll, lh, hl, hh)
    rest = 1 - mix
    fused = (rest * a + mix * p, rest * b + mix * q, rest * c + mix * r, rest * d + mix * s)
    _store_block(out, row, column, width, mask, fused, low.dtype.element_ty)


@jit
def fuse_backward(
    grad, base, low, high, lam, grad_base, grad_low, grad_high, sums,
    rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """`sums` [programs] gets each program's share of the gradient of lam."""
    row, column, mask = _places(rows, width, TILE_H, TILE_W)
    mix = tl.load(lam).to(tl.float32)
    a, b, c, d = _load_block(grad, row, column, width, mask, low.dtype.element_ty)
    p, q, r, s = _load_block(base, row, column, width, mask, low.dtype.element_ty)
    ll, lh, hl, hh = _load_bands(low, high, row, column, width, ch, mask)
    g_ll, g_lh, g_hl, g_hh = _four(a, b, c, d)
    rest = 1 - mix
    _store_block(grad_base, row, column, width, mask, (rest * a, rest * b, rest * c, rest * d), low.dtype.element_ty)
    _store_bands(grad_low, grad_high, row, column, width, ch, mask, (mix * g_ll, mix * g_lh, mix * g_hl, mix * g_hh))
    share = g_ll * ll + g_lh * lh + (g_hl * hl + g_hh * hh) - (a * p + b * q + (c * r + d * s))
    program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
    tl.store(sums + program, tl.sum(tl.where(mask, share, 0.0)))


@jit
def analyse(
    x, image, low, high, scale_low, scale_lh, scale_hl, scale_hh,
    rows, width, ch, TILE_H: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """Each `scale` is 1 / 127.5 over the band's standard deviation."""
    row, column, mask = _places(rows, width, TILE_H, TILE_W)
    a, b, c, d = _load_block(x, row, column, width, mask, tl.uint8)
    pixels = (a / 127.5 - 1, b / 127.5 - 1, c / 127.5 - 1, d / 127.5 - 1)
    _store_block(image, row, column, width, mask, pixels, tl.float32)
    ll, lh, hl, hh = _four(a, b, c, d)
    scaled = ((ll - 255) * scale_low, lh * scale_lh, hl * scale_hl, hh * scale_hh)
    _store_bands(low, high, row, column, width, ch, mask, scaled)


@jit
def _places(rows, width, TILE_H: tl.constexpr, TILE_W: tl.constexpr):
    row = (tl.program_id(0).to(tl.int64) * TILE_H + tl.arange(0, TILE_H))[:, None]
    column = (tl.program_id(1) * TILE_W + tl.arange(0, TILE_W))[None, :]
    return row, column, (row < rows) & (column < width)


@jit
def _four(a, b, c, d):
    """A block's bands (LL, LH, HL, HH), and of these the block again."""
    top, top_difference, bottom, bottom_difference = a + b, a - b, c + d, c - d
    return (
        (top + bottom) * 0.5,
        (top - bottom) * 0.5,
        (top_difference + bottom_difference) * 0.5,
        (top_difference - bottom_difference) * 0.5,
    )


@jit
def _load_block(x, row, column, width, mask, dtype: tl.constexpr):
    place = 2 * row * width + column
    a, b = _unpacked(tl.load(x + place, mask=mask, other=0), dtype)
    c, d = _unpacked(tl.load(x + place + width, mask=mask, other=0), dtype)
    return a, b, c, d


@jit
def _store_block(x, row, column, width, mask, block, dtype: tl.constexpr):
    place = 2 * row * width + column
    tl.store(x + place, _packed(block[0], block[1], dtype), mask=mask)
    tl.store(x + place + width, _packed(block[2], block[3], dtype), mask=mask)


@jit
def _load_bands(low, high, row, column, width, ch, mask):
    place, step = _high(row, column, width, ch)
    ll = tl.load(low + row * width + column, mask=mask, other=0).to(tl.float32)
    lh = tl.load(high + place, mask=mask, other=0).to(tl.float32)
    hl = tl.load(high + place + step, mask=mask, other=0).to(tl.float32)
    hh = tl.load(high + place + 2 * step, mask=mask, other=0).to(tl.float32)
    return ll, lh, hl, hh


@jit
def _store_bands(low, high, row, column, width, ch, mask, bands):
    place, step = _high(row, column, width, ch)
    dtype = low.dtype.element_ty
    tl.store(low + row * width + column, bands[0].to(dtype), mask=mask)
    tl.store(high + place, bands[1].to(dtype), mask=mask)
    tl.store(high + place + step, bands[2].to(dtype), mask=mask)
    tl.store(high + place + 2 * step, bands[3].to(dtype), mask=mask)


@jit
def _high(row, column, width, ch):
    """Where LH is, and how far it is to the next band."""
    image = row // ch
    step = ch.to(tl.int64) * width
    return (row + 2 * image * ch) * width + column, step


@jit
def _unpacked(pairs, dtype: tl.constexpr):
    """Integers of two neighbours -> the left and the right ones, float32."""
    if dtype == tl.float32:
        left = pairs.to(tl.int32).to(tl.float32, bitcast=True)
        right = (pairs >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    elif dtype == tl.uint8:
        left = (pairs & 0xFF).to(tl.float32)
        right = ((pairs >> 8) & 0xFF).to(tl.float32)
    else:
        left = pairs.to(tl.int16).to(dtype, bitcast=True).to(tl.float32)
        right = (pairs >> 16).to(tl.int16).to(dtype, bitcast=True).to(tl.float32)
    return left, right


@jit
def _packed(left, right, dtype: tl.constexpr):
    if dtype == tl.float32:
        low = left.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
        pairs = (right.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low
    else:
        low = left.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) & 0xFFFF
        pairs = (right.to(dtype).to(tl.int16, bitcast=True).to(tl.int32) << 16) | low
    return pairs
